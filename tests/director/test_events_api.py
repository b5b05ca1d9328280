"""Events over the admin socket and from the command line: asked for, followed, and read by nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from director import eventlog
from director.api import events as api
from director.api.client import Client, NotRunningError
from director.api.server import serve
from director.cli.root import cli
from director.core.event import Event, EventKind
from director.eventfile import EventFile
from director.eventlog import EventLog
from director.kit.adminsocket import listening
from director.kit.errors import ConfigError, DirectorError
from tests.director.fakes import Stub, until

pytestmark = pytest.mark.unit

Story = Callable[[EventLog], Awaitable[None]]


def event(number: int, virtual: str = "web", real: str = "a") -> Event:
    return Event(1e9 + number, EventKind.HEALTH, virtual, real, "up", "down", "refused")


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[EventLog]:
    events = EventLog(directory)
    with listening(directory / "d.sock") as listener:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            writer = group.create_task(events.run())
            try:
                async with serve(Stub(), listener, events):
                    yield events
            finally:
                writer.cancel()


def run(directory: Path, story: Story) -> None:
    async def main() -> None:
        async with serving(directory) as events:
            await story(events)

    asyncio.run(main())


class Follower:
    """A client that follows, in a thread."""

    def __init__(self, path: Path) -> None:
        self.found: list[int] = []
        self.ended = ""
        self._path = path
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for each in Client(self._path).events(follow=True):
                self.found.append(int(each["at"] - 1e9))
            self.ended = "in peace"
        except DirectorError as error:
            self.ended = str(error)

    async def end(self) -> str:
        await asyncio.to_thread(self._thread.join, 10)
        return self.ended


def test_what_is_asked_for_comes_from_the_client(tmp_path: Path) -> None:
    async def story(events: EventLog) -> None:
        for number in range(1200):
            events.tell(event(number, "web" if number % 2 else "mail", "ab"[number % 3 == 0]))

        def ask() -> None:
            client = Client(tmp_path / "d.sock")
            assert [each["at"] - 1e9 for each in client.events()] == list(range(1200))
            assert [each["at"] - 1e9 for each in client.events(limit=2)] == [1198, 1199]
            assert len(list(client.events(since=1e9 + 1000))) == 200
            (last,) = client.events(virtual_server="web", real_server="b", limit=1)
            assert last == event(1197, "web", "b").plain()
            assert list(client.events(virtual_server="other")) == []

        await asyncio.to_thread(ask)

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=yesterday", "since 'yesterday' is no unix time"),
        ("since=nan", "since 'nan' is no unix time"),
        ("limit=0", "limit '0' is out of range: use 1 to"),
        ("limit=-1", "limit '-1' is out of range"),
        ("limit=" + "9" * 5000, "is out of range"),
        ("follow=yes", "follow 'yes' is neither 0 nor 1"),
        ("sinse=1", "'sinse' is no parameter of events"),
    ],
)
def test_a_question_that_is_none_is_told(tmp_path: Path, query: str, said: str) -> None:
    async def story(_: EventLog) -> None:
        client = Client(tmp_path / "d.sock")
        with pytest.raises(ConfigError) as caught:
            await asyncio.to_thread(lambda: client._ask("GET", f"/v1/events?{query}"))
        assert said in str(caught.value)

    run(tmp_path, story)


def test_followers_get_what_was_and_what_comes_until_the_end(tmp_path: Path) -> None:
    followers: list[Follower] = []

    async def main() -> None:
        async with serving(tmp_path) as events:
            for number in range(5):
                events.tell(event(number))
            followers.extend(Follower(tmp_path / "d.sock") for _ in range(3))
            await until(lambda: all(len(each.found) == 5 for each in followers))
            for number in range(5, 3000):
                events.tell(event(number))
            await until(lambda: all(len(each.found) == 3000 for each in followers))
            began = time.monotonic()
        assert time.monotonic() - began < 1.9
        assert [await each.end() for each in followers] == ["in peace"] * 3

    asyncio.run(main())
    assert all(each.found == list(range(3000)) for each in followers)


def test_a_follower_that_goes_away_is_noticed_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MOST_FOLLOWERS", 2)

    async def story(events: EventLog) -> None:
        def follow() -> socket.socket:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            peer.connect(str(tmp_path / "d.sock"))
            peer.send(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            assert peer.recv(12) == b"HTTP/1.1 200"
            return peer

        peers = [await asyncio.to_thread(follow) for _ in range(2)]
        assert not events.has_room
        with pytest.raises(DirectorError, match="too many follow already"):
            await asyncio.to_thread(lambda: list(Client(tmp_path / "d.sock").events(follow=True)))
        assert await asyncio.to_thread(lambda: list(Client(tmp_path / "d.sock").events())) == []
        peers[0].close()
        await until(lambda: events.has_room)
        peers[1].close()

    run(tmp_path, story)


def test_an_idle_follower_hears_that_the_director_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ALIVE_EVERY_S", 0.0)

    async def story(_: EventLog) -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "d.sock")
        writer.write(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(6) == b"1\r\n\n\r\n"
        writer.transport.abort()

    run(tmp_path, story)


def test_a_follower_that_never_reads_costs_a_bounded_amount_and_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_WITHIN_S", 0.3)

    async def story(events: EventLog) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(str(tmp_path / "d.sock"))
            peer.send(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            await until(lambda: bool(events._followers))
            for number in range(60_000):
                events.tell(event(number))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await until(lambda: not events._followers)
        follower = Follower(tmp_path / "d.sock")
        await until(lambda: bool(follower.found))
        events.end_following()
        assert await follower.end() == "in peace"

    run(tmp_path, story)


def test_a_slow_follower_is_told_that_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MOST_UNREAD", 10)

    async def story(events: EventLog) -> None:
        follower = Follower(tmp_path / "d.sock")
        await until(lambda: bool(events._followers))
        for number in range(20):
            events.tell(event(number))
        assert await follower.end() == api.CUT
        assert follower.found == list(range(10))

    run(tmp_path, story)


def test_a_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()

    async def story(_: EventLog) -> None:
        with pytest.raises(DirectorError, match="could not read the journal of events: Is a directory"):
            await asyncio.to_thread(lambda: list(Client(tmp_path / "d.sock").events()))

    run(tmp_path, story)


# The command.


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventFile]:
    monkeypatch.setenv("DIRECTOR_SOCKET", str(tmp_path / "d.sock"))
    monkeypatch.setenv("DIRECTOR_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    yield EventFile(tmp_path)
    monkeypatch.undo()
    time.tzset()


def told(*words: str) -> tuple[int, list[str], str]:
    found = CliRunner().invoke(cli, ["events", *words])
    return found.exit_code, found.stdout.splitlines(), found.stderr


def test_without_a_director_the_journal_answers_and_that_is_said(journal: EventFile, tmp_path: Path) -> None:
    journal.append([event(0), event(1, "mail", "b")])
    line = "2001-09-09 03:46:40  web/a: health up -> down: refused"
    notes = f"note: no director runs: this is the journal in {tmp_path}\n"
    assert told("--vs", "web") == (0, [line], notes)
    code, lines, _ = told("--json", "--rs", "b")
    assert (code, [json.loads(each) for each in lines]) == (0, [event(1, "mail", "b").plain()])
    assert told("--since", "2001-09-09T03:46:41", "--json")[1] == lines
    assert told("--since", "2001-09-09T01:46:41Z", "--json")[1] == lines
    assert told("--since", "1h") == (0, [], notes + "note: no such event is known\n")
    assert "no director runs to follow" in told("--follow")[2]


def test_only_the_last_ones_come_unless_since_is_said(journal: EventFile) -> None:
    journal.append(map(event, range(300)))
    assert len(told()[1]) == 100
    assert told()[1][-1].startswith("2001-09-09 03:51:39")
    assert len(told("--since", "2001-01-01")[1]) == 300


@pytest.mark.parametrize("since", ["yesterday", "0001-01-01", "12", ""])
def test_a_time_that_is_none_is_told(journal: EventFile, since: str) -> None:
    code, _, said = told("--since", since)
    assert code == 2
    assert "is neither a duration nor a time: write how long ago, such as 2h" in " ".join(said.split())


def test_a_director_is_asked_and_its_end_is_said(journal: EventFile, tmp_path: Path) -> None:
    found: list[tuple[int, list[str], str]] = []

    async def main() -> None:
        async with serving(tmp_path) as events:
            events.tell(event(0))
            follow = threading.Thread(target=lambda: found.append(told("--follow", "--json")))
            follow.start()
            await until(lambda: bool(events._followers))
            events.tell(event(1))
            events.end_following()
            await asyncio.to_thread(follow.join, 10)

    asyncio.run(main())
    ((code, lines, said),) = found
    assert (code, said) == (0, "note: the director has stopped\n")
    assert [json.loads(each) for each in lines] == [event(0).plain(), event(1).plain()]
    with pytest.raises(NotRunningError):
        list(Client(tmp_path / "d.sock").events())
