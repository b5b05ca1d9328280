"""What the service manager hears of a running director: that it is ready, how it is, and that it is alive.

One rule: "alive" is told by a task of the event loop, and only while every vital part keeps its word: the worker ends
what it began, the reconcile loop is back when it said so, probes begin when they are due, and no task has ended.
A director that only looks alive is worth less than one that is started again: the kernel forwards meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from director.kit.service import ServiceManager

log = logging.getLogger(__name__)

LONGEST_ACT_S = 90.0
"""One act in the worker: iptables is given 30 s and killed (three of them), all else takes milliseconds."""
LONGEST_LOOK_S = 300.0
"""A turn of the reconcile loop, which may wait for an apply of several acts."""
LATE_S = 30.0
"""A loop may come back, and a probe begin, so much later than it was to."""
EVERY_S = 5.0
"""The longest between two looks at all this."""


class Heartbeat:
    """Tells `manager`. `busy_s` is how long the worker's act has lasted, `late_s` how late the next probe is.

    Without a service manager it does nothing.
    """

    def __init__(
        self,
        manager: ServiceManager,
        busy_s: Callable[[], float],
        late_s: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._busy_s = busy_s
        self._late_s = late_s
        self._now = now
        self._tasks: tuple[asyncio.Task[Any], ...] = ()
        self._back_at: float | None = None
        self._is_ready = False
        self._reloads = False
        self._stops = False
        self._ill = ""
        self._status = ""

    @property
    def every_s(self) -> float:
        """How often the manager is told: twice in the time that it waits."""
        return min(EVERY_S, (self._manager.watchdog_s or 2 * EVERY_S) / 2)

    def starting(self) -> None:
        """It begins with a look at the kernel, and perhaps an apply."""
        self._manager.extend(LONGEST_LOOK_S)

    def ready(self, status: str) -> None:
        """It serves, or goes on to after a reload, however that went."""
        self._is_ready, self._reloads, self._status = True, False, status
        if not self._stops:  # which it says no more then
            self._manager.ready(status)

    def reloading(self) -> None:
        """`ready` must follow."""
        self._reloads = True
        if not self._stops:
            self._manager.reloading()

    def say(self, status: str) -> None:
        """How it is, in a line; told when it is another one."""
        if self._is_ready and not self._stops and status != self._status:
            self._status = status
            self._manager.status(status)

    def stopping(self) -> None:
        """It ends; the kernel goes on."""
        self._stops = True
        self._manager.stopping("stops; the kernel keeps forwarding")

    def watch(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """None of `tasks` may end before it stops."""
        self._tasks = tuple(tasks)

    def waits(self, seconds: float) -> None:
        """The reconcile loop sleeps, and is back in `seconds` at the latest."""
        self._back_at = self._now() + seconds + LATE_S

    def looks(self) -> None:
        """The reconcile loop begins a look."""
        self._back_at = self._now() + LONGEST_LOOK_S

    async def run(self) -> None:
        """Tell the manager until cancelled."""
        if not self._manager.is_there:
            return
        while True:
            self.beat()
            await asyncio.sleep(self.every_s)

    def beat(self) -> None:
        """Tell the manager that all is well, if it is."""
        ill = self.illness()
        if ill and not self._ill:
            log.error("not healthy: the service manager is not told that the director is alive", extra={"reason": ill})
            self._manager.status(f"NOT HEALTHY: {ill}")
        if self._ill and not ill:
            log.info("healthy again")
            self._manager.status(self._status)
        self._ill = ill
        if ill:
            return
        if self._stops or self._reloads:  # both have a limit of time: that of a stop, and TimeoutStartSec=
            self._manager.extend(4 * EVERY_S)
        if self._is_ready and not self._stops:  # a stop has no watchdog
            self._manager.alive()

    def illness(self) -> str:
        """What is wrong, in a sentence; empty when nothing is."""
        if (busy_s := self._busy_s()) > LONGEST_ACT_S:
            return f"a look at the kernel or a change of it has not ended in {busy_s:.0f}s"
        if self._stops:
            return ""
        if ended := [task.get_name() for task in self._tasks if task.done()]:
            return f"the task {ended[0]!r} has ended"
        now = self._now()
        if self._back_at is not None and now > self._back_at:
            return f"the reconcile loop is {now - self._back_at:.0f}s late"
        if (late_s := self._late_s()) > LATE_S:
            return f"a probe is {late_s:.0f}s late"
        return ""
