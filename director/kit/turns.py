"""Which probe may run now, when more are due than may run at one time.

One rule: a probe that may bring news never waits behind one that very likely will not. A server that is down and
stays down takes up its slot for the whole timeout, so such ones share half of the slots, and together with those that
have no verdict yet three quarters.
"""

from __future__ import annotations

import logging
import resource
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, TypeVar

from director.kit.health import HealthState, Status

log = logging.getLogger(__name__)

FEWEST, MOST = 16, 1024
MOST_SENTINELS = 16384
CALM_S = 60.0
"""A trouble is over when it was not met for so long: what comes and goes is one trouble, told once."""
_OTHERS_EVERY = 8
"""Of so many turns that become free, one goes to those who wait behind the servers that are up: they are not starved
when there is more to do than can be done."""

Who = TypeVar("Who")


class Prospect(IntEnum):
    """How likely a probe ends soon, and brings news. A later one must fit into the shares of the earlier ones too."""

    GOOD = 0
    UNKNOWN = 1
    DEAD = 2


def prospect(state: HealthState) -> Prospect:
    """What to expect of a probe after `state`."""
    if state.status is Status.UP or (state.last is not None and state.last.ok):
        return Prospect.GOOD
    return Prospect.UNKNOWN if state.status is Status.PENDING else Prospect.DEAD


def probes_at_once() -> int:
    """Probes that may run at one time: they take a quarter of this process's limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(FEWEST, min(soft // 4, MOST))


def sentinels_at_most() -> int:
    """Connections that may be kept open between probes: another quarter of the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_SENTINELS if soft == resource.RLIM_INFINITY else max(FEWEST, min(soft // 4, MOST_SENTINELS))


class Turns(Generic[Who]):
    """The slots that probes run in, `at_once` of them. Those who wait are bounded by the number of checks."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._most = (at_once, max(1, at_once * 3 // 4), max(1, at_once // 2))
        self._taken = [0, 0, 0]
        """How many run of each prospect or a worse one."""
        self._queues: tuple[deque[tuple[Who, float]], ...] = (deque(), deque(), deque())
        self._passed_over = 0
        self._late_at: float | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues))

    def take(self, kind: Prospect, who: Who, now: float, due_s: float) -> bool:
        """Whether `who` has a turn at once; otherwise `free` hands it out later."""
        if self._queues[kind] or not self._fits(kind):
            self._queues[kind].append((who, now))
            return False
        self._hold(kind, 1)
        if self._late_at is not None:
            self._note(0.0, due_s, now)
        return True

    def give(self, kind: Prospect) -> None:
        """A turn of `kind` is over."""
        self._hold(kind, -1)

    def free(self, now: float, due_s: Callable[[Who], float]) -> tuple[Who, Prospect] | None:
        """The next one who has a turn now, if any; a wait that was longer than `due_s` is told."""
        for kind in self._order():
            queue = self._queues[kind]
            if queue and self._fits(kind):
                who, asked_at = queue.popleft()
                self._passed_over = self._passed_over + 1 if kind is Prospect.GOOD else 0
                self._hold(kind, 1)
                self._note(now - asked_at, due_s(who), now)
                return who, kind
        return None

    def forget(self, kind: Prospect, who: Who) -> None:
        """`who` does not wait any more."""
        queue = self._queues[kind]
        for each in queue:
            if each[0] is who:
                queue.remove(each)
                return

    def clear(self) -> None:
        """Nobody runs and nobody waits."""
        self._taken = [0, 0, 0]
        for queue in self._queues:
            queue.clear()

    def _order(self) -> tuple[Prospect, ...]:
        if self._passed_over < _OTHERS_EVERY - 1:
            return (Prospect.GOOD, Prospect.UNKNOWN, Prospect.DEAD)
        return (Prospect.UNKNOWN, Prospect.DEAD, Prospect.GOOD)

    def _fits(self, kind: Prospect) -> bool:
        return all(self._taken[each] < self._most[each] for each in range(kind + 1))

    def _hold(self, kind: Prospect, count: int) -> None:
        for each in range(kind + 1):
            self._taken[each] += count

    def _note(self, waited_s: float, due_s: float, now: float) -> None:
        if waited_s > due_s:
            if self._late_at is None:
                log.warning(
                    "probes run late: more wait than may run at one time",
                    extra={
                        "waiting": self.waiting,
                        "at_once": self.at_once,
                        "late_s": round(waited_s, 1),
                        "advice": f"raise LimitNOFILE= (probes use a quarter of it, at most {MOST}), shorten the "
                        "timeout of checks, or remove servers that stay down",
                    },
                )
            self._late_at = now
        elif self._late_at is not None and now - self._late_at >= CALM_S:
            self._late_at = None
            log.info("probes run on time again", extra={"waiting": self.waiting, "at_once": self.at_once})
