"""A worker: one process of several that serve the same addresses, told by a supervisor what and how.

One rule: a supervisor that is gone never stops traffic. Without one a worker serves on with the last configuration and
the last known health, says so once, and ends by SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from director.kit.configfile import InvalidConfigError
from director.kit.errors import HostError
from director.kit.net import Endpoint, parse_endpoint
from l7proxy.board import Board
from l7proxy.control import (
    FROM_WORKER,
    TO_WORKER,
    VERSION,
    Abandon,
    Channel,
    Collect,
    Commit,
    Counted,
    Done,
    Drain,
    FromWorker,
    Health,
    Leave,
    Notice,
    Pace,
    Prepare,
    Remember,
    Remembered,
    Report,
    ToWorker,
    Wanted,
)
from l7proxy.core.capacity import shared_names
from l7proxy.core.load import used
from l7proxy.core.wishes import wishes_of
from l7proxy.counts import counts_of
from l7proxy.engine import Engine
from l7proxy.files.loading import Loaded, load_text
from l7proxy.health import ToldHealth, take_health_in_silence
from l7proxy.http.stack import assert_stack
from l7proxy.listeners import Served, client_roles, discard, end
from l7proxy.runtime import checks_of
from l7proxy.wishes import wanted_of

log = logging.getLogger("l7proxy")

REPORT_EVERY_S = 0.5
LEAVES_ALONE_S = 30.0
"""A worker that was asked to end does so by itself after this time, if its supervisor has not told it to."""
MOST_ORDERS = 64
"""That wait at one time; a supervisor asks for one thing after the other."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    order: Prepare
    loaded: Loaded
    health: ToldHealth
    opened: Mapping[Endpoint, Served]


class Worker:
    """One worker process, behind its end of the control channel."""

    def __init__(self, end_of_pair: socket.socket) -> None:
        self._end = end_of_pair
        self._engine: Engine | None = None
        self._board: Board | None = None
        self._health = ToldHealth((), ())
        self._number = 0
        self._prepared: _Prepared | None = None
        self._orders: asyncio.Queue[tuple[Prepare | Commit | Abandon, dict[Endpoint, socket.socket]]] = asyncio.Queue(
            MOST_ORDERS
        )
        self._is_serving = False
        self._leaving = asyncio.Event()
        self._asked = 0
        self._reported_at = 0.0
        self._channel: Channel[FromWorker, ToWorker]

    async def run(self) -> None:
        """Serve until told to drain."""
        assert_stack()
        loop = asyncio.get_running_loop()
        _gain_no_privileges()
        loop.add_signal_handler(signal.SIGTERM, self._asked_to_end)
        # A terminal sends these to everybody in it: they are the supervisor's matter.
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        self._channel = Channel(self._end, FROM_WORKER, TO_WORKER, self._hear, self._orphaned)
        async with asyncio.TaskGroup() as group:
            orders = group.create_task(self._obey(group), name="orders")
            await self._leaving.wait()
            orders.cancel()
            if self._engine is not None:
                await self._engine.drain()
                await self._engine.listeners.end_own()
                self._engine.proxy.access.close()
                self._channel.say(Counted(0, counts_of(self._engine.proxy)))
            for task in self._tasks:
                task.cancel()
        for _ in range(100):
            if self._channel.is_idle:
                break
            await asyncio.sleep(0.01)
        self._channel.close()

    _tasks: tuple[asyncio.Task[None], ...] = ()

    async def _obey(self, group: asyncio.TaskGroup) -> None:
        while True:
            order, sockets = await self._orders.get()
            problem = ""
            try:
                match order:
                    case Prepare():
                        await self._prepare(order, sockets)
                    case Commit():
                        await self._commit(group)
                    case Abandon():
                        await self._abandon()
                    case _:
                        assert_never(order)
            except InvalidConfigError as error:
                problem = "; ".join(error.lines())
            except HostError as error:
                problem = str(error)
            except Exception as error:
                log.exception("a worker's supervisor asked for what failed in itself", extra={"asked": order.kind})
                problem = repr(error)
            self._channel.say(Done(order.id, problem))

    async def _prepare(self, order: Prepare, sockets: dict[Endpoint, socket.socket]) -> None:
        await self._abandon()
        try:
            if order.version != VERSION:
                raise HostError(f"its supervisor is of another version of l7proxy ({order.version}, not {VERSION})")
            # In a thread: a large file takes longer to read than a request may wait.
            loaded = await asyncio.to_thread(load_text, order.text, order.source, order.files)
        except BaseException:
            for each in sockets.values():
                each.close()
            raise
        health = ToldHealth(checks_of(loaded.config), order.health)
        if self._board is None:
            self._board = Board.told()
        self._board.know(shared_names(loaded.config), order.rows)
        if self._engine is None:
            self._engine = Engine(loaded.config, health, client_roles, order.workers, is_worker=True, board=self._board)
            self._engine.on_sweep = self._report
        self._take_wanted(order.wanted)
        opened = await self._engine.listeners.prepare(loaded.config, sockets)
        self._prepared = _Prepared(order, loaded, health, opened)

    async def _commit(self, group: asyncio.TaskGroup) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None or self._engine is None:
            raise HostError("nothing is prepared")
        engine, config = self._engine, prepared.loaded.config
        engine.listeners.kept = frozenset(map(parse_endpoint, prepared.order.kept))
        if not self._is_serving:
            self._is_serving = True
            engine.settle(group)
            await engine.listeners.commit(config, prepared.opened)
            self._tasks = (
                group.create_task(engine.proxy.access.run(), name="access log"),
                group.create_task(engine.sweep(), name="sweeper"),
            )
        else:
            for gone in await engine.change(config, prepared.health, prepared.opened, prepared.order.workers):
                await end(gone)
        self._health, self._number = prepared.health, prepared.order.number
        take_health_in_silence(engine.proxy.snapshot, self._health.states, self._health)

    async def _abandon(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await discard(prepared.opened)

    def _hear(self, message: ToWorker, sockets: deque[socket.socket]) -> None:
        match message:
            case Prepare() | Commit() | Abandon():
                binds = message.binds if isinstance(message, Prepare) else ()
                taken = {parse_endpoint(bind): sockets.popleft() for bind in binds if sockets}
                try:
                    self._orders.put_nowait((message, taken))
                except asyncio.QueueFull:
                    self._channel.say(Done(message.id, f"{MOST_ORDERS} orders wait already"))
            case Health():
                self._take_health(message)
            case Wanted():
                self._take_wanted(message)
                self._channel.say(Done(message.id))
            case Remember():
                flights = self._engine.proxy.recorder.told(message.most) if self._engine is not None else []
                self._channel.say(Remembered(message.id, tuple(flights)))
            case Notice():
                if self._engine is not None:
                    self._engine.proxy.draining = True
            case Drain():
                self.leave(message.pace)
            case Collect():
                counts = counts_of(self._engine.proxy) if self._engine is not None else {}
                self._channel.say(Counted(message.id, counts))
            case _:
                assert_never(message)

    def _take_wanted(self, wanted: Wanted) -> None:
        if self._engine is None:
            return
        wanted_of(self._engine.proxy, wishes_of(wanted.backends))
        if not self._leaving.is_set():
            self._engine.proxy.draining = wanted.draining

    def _take_health(self, message: Health) -> None:
        if self._prepared is not None and message.number == self._prepared.order.number:
            self._prepared.health.take(message.changes)
        elif message.number == self._number and self._engine is not None:
            learnt = self._health.take(message.changes)
            take_health_in_silence(self._engine.proxy.snapshot, learnt, self._health)

    def leave(self, pace: Pace) -> None:
        """Drain at `pace`, or go on draining at a hastier one."""
        if self._engine is not None and (not self._leaving.is_set() or pace is not Pace.GENTLE):
            self._engine.set_pace(pace)
        self._leaving.set()

    def _asked_to_end(self) -> None:
        self._asked += 1
        if self._asked > 1:
            self.leave(Pace.NOW)
        elif self._channel.is_open and self._is_serving:
            self._channel.say(Leave())
            asyncio.get_running_loop().call_later(LEAVES_ALONE_S, self.leave, Pace.GENTLE)
        else:
            self.leave(Pace.GENTLE)

    def _interrupted(self) -> None:
        if not self._channel.is_open:
            self._asked_to_end()

    def _orphaned(self, why: str) -> None:
        if not self._is_serving:
            self._leaving.set()
            return
        if self._leaving.is_set():
            return
        log.error(
            "the supervisor is gone: this worker serves on with the last known health, until `kill PID`",
            extra={"pid": os.getpid(), **({"reason": why} if why else {})},
        )

    def _report(self) -> None:
        now = time.monotonic()
        if self._engine is None or now - self._reported_at < REPORT_EVERY_S - 0.1 or not self._channel.is_idle:
            return
        self._reported_at = now
        proxy = self._engine.proxy
        share = used(proxy.load.late_s, proxy.connections, proxy.most_clients)
        self._channel.say(Report(proxy.connections, proxy.counters.in_flight, share))


def _gain_no_privileges() -> None:
    """Whatever this process is made to run has no more rights than itself (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)


def mark_lines() -> None:
    """Give each log line of this process its pid."""

    def marked(record: logging.LogRecord) -> bool:
        record.__dict__.setdefault("pid", os.getpid())
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(marked)
