"""How long a failure and a recovery take to be seen, at worst, for people to judge before it matters."""

from __future__ import annotations

from collections.abc import Iterator

from director.core.model import VirtualServer
from director.kit.checks.base import Timing, worst_case_s
from director.kit.checks.check import leaves
from director.kit.duration import format_duration


def detection(virtual: VirtualServer) -> Iterator[str]:
    """One sentence for each kind of check and timing that real servers of `virtual` have."""
    seen: dict[tuple[str, Timing, float], int] = {}
    for real in virtual.real_servers:
        for check in leaves(real.check):
            through = "" if check.route.real is None else " through the VIP"
            kind = f"{check.probe}{through}", check.timing, check.failing_s
            seen[kind] = seen.get(kind, 0) + 1
    for (probe, timing, failing_s), count in seen.items():
        down_s, up_s = worst_case_s(timing, failing_s)
        whose = f" ({count} real servers)" if count > 1 else " (1 real server)"
        told = f"{probe}{whose}: a failure takes at most {_span(down_s)} to be seen, a recovery {_span(up_s)}"
        if timing.flapping is not None:
            flapping = timing.flapping
            told += (
                f", and {format_duration(flapping.hold_s)} more after {flapping.changes} changes in "
                f"{format_duration(flapping.within_s)}"
            )
        if virtual.starts_slowly:
            told += f", then {format_duration(virtual.policy.slow_start_s)} to its whole weight"
        yield told


def _span(seconds: float) -> str:
    return format_duration(round(seconds, 1 if seconds < 100 else 0))
