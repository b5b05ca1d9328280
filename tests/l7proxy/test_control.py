"""What a supervisor and its workers say to each other, on the wire between them."""

from __future__ import annotations

import asyncio
import doctest
import itertools
import os
import socket
import string
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy import counts
from l7proxy.control import (
    FROM_WORKER,
    LONGEST_BYTES,
    MOST_WAITING_BYTES,
    TO_WORKER,
    Abandon,
    Channel,
    Collect,
    Commit,
    ControlError,
    Counted,
    Done,
    Drain,
    FromWorker,
    Health,
    Leave,
    Notice,
    Pace,
    Prepare,
    Report,
    ToWorker,
)
from l7proxy.core.metering import merged
from l7proxy.counts import lasting

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(codec="utf-8"), max_size=50)
NAME = st.text(string.ascii_letters + "/", max_size=20)
ID = st.integers(0, 2**53)
SHARE = st.floats(0, 2)
CHANGES = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["up", "down", "pending"]), st.booleans(), TEXT), max_size=4
).map(tuple)
FILES = st.dictionaries(TEXT, TEXT, max_size=3)
ORDERS: st.SearchStrategy[ToWorker] = st.one_of(
    st.builds(Prepare, ID, ID, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), ID, CHANGES, FILES, version=ID),
    st.builds(Commit, ID),
    st.builds(Abandon, ID),
    st.builds(Health, ID, CHANGES),
    st.builds(Notice),
    st.builds(Drain, st.sampled_from(Pace)),
    st.builds(Collect, ID),
)
ANSWERS: st.SearchStrategy[FromWorker] = st.one_of(
    st.builds(Done, ID, TEXT),
    st.builds(Counted, ID, st.dictionaries(NAME, SHARE, max_size=4)),
    st.builds(Report, ID, ID, SHARE),
    st.builds(Leave),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@given(st.lists(ORDERS, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_orders_arrive_as_they_were_given_however_they_are_cut(orders: list[ToWorker], cuts: list[int]) -> None:
    waiting = bytearray()
    heard: list[ToWorker] = []
    for piece in split(b"".join(map(TO_WORKER.encode, orders)), cuts):
        waiting += piece
        heard += TO_WORKER.decode(waiting)
    assert heard == orders
    assert not waiting


@given(st.lists(ANSWERS, max_size=5))
def test_answers_arrive_as_they_were_given(answers: list[FromWorker]) -> None:
    assert list(FROM_WORKER.decode(bytearray(b"".join(map(FROM_WORKER.encode, answers))))) == answers


@pytest.mark.parametrize(
    "said",
    [
        (LONGEST_BYTES + 1).to_bytes(4),
        b"\0\0\0\0",
        b"\0\0\0\x02{}",
        b"\0\0\0\x04\xff\xff\xff\xff",
        b'\0\0\0\x10{"kind": "what"}',
        b'\0\0\0\x12{"kind": "commit"}',
        TO_WORKER.encode(Commit(1)).replace(b"1", b"x"),
    ],
)
def test_what_is_no_message_is_an_error_that_says_so(said: bytes) -> None:
    with pytest.raises(ControlError, match="a message"):
        list(TO_WORKER.decode(bytearray(said)))


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ControlError, match="too long"):
        FROM_WORKER.encode(Done(1, "x" * LONGEST_BYTES))


class Ends:
    """A channel's two ends in one loop, and what each has heard."""

    def __init__(self) -> None:
        one, other = socket.socketpair()
        self.orders: list[ToWorker] = []
        self.answers: list[FromWorker] = []
        self.sockets: list[socket.socket] = []
        self.lost: list[str] = []
        self.supervisor = Channel(
            one, TO_WORKER, FROM_WORKER, lambda said, _: self.answers.append(said), self.lost.append
        )
        self.worker = Channel(other, FROM_WORKER, TO_WORKER, self._ordered, lambda why: self.lost.append(f"!{why}"))

    def _ordered(self, said: ToWorker, sockets: deque[socket.socket]) -> None:
        self.orders.append(said)
        self.sockets += sockets
        sockets.clear()

    async def __aenter__(self) -> Ends:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.supervisor.close()
        self.worker.close()
        for each in self.sockets:
            each.close()


async def until(values: list[object] | list[ToWorker] | list[FromWorker] | list[str], count: int = 1) -> None:
    async with asyncio.timeout(10):
        while len(values) < count:  # noqa: ASYNC110 -- bounded
            await asyncio.sleep(0.001)


async def more_sockets_than_one_call_takes() -> None:
    given = [socket.socket() for _ in range(600)]
    numbers = [os.fstat(each.fileno()).st_ino for each in given]
    async with Ends() as ends:
        ends.supervisor.say(Commit(1), given)
        for each in given:
            each.close()  # what was said has copies
        ends.supervisor.say(Commit(2))
        await until(ends.orders, 2)
        assert ends.orders == [Commit(1), Commit(2)]
        assert [os.fstat(each.fileno()).st_ino for each in ends.sockets] == numbers
        assert not any(each.get_inheritable() for each in ends.sockets)


async def a_large_message_arrives_whole() -> None:
    async with Ends() as ends:
        text = "é" * 3_000_000
        order = Prepare(1, 1, "f", text, (), 1, ())
        ends.supervisor.say(order)
        ends.supervisor.say(Notice())
        assert not ends.supervisor.is_idle
        await until(ends.orders, 2)
        assert ends.orders == [order, Notice()]
        assert ends.supervisor.is_idle


async def what_was_said_before_the_end_is_heard() -> None:
    async with Ends() as ends:
        for number in range(100):
            ends.worker.say(Done(number))
        ends.worker.close()
        ends.supervisor.say(Notice())  # into the void
        ends.supervisor.finish()
        assert ends.answers == [Done(number) for number in range(100)]
        assert ends.lost == [""]


async def garbage_ends_the_channel_and_says_why() -> None:
    async with Ends() as ends:
        os.write(ends.worker.fileno(), b"\0\0\0\x02{}")
        await until(ends.lost, 2)
        assert ends.lost[0].startswith("a message that means nothing")
        assert ends.lost[1] == "!"  # the other end sees that it is gone


async def who_takes_nothing_loses_the_channel_and_no_more() -> None:
    one, other = socket.socketpair()
    lost: list[str] = []
    channel = Channel(one, TO_WORKER, FROM_WORKER, lambda *_: None, lost.append)
    order = Prepare(1, 1, "f", "x" * (LONGEST_BYTES - 1000), (), 1, ())
    with other:
        for _ in range(MOST_WAITING_BYTES // LONGEST_BYTES + 1):
            channel.say(order)
        assert lost
        assert "takes nothing" in lost[0]
        channel.say(Notice())
        assert not channel.is_open


@pytest.mark.parametrize(
    "case",
    [
        more_sockets_than_one_call_takes,
        a_large_message_arrives_whole,
        what_was_said_before_the_end_is_heard,
        garbage_ends_the_channel_and_says_why,
        who_takes_nothing_loses_the_channel_and_no_more,
    ],
    ids=lambda case: case.__name__,
)
def test_channel(case: object) -> None:
    import uvloop

    assert callable(case)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case())


def test_counts_add_up_and_only_what_lasts_outlives_its_worker() -> None:
    one = {"requests": 3.0, "in_flight": 1.0, "upstreams/u/a/requests": 3.0, "upstreams/u/a/in_flight": 1.0}
    assert merged([one, lasting(one)]) == {
        "requests": 6,
        "in_flight": 1,
        "upstreams/u/a/requests": 6,
        "upstreams/u/a/in_flight": 1,
    }
    assert doctest.testmod(counts).failed == 0
