"""Events of a running director: kept in memory, written to its journal, handed to whoever follows them.

One rule: telling an event never waits and never fails. A disk that is full or hangs, or a follower that does not read,
costs events of theirs, which are counted and told, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from director.core.event import Event, EventKind
from director.eventfile import ALL, EventFile, Filter, Reading

log = logging.getLogger(__name__)

Item = TypeVar("Item")

RECENT = 1000
MOST_UNWRITTEN = 10_000
MOST_UNREAD = 10_000  # of one follower: 10,000 servers may go down at once
MOST_FOLLOWERS = 32
AT_ONCE = 500
RETRY_S, RETRY_AT_MOST_S = 1.0, 60.0
DISK_WAIT_S = 5.0


class Subscription:
    """What one follower has still to read. `is_cut`: it was too slow, and gets nothing after what is here."""

    def __init__(self, wanted: Filter) -> None:
        self.is_cut = False
        self.is_over = False
        self._wanted = wanted
        self._unread: deque[Event] = deque()
        self._woken = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Take `event`, if it is wanted."""
        if self.is_over or not self._wanted.takes(event):
            return
        if len(self._unread) >= MOST_UNREAD:
            self.is_cut = True
            self.end()
            return
        self._unread.append(event)
        self._woken.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.is_over = True
        self._woken.set()

    async def take(self, within_s: float) -> list[Event]:
        """What has come, AT_ONCE at most; nothing after `within_s`, or at the end."""
        if not self._unread and not self.is_over:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._woken.wait()
        return [self._unread.popleft() for _ in range(min(AT_ONCE, len(self._unread)))]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left and nothing comes."""
        return self.is_over and not self._unread


class EventLog:
    """The events of one director, whose journal is in `directory`. `recent` are the last ones."""

    def __init__(self, directory: Path, file: EventFile | None = None, now: Callable[[], float] = time.time) -> None:
        self.recent: deque[Event] = deque(maxlen=RECENT)
        self._file = file or EventFile(directory)
        self._now = now
        self._unwritten: deque[Event] = deque()
        self._not_written = 0
        self._trouble = ""
        self._woken = asyncio.Event()
        self._writing = asyncio.Lock()
        self._all_written = asyncio.Event()
        self._all_written.set()
        self._followers: set[Subscription] = set()

    def tell(self, event: Event) -> None:
        """Keep `event`, and hand it to those who follow. For the event loop's thread."""
        self.recent.append(event)
        for follower in self._followers:
            follower.offer(event)
        if len(self._unwritten) >= MOST_UNWRITTEN:
            self._not_written += 1
            return
        self._unwritten.append(event)
        self._all_written.clear()
        self._woken.set()

    async def run(self) -> None:
        """Write until cancelled."""
        failed = 0
        while True:
            await self._woken.wait()
            if not self._unwritten:
                self._woken.clear()
                self._all_written.set()
                continue
            failed = 0 if await self._write() else failed + 1
            if failed:
                await asyncio.sleep(min(RETRY_S * 2.0 ** min(failed - 1, 16), RETRY_AT_MOST_S))

    async def finish(self, within_s: float) -> None:
        """End all following, and wait a little until `run` has written what it has."""
        self.end_following()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._all_written.wait()
        if self._unwritten:
            log.error("the last events are not in the journal", extra={"count": len(self._unwritten)})

    def end_following(self) -> None:
        """All who follow get what they have not read yet, and no more."""
        for follower in self._followers:
            follower.end()

    async def read(
        self, wanted: Filter = ALL, limit: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[list[Event] | None, None]:
        """Batches of events, oldest first; with `limit` the last so many. `follow`: then those that come, each once.

        A batch without events says that time has passed; None, at the end, that more came than was read.
        Raises: OSError when the journal cannot be read.
        """
        subscription = Subscription(wanted)
        try:
            async with asyncio.timeout(DISK_WAIT_S), self._writing:
                # With `_writing` held each event is in the file, or unwritten, or not told yet. In a thread: a disk may
                # take its time; from there on no await.
                reading = await asyncio.to_thread(self._file.open)
                unwritten = [event for event in self._unwritten if wanted.takes(event)]
                if follow:
                    self._followers.add(subscription)
            with closing(reading):
                async for batch in _batches(_all(reading, wanted, unwritten, limit)):
                    yield batch
            while follow and not subscription.is_done:
                yield await subscription.take(1.0)
            if subscription.is_cut:
                yield None
        finally:
            self._followers.discard(subscription)

    @property
    def has_room(self) -> bool:
        """Whether one more may follow."""
        return len(self._followers) < MOST_FOLLOWERS

    async def _write(self) -> bool:
        """Write some of what is unwritten; whether that was possible."""
        async with self._writing:
            batch = list(islice(self._unwritten, AT_ONCE))
            lost = self._not_written
            if lost:
                batch.append(self._lost(lost))
            try:
                # In a thread: a disk may take its time. Appending goes on meanwhile, at the other end.
                await asyncio.to_thread(self._file.append, batch)
            except OSError as error:
                self._tell_trouble(error.strerror or str(error))
                return False
            self._not_written -= lost
            for _ in range(len(batch) - bool(lost)):
                self._unwritten.popleft()
        if self._trouble:
            log.info("events are written again", extra={"file": str(self._file.path), "not_written": lost})
            self._trouble = ""
        return True

    def _lost(self, count: int) -> Event:
        reason = f"{count} events were told here and are not in the journal: more came than could be written"
        return Event(self._now(), EventKind.DAEMON, now="events lost", reason=reason)

    def _tell_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            log.error(
                "events cannot be written, trying again",
                extra={"file": str(self._file.path), "reason": reason, "keeps": MOST_UNWRITTEN},
            )
        self._trouble = reason


def _all(reading: Reading, wanted: Filter, unwritten: Iterable[Event], limit: int | None) -> Iterator[Event]:
    def both() -> Iterator[Event]:
        yield from reading.events(wanted)
        yield from unwritten

    yield from both() if limit is None else deque(both(), maxlen=limit)


async def _batches(items: Iterator[Item]) -> AsyncIterator[list[Item]]:
    """`items` in lists; each is made in a thread, for they are read from a disk."""
    while batch := await asyncio.to_thread(lambda: list(islice(items, AT_ONCE))):
        yield batch
