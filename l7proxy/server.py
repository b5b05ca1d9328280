"""Composition root: builds the parts, reloads, drains.

One rule: a reload happens as a whole or not at all. What is being answered is answered under the old configuration.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterable

from aiohttp import http_parser, web

from director.kit.configfile import InvalidConfigError, read_text
from director.kit.errors import HostError
from director.kit.health import HealthState, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.probespec import Check
from l7proxy.accesslog import AccessLog
from l7proxy.admin import make_app
from l7proxy.core.config import load_config
from l7proxy.core.model import Config
from l7proxy.failurelog import FailureLog
from l7proxy.http.connection import Front
from l7proxy.http.exchange import handle
from l7proxy.http.listening import BACKLOG, listen
from l7proxy.runtime import Proxy, checks_of, make_snapshot, pools_of

log = logging.getLogger("l7proxy")

SWEEP_EVERY_S = 0.5


class Server:
    """One proxy process. `path` is read again on SIGHUP."""

    def __init__(self, path: str, config: Config) -> None:
        self._path = path
        self._prober = Prober(self._on_health)
        self._prober.watch(checks_of(config))
        failures = FailureLog()
        self.proxy = Proxy(make_snapshot(config, self._prober), failures, AccessLog(failures))
        self._fronts: dict[Endpoint, tuple[Front, asyncio.Server]] = {}
        self._leaving: list[Front] = []
        self._admin: tuple[Endpoint, web.AppRunner] | None = None
        self._wake = asyncio.Event()
        self._reload_wanted = False
        self._stops = 0

    async def run(self, sockets: dict[Endpoint, socket.socket]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. `sockets` are bound already: one for each address."""
        assert_c_parser()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.request_reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._prober.run(), name="prober"),
                group.create_task(self.proxy.access.run(), name="access log"),
                group.create_task(self._sweep(), name="sweeper"),
            ]
            await self._open(self.proxy.snapshot.config, sockets)
            config = self.proxy.snapshot.config
            log.info("serving", extra={"binds": ",".join(map(str, config.binds)), **_size(config)})
            try:
                await self._control()
                await self._drain()
            finally:
                for _, server in self._fronts.values():
                    server.close()
                for task in tasks:
                    task.cancel()
        self.proxy.access.flush()
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
        try:
            # In a thread: a large file takes longer to read than a request may wait.
            config = await asyncio.to_thread(_load, self._path)
            sockets = open_sockets(config, self._bound())
        except InvalidConfigError as error:
            for line in error.lines():
                log.error("reload refused, the old configuration stays", extra={"problem": line})
            return
        except HostError as error:
            log.error("reload refused, the old configuration stays", extra={"problem": str(error)})
            return
        before = self.proxy.snapshot
        self._prober.watch(checks_of(config))
        after = make_snapshot(config, self._prober, before)
        self.proxy.snapshot = after
        for pool in pools_of(before) - pools_of(after):
            pool.close()
        await self._open(config, sockets)
        log.info("reloaded", extra=_size(config))

    def _bound(self) -> set[Endpoint]:
        return self._fronts.keys() | ({self._admin[0]} if self._admin is not None else set())

    async def _open(self, config: Config, sockets: dict[Endpoint, socket.socket]) -> None:
        """Serve what `config` binds, with `sockets` for what is new; leave what it no longer binds."""
        loop = asyncio.get_running_loop()
        for bind in self._fronts.keys() - config.binds.keys():
            front, server = self._fronts.pop(bind)
            server.close()
            self._leaving.append(front)
            front.close_idle()
        for bind, listener in config.binds.items():
            if bind in self._fronts:
                self._fronts[bind][0].listener = listener
            else:
                front = Front(self.proxy, listener, handle)
                self._fronts[bind] = front, await loop.create_server(front, sock=sockets[bind], backlog=BACKLOG)
        if self._admin is not None and self._admin[0] != config.admin:
            await self._admin[1].cleanup()
            self._admin = None
        if config.admin is not None and self._admin is None:
            runner = web.AppRunner(make_app(self.proxy), access_log=None)
            await runner.setup()
            await web.SockSite(runner, sockets[config.admin]).start()
            self._admin = config.admin, runner

    async def _drain(self) -> None:
        proxy = self.proxy
        proxy.draining = True
        drain_s = proxy.snapshot.config.timeouts.drain_s
        log.info("draining", extra={"in_flight": proxy.counters.in_flight, "at_most": f"{drain_s:g}s"})
        for _, server in self._fronts.values():
            server.close()
        fronts = [front for front, _ in self._fronts.values()] + self._leaving
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
        if self._admin is not None:
            await self._admin[1].cleanup()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            config = self.proxy.snapshot.config
            await asyncio.sleep(min(SWEEP_EVERY_S, config.timeouts.head_s / 4, config.timeouts.idle_s / 4))
            now = loop.time()
            self._leaving = [front for front in self._leaving if front.connections]
            for front in self._leaving:
                front.close_idle()
            for front in [front for front, _ in self._fronts.values()] + self._leaving:
                front.sweep(now)
            for upstream in self.proxy.snapshot.upstreams.values():
                for state in upstream.backends.values():
                    state.pool.sweep(now, upstream.upstream.timeouts)
            self.proxy.failures.flush()

    def _on_health(self, check: Check, before: HealthState, after: HealthState) -> None:
        for name, upstream in self.proxy.snapshot.upstreams.items():
            hit = [state for state in upstream.backends.values() if state.backend.check == check]
            if not hit:
                continue
            for state in hit:
                state.health = after
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


def assert_c_parser() -> None:
    """Refuse to run on aiohttp's Python parser: it is slower and reads some requests otherwise.

    Raises: HostError.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise HostError("aiohttp came without its C parser: install a wheel, and unset AIOHTTP_NO_EXTENSIONS")


def open_sockets(config: Config, bound: Iterable[Endpoint] = ()) -> dict[Endpoint, socket.socket]:
    """Sockets for everything `config` binds that is not in `bound`, all or none.

    Raises: HostError.
    """
    sockets: dict[Endpoint, socket.socket] = {}
    known = set(bound)
    try:
        for bind in [*config.binds, *([config.admin] if config.admin is not None else [])]:
            if bind not in known:
                sockets[bind] = listen(bind)
    except HostError:
        for opened in sockets.values():
            opened.close()
        raise
    return sockets


def _load(path: str) -> Config:
    return load_config(read_text(path), path)


def _size(config: Config) -> dict[str, int]:
    return {
        "routes": len(config.routes),
        "upstreams": len(config.upstreams),
        "backends": sum(len(upstream.backends) for upstream in config.upstreams.values()),
    }
