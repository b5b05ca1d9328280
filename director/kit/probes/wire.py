"""Drives dialogues over sockets by callbacks: no task, no stream and no timer of its own for any of them.

One rule: an attempt ends exactly once, within its check's timeout, by calling `done` from the loop and never from
within `begin`; cancelled, it never does.

The sockets stand in an epoll of their own, edge-triggered, which the loop watches as one descriptor: a conversation
costs no registration with the loop, and one wake-up serves all that is ready. Deadlines share one timer, and the clock
is read once a wake-up.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import select
import time
from collections.abc import Callable
from itertools import count

from director.kit.alarm import Alarm
from director.kit.checks.base import Tls
from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.attempt import Attempt, Done, Keeper, Outcome
from director.kit.probes.dialogue import Dialogue
from director.kit.probes.failures import describe_os_error, failure
from director.kit.probes.kept import KeptConnection
from director.kit.probes.sockets import Sockets

_BATCH = 256
_READ_BYTES = 64 * 1024


class Engine:
    """The conversations that run in one loop. Made and used within that loop; `close` ends it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self.sockets = Sockets(self._epoll)
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._attempts: dict[int, Attempt | KeptConnection] = {}
        self._soon: list[tuple[Attempt, Outcome]] = []
        self._deadlines: list[tuple[float, int, Attempt]] = []
        self._sequence = count()
        self._alarm = Alarm(self._loop.call_at, self._expire)
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def begin(
        self,
        check: Check,
        dialogue: Dialogue,
        tls: Tls | None,
        done: Done,
        now: float | None = None,
        keeper: Keeper | None = None,
    ) -> Attempt:
        """Connect to `check.target` and hold `dialogue` there; `now` spares a look at the clock."""
        now = self.now() if now is None else now
        attempt = Attempt(self, check, dialogue, tls, done, now)
        attempt.keeper = keeper
        outcome = self._connect(attempt)
        if outcome is None:
            self._expect_end(now + check.timing.timeout_s, attempt)
        else:
            self.end_soon(attempt, outcome)
        return attempt

    def resume(
        self, kept: KeptConnection, check: Check, dialogue: Dialogue, done: Done, now: float, keeper: Keeper
    ) -> Attempt:
        """Hold `dialogue` over `kept`; over a new connection, once that turns out to be at its end."""
        attempt = Attempt(self, check, dialogue, kept.tls, done, now)
        attempt.keeper = keeper
        self._attempts[kept.number] = attempt
        self._expect_end(now + check.timing.timeout_s, attempt)
        outcome = attempt.resume(kept)
        if outcome is not None:
            self.end_soon(attempt, outcome)
        return attempt

    def keep(self, kept: KeptConnection) -> None:
        """Watch `kept` in place of the attempt that had its connection."""
        self._attempts[kept.number] = kept

    def drop(self, kept: KeptConnection) -> None:
        """Close `kept`."""
        if self._attempts.pop(kept.number, None) is not None:
            self.sockets.give_back(kept.peer, kept.route)

    def end_soon(self, attempt: Attempt, outcome: Outcome) -> None:
        """End `attempt` in the loop's next turn."""
        if not self._soon:
            self._loop.call_soon(self._end_those)
        self._soon.append((attempt, outcome))

    def _end_those(self) -> None:
        ending, self._soon = self._soon, []
        now = self.now()
        for attempt, outcome in ending:
            attempt.end(outcome, now)

    def _expect_end(self, deadline_at: float, attempt: Attempt) -> None:
        heapq.heappush(self._deadlines, (deadline_at, next(self._sequence), attempt))
        self._alarm.by(deadline_at)

    def _expire(self) -> None:
        now = self.now()
        deadlines = self._deadlines
        while deadlines:
            deadline_at, _, attempt = deadlines[0]
            if attempt.is_over:
                heapq.heappop(deadlines)
            elif deadline_at <= now:
                heapq.heappop(deadlines)
                attempt.end(ProbeResult(False, f"no answer within {attempt.timeout}", errno=errno.ETIMEDOUT), now)
            else:
                self._alarm.by(deadline_at)
                break
        self._drain()

    def _ready(self) -> None:
        """Some sockets have news: look at all that have."""
        more = True
        while more:
            events = self._epoll.poll(0, _BATCH)
            now = None
            for number, mask in events:
                attempt = self._attempts.get(number)
                if attempt is not None:
                    if now is None:
                        now = self.now()
                    attempt.step(mask, now)
            # Each socket given back has an event of its own, which nobody waits for: the loop is spared the wake-up.
            more = self.sockets.has_resting or len(events) == _BATCH
            self.sockets.turn_over()

    def _drain(self) -> None:
        if self.sockets.has_resting:
            self._ready()
        else:
            self.sockets.turn_over()

    def release(self, attempt: Attempt) -> None:
        """`attempt` is over: its socket serves another one."""
        if self._attempts.get(attempt.number) is attempt:
            del self._attempts[attempt.number]
            self.sockets.give_back(attempt.peer, attempt.check.route)
            if attempt.kept is not None:
                attempt.kept.lost(None)

    def reconnect(self, attempt: Attempt) -> Outcome | None:
        """Give `attempt` another connection; its deadline stays."""
        self.release(attempt)
        attempt.kept = None
        return self._connect(attempt)

    def _connect(self, attempt: Attempt) -> Outcome | None:
        try:
            attempt.peer = self.sockets.connect(attempt.check)
        except ProbeError as lack:
            return lack
        except OSError as met:
            return failure(met, attempt.check)
        attempt.number = attempt.peer.fileno()
        self._attempts[attempt.number] = attempt
        return None

    def close(self) -> None:
        """Cancel what runs and close every socket."""
        for held in list(self._attempts.values()):
            if isinstance(held, Attempt):
                held.cancel()
            else:
                self.drop(held)
        self._soon.clear()
        self._deadlines.clear()
        self._alarm.off()
        self._loop.remove_reader(self._epoll.fileno())
        self.sockets.close()
        self._epoll.close()


async def converse(check: Check, dialogue: Dialogue, tls: Tls | None) -> ProbeResult:
    """Hold one conversation with `check.target`.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError and defects.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def done(outcome: Outcome, _: float) -> None:
        if not future.done():  # cancelled in the same instant
            future.set_result(outcome)

    try:
        engine = Engine()
    except OSError as error:
        raise ProbeError(
            f"{describe_os_error(error)} on this host: raise its limit of open files (LimitNOFILE=)"
        ) from error
    try:
        engine.begin(check, dialogue, tls, done)
        outcome = await future
    finally:
        engine.close()
    if isinstance(outcome, ProbeResult):
        return outcome
    raise outcome
