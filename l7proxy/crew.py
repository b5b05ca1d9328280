"""The worker processes as whoever looks after them sees them: started, told, asked, and seen to end.

One rule: nothing waits for a worker without a limit, and none that ends is overlooked: each has a pidfd in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from director.kit.errors import DirectorError
from director.kit.net import Endpoint
from l7proxy import commands
from l7proxy.board import VARIABLE, Board
from l7proxy.control import (
    FROM_WORKER,
    NOTHING_WANTED,
    TO_WORKER,
    Abandon,
    Channel,
    Collect,
    Commit,
    Counted,
    Done,
    Drain,
    FromWorker,
    Health,
    HealthChange,
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
from l7proxy.core.flight import Told
from l7proxy.core.metering import Counts, merged
from l7proxy.counts import WorkerCounts, lasting
from l7proxy.files.loading import Loaded
from l7proxy.inheritance import HeirWorker

log = logging.getLogger("l7proxy")

STARTS_WITHIN_S = 30.0
ANSWERS_WITHIN_S = 10.0
COUNTS_WITHIN_S = 1.0
LEAVES_LATER_S = 10.0
"""So long after its drain must have ended a worker is killed."""
SILENT_S = 5.0
"""A worker that says nothing for this long cannot serve."""
ABORTS_WITHIN_S = 0.5
"""So long one that hangs has to say where it stands."""
LOOK_EVERY_S = 0.5
LATE_S = 0.2
"""A look that is later than this was held up: what workers said meanwhile is still to be heard."""


class WorkerError(DirectorError):
    """A worker did not do what it was asked to."""


class State(Enum):
    """How far a worker is."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Order:
    """What workers are to serve; `sockets` are those of its clients' addresses."""

    loaded: Loaded
    number: int
    sockets: Mapping[Endpoint, socket.socket]
    health: tuple[HealthChange, ...]
    rows: Mapping[str, int] = field(default_factory=dict)
    """Where on the board what it shares stands."""
    wanted: Wanted = NOTHING_WANTED
    kept: tuple[Endpoint, ...] = ()
    """Addresses whose sockets outlive this program."""


class Member:
    """One worker. `process` is None for one that an earlier program of this process has started. `slot` is its own on
    the board, -1 where it has another board."""

    def __init__(self, pid: int, state: State, process: subprocess.Popen[bytes] | None, slot: int) -> None:
        self.pid = pid
        self.slot = slot
        self.state = state
        self.process = process
        self.pidfd = os.pidfd_open(pid)
        self.started_at = self.heard_at = time.monotonic()
        self.number = 0
        self.connections = 0
        self.in_flight = 0
        self.used = 0.0
        self.counts: Counts = {}
        self.flights: tuple[Told, ...] = ()
        self.is_silent = False
        self.is_aborted = False
        self.told_at = self.started_at
        self.kill_at: float | None = None
        self.unsaid: dict[int, HealthChange] = {}
        self.answers: dict[int, asyncio.Future[FromWorker]] = {}
        self.channel: Channel[ToWorker, FromWorker]

    def reap(self) -> str | None:
        """How it has ended, None while it has not."""
        if self.process is not None:
            code = self.process.poll()
        else:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return "unknown"
            code = os.waitstatus_to_exitcode(status) if ended else None
        if code is None:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, and never to another process that has its pid."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def forget(self) -> None:
        """Look no more for its end."""
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1

    def tell_stuck(self) -> None:
        """Log that it is killed, since it should have left."""
        after_s = round(time.monotonic() - self.told_at, 1)
        reason = (
            f"it is still there {after_s:g} s after it was told to; it may be stuck, or stopped (SIGSTOP, a debugger)"
        )
        log.error("worker did not leave, it is killed", extra={"worker": self.pid, "reason": reason})

    def abort(self, after_s: float) -> None:
        """End it, since it has said nothing for so long: it may say where it stands, and is killed a moment later."""
        if not self.is_aborted:
            self.is_aborted = True
            reason = f"it has said nothing for {after_s:g} s (WatchdogSec=): its loop stands still, or it is stopped"
            log.error("worker hangs, it is ended and replaced", extra={"worker": self.pid, "reason": reason})
            self.told_at = time.monotonic()
            self.kill_at = self.told_at + ABORTS_WITHIN_S
            self.send(signal.SIGABRT)

    def kill(self) -> None:
        """End it now."""
        self.send(signal.SIGKILL)


class Crew:
    """All of them. `on_ended` is told of each that has ended and how, `on_leave` of each that was asked to."""

    def __init__(
        self,
        program: Sequence[str],
        log_level: str,
        on_ended: Callable[[Member, str], None],
        on_leave: Callable[[Member], None],
        board: Board,
        ended: Counts | None = None,
    ) -> None:
        self._board = board
        self._program = program
        self._log_level = log_level
        self._on_ended = on_ended
        self._on_leave = on_leave
        self._last_id = 0
        self.ended: Counts = ended or {}
        """What those have counted that are gone."""
        self.members: list[Member] = []
        self._collecting = asyncio.Lock()
        self._collected_at = 0.0
        self._looked_at = time.monotonic()

    @property
    def serving(self) -> list[Member]:
        """Those that serve and were not told to leave."""
        return [member for member in self.members if member.state is State.SERVING]

    def spawn(self) -> Member:
        """Start a process. It inherits its end of the channel, the board, its output, and nothing else.

        Raises: WorkerError, HostError.
        """
        board = self._board
        slot = board.seat()
        process: subprocess.Popen[bytes] | None = None
        try:
            mine, its = socket.socketpair()
            with mine, its:
                words = [
                    *self._program,
                    commands.WORKER,
                    "--control",
                    str(its.fileno()),
                    "--log-level",
                    self._log_level,
                ]
                told = {**os.environ, VARIABLE: f"{board.descriptor}:{slot}"}
                shared = [its.fileno(), board.descriptor]
                process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=shared, env=told)
                return self._add(Member(process.pid, State.STARTING, process, slot), mine.dup())
        except OSError as error:  # no descriptor, process or memory for it, or no program
            if process is not None:
                process.kill()
                process.wait()
            board.leave(slot)
            raise WorkerError(f"no worker can be started: {self._program[0]}: {error.strerror}") from error

    def adopt(self, heir: HeirWorker) -> Member:
        """Take over one that an earlier program of this process has started."""
        state = State.LEAVING if heir.is_leaving else State.SERVING
        return self._add(Member(heir.pid, state, None, heir.slot), socket.socket(fileno=heir.channel))

    def _add(self, member: Member, end: socket.socket) -> Member:
        member.channel = Channel(
            end,
            TO_WORKER,
            FROM_WORKER,
            lambda message, _: self._hear(member, message),
            lambda why: self._lost(member, why),
            lambda: self._room(member),
        )
        self.members.append(member)
        asyncio.get_running_loop().add_reader(member.pidfd, self._ended, member)
        return member

    async def start(self, count: int, order: Order, workers: int) -> list[Member]:
        """New ones that are prepared for `order`; none where one fails. `workers` is how many there are to be in all.

        Raises: WorkerError.
        """
        started: list[Member] = []
        try:
            for _ in range(count):
                started.append(self.spawn())
            await self.prepare(started, order, workers)
        except BaseException:
            self.dismiss(started)
            raise
        return started

    def dismiss(self, members: Iterable[Member]) -> None:
        """End those that have not served."""
        for member in members:
            member.state = State.LEAVING
            member.kill()

    async def prepare(
        self, members: Iterable[Member], order: Order, workers: int, within_s: float = STARTS_WITHIN_S
    ) -> None:
        """Have `members` get ready.

        Raises: WorkerError with all that one or another said, each once.
        """
        loaded = order.loaded
        binds = tuple(order.sockets)

        def asked(number: int) -> Prepare:
            return Prepare(
                number,
                order.number,
                loaded.source,
                loaded.text,
                tuple(map(str, binds)),
                workers,
                order.health,
                dict(loaded.files),
                dict(order.rows),
                wanted=order.wanted,
                kept=tuple(map(str, order.kept)),
            )

        said = await self._ask_all(members, asked, within_s, [order.sockets[bind] for bind in binds])
        problems = dict.fromkeys(said.values())
        if problems:
            raise WorkerError("; ".join(problems))

    async def commit(self, members: Iterable[Member], order: Order) -> None:
        """Have those that are prepared go over; one that cannot is killed: it serves what no longer holds."""
        members = list(members)
        failed = await self._ask_all(members, Commit, ANSWERS_WITHIN_S)
        for member in members:
            if member not in failed:
                member.state = State.SERVING
                member.number = order.number
                continue
            log.error("worker did not go over to the new configuration, it is killed", extra=_about(member, failed))
            member.kill()

    async def abandon(self, members: Iterable[Member]) -> None:
        """Have them forget what was prepared."""
        await self._ask_all(members, Abandon, ANSWERS_WITHIN_S)

    async def collect(self) -> list[WorkerCounts]:
        """What every process has counted up to now, those that are gone as one with pid 0; of one that does not answer
        what it said last. Those who wait for their turn share one."""
        called_at = time.monotonic()
        async with self._collecting:
            if self._collected_at < called_at:
                self._collected_at = time.monotonic()
                await self._ask_all(self.members, Collect, COUNTS_WITHIN_S)
        return [WorkerCounts(0, self.ended), *(WorkerCounts(member.pid, member.counts) for member in self.members)]

    async def flights(self, most: int) -> list[Told]:
        """The last exchanges of all that went wrong, oldest first; of one that does not answer, what it said last."""
        await self._ask_all(self.members, lambda number: Remember(number, most), COUNTS_WITHIN_S)
        found = [flight for member in self.members for flight in member.flights]
        return sorted(found, key=lambda flight: flight["at"])[-most:]

    async def tell(self, wanted: Wanted) -> None:
        """Tell all what the operator wants, and return when they do so."""
        await self._ask_all(self.members, lambda number: replace(wanted, id=number), COUNTS_WITHIN_S)

    def tell_health(self, number: int, changes: Iterable[HealthChange]) -> None:
        """Tell all that serve configuration `number`. What one has no room for waits, the last of each check."""
        for member in self.members:
            if member.number == number:
                member.unsaid.update((change[0], change) for change in changes)
                self._room(member)

    def notice(self) -> None:
        """Have all say that they drain."""
        for member in self.members:
            member.channel.say(Notice())

    def drain(self, members: Iterable[Member], pace: Pace, drain_s: float) -> None:
        """Have them leave, by their own clock within `drain_s`."""
        for member in list(members):
            was_leaving, member.state = member.state is State.LEAVING, State.LEAVING
            if not was_leaving:
                member.told_at = time.monotonic()
            member.kill_at = time.monotonic() + LEAVES_LATER_S + (drain_s if pace is not Pace.NOW else 0)
            if member.channel.is_open:
                member.channel.say(Drain(pace))
            elif not was_leaving:
                member.send(signal.SIGTERM)

    def has_one_who_speaks(self, within_s: float) -> bool:
        """Whether a worker that serves has said something so lately."""
        now = time.monotonic()
        return any(now - member.heard_at <= within_s for member in self.serving)

    def look(self, hangs_after_s: float | None = None) -> None:
        """Kill who should have left, and end who serves and has been silent for `hangs_after_s`; say who is silent."""
        now = time.monotonic()
        late_s = now - self._looked_at - LOOK_EVERY_S
        self._looked_at = now
        if late_s > LATE_S:  # this process was stopped, or got no CPU
            for member in self.members:
                member.heard_at = min(now, member.heard_at + late_s)
        for member in self.members:
            if hangs_after_s is not None and now - member.heard_at > hangs_after_s and member.state is State.SERVING:
                member.abort(hangs_after_s)
            if member.kill_at is not None and now >= member.kill_at:
                member.kill_at = None
                member.tell_stuck()
                member.kill()
            is_silent = member.state is State.SERVING and now - member.heard_at > SILENT_S
            if is_silent and not member.is_silent:
                log.error("worker says nothing: is it stopped, or busy?", extra={"worker": member.pid})
            if member.is_silent and not is_silent:
                log.info("worker speaks again", extra={"worker": member.pid})
            member.is_silent = is_silent

    def heirs(self, are_fresh: bool) -> tuple[HeirWorker, ...]:
        """Those whom a next program is to take over."""
        return tuple(
            HeirWorker(member.pid, member.channel.fileno(), member.state is not State.SERVING, are_fresh, member.slot)
            for member in self.members
            if member.channel.is_open
        )

    def release(self) -> tuple[HeirWorker, ...]:
        """Let go of all: they are fresh heirs, with descriptors of their own, and this crew is nobody's any more."""
        heirs = []
        for member in self.members:
            member.forget()
            if member.channel.is_open:
                heirs.append(HeirWorker(member.pid, os.dup(member.channel.fileno()), False, True, member.slot))
                member.channel.close()
            if member.process is not None:
                member.process.returncode = 0  # it goes on: whoever follows waits for it
        self.members = []
        return tuple(heirs)

    async def _ask_all(
        self,
        members: Iterable[Member],
        message: Callable[[int], ToWorker],
        within_s: float,
        sockets: Sequence[socket.socket] = (),
    ) -> dict[Member, str]:
        """Ask all at once; what kept those from it who did not do it."""
        asked: dict[Member, asyncio.Future[FromWorker]] = {}
        loop = asyncio.get_running_loop()
        first_id = self._last_id + 1
        for member in list(members):
            self._last_id += 1
            asked[member] = member.answers[self._last_id] = loop.create_future()
            if member.channel.is_open:
                member.channel.say(message(self._last_id), sockets)
            if not member.channel.is_open:
                self._fail(member, f"worker {member.pid} cannot be reached")
        failed: dict[Member, str] = {}
        if asked:
            await asyncio.wait(asked.values(), timeout=within_s)
        for number, (member, future) in enumerate(asked.items(), first_id):
            member.answers.pop(number, None)
            if not future.done():
                future.cancel()
                failed[member] = f"worker {member.pid} does not answer within {within_s:g}s"
                continue
            answer = future.result()
            if isinstance(answer, Done) and answer.problem:
                failed[member] = answer.problem
        return failed

    def _hear(self, member: Member, message: FromWorker) -> None:
        member.heard_at = time.monotonic()
        if isinstance(message, Counted):
            member.counts = message.counts
        if isinstance(message, Remembered):
            member.flights = message.flights
        if isinstance(message, Done | Counted | Remembered):
            future = member.answers.pop(message.id, None)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, Report):
            member.connections, member.in_flight, member.used = message.connections, message.in_flight, message.used
        elif isinstance(message, Leave):
            self._on_leave(member)

    def _room(self, member: Member) -> None:
        if member.unsaid and member.channel.is_idle:
            changes, member.unsaid = tuple(member.unsaid.values()), {}
            member.channel.say(Health(member.number, changes))

    def _lost(self, member: Member, why: str) -> None:
        if why:
            log.error("worker's channel is broken", extra={"worker": member.pid, "reason": why})
            if member.state is State.SERVING:  # it goes on without us, until another one is there
                self._on_leave(member)
        self._fail(member, f"worker {member.pid} has ended, and may have said why above")

    def _fail(self, member: Member, why: str) -> None:
        for number, future in list(member.answers.items()):
            del member.answers[number]
            if not future.done():
                future.set_result(Done(number, why))

    def _ended(self, member: Member) -> None:
        how = member.reap()
        if how is None:
            return
        member.forget()
        member.channel.finish()
        self.members.remove(member)
        if member.slot >= 0:
            self._board.leave(member.slot)
        self.ended = merged([self.ended, lasting(member.counts)])
        self._on_ended(member, how)


def _about(member: Member, failed: Mapping[Member, str]) -> dict[str, object]:
    return {"worker": member.pid, "reason": failed[member]}
