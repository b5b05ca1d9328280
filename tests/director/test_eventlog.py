"""The journal of events on a real disk, and on one that fails."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import stat
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

import pytest

from director import eventlog
from director.core.event import Event, EventKind
from director.eventfile import EventFile, Filter, Reading, read
from director.eventlog import EventLog
from tests.director.fakes import until

pytestmark = pytest.mark.unit


def event(number: float, virtual: str = "web", real: str = "a") -> Event:
    return Event(1e9 + number, EventKind.HEALTH, virtual, real, "up", "down", "x" * 50)


def numbers(events: Iterable[Event]) -> list[int]:
    return [int(each.at - 1e9) for each in events]


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    EventFile(tmp_path / "new" / "state").append(map(event, range(3)))
    EventFile(tmp_path / "new" / "state").append([event(3)])
    assert numbers(read(tmp_path / "new" / "state")) == [0, 1, 2, 3]
    assert stat.S_IMODE((tmp_path / "new" / "state" / "events.jsonl").stat().st_mode) & ~0o640 == 0


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(read(tmp_path / "nowhere")) == []


def test_the_size_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    file = EventFile(tmp_path, most_bytes=2000, files=3)
    for number in range(100):
        file.append([event(number)])
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"events.jsonl", "events.jsonl.1", "events.jsonl.2"}
    assert max(sizes.values()) <= 2000
    found = numbers(read(tmp_path))
    assert found == list(range(found[0], 100))
    assert len(found) > 10


@pytest.mark.parametrize("torn", range(1, 40, 3))
def test_a_line_that_a_crash_has_torn_costs_no_other(tmp_path: Path, torn: int) -> None:
    file = EventFile(tmp_path)
    file.append([event(0), event(1)])
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-torn])
    file.append([event(2)])
    assert numbers(read(tmp_path)) == [0, *([1] if torn == 1 else []), 2]


GARBAGE = [
    b"\xff\xfe\n",
    b"[]\n",
    b"{}\n",
    b"\n",
    b"[" * 100_000 + b"\n",
    b"x" * 200_000 + b"\n",
    b'{"at":1e999,"kind":1}\n',
]


@pytest.mark.parametrize("line", GARBAGE)
def test_garbage_in_the_journal_is_left_out(tmp_path: Path, line: bytes) -> None:
    file = EventFile(tmp_path)
    file.append([event(0)])
    with file.path.open("ab") as journal:
        journal.write(line)
    file.append([event(1)])
    assert numbers(read(tmp_path)) == [0, 1]


def test_what_is_asked_for_is_found(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.append([event(0, "web", "a"), event(1, "web", "b"), event(2, "mail", "a"), event(3, "web", "")])
    asked = [
        (Filter(), None, [0, 1, 2, 3]),
        (Filter(1e9 + 1), None, [1, 2, 3]),
        (Filter(virtual_server="web"), None, [0, 1, 3]),
        (Filter(real_server="a"), None, [0, 2]),
        (Filter(virtual_server="web", real_server="a"), None, [0]),
        (Filter(virtual_server="down"), None, []),  # a word of the line, and no name
        (Filter(), 2, [2, 3]),
        (Filter(real_server="a"), 1, [2]),
    ]
    for wanted, limit, found in asked:
        assert numbers(read(tmp_path, wanted, limit)) == found


def test_reading_is_lazy_and_a_rotation_meanwhile_loses_nothing(tmp_path: Path) -> None:
    file = EventFile(tmp_path, most_bytes=2000, files=3)
    file.append(map(event, range(5)))
    reading = read(tmp_path)
    assert numbers(itertools.islice(reading, 2)) == [0, 1]
    for number in range(5, 12):
        file.append([event(number)])
    assert (tmp_path / "events.jsonl.1").exists()
    assert numbers(reading) == [2, 3, 4]


# The log of a running director.


class Disk(EventFile):
    """One that fails while `error` is set, and answers only while `open_` is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.error = 0
        self.answers = threading.Event()
        self.answers.set()

    def append(self, events: Iterable[Event]) -> None:
        assert self.answers.wait(10)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().append(events)


def run(directory: Path, story: Callable[[EventLog, Disk], Awaitable[None]]) -> None:
    async def main() -> None:
        disk = Disk(directory)
        events = EventLog(directory, disk)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            writer = group.create_task(events.run())
            try:
                await story(events, disk)
            finally:
                disk.answers.set()
                writer.cancel()

    asyncio.run(main())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "director.eventlog"]


async def collect(events: EventLog, limit: int | None = None) -> list[int]:
    return [int(each.at - 1e9) async for batch in events.read(limit=limit) for each in batch or ()]


def test_events_are_written_and_kept_in_memory(tmp_path: Path) -> None:
    async def story(events: EventLog, _: Disk) -> None:
        for number in range(1200):
            events.tell(event(number))
        assert numbers(events.recent) == list(range(200, 1200))
        await events.finish(5)
        assert numbers(read(tmp_path)) == list(range(1200))

    run(tmp_path, story)


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(events: EventLog, disk: Disk) -> None:
        disk.answers.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(20_000):
            events.tell(event(number))
            if not number:
                await asyncio.sleep(0.01)
        assert loop.time() - began < 1
        assert len(events.recent) == 1000
        await events.finish(0.01)
        assert "the last events are not in the journal" in told(caplog)
        disk.answers.set()
        await events.finish(10)

    run(tmp_path, story)
    found = list(read(tmp_path))
    assert numbers(each for each in found if each.kind is EventKind.HEALTH) == list(range(10_000))
    (lost,) = (each for each in found if each.kind is EventKind.DAEMON)
    assert lost.now == "events lost"
    assert lost.reason.startswith("10000 events were told here")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_is_told_once_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(eventlog, "RETRY_S", 0.001)
    caplog.set_level(logging.INFO)

    async def story(events: EventLog, disk: Disk) -> None:
        disk.error = number
        events.tell(event(0))
        await until(lambda: bool(told(caplog)))
        events.tell(event(1))
        await asyncio.sleep(0.02)  # it tries again and again
        assert await collect(events) == [0, 1]  # what is not on the disk is known all the same
        disk.error = 0
        await events.finish(5)
        assert await collect(events) == [0, 1]

    run(tmp_path, story)
    assert told(caplog) == ["events cannot be written, trying again", "events are written again"]
    assert numbers(read(tmp_path)) == [0, 1]


def test_a_really_full_disk_leaves_a_journal_that_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        file = EventFile(disk)

        def fill() -> None:
            for number in range(1000):
                file.append([event(number)])

        with pytest.raises(OSError, match="No space"):
            fill()
        before = numbers(read(disk))
        assert before == list(range(len(before)))
        assert not file.path.read_bytes().endswith(b"\n")  # torn in the middle of a line
        os.truncate(file.path, 4000)
        file.append([event(7777)])
        assert numbers(read(disk))[-2:] == [max(n for n in numbers(read(disk)) if n < 7777), 7777]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_follower_gets_each_event_once_whatever_is_on_its_way_to_the_disk(tmp_path: Path) -> None:
    async def story(events: EventLog, disk: Disk) -> None:
        found: list[int] = []

        async def follow() -> None:
            async with aclosing(events.read(follow=True)) as batches:
                async for batch in batches:
                    found.extend(numbers(batch or ()))

        async with asyncio.TaskGroup() as group:
            for number in range(2000):
                events.tell(event(number))
                if number == 700:
                    group.create_task(follow())
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(found) >= 2000)
            events.end_following()
        assert found == list(range(2000))

    run(tmp_path, story)


def test_a_follower_who_does_not_read_is_cut_and_told(tmp_path: Path) -> None:
    async def story(events: EventLog, _: Disk) -> None:
        async with aclosing(events.read(follow=True)) as batches:
            assert await anext(batches) == []  # nothing within a second
            for number in range(eventlog.MOST_UNREAD + 10):
                events.tell(event(number))
            found: list[int] = []
            last: list[Event] | None = []
            async for last in batches:
                found += numbers(last or ())
            assert last is None
            assert found == list(range(eventlog.MOST_UNREAD))
        assert events.has_room

    run(tmp_path, story)


def test_a_reading_does_not_wait_for_ever_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "DISK_WAIT_S", 0.05)

    async def story(events: EventLog, disk: Disk) -> None:
        disk.answers.clear()
        events.tell(event(0))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await collect(events)

    run(tmp_path, story)


def test_a_disk_that_does_not_open_the_journal_holds_up_who_reads_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "DISK_WAIT_S", 0.05)
    opens = threading.Event()

    class Slow(Disk):
        def open(self) -> Reading:
            assert opens.wait(10)
            return super().open()

    async def main() -> None:
        events = EventLog(tmp_path, Slow(tmp_path))
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            await collect(events)
        assert loop.time() - began < 5
        opens.set()
        assert await collect(events) == []

    asyncio.run(main())


def test_the_last_ones_count_what_is_not_written_yet(tmp_path: Path) -> None:
    async def story(events: EventLog, disk: Disk) -> None:
        for number in range(5):
            events.tell(event(number))
        await events.finish(5)
        disk.error = errno.EIO
        events.tell(event(5))
        await asyncio.sleep(0.01)
        assert await collect(events, limit=3) == [3, 4, 5]

    run(tmp_path, story)
