"""What several checks amount to together: one `HealthState`, as if they were one.

One rule: a combination is judged by its parts' states, never by single results: each part has its own rise and fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from director.kit.checks.check import AnyCheck, Check, Combination
from director.kit.health import Asks, HealthState, ProbeResult, Status

MOST_NAMED = 3


def verdict(check: AnyCheck, state_of: Callable[[Check], HealthState]) -> HealthState:
    """The state of `check`; that of a combination has the deciding part's time, and its result says whose it is."""
    if isinstance(check, Check):
        return state_of(check)
    states = [state_of(part) for part in check.parts]
    status = _status(check.every, states)
    decisive = [index for index, state in enumerate(states) if state.status is status] or list(range(len(states)))
    # All are up since the last one came up; one is enough to be down, so since the first one went. `any` mirrors it.
    latest = check.every is (status is Status.UP)
    chosen = (max if latest else min)(decisive, key=lambda index: states[index].since_at)
    return replace(
        states[chosen],
        status=status,
        last=_result(check, states, decisive, status),
        was_down=any(states[index].was_down for index in decisive),
        held=any(states[index].held for index in decisive),
    )


def _status(every: bool, states: Sequence[HealthState]) -> Status:
    found = {state.status for state in states}
    decides, otherwise = (Status.DOWN, Status.UP) if every else (Status.UP, Status.DOWN)
    if decides in found:
        return decides
    return otherwise if found == {otherwise} else Status.PENDING


def _result(
    check: Combination, states: Sequence[HealthState], decisive: Sequence[int], status: Status
) -> ProbeResult | None:
    told = [(check.parts[index], last) for index in decisive if (last := states[index].last) is not None]
    if not told:
        return None
    named = [f"{result.reason} ({part})" for part, result in told[:MOST_NAMED]]
    more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    results = [result for _, result in told]
    warnings = [state.last.warning for state in states if state.last is not None and state.last.warning]
    least = min if check.every else max
    asking = [result.asks for result in results if result.asks is not None]
    asked = bool(asking) and (check.every or len(asking) == len(results))
    return ProbeResult(
        ok=status is Status.UP,
        reason=("; ".join(named) if status is not Status.UP or not check.every else _all_good(results)) + more,
        duration_s=max(result.duration_s for result in results),
        weight=least((result.weight for result in results if result.weight is not None), default=None),
        percent=_percent(check.every, results),
        asks=(Asks.MAINTENANCE if Asks.MAINTENANCE in asking else Asks.DRAIN) if asked else None,
        warning="; ".join(dict.fromkeys(warnings)),
        output=results[0].output,
        errno=results[0].errno,
    )


def _all_good(results: Sequence[ProbeResult]) -> str:
    return "; ".join(dict.fromkeys(result.reason for result in results[:MOST_NAMED]))


def _percent(every: bool, results: Sequence[ProbeResult]) -> int | None:
    """The smallest share that any part names; with `any`, a part that names none asks for all."""
    shares = [100 if result.percent is None else result.percent for result in results]
    share = min(shares) if every else max(shares)
    return None if share == 100 else share
