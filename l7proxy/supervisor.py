"""The supervisor of several workers: it holds the listening sockets, and does what must be done once.

One rule: no socket that clients queue at is closed while its address is served. Workers come and go, and so does the
program of this very process (SIGUSR2); a change of configuration is taken by all workers or by none.

Once for all: probes, the admin endpoint and the agent, reading the file. Everything that changes workers is done one
after the other, by `_control`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from director.kit.checks.check import Check
from director.kit.configfile import InvalidConfigError
from director.kit.errors import DirectorError
from director.kit.health import HealthState
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.service import ServiceManager
from l7proxy import CODE
from l7proxy.admin.door import AdminSocket
from l7proxy.admin.operations import Operations
from l7proxy.announcing import Announcer, leaving, serving
from l7proxy.board import Board
from l7proxy.control import Pace, Wanted
from l7proxy.core.capacity import shared_names
from l7proxy.core.flight import Told
from l7proxy.core.load import combine
from l7proxy.core.model import Config
from l7proxy.counts import WorkerCounts
from l7proxy.crew import LEAVES_LATER_S, LOOK_EVERY_S, Crew, Member, Order, State
from l7proxy.engine import Engine, size_of
from l7proxy.files.loading import Loaded, load_file, renewed
from l7proxy.handed import HandedSockets
from l7proxy.health import ToldHealth, take_health, told, told_all
from l7proxy.http.listening import LATE_S, turn_away
from l7proxy.inheritance import SIGNALS, Inheritance, become, inherited_board, inherited_sockets, program
from l7proxy.listeners import Listeners, client_roles, discard, end, open_at, own_roles, roles
from l7proxy.rehearsal import rehearse
from l7proxy.renewal import AGAIN_S, Watch, tell
from l7proxy.runtime import Proxy, checks_of
from l7proxy.wishes import Kept

log = logging.getLogger("l7proxy")

SHORT_LIFE_S = 10.0
"""A worker that ends sooner than this is not replaced at once."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0


class Supervisor:
    """Looks after workers. `path` is read again on SIGHUP. `manager` is told how it is, and has `handed` sockets."""

    def __init__(
        self, path: str, loaded: Loaded, log_level: str, manager: ServiceManager, handed: HandedSockets
    ) -> None:
        self._manager = manager
        self._handed = handed
        self._announcer = Announcer(manager, self._status, self._is_well)
        self._path = path
        self._loaded = loaded
        self._log_level = log_level
        self._number = 1
        self._prober = Prober(self._on_health)
        self._places: dict[Check, int] = {}
        self._engine: Engine
        self._board: Board
        self._crew: Crew
        self._group: asyncio.TaskGroup
        self._sockets: dict[Endpoint, socket.socket] = {}
        self._wake = asyncio.Event()
        self._reload_wanted = False
        self._upgrade_wanted = False
        self._replace_wanted = False
        self._renewal_wanted = False
        self._stops = 0
        self._leavers: list[Member] = []
        self._pause_s = 0.0
        self._refill_at = 0.0
        self._operations: Operations
        self._admin: AdminSocket
        self._asked: list[asyncio.Future[list[str]]] = []
        """Who waits for a reload."""

    @property
    def loaded(self) -> Loaded:
        """What is served."""
        return self._loaded

    @property
    def proxy(self) -> Proxy:
        """What the admin endpoint and the agent show: this configuration, and sums over workers."""
        return self._engine.proxy

    async def run(self, sockets: dict[Endpoint, socket.socket]) -> None:
        """Start workers, look after them until SIGTERM or SIGINT, then drain. `sockets` are bound already.

        Raises: HostError, WorkerError: the first workers could not be started.
        """
        self._board = Board.make(seated=False)
        self._take(self._loaded, {})
        self._crew = Crew(program(), self._log_level, self._on_ended, self._on_leave, self._board)
        self._sockets = sockets
        kept = Kept(self._loaded.config.state)
        kept.read()
        self._operate(Operations(self, kept))

        async def begin() -> None:
            count = self._loaded.config.workers
            order = self._order(self._loaded, self._number)
            await self._crew.commit(await self._crew.start(count, order, count), order)

        await self._run(begin, {})

    async def take_over(self, left: Inheritance) -> None:
        """Go on where an earlier program of this process has left off: with its sockets and its workers, which others
        replace unless they are of this program already.

        Raises: HostError.
        """
        self._number = left.number
        self._stops = int(left.stops)
        self._reload_wanted, self._upgrade_wanted = left.reloads, left.upgrades
        self._sockets = inherited_sockets(left)
        known = ToldHealth(checks_of(self._loaded.config), left.health)
        self._board, problem = inherited_board(left)
        self._take(self._loaded, known.states)
        self._crew = Crew(program(), self._log_level, self._on_ended, self._on_leave, self._board, left.ended)
        if problem:
            log.warning("limits count anew: old and new workers count apart for a while", extra={"reason": problem})
        kept = Kept(self._loaded.config.state)
        kept.take(left.wishes)
        self._operate(Operations(self, kept, left.drained_since))
        for heir in left.workers:
            heir = replace(heir, slot=-1) if problem else heir  # noqa: PLW2901 -- it has another board
            self._crew.adopt(heir).number = left.number
        self._replace_wanted = not all(heir.is_fresh or heir.is_leaving for heir in left.workers)

        if self._stops:
            self._announcer.stopping()

        async def begin() -> None:
            log.info("took over", extra={"workers": len(self._crew.serving)})
            if self._replace_wanted and not self._stops:
                await self._reload(self._crew.serving)

        await self._run(begin, left.admin)

    def _operate(self, operations: Operations) -> None:
        self._operations = operations
        operations.begin()
        self._admin = AdminSocket(self.proxy, lambda: operations, self.collect)

    def _take(self, loaded: Loaded, health: dict[Check, HealthState]) -> None:
        """Probe for `loaded`, and show it; only when nothing is shown yet."""
        config = loaded.config
        checks = checks_of(config)
        self._prober.watch({check: health.get(check, HealthState()) for check in checks})
        self._places = {check: place for place, check in enumerate(checks)}
        self._engine = Engine(
            config,
            self._prober,
            own_roles,
            config.workers,
            collect=self.collect,
            board=self._board,
            handed=self._handed,
        )
        self.proxy.problems = loaded.left_out

    async def _run(self, begin: Callable[[], Awaitable[None]], admin: dict[str, int]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.request_reload)
        loop.add_signal_handler(signal.SIGUSR2, self.request_upgrade)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        failure: DirectorError | None = None
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._prober.run(), name="prober"),
                group.create_task(self._look(), name="look"),
                group.create_task(self._announcer.run(), name="announcer"),
                group.create_task(Watch(lambda: self._loaded, self.request_renewal).run(), name="certificates"),
            ]
            try:
                self._group = group
                await self._engine.begin(self._own_copies(self._loaded.config), group)
                self._admin.prepare(self._loaded.config.admin_socket, admin)
                await self._admin.commit()
                await begin()
                config = self._loaded.config
                self._handed.tell(roles(config))
                extra = {"binds": ",".join(map(str, config.binds)), "code": CODE, "workers": len(self._crew.serving)}
                log.info("serving", extra={**extra, **size_of(config)})
                self._announcer.ready()
                await self._control()
                await self._drain()
            except DirectorError as error:
                failure = error
            finally:
                for member in self._crew.members:
                    member.kill()
                await self._admin.close()
                await self._engine.listeners.end_own()
                for task in tasks:
                    task.cancel()
        if failure is not None:
            raise failure
        log.info("stopped")

    def request_reload(self) -> None:
        """Read the file again soon."""
        self._reload_wanted = True
        self._wake.set()

    def request_renewal(self) -> None:
        """Look into the files of certificates soon."""
        self._renewal_wanted = True
        self._wake.set()

    def _config(self) -> Config:
        return self._loaded.config

    def request_upgrade(self) -> None:
        """Become the program that is installed now, with new workers."""
        self._upgrade_wanted = True
        self._wake.set()

    def request_stop(self) -> None:
        """Drain; the second time, stop at once."""
        self._stops += 1
        self._announcer.stopping()
        self._wake.set()

    async def tell(self, wanted: Wanted) -> None:
        """Tell all workers what the operator wants."""
        if not self._stops:
            await self._crew.tell(wanted)

    async def reload_now(self) -> list[str]:
        """Read the file again, and say what is wrong with it."""
        asked: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self.request_reload()
        return await asked

    async def flights(self, most: int) -> list[Told]:
        """The last exchanges that went wrong, of all workers."""
        return await self._crew.flights(most)

    async def collect(self) -> list[WorkerCounts]:
        """What each worker has counted, and those that are gone together."""
        return await self._crew.collect()

    async def _control(self) -> None:
        while not self._stops:
            if self._upgrade_wanted:
                self._upgrade_wanted = False
                with self._announcer.reloading():
                    await self._upgrade()
            elif self._reload_wanted:
                self._reload_wanted = False
                asked, self._asked = self._asked, []
                with self._announcer.reloading():
                    problems = await self._reload(())
                for each in asked:
                    if not each.done():
                        each.set_result(problems)
            elif self._renewal_wanted:
                self._renewal_wanted = False
                await self._renew()
            else:
                wait_s = await self._fill_up()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                self._wake.clear()

    async def _fill_up(self) -> float | None:
        """Bring as many workers to work as there should be. How long to wait for the next try, if there is one."""
        crew, count = self._crew, self._loaded.config.workers
        self._leavers = [member for member in self._leavers if member in crew.serving]
        missing = count - len(crew.serving) + len(self._leavers)
        if missing <= 0:
            return None
        wait_s = self._refill_at - time.monotonic()
        if wait_s > 0:
            return wait_s
        order = self._order(self._loaded, self._number)
        leavers, self._leavers = self._leavers, []
        try:
            started = await crew.start(missing, order, count)
            await crew.commit(started, order)
        except DirectorError as error:
            self._leavers = leavers
            self._set_back()
            again_s = round(self._pause_s, 1)
            log.error("worker not started", extra={"reason": str(error), "again_in_s": again_s})
            return self._pause_s
        log.info("worker serves", extra={"worker": ",".join(str(member.pid) for member in started)})
        crew.drain([each for each in leavers if each in crew.serving], Pace.GENTLE, self._drain_s)
        return 0.0

    def _set_back(self) -> None:
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._refill_at = time.monotonic() + self._pause_s

    async def _reload(self, replaced: Sequence[Member]) -> list[str]:
        """Take the file as it is now, or leave everything as it was, and say what is wrong. Workers go over to it, but
        those that are `replaced` by new ones."""
        refused = f"{'restart' if replaced else 'reload'} refused, the old configuration stays"
        problems: list[str] = []
        try:
            # In a thread: a large file takes longer to read than a request may wait.
            loaded = await asyncio.to_thread(load_file, self._path, self._loaded)
            loaded.log_warnings()
            await self._change(loaded, replaced)
            self._pause_s = 0.0
            log.info(
                "restarted" if replaced else "reloaded",
                extra={"workers": len(self._crew.serving), **size_of(loaded.config)},
            )
        except InvalidConfigError as error:
            problems = error.lines()
        except DirectorError as error:
            problems = [str(error)]
        except Exception:
            log.exception("reload failed in itself, the old configuration stays")
            self.proxy.reload_refused = True
            return ["it failed in itself: the log says how"]
        self.proxy.reload_refused = bool(problems)
        for line in problems:
            log.error(refused, extra={"problem": line})
        return problems

    async def _renew(self) -> None:
        """Take certificates anew, where their files hold other ones: by all workers or by none."""
        try:
            # In a thread: there may be hundreds.
            renewal = await asyncio.to_thread(renewed, self._loaded)
            if renewal.changed or renewal.moved:
                await self._change(renewal.loaded, ())
            self.proxy.problems = renewal.problems
            tell(renewal)
        except DirectorError as error:
            told = {"problem": str(error), "again_in_s": AGAIN_S}
            log.error("certificates could not be taken anew, the old ones stay", extra=told)
            asyncio.get_running_loop().call_later(AGAIN_S, self.request_renewal)
        except Exception:
            log.exception("certificates could not be taken anew, the old ones stay")

    async def _change(self, loaded: Loaded, replaced: Sequence[Member]) -> None:
        """Go over to `loaded`, in two steps: what can fail stands in the first."""
        config, crew = loaded.config, self._crew
        staying = [member for member in crew.serving if member not in replaced]
        staying, surplus = staying[: config.workers], staying[config.workers :]
        fresh: list[Member] = []
        new = [bind for bind in roles(config) if bind not in self._sockets]
        opened_sockets = open_at(new, self._sockets, self._handed)
        sockets = {**self._sockets, **opened_sockets}
        try:
            order = self._order(loaded, self._number + 1, sockets)
            self._admin.prepare(config.admin_socket)
            opened = await self._engine.listeners.prepare(config, self._own_copies(config, sockets))
            try:
                await crew.prepare(staying, order, config.workers)
                if config.workers > len(staying):
                    fresh = await crew.start(config.workers - len(staying), order, config.workers)
            except BaseException:
                await discard(opened)
                raise
            gone = await self._engine.change(config, self._prober, opened, config.workers)
        except BaseException:
            for each in opened_sockets.values():
                each.close()
            self._admin.abandon()
            crew.dismiss(fresh)
            await crew.abandon(staying)
            raise
        self._loaded, self._number = loaded, order.number
        self.proxy.problems = ()
        checks = checks_of(config)
        self._places = {check: place for place, check in enumerate(checks)}
        self._prober.watch(checks)
        await crew.commit([*staying, *fresh], order)
        crew.drain([*surplus, *replaced], Pace.GENTLE, self._drain_s)
        wanted = roles(config)
        self._handed.tell(wanted)
        self._sockets = {bind: each for bind, each in sockets.items() if bind in wanted}
        for bind in sockets.keys() - wanted.keys():
            sockets[bind].close()
        for served in gone:
            await end(served)
        await self._admin.commit()
        await self._operations.keep_at(config.state)
        changes = {check: self._prober.state(check) for check in checks}
        crew.tell_health(self._number, told_all(changes))

    async def _upgrade(self) -> None:
        """Run the program that is installed now in this process, after a rehearsal; workers go on serving."""
        words = program()
        problems = await rehearse(words, self._path)
        for problem in problems:
            log.error("restart refused, everything stays as it is", extra={"problem": problem})
        if problems or self._stops:
            return
        log.info("restarting", extra={"program": " ".join(words)})
        config = self._loaded.config
        await self._engine.listeners.end_own()
        admin = await self._admin.close(keep=True)
        await self._crew.collect()
        try:
            words = [*words, "run", self._path, "--log-level", self._log_level]
            become(words, self._legacy(admin), self._manager)
        except DirectorError as error:
            log.error("restart refused, everything stays as it is", extra={"problem": str(error)})
            self._engine.listeners = Listeners(self.proxy, own_roles, self.collect, self._handed)
            await self._engine.begin(self._own_copies(config), self._group)
            self._admin.prepare(config.admin_socket, admin)
            await self._admin.commit()

    def _legacy(self, admin: dict[str, int]) -> Inheritance:
        checks = checks_of(self._loaded.config)
        return Inheritance(
            self._path,
            self._loaded.text,
            self._number,
            {str(bind): each.fileno() for bind, each in self._sockets.items()},
            self._crew.heirs(are_fresh=False),
            told_all({check: self._prober.state(check) for check in checks}),
            self._crew.ended,
            files=dict(self._loaded.files),
            board=self._board.left(),
            wishes=self._operations.wanted.backends,
            drained_since=self._operations.drained_since,
            admin=admin,
        )

    async def _drain(self) -> None:
        crew, proxy = self._crew, self.proxy
        proxy.draining = True
        timeouts = self._loaded.config.timeouts
        at_most = f"{timeouts.notice_s + timeouts.drain_s:g}s"
        in_flight = sum(member.in_flight for member in crew.members)
        log.info("draining", extra={"in_flight": in_flight, "at_most": at_most, "workers": len(crew.members)})
        crew.notice()
        if not self._operations.notice_is_given:
            await self._until(lambda: False, timeouts.notice_s, 2)
        clients = {bind: self._sockets.pop(bind) for bind in client_roles(self._loaded.config)}
        for bind, each in clients.items():
            if bind not in self._handed:
                turn_away(each)
        await self._until(lambda: False, LATE_S, 2)
        for each in clients.values():
            each.close()
        crew.drain(crew.members, Pace.BRISK, timeouts.drain_s)
        await self._until(lambda: not crew.members, timeouts.drain_s + LEAVES_LATER_S, 2)
        if crew.members:
            crew.drain(crew.members, Pace.NOW, 0)
            await self._until(lambda: not crew.members, 3.0, 1_000_000)
        for member in crew.members:
            member.tell_stuck()

    async def _until(self, is_so: Callable[[], bool], within_s: float, stops: int) -> None:
        """Wait until something is so, a time is over, or so many have asked for a stop."""
        loop = asyncio.get_running_loop()
        until_at = loop.time() + within_s
        while not is_so() and self._stops < stops and loop.time() < until_at:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(until_at, loop.time() + LOOK_EVERY_S)):
                    await self._wake.wait()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            crew, proxy = self._crew, self.proxy
            crew.look(self._manager.watchdog_s)
            count = max(1, self._loaded.config.workers)
            # One that is missing or silent has nothing left to give.
            shares = [1.0 if member.is_silent else member.used for member in crew.serving][:count]
            proxy.load = combine(proxy.load, [*shares, *([1.0] * (count - len(shares)))])
            proxy.connections = sum(member.connections for member in crew.members)
            now = time.monotonic()
            for upstream in proxy.snapshot.upstreams.values():
                upstream.look(now)  # for who asks how they are

    def _order(self, loaded: Loaded, number: int, given: dict[Endpoint, socket.socket] | None = None) -> Order:
        held = self._sockets if given is None else given
        health = {check: self._prober.state(check) for check in checks_of(loaded.config)}
        sockets = {bind: held[bind] for bind in client_roles(loaded.config)}
        rows = self._board.know(shared_names(loaded.config))
        kept = tuple(bind for bind in sockets if bind in self._handed)
        return Order(loaded, number, sockets, told_all(health), rows, self._operations.wanted, kept)

    def _own_copies(
        self, config: Config, sockets: dict[Endpoint, socket.socket] | None = None
    ) -> dict[Endpoint, socket.socket]:
        held = self._sockets if sockets is None else sockets
        return {bind: held[bind].dup() for bind in own_roles(config)}

    def _status(self) -> str:
        if self._stops:
            members = self._crew.members
            return leaving(sum(each.in_flight for each in members), sum(each.connections for each in members))
        return serving(self.proxy, len(self._crew.serving))

    def _is_well(self) -> bool:
        """Whether clients are answered, or all of it ends by its own clock."""
        watchdog_s = self._manager.watchdog_s
        return self._stops > 0 or watchdog_s is None or self._crew.has_one_who_speaks(watchdog_s / 2)

    @property
    def _drain_s(self) -> float:
        return self._loaded.config.timeouts.drain_s

    def _on_health(self, check: Check, before: HealthState, after: HealthState) -> None:
        take_health(self.proxy.snapshot, check, before, after)
        if check in self._places:
            self._crew.tell_health(self._number, [told(self._places[check], after)])

    def _on_ended(self, member: Member, how: str) -> None:
        self._wake.set()
        if self._stops or member.state is State.LEAVING:
            log.info("worker has ended", extra={"worker": member.pid, "by": how})
            return
        if member.state is State.STARTING:
            self.proxy.worker_deaths += 1
            log.error("worker died before it served", extra={"worker": member.pid, "by": how})
            return
        if time.monotonic() - member.started_at < SHORT_LIFE_S:
            self._set_back()
        else:
            self._pause_s = self._refill_at = 0.0
        self.proxy.worker_deaths += 1
        again_s = round(max(0.0, self._refill_at - time.monotonic()), 1)
        log.error("worker died", extra={"worker": member.pid, "by": how, "again_in_s": again_s})

    def _on_leave(self, member: Member) -> None:
        if member.state is State.SERVING and member not in self._leavers and not self._stops:
            log.info("worker is to end: another one takes its place", extra={"worker": member.pid})
            self._leavers.append(member)
            self._wake.set()
