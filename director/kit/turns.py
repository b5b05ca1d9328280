"""Which probe may run now, when more are due than may run at one time.

One rule: a probe that may bring news never waits behind one that very likely will not. A server that is down and
stays down takes up its slot for the whole timeout, so such ones share half of the slots, and together with those that
have no verdict yet three quarters.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from director.kit.health import HealthState, Status

log = logging.getLogger(__name__)

FEWEST, MOST = 16, 1024
CALM_S = 60.0
"""A trouble is over when it was not met for so long: what comes and goes is one trouble, told once."""


def probes_at_once() -> int:
    """Probes that may run at one time: they take a quarter of this process's limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(FEWEST, min(soft // 4, MOST))


class Turns:
    """The slots that probes run in, `at_once` of them. Those who wait are bounded by the number of checks."""

    def __init__(self, at_once: int, now: Callable[[], float]) -> None:
        self._at_once = at_once
        self._now = now
        self._all = asyncio.Semaphore(at_once)
        self._not_up = asyncio.Semaphore(max(1, at_once * 3 // 4))
        self._dead = asyncio.Semaphore(max(1, at_once // 2))
        self._waiting = 0
        self._late_at: float | None = None

    @asynccontextmanager
    async def turn(self, state: HealthState, due_s: float) -> AsyncIterator[None]:
        """Hold a slot, after a wait where there is none; one longer than `due_s` is told."""
        asked_at = self._now()
        async with AsyncExitStack() as held:
            self._waiting += 1
            try:
                for gate in self._gates(state):
                    await held.enter_async_context(gate)
            finally:
                self._waiting -= 1
            self._note(self._now() - asked_at, due_s)
            yield

    def _gates(self, state: HealthState) -> tuple[asyncio.Semaphore, ...]:
        """What to pass, the narrowest first: who waits for a wide one keeps nobody else out of it."""
        if state.status is Status.UP or (state.last is not None and state.last.ok):
            return (self._all,)
        if state.status is Status.PENDING:
            return (self._not_up, self._all)
        return (self._dead, self._not_up, self._all)

    def _note(self, waited_s: float, due_s: float) -> None:
        if waited_s > due_s:
            if self._late_at is None:
                log.warning(
                    "probes run late: more wait than may run at one time",
                    extra={
                        "waiting": self._waiting,
                        "at_once": self._at_once,
                        "late_s": round(waited_s, 1),
                        "advice": f"raise LimitNOFILE= (probes use a quarter of it, at most {MOST}), shorten the "
                        "timeout of checks, or remove servers that stay down",
                    },
                )
            self._late_at = self._now()
        elif self._late_at is not None and self._now() - self._late_at >= CALM_S:
            self._late_at = None
            log.info("probes run on time again", extra={"waiting": self._waiting, "at_once": self._at_once})
