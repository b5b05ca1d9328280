"""Tells receivers of events: one bounded queue and one worker for each notification.

One rule: telling never waits and never fails, and a receiver that hangs delays nobody but itself. Events of one
notification arrive in order; what does not arrive is tried again, with pauses that double, until it is too old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from director.core.event import Event, EventKind
from director.core.metrics import Delivery
from director.core.notifying import Mail, Notification, Receiver
from director.receivers.delivery import NotDeliveredError, RefusedError, at_once, deliver

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
RETRY_S, RETRY_AT_MOST_S = 1.0, 60.0

Tell = Callable[[Event], None]
Deliver = Callable[[Receiver, Sequence[Event]], Awaitable[None]]


class Notifier:
    """The notifications of a running director. `report` is told what becomes of them, as events."""

    def __init__(self, report: Tell, send: Deliver = deliver) -> None:
        self._report = report
        self._send = send
        self._used: tuple[Notification, ...] = ()
        self._workers: dict[str, _Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def use(self, notifications: tuple[Notification, ...]) -> None:
        """Have these from now on; one that stays, by its name, keeps what it has still to tell."""
        if notifications is self._used:
            return
        self._used = notifications
        wanted = {each.name: each for each in notifications}
        for name in self._workers.keys() - wanted.keys():
            self._workers.pop(name).tell_dropped("it is not in the configuration any more")
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()
        for name, notification in wanted.items():
            if name in self._workers:
                self._workers[name].change(notification)
            else:
                self._workers[name] = _Worker(notification, self._report, self._send)
                self._start(name)

    def tallies(self) -> dict[str, Delivery]:
        """What has become of what was to be told, by notification."""
        return {name: worker.tally() for name, worker in self._workers.items()}

    def tell(self, event: Event) -> None:
        """Have `event` told to all who want it. For the event loop's thread."""
        for worker in self._workers.values():
            worker.offer(event)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in self._workers:
                self._start(name)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None
                for task in self._tasks.values():
                    task.cancel()

    async def finish(self, within_s: float) -> None:
        """Wait a little until what was told has arrived; the rest is in the journal only."""
        workers = tuple(self._workers.values())
        for worker in workers:
            worker.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for worker in workers:
                    await worker.idle.wait()
        for worker in workers:
            worker.tell_dropped("the director stops")

    def _start(self, name: str) -> None:
        if self._group is not None:
            self._tasks[name] = self._group.create_task(self._workers[name].run(), name=f"notification {name}")


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    event: Event
    told_at: float


class _Worker:
    """One notification's queue, and who empties it. `idle` is set while nothing waits."""

    def __init__(self, notification: Notification, report: Tell, send: Deliver) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._notification = notification
        self._report = report
        self._send = send
        self._queue: deque[_Waiting] = deque()
        self._count = 0
        self._lost = 0
        self._delivered = 0
        self._lost_in_all = 0
        self._under_way = 0  # until this number, while it is being delivered
        self._dropped_under_way = 0
        self._trouble = ""
        self._woken = asyncio.Event()
        self._nudged = asyncio.Event()
        self._hurries = False

    def offer(self, event: Event) -> None:
        """Take `event`, if it is wanted; where there is no room, the oldest goes."""
        if not self._notification.wants(event):
            return
        if len(self._queue) >= MOST_WAITING:
            oldest = self._queue.popleft()
            if oldest.number <= self._under_way:
                self._dropped_under_way += 1
            else:
                self._lost += 1
        self._count += 1
        self._queue.append(_Waiting(self._count, event, time.monotonic()))
        self.idle.clear()
        self._woken.set()

    def tally(self) -> Delivery:
        """What has become of it all."""
        return Delivery(len(self._queue), bool(self._trouble), self._delivered, self._lost_in_all + self._lost)

    def change(self, notification: Notification) -> None:
        """Go on as `notification`, at once if this one differs."""
        if notification != self._notification:
            self._notification = notification
            self._nudged.set()

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._hurries = True
        self._nudged.set()

    def tell_dropped(self, why: str) -> None:
        """Log that what still waits will not be told."""
        if self._queue:
            log.error("notifications are given up", extra={**self._fields(), "count": len(self._queue), "reason": why})

    async def run(self) -> None:
        """Deliver until cancelled."""
        tries = 0
        while True:
            if not self._queue:
                self.idle.set()
                self._woken.clear()
                await self._woken.wait()
                receiver = self._notification.receiver
                if isinstance(receiver, Mail) and not self._hurries:
                    await self._pause(receiver.bundle_s)
            self._forget_old()
            if self._queue:
                tries = 0 if await self._deliver() else tries + 1
            self._tell_lost()
            if tries:
                await self._pause(min(RETRY_S * 2.0 ** min(tries - 1, 16), RETRY_AT_MOST_S))

    async def _deliver(self) -> bool:
        """Try once; whether there is nothing to try again."""
        receiver = self._notification.receiver
        batch = list(islice(self._queue, at_once(receiver)))
        last = self._under_way = batch[-1].number
        arrived = refused = False
        try:
            await self._send(receiver, [each.event for each in batch])
            arrived = True
        except RefusedError as error:
            refused = True
            self._tell_trouble(f"refused: {error}")
        except NotDeliveredError as error:
            self._tell_trouble(str(error))
        except Exception as error:
            log.exception("a notification failed in itself", extra=self._fields())
            self._tell_trouble(f"internal error: {type(error).__name__}")
        dropped, self._dropped_under_way, self._under_way = self._dropped_under_way, 0, 0
        if arrived:
            self._delivered += self._forget_until(last) + dropped
            self._tell_arrival()
            return True
        self._lost += dropped + (self._forget_until(last) if refused else 0)
        return refused

    def _forget_until(self, number: int) -> int:
        """Take what was told from the queue, which may have lost some of it meanwhile; how many there were."""
        before = len(self._queue)
        while self._queue and self._queue[0].number <= number:
            self._queue.popleft()
        return before - len(self._queue)

    def _forget_old(self) -> None:
        oldest_at = time.monotonic() - self._notification.give_up_s
        while self._queue and self._queue[0].told_at < oldest_at:
            self._queue.popleft()
            self._lost += 1

    def _tell_trouble(self, reason: str) -> None:
        if not self._trouble:
            log.warning("a notification does not arrive", extra={**self._fields(), "reason": reason})
            self._tell("fails", reason)
        self._trouble = reason

    def _tell_arrival(self) -> None:
        if self._trouble:
            self._trouble = ""
            log.info("notifications arrive again", extra=self._fields())
            self._tell("arrives", "")

    def _tell_lost(self) -> None:
        if self._lost:
            count, self._lost = self._lost, 0
            self._lost_in_all += count
            log.error("notifications are given up", extra={**self._fields(), "count": count, "reason": self._trouble})
            told = "1 event was" if count == 1 else f"{count} events were"
            self._tell("lost", f"{told} not told{': ' + self._trouble if self._trouble else ''}")

    def _tell(self, now: str, reason: str) -> None:
        label = self._notification.label
        self._report(Event(time.time(), EventKind.NOTIFICATION, now=now, reason=reason, check=label))

    def _fields(self) -> dict[str, str]:
        return {"notification": self._notification.name, "to": str(self._notification.receiver)}

    async def _pause(self, seconds: float) -> None:
        self._nudged.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
