"""When a check is probed next.

One rule: a pause stays within its jitter, and is counted from when the last probe was due, not from when it ended; what
was missed is not made up for.
"""

from __future__ import annotations

from math import floor

from director.kit.checks.base import Timing

FINEST_S, COARSEST_S = 0.005, 0.05
_SHARE_A_WAKE_UP = 8
"""Probes that should share a wake-up: each wake-up costs as much as two or three of them."""


def grid_s(probes_a_s: float) -> float:
    """Probes start at multiples of this, as far as their jitter lets them: those of one wake-up are not many, nor one.

    >>> grid_s(5.0), grid_s(400.0), grid_s(10_000.0)
    (0.05, 0.02, 0.005)
    """
    return min(COARSEST_S, max(FINEST_S, _SHARE_A_WAKE_UP / probes_a_s)) if probes_a_s > 0 else COARSEST_S


def next_due_at(due_at: float, now: float, timing: Timing, is_fast: bool, grid: float, random: float) -> float:
    """When the probe after the one that was due at `due_at` and has just ended is due; later than `now`.

    `random` is at least 0 and below 1. Whole pauses that have gone by are left out, as HAProxy does (check.c,
    process_chk_conn).

    >>> next_due_at(10.0, 10.2, Timing(interval_s=2.0, jitter=0.1), False, 0.25, 0.4)
    12.0
    """
    pause_s = max(FINEST_S, timing.fast_interval_s if is_fast else timing.interval_s)
    low = due_at + pause_s * (1 - timing.jitter)
    high = due_at + pause_s * (1 + timing.jitter)
    if high <= now:
        missed_s = (floor((now - low) / pause_s) + 1) * pause_s
        low, high = low + missed_s, high + missed_s
    low = max(low, now)
    at = high - random * (high - low)
    if high - low < grid:
        return at
    on_grid = floor(at / grid) * grid
    return on_grid if on_grid >= low and on_grid > now else min(on_grid + grid, high)
