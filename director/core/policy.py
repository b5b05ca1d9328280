"""How one virtual server goes from verdicts to weights, as the operator has chosen: values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OnStart(Enum):
    """What a new real server counts as until its first verdict. LAST: what it was when a director last knew."""

    UP = "up"
    DOWN = "down"
    LAST = "last"


class OnFailure(Enum):
    """What becomes of a real server that is down: weight 0, or out of the table (keepalived `inhibit_on_failure`)."""

    INHIBIT = "inhibit"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Hook:
    """A program to run, as `user`, for `timeout_s` at most; `command` is its argument list."""

    command: tuple[str, ...]
    user: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Quorum:
    """Held once `up` real servers take connections, and lost when fewer than `down` do; `down` is at most `up`."""

    up: int = 1
    down: int = 1
    on_up: Hook | None = None
    on_down: Hook | None = None


DEFAULT_QUORUM = Quorum()


@dataclass(frozen=True, slots=True)
class Policy:
    """`panic_share`, in whole percents: when a larger share of the checked real servers is down, probes are not
    trusted; None always trusts them. `slow_start_s`: the time in which a recovered server comes back to its whole
    weight.
    """

    on_start: OnStart = OnStart.LAST
    on_failure: OnFailure = OnFailure.INHIBIT
    quorum: Quorum = DEFAULT_QUORUM
    panic_share: float | None = None
    slow_start_s: float = 0.0


DEFAULT_POLICY = Policy()
