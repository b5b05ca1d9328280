"""What the service manager hears of a running l7proxy: how it is, that it reloads or stops, and that it is alive.

One rule: it is told what is so, looked at once a second at most; nothing tells it from within an exchange. Without a
service manager all of it does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from director.kit.service import ServiceManager
from l7proxy.runtime import Proxy

LOOK_EVERY_S = 1.0
MORE_S = 20.0
"""While it drains, each look asks for so much time more: a drain has its own deadlines."""


class Announcer:
    """Tells `manager`. `status` is one line; the watchdog is fed by looks that find `is_well`."""

    def __init__(
        self, manager: ServiceManager, status: Callable[[], str], is_well: Callable[[], bool] = lambda: True
    ) -> None:
        self._manager = manager
        self._status = status
        self._is_well = is_well
        self._said = ""
        self._stops = False
        self._every_s = min(LOOK_EVERY_S, (manager.watchdog_s or 3 * LOOK_EVERY_S) / 3)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while self._manager.is_there:
            await asyncio.sleep(self._every_s)
            self._look()

    def ready(self) -> None:
        """It serves, or goes on serving."""
        if not self._stops:
            said = self._status()
            self._said = said if self._manager.ready(said) else ""

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Something changes, and it is ready again however that ends."""
        if not self._stops:
            self._manager.reloading()
        try:
            yield
        finally:
            self.ready()

    def stopping(self) -> None:
        """It is to drain, and then ends: told once, as soon as that is so, for its time runs from there."""
        if self._stops:
            return
        self._stops = True
        self._said = self._status()
        self._manager.stopping(self._said)
        self._manager.extend(MORE_S)

    def _look(self) -> None:
        if self._manager.watchdog_s is not None and self._is_well():
            self._manager.alive()
        if self._stops:
            self._manager.extend(MORE_S)
        now = self._status()
        if now != self._said and self._manager.status(now):
            self._said = now


def serving(proxy: Proxy, workers: int = 1) -> str:
    """How a proxy that serves is, in a line; its cost does not grow with the number of backends.

    `up` are backends that requests may go to.
    """
    snapshot = proxy.snapshot
    upstreams = snapshot.upstreams.values()
    parts = [_count(len(snapshot.config.listeners), "listener")]
    if snapshot.config.workers > 1 or workers > 1:
        parts.append(_count(workers, "worker"))
    if upstreams:
        up, all_of_them = sum(len(each.weights) for each in upstreams), sum(len(each.backends) for each in upstreams)
        parts.append(f"{up} of {_count(all_of_them, 'backend')} up")
    if proxy.draining:
        parts.append("drained by the operator")
    return ", ".join(parts)


def leaving(exchanges: int, connections: int) -> str:
    """How a proxy that drains is."""
    return f"draining: {_count(exchanges, 'exchange')} on {_count(connections, 'connection')} left"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
