"""One process that does everything: probes, serves, answers its admin endpoint, reloads, drains.

One rule: no signal loses a request. To become another program, or more than one worker, it first lets workers serve
its addresses, drains as one of them, and ends as a `Handover` to whoever looks after them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from dataclasses import dataclass, replace

from director.kit.checks.check import Check
from director.kit.configfile import InvalidConfigError
from director.kit.errors import DirectorError, HostError
from director.kit.health import HealthState
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.service import ServiceManager
from l7proxy import CODE
from l7proxy.admin.door import AdminSocket
from l7proxy.admin.operations import Operations
from l7proxy.announcing import Announcer, leaving, serving
from l7proxy.control import Pace, Wanted
from l7proxy.core.capacity import shared_names
from l7proxy.core.flight import Told
from l7proxy.core.model import Config
from l7proxy.counts import counts_of, lasting
from l7proxy.crew import Crew, Member, Order
from l7proxy.engine import Engine, size_of
from l7proxy.files.loading import Loaded, load_file, renewed
from l7proxy.handed import HandedSockets
from l7proxy.health import take_health, told, told_all
from l7proxy.http.stack import assert_stack
from l7proxy.inheritance import Inheritance, program
from l7proxy.listeners import Listeners, client_roles, end, open_at, roles
from l7proxy.rehearsal import rehearse
from l7proxy.renewal import Watch, tell
from l7proxy.runtime import Proxy, checks_of
from l7proxy.wishes import Kept

log = logging.getLogger("l7proxy")


@dataclass(frozen=True, slots=True)
class Handover:
    """What is to follow in this process: a program, and what it is left."""

    words: list[str]
    left: Inheritance


class Server:
    """One proxy process. `path` is read again on SIGHUP; `loaded` is what `config` comes from. `manager` is told how it
    is, and has `handed` sockets; default: there is none."""

    def __init__(
        self,
        path: str,
        loaded: Loaded,
        log_level: str = "INFO",
        manager: ServiceManager | None = None,
        handed: HandedSockets | None = None,
    ) -> None:
        self._path = path
        self._loaded = loaded
        config = loaded.config
        self._log_level = log_level
        self._prober = Prober(self._on_health)
        self._prober.watch(checks_of(config))
        self._announcer = Announcer(manager or ServiceManager({}), self._status)
        self._handed = handed or HandedSockets()
        self._engine = Engine(config, self._prober, handed=self._handed)
        self.proxy.problems = loaded.left_out
        self._wake = asyncio.Event()
        self._reload_wanted = False
        self._upgrade_wanted = False
        self._renewal_wanted = False
        self._crew: Crew | None = None
        """The workers that serve instead of this process from now on."""
        self._left: Inheritance | None = None
        self._stops = 0
        self._asked: list[asyncio.Future[list[str]]] = []
        """Who waits for a reload."""
        self._kept = Kept(config.state)
        self._operations = Operations(self, self._kept)
        self._admin = AdminSocket(self.proxy, lambda: self._operations)

    @property
    def loaded(self) -> Loaded:
        """What is served."""
        return self._loaded

    @property
    def proxy(self) -> Proxy:
        """What its exchanges share."""
        return self._engine.proxy

    @property
    def _listeners(self) -> Listeners:
        return self._engine.listeners

    async def run(self, sockets: dict[Endpoint, socket.socket]) -> Handover | None:
        """Serve until SIGTERM or SIGINT, then drain; or until workers serve instead. `sockets` are bound already: one
        for each address."""
        assert_stack()
        self._kept.read()
        self._operations.begin()
        self._admin.prepare(self._loaded.config.admin_socket)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.request_reload)
        loop.add_signal_handler(signal.SIGUSR2, self.request_upgrade)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._prober.run(), name="prober"),
                group.create_task(self.proxy.access.run(), name="access log"),
                group.create_task(self._engine.sweep(), name="sweeper"),
                group.create_task(Watch(lambda: self._loaded, self.request_renewal).run(), name="certificates"),
                group.create_task(self._announcer.run(), name="announcer"),
            ]
            config = self.proxy.snapshot.config
            await self._engine.begin(sockets, group)
            await self._admin.commit()
            self._handed.tell(roles(config))
            log.info("serving", extra={"binds": ",".join(map(str, config.binds)), "code": CODE, **size_of(config)})
            self._announcer.ready()
            try:
                await self._control()
                await self._drain()
            finally:
                admin = await self._admin.close(keep=self._crew is not None)
                await self._listeners.close()
                for task in tasks:
                    task.cancel()
        self.proxy.access.close()
        if self._crew is None or self._left is None:
            log.info("stopped")
            return None
        left = replace(
            self._left,
            workers=self._crew.release(),
            ended=lasting(counts_of(self.proxy)),
            stops=self._stops > 0,
            reloads=self._reload_wanted,
            upgrades=self._upgrade_wanted,
            wishes=self._operations.wanted.backends,
            drained_since=self._operations.drained_since,
            admin=admin,
        )
        return Handover([*program(), "run", self._path, "--log-level", self._log_level], left)

    def request_reload(self) -> None:
        """Read the file again soon."""
        self._reload_wanted = True
        self._wake.set()

    def request_renewal(self) -> None:
        """Look into the files of certificates soon."""
        self._renewal_wanted = True
        self._wake.set()

    def _config(self) -> Config:
        return self.proxy.snapshot.config

    def request_upgrade(self) -> None:
        """Become the program that is installed now."""
        self._upgrade_wanted = True
        self._wake.set()

    def request_stop(self) -> None:
        """Drain; the second time, stop at once."""
        self._stops += 1
        self._announcer.stopping()
        self._engine.set_pace(Pace.BRISK if self._stops == 1 else Pace.NOW)
        self._wake.set()

    async def tell(self, wanted: Wanted) -> None:
        """Tell all workers what the operator wants; there are some only when they serve instead of this process."""
        if self._crew is not None:
            await self._crew.tell(wanted)

    async def reload_now(self) -> list[str]:
        """Read the file again, and say what is wrong with it."""
        asked: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self.request_reload()
        return await asked

    async def flights(self, most: int) -> list[Told]:
        """The last exchanges that went wrong."""
        return self.proxy.recorder.told(most)

    async def _control(self) -> None:
        while not self._stops and self._crew is None:
            await self._wake.wait()
            self._wake.clear()
            if (self._upgrade_wanted or self._reload_wanted) and not self._stops:
                replaced, self._upgrade_wanted, self._reload_wanted = self._upgrade_wanted, False, False
                asked, self._asked = self._asked, []
                with self._announcer.reloading():
                    problems = await self._reload(replaced)
                for each in asked:
                    if not each.done():
                        each.set_result(problems)
                if self._renewal_wanted:
                    self._wake.set()
            elif self._renewal_wanted and not self._stops:
                self._renewal_wanted = False
                await self._renew()

    async def _reload(self, replaced: bool) -> list[str]:
        """Take the file as it is now, or leave everything as it was, and say what is wrong; either way the process goes
        on. Workers take over where this process is to be `replaced`, or there are to be several."""
        try:
            # In a thread: a large file takes longer to read than a request may wait.
            loaded = await asyncio.to_thread(load_file, self._path, self._loaded)
            loaded.log_warnings()
            if replaced or loaded.config.workers > 1:
                await self._hand_over(loaded)
            else:
                await self._change(loaded)
                log.info("reloaded", extra=size_of(loaded.config))
        except InvalidConfigError as error:
            problems = error.lines()
        except DirectorError as error:
            problems = str(error).splitlines()
        except Exception:
            log.exception("reload failed in itself, the old configuration stays")
            self.proxy.reload_refused = True
            return ["it failed in itself: the log says how"]
        else:
            self.proxy.reload_refused = False
            return []
        self.proxy.reload_refused = True
        for line in problems:
            log.error("reload refused, the old configuration stays", extra={"problem": line})
        return problems

    async def _renew(self) -> None:
        """Take certificates anew, where their files hold other ones; all else stays as it is."""
        try:
            renewal = await asyncio.to_thread(renewed, self._loaded)
            if renewal.changed or renewal.moved:
                await self._change(renewal.loaded)
            self.proxy.problems = renewal.problems
            tell(renewal)
        except DirectorError as error:
            log.error("certificates could not be taken anew, the old ones stay", extra={"problem": str(error)})
        except Exception:
            log.exception("certificates could not be taken anew, the old ones stay")

    async def _change(self, loaded: Loaded) -> None:
        config = loaded.config
        self._admin.prepare(config.admin_socket)
        try:
            opened = await self._listeners.prepare(config)
            gone = await self._engine.change(config, self._prober, opened)
        except BaseException:
            self._admin.abandon()
            raise
        self._loaded = loaded
        self.proxy.problems = ()
        self._prober.watch(checks_of(config))
        self._handed.tell(roles(config))
        for served in gone:
            await end(served)
        await self._admin.commit()
        await self._operations.keep_at(config.state)

    async def _hand_over(self, loaded: Loaded) -> None:
        """Let workers serve beside this process.

        Raises: DirectorError; all is as before then.
        """
        words = program()
        if problems := await rehearse(words, self._path):
            raise HostError("\n".join(problems))
        config = loaded.config
        health = told_all({check: self._prober.state(check) for check in checks_of(config)})
        sockets = open_at(roles(config), self._listeners.sockets, self._handed)
        board = self._engine.board
        crew = Crew(words, self._log_level, _tell_end, lambda _: None, board)
        rows = board.know(shared_names(config))
        binds = {bind: sockets[bind] for bind in client_roles(config)}
        kept = tuple(bind for bind in binds if bind in self._handed)
        order = Order(loaded, 1, binds, health, rows, self._operations.wanted, kept)
        try:
            await crew.commit(await crew.start(config.workers, order, config.workers), order)
        except BaseException:
            for each in sockets.values():
                each.close()
            raise
        log.info("workers serve, this process becomes their supervisor", extra={"workers": len(crew.serving)})
        descriptors = {str(bind): each.detach() for bind, each in sockets.items()}
        self._crew = crew
        left = replace(board.left(), descriptor=os.dup(board.descriptor))
        files = dict(loaded.files)
        self._left = Inheritance(self._path, loaded.text, 1, descriptors, (), health, {}, files=files, board=left)

    async def _drain(self) -> None:
        proxy, engine = self.proxy, self._engine
        timeouts = proxy.snapshot.config.timeouts
        if self._crew is not None:
            engine.set_pace(Pace.GENTLE)
            await engine.drain()
        else:
            proxy.draining = True
            at_most = f"{timeouts.notice_s + timeouts.drain_s:g}s"
            log.info("draining", extra={"in_flight": proxy.counters.in_flight, "at_most": at_most})
            if not self._operations.notice_is_given:
                await self._give_notice(timeouts.notice_s)
            await engine.drain()
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

    def _status(self) -> str:
        proxy = self.proxy
        if self._crew is not None:
            return f"workers serve; {leaving(proxy.counters.in_flight, proxy.connections)} of this process"
        if self._stops:
            return leaving(proxy.counters.in_flight, proxy.connections)
        return serving(proxy)

    def _on_health(self, check: Check, before: HealthState, after: HealthState) -> None:
        take_health(self.proxy.snapshot, check, before, after)
        if self._crew is not None and self._left is not None:
            places = {each: place for place, each in enumerate(checks_of(self.proxy.snapshot.config))}
            if check in places:
                self._crew.tell_health(1, [told(places[check], after)])


def _tell_end(member: Member, how: str) -> None:
    log.error("worker died", extra={"worker": member.pid, "by": how})
