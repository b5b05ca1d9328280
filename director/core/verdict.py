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
    was_down = states[chosen].was_down
    if check.every:  # whichever part was down, all of it was
        was_down = any(states[index].was_down for index in decisive)
    return replace(
        states[chosen],
        status=status,
        last=_result(check, states, decisive, status),
        good=None,
        was_down=was_down,
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
    told = [(check.parts[index], states[index], last) for index in decisive if (last := states[index].last) is not None]
    if not told:
        return None
    if check.every and status is Status.UP:
        reasons = list(dict.fromkeys(state.seen for _, state, _ in told))
    else:
        reasons = [f"{state.seen} ({part})" for part, state, _ in told]
    more = f" and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
    # A part that fails and is still up goes on asking for what it asked for.
    said = [state.said or last if status is Status.UP else last for _, state, last in told]
    warnings = [state.warning for state in states if state.warning]
    least = min if check.every else max
    asking = [result.asks for result in said if result.asks is not None]
    asked = bool(asking) and (check.every or len(asking) == len(said))
    first = told[0][2]
    return ProbeResult(
        ok=status is Status.UP,
        reason="; ".join(reasons[:MOST_NAMED]) + more,
        duration_s=max(last.duration_s for _, _, last in told),
        weight=least((result.weight for result in said if result.weight is not None), default=None),
        percent=_percent(check.every, said),
        asks=(Asks.MAINTENANCE if Asks.MAINTENANCE in asking else Asks.DRAIN) if asked else None,
        warning="; ".join(dict.fromkeys(warnings)),
        output=first.output,
        errno=first.errno,
    )


def _percent(every: bool, results: Sequence[ProbeResult]) -> int | None:
    """The smallest share that any part names; with `any`, a part that names none asks for all."""
    shares = [100 if result.percent is None else result.percent for result in results]
    share = min(shares) if every else max(shares)
    return None if share == 100 else share
