"""Rise and fall: from a stream of probe results to up or down.

One rule: a state changes only through `observe`, which is pure; time comes in as `now` (monotonic seconds).

    PENDING --rise successes--> UP
    PENDING --fall failures---> DOWN
    UP      --fall failures---> DOWN
    DOWN    --rise successes--> UP

Successes and failures count only in a row (HAProxy `rise`/`fall`, keepalived `retry`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
class HealthState:
    """What is known of one target.

    `streak` counts equal results in a row up to now; `since_at` is when `status` began.
    """

    status: Status = Status.PENDING
    streak: int = 0
    since_at: float = 0.0
    last: ProbeResult | None = None
    last_at: float | None = None

    @property
    def suspect(self) -> bool:
        """Whether the next result may change the status: probe sooner then.

        >>> HealthState().suspect
        True
        """
        if self.last is None or self.status is Status.PENDING:
            return True
        return self.last.ok != (self.status is Status.UP)


def observe(state: HealthState, result: ProbeResult, rise: int, fall: int, now: float) -> HealthState:
    """The state after one more result; `rise` and `fall` are at least 1.

    >>> up = observe(HealthState(), ProbeResult(True, "200"), rise=1, fall=2, now=5.0)
    >>> up.status, observe(up, ProbeResult(False, "refused"), 1, 2, 6.0).status
    (<Status.UP: 'up'>, <Status.UP: 'up'>)
    """
    streak = state.streak + 1 if state.last is not None and state.last.ok == result.ok else 1
    status = state.status
    if result.ok and status is not Status.UP and streak >= rise:
        status = Status.UP
    elif not result.ok and status is not Status.DOWN and streak >= fall:
        status = Status.DOWN
    return HealthState(
        status=status,
        streak=streak,
        since_at=state.since_at if status is state.status else now,
        last=result,
        last_at=now,
    )
