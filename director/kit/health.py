"""Rise and fall: from a stream of probe results to up or down.

One rule: a state changes only through `observe`, which is pure; time comes in as `now` (monotonic seconds).

    PENDING --rise successes--> UP
    PENDING --fall failures---> DOWN
    UP      --fall failures---> DOWN
    DOWN    --rise successes--> UP

Successes and failures count only in a row (HAProxy `rise`/`fall`, keepalived `retry`). A target that changes too often
stays DOWN, held, until it has been good for a while (`Flapping`; RFC 2439 does the same to routes).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from director.kit.checks.base import Flapping, Timing


class Status(Enum):
    """What a probe's results so far amount to; PENDING is "no verdict yet"."""

    PENDING = "pending"
    UP = "up"
    DOWN = "down"


class Asks(Enum):
    """What a real server asks for itself, by an agent or a file (HAProxy's agent-check)."""

    DRAIN = "drain"
    MAINTENANCE = "maint"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe's outcome; `reason` says in a few words what was seen, also when it is good.

    `weight` (0 to 65535) is to stand in place of the configured one, `percent` (1 to 100) is the share of it to use,
    `asks` takes the server out without calling it down; None where the probe says nothing of it. `warning` is a
    sentence about what will fail later. `output` has the first bytes that were seen (at most 256), `errno` the system's
    error or 0.
    """

    ok: bool
    reason: str
    duration_s: float = 0.0
    weight: int | None = None
    percent: int | None = None
    asks: Asks | None = None
    warning: str = ""
    output: bytes = b""
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How many probes have ended since there are any, how many of them failed, and how long the last one took."""

    ended: int = 0
    failed: int = 0
    last_s: float | None = None


@dataclass(frozen=True, slots=True)
class HealthState:
    """What is known of one target.

    `streak` counts equal results in a row up to now, the first of them at `streak_at`; `since_at` is when `status`
    began. `changes` are the last times at which it became another, where they are counted; `held`: it would be UP if
    it had not changed so often. `was_down`: it has been DOWN before its present status. `good` is the last good result
    before `last`, where `last` is none.
    """

    status: Status = Status.PENDING
    streak: int = 0
    since_at: float = 0.0
    last: ProbeResult | None = None
    last_at: float | None = None
    streak_at: float = 0.0
    changes: tuple[float, ...] = ()
    held: bool = False
    was_down: bool = False
    good: ProbeResult | None = None

    @property
    def said(self) -> ProbeResult | None:
        """The last good result: what a target asks for holds until it says otherwise, and a failure says nothing."""
        return self.last if self.last is not None and self.last.ok else self.good

    @property
    def seen(self) -> str:
        """What was seen last, in words; one against `status` says why that has not changed.

        >>> HealthState(Status.UP, last=ProbeResult(False, "refused")).seen
        'refused, not often enough to be down'
        """
        if self.last is None:
            return ""
        if self.held or self.status is Status.PENDING or self.last.ok is (self.status is Status.UP):
            return self.last.reason
        return f"{self.last.reason}, not often enough to be {'up' if self.last.ok else 'down'}"

    @property
    def warning(self) -> str:
        """What will fail later; a failure in between does not end it."""
        if self.last is None or self.last.warning:
            return self.last.warning if self.last is not None else ""
        return self.said.warning if self.said is not None else ""

    @property
    def suspect(self) -> bool:
        """Whether the next result may change the status: probe sooner then.

        >>> HealthState().suspect
        True
        """
        if self.last is None or self.status is Status.PENDING:
            return True
        if self.held:
            return False
        return self.last.ok != (self.status is Status.UP)


def observe(state: HealthState, result: ProbeResult, timing: Timing, now: float) -> HealthState:
    """The state after one more result.

    >>> once = Timing(rise=1, fall=2)
    >>> up = observe(HealthState(), ProbeResult(True, "200"), once, now=5.0)
    >>> up.status, observe(up, ProbeResult(False, "refused"), once, 6.0).status
    (<Status.UP: 'up'>, <Status.UP: 'up'>)
    """
    is_same = state.last is not None and state.last.ok == result.ok
    streak, streak_at = (state.streak + 1, state.streak_at) if is_same else (1, now)
    status, held, changes = state.status, False, state.changes
    if result.ok and status is not Status.UP and streak >= timing.rise:
        held = _is_held(state, timing.flapping, streak_at, now)
        if not held:
            status = Status.UP
    elif not result.ok and status is not Status.DOWN and streak >= timing.fall:
        status = Status.DOWN
    if status is not state.status and state.status is not Status.PENDING and timing.flapping is not None:
        changes = (*changes, now)[-timing.flapping.changes :]
    return HealthState(
        status=status,
        streak=streak,
        since_at=state.since_at if status is state.status else now,
        last=result,
        last_at=now,
        streak_at=streak_at,
        changes=changes,
        held=held,
        was_down=state.was_down if status is state.status else state.status is Status.DOWN,
        good=None if result.ok else state.said,
    )


def _is_held(state: HealthState, flapping: Flapping | None, streak_at: float, now: float) -> bool:
    if flapping is None or state.status is not Status.DOWN or len(state.changes) < flapping.changes:
        return False
    return state.changes[-1] - state.changes[0] <= flapping.within_s and now - streak_at < flapping.hold_s
