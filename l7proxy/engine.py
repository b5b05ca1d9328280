"""The data path of one process, put together: what it serves, its deadlines, its changes of configuration, its end.

One rule: a change happens as a whole or not at all. What is being answered is answered under the old configuration.
Where configurations and health come from is its owner's matter: a file and a prober, or a supervisor.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping
from socket import socket
from typing import Any

from director.kit.net import Endpoint
from l7proxy import descriptors
from l7proxy.accesslog import AccessLog
from l7proxy.board import Board
from l7proxy.control import Pace
from l7proxy.core.capacity import shared_names
from l7proxy.core.load import observe
from l7proxy.core.model import Config
from l7proxy.counts import Collect
from l7proxy.handed import HandedSockets
from l7proxy.http.pool import IdleBudget
from l7proxy.listeners import QUIET_S, Listeners, Role, Served, discard, roles
from l7proxy.runtime import HealthSource, Proxy, make_snapshot, pools_of
from l7proxy.wishes import wanted_of

log = logging.getLogger("l7proxy")

COLLECT_AFTER = 20_000
"""Objects made and not freed before cycles are looked for."""
SWEEP_EVERY_S = 0.5
SWEEP_AT_MOST_EVERY_S = 0.05
"""However short the timeouts are: a sweep looks at every connection."""


class Engine:
    """One process's data path. `serves` says which of a configuration's addresses are this process's; `workers` is how
    many processes share its limits. Its admin endpoint asks `collect`, if given, what all have counted. `is_worker`:
    others write to the same standard output, and a supervisor tells that limits do not fit. `board` is what they share;
    default: nobody else does. `handed` are sockets that the service manager has bound.

    Raises: HostError."""

    def __init__(
        self,
        config: Config,
        health: HealthSource,
        serves: Callable[[Config], dict[Endpoint, Role]] = roles,
        workers: int = 1,
        *,
        collect: Collect | None = None,
        is_worker: bool = False,
        board: Board | None = None,
        handed: HandedSockets | None = None,
    ) -> None:
        self.board = board or Board.make()
        self.board.know(shared_names(config))
        self._is_worker = is_worker
        self._shares = descriptors.share_out(descriptors.limit())
        self._idle = IdleBudget(self._shares.idle_links)
        self._workers = workers
        self.proxy = Proxy(
            make_snapshot(config, health, self._idle, board=self.board),
            1,
            access=AccessLog(shared=is_worker),
            board=self.board,
        )
        self.proxy.access.use(config.access_log)
        self._limit(config, workers)
        self.listeners = Listeners(self.proxy, serves, collect, handed)
        self.on_sweep: Callable[[], None] = lambda: None
        self.pace = Pace.BRISK

    async def begin(self, sockets: dict[Endpoint, socket], group: asyncio.TaskGroup) -> None:
        """Serve the first configuration. `sockets` are bound already: one for each address; what must wait does so in
        `group`.

        Raises: HostError.
        """
        self.settle(group)
        config = self.proxy.snapshot.config
        await self.listeners.commit(config, await self.listeners.prepare(config, sockets))

    def settle(self, group: asyncio.TaskGroup) -> None:
        """Get this process ready to serve: what must wait does so in `group`."""
        self.proxy.group = group
        asyncio.get_running_loop().set_exception_handler(self._on_exception)
        # What is there now stays; exchanges leave no cycles. Looking through all of it would stop traffic for a while.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 20, 20)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback failed in itself: uvloop has closed its connection, which ends the exchange; this tells."""
        error = context.get("exception")
        self.proxy.failures.write(
            "connection failed in itself",
            level=logging.ERROR,
            fields={"reason": str(context.get("message", ""))},
            error=error if isinstance(error, Exception) else None,
        )

    async def change(
        self, config: Config, health: HealthSource, opened: Mapping[Endpoint, Served], workers: int = 1
    ) -> list[Served]:
        """Go over to `config`, whose new addresses are `opened`. What can fail stands before the first thing that
        changes. What serves no longer is returned, for `listeners.end`."""
        before = self.proxy.snapshot
        try:
            self.board.know(shared_names(config))
            after = make_snapshot(config, health, self._idle, before, self.board)
        except BaseException:
            await discard(opened)
            raise
        self.proxy.snapshot = after
        self.board.keep(shared_names(config))
        wanted_of(self.proxy, self.proxy.wishes)
        self.proxy.access.use(config.access_log)
        self._limit(config, workers)
        for pool in pools_of(before) - pools_of(after):
            pool.close()
        return await self.listeners.commit(config, opened)

    def _limit(self, config: Config, workers: int) -> None:
        forwards = any(listener.tcp is not None for listener in config.listeners)
        self._shares = descriptors.share_out(descriptors.limit(), forwards)
        self.proxy.pipes.most = self._shares.pipes
        wanted, fit = -(-config.limits.connections // workers), self._shares.clients
        if wanted > fit and not self._is_worker and config.limits.is_asked_for:
            log.warning(
                "limits.connections is more than open files allow: raise LimitNOFILE= (`ulimit -n`), or lower it",
                extra={"limits.connections": wanted, "used": fit, "open_files": descriptors.limit()},
            )
        self.proxy.most_clients = min(wanted, fit)
        self.proxy.full_because = "limits.connections is reached" if wanted <= fit else "open files allow no more"

    def set_pace(self, pace: Pace) -> None:
        """How it drains, or goes on draining."""
        self.pace = pace
        self.proxy.is_replaced = pace is Pace.GENTLE

    async def drain(self) -> None:
        """Accept no more clients, finish what runs within timeouts.drain, cut off the rest."""
        proxy = self.proxy
        proxy.draining = True
        await self.listeners.close(for_good=self.pace is Pace.BRISK and not self._is_worker)
        fronts = self.listeners.entrances
        loop = asyncio.get_running_loop()
        deadline_at = loop.time() + proxy.snapshot.config.timeouts.drain_s
        while self.pace is not Pace.NOW and loop.time() < deadline_at:
            if self.pace is Pace.BRISK:
                for front in fronts:
                    front.close_idle(QUIET_S)
            if not proxy.connections:
                break
            await asyncio.sleep(0.02)
        for front in fronts:
            front.close_idle()
        if proxy.counters.in_flight:
            log.warning("requests cut off", extra={"in_flight": proxy.counters.in_flight})
        for front in fronts:
            front.abort()
        for _ in range(100):
            if not proxy.connections and not proxy.counters.in_flight:
                break
            await asyncio.sleep(0.01)
        for pool in pools_of(proxy.snapshot):
            pool.close()
        proxy.logins.close()
        await proxy.inquiries.close()
        proxy.pipes.clear()

    async def sweep(self) -> None:
        """Look at deadlines, again and again, until cancelled."""
        proxy = self.proxy
        while True:
            period_s = sweep_period_s(proxy.snapshot.config)
            due_at = time.monotonic() + period_s  # the loop's own clock stands still within an iteration
            await asyncio.sleep(period_s)
            late_s = time.monotonic() - due_at
            proxy.load = observe(proxy.load, proxy.connections, proxy.most_clients, late_s, period_s + late_s)
            now = time.monotonic()
            await self.listeners.sweep(now)
            for upstream in proxy.snapshot.upstreams.values():
                upstream.look(now, tells=not self._is_worker)
                for state in upstream.backends.values():
                    state.pool.sweep(now, upstream.upstream.timeouts.keepalive_s)
            proxy.failures.flush()
            proxy.refusals.flush()
            self.on_sweep()


def sweep_period_s(config: Config) -> float:
    """The time between two looks at deadlines: a quarter of the shortest, within bounds."""
    shortest_s = min(config.timeouts.head_s, config.timeouts.idle_s)
    for listener in config.listeners:
        if listener.tcp is not None:
            shortest_s = min(shortest_s, listener.tcp.idle_s, listener.tcp.half_closed_s, listener.tcp.hello_s)
            for name in listener.tcp.upstreams:
                shortest_s = min(shortest_s, config.upstreams[name].timeouts.connect_s)
    return max(SWEEP_AT_MOST_EVERY_S, min(SWEEP_EVERY_S, shortest_s / 4))


def size_of(config: Config) -> dict[str, int]:
    """How large a configuration is, for a log line."""
    return {
        "routes": len(config.routes),
        "upstreams": len(config.upstreams),
        "backends": sum(len(upstream.backends) for upstream in config.upstreams.values()),
    }
