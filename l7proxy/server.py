"""Composition root: builds the parts, reloads, drains.

One rule: a reload happens as a whole or not at all. What is being answered is answered under the old configuration.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time

from director.kit.checks.check import Check
from director.kit.configfile import InvalidConfigError, read_text
from director.kit.errors import HostError
from director.kit.health import HealthState, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from l7proxy import descriptors
from l7proxy.core.config import load_config
from l7proxy.core.load import observe
from l7proxy.core.model import Config
from l7proxy.http.pool import IdleBudget
from l7proxy.http.stack import assert_stack
from l7proxy.listeners import Listeners, discard, end
from l7proxy.runtime import Proxy, checks_of, make_snapshot, pools_of

log = logging.getLogger("l7proxy")

SWEEP_EVERY_S = 0.5
SWEEP_AT_MOST_EVERY_S = 0.05
"""However short the timeouts are: a sweep looks at every connection."""


class Server:
    """One proxy process. `path` is read again on SIGHUP."""

    def __init__(self, path: str, config: Config) -> None:
        self._path = path
        self._prober = Prober(self._on_health)
        self._prober.watch(checks_of(config))
        self._shares = descriptors.share_out(descriptors.limit())
        self._idle = IdleBudget(self._shares.idle_links)
        self.proxy = Proxy(make_snapshot(config, self._prober, self._idle), self._most_clients(config))
        self.proxy.access.use(config.access_log)
        self._listeners = Listeners(self.proxy)
        self._wake = asyncio.Event()
        self._reload_wanted = False
        self._stops = 0

    async def run(self, sockets: dict[Endpoint, socket.socket]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. `sockets` are bound already: one for each address."""
        assert_stack()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.request_reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        async with asyncio.TaskGroup() as group:
            self.proxy.group = group
            tasks = [
                group.create_task(self._prober.run(), name="prober"),
                group.create_task(self.proxy.access.run(), name="access log"),
                group.create_task(self._sweep(), name="sweeper"),
            ]
            config = self.proxy.snapshot.config
            self._listeners.commit(config, await self._listeners.prepare(config, sockets))
            log.info("serving", extra={"binds": ",".join(map(str, config.binds)), **_size(config)})
            try:
                await self._control()
                await self._drain()
            finally:
                self._listeners.close()
                for task in tasks:
                    task.cancel()
        self.proxy.access.close()
        log.info("stopped")

    def request_reload(self) -> None:
        """Read the file again soon."""
        self._reload_wanted = True
        self._wake.set()

    def request_stop(self) -> None:
        """Drain; the second time, stop at once."""
        self._stops += 1
        self._wake.set()

    async def _control(self) -> None:
        while not self._stops:
            await self._wake.wait()
            self._wake.clear()
            if self._reload_wanted and not self._stops:
                self._reload_wanted = False
                await self._reload()

    async def _reload(self) -> None:
        """Take the file as it is now, or leave everything as it was; either way the process goes on."""
        try:
            # In a thread: a large file takes longer to read than a request may wait.
            config = await asyncio.to_thread(_load, self._path)
            await self._change(config)
            log.info("reloaded", extra=_size(config))
        except InvalidConfigError as error:
            for line in error.lines():
                log.error("reload refused, the old configuration stays", extra={"problem": line})
        except HostError as error:
            log.error("reload refused, the old configuration stays", extra={"problem": str(error)})
        except Exception:
            log.exception("reload failed in itself, the old configuration stays")

    async def _change(self, config: Config) -> None:
        """Go over to `config`. What can fail stands before the first thing that changes."""
        before = self.proxy.snapshot
        most_clients = self._most_clients(config)
        opened = await self._listeners.prepare(config)
        try:
            after = make_snapshot(config, self._prober, self._idle, before)
        except BaseException:
            await discard(opened)
            raise
        self.proxy.snapshot = after
        self.proxy.access.use(config.access_log)
        self.proxy.most_clients = most_clients
        self._prober.watch(checks_of(config))
        for pool in pools_of(before) - pools_of(after):
            pool.close()
        for gone in self._listeners.commit(config, opened):
            await end(gone)

    def _most_clients(self, config: Config) -> int:
        wanted, fit = config.limits.connections, self._shares.clients
        if wanted > fit:
            log.warning(
                "limits.connections is more than open files allow: raise LimitNOFILE= (`ulimit -n`), or lower it",
                extra={"limits.connections": wanted, "used": fit, "open_files": descriptors.limit()},
            )
        return min(wanted, fit)

    async def _drain(self) -> None:
        proxy = self.proxy
        proxy.draining = True
        timeouts = proxy.snapshot.config.timeouts
        drain_s = timeouts.drain_s
        at_most = f"{timeouts.notice_s + drain_s:g}s"
        log.info("draining", extra={"in_flight": proxy.counters.in_flight, "at_most": at_most})
        await self._give_notice(timeouts.notice_s)
        self._listeners.close()
        fronts = self._listeners.fronts
        deadline_at = asyncio.get_running_loop().time() + drain_s
        while self._stops < 2 and asyncio.get_running_loop().time() < deadline_at:
            for front in fronts:
                front.close_idle()
            if not proxy.connections:
                break
            await asyncio.sleep(0.02)
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
        await self._listeners.end_own()

    async def _give_notice(self, notice_s: float) -> None:
        """Let whoever shares out connections learn of it before the first one is refused."""
        self._wake.clear()
        try:
            async with asyncio.timeout(notice_s):
                while self._stops < 2:
                    await self._wake.wait()
                    self._wake.clear()
        except TimeoutError:
            return

    async def _sweep(self) -> None:
        proxy = self.proxy
        while True:
            period_s = sweep_period_s(proxy.snapshot.config)
            due_at = time.monotonic() + period_s  # the loop's own clock stands still within an iteration
            await asyncio.sleep(period_s)
            late_s = time.monotonic() - due_at
            proxy.load = observe(proxy.load, proxy.connections, proxy.most_clients, late_s, period_s + late_s)
            now = time.monotonic()
            self._listeners.sweep(now)
            for upstream in self.proxy.snapshot.upstreams.values():
                for state in upstream.backends.values():
                    state.pool.sweep(now, upstream.upstream.timeouts.keepalive_s)
            self.proxy.failures.flush()
            self.proxy.refusals.flush()

    def _on_health(self, check: Check, before: HealthState, after: HealthState) -> None:
        for name, upstream in self.proxy.snapshot.upstreams.items():
            hit = [state for state in upstream.backends.values() if state.backend.check == check]
            if not hit:
                continue
            for state in hit:
                state.health = after
                if after.status is before.status:
                    continue
                up = after.status is Status.UP
                log.log(
                    logging.INFO if up else logging.WARNING,
                    "backend is up" if up else "backend is down",
                    extra={
                        "upstream": name,
                        "backend": state.backend.name,
                        "reason": after.last.reason if after.last is not None else "",
                        "before": before.status.value,
                    },
                )
            served = bool(upstream.weights)
            upstream.refresh()
            if served and not upstream.weights:
                log.error("upstream has no backend left", extra={"upstream": name, "reason": upstream.why_nobody()})


def sweep_period_s(config: Config) -> float:
    """The time between two looks at deadlines: a quarter of the shortest, within bounds."""
    shortest_s = min(config.timeouts.head_s, config.timeouts.idle_s)
    return max(SWEEP_AT_MOST_EVERY_S, min(SWEEP_EVERY_S, shortest_s / 4))


def _load(path: str) -> Config:
    return load_config(read_text(path), path)


def _size(config: Config) -> dict[str, int]:
    return {
        "routes": len(config.routes),
        "upstreams": len(config.upstreams),
        "backends": sum(len(upstream.backends) for upstream in config.upstreams.values()),
    }
