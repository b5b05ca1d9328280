"""max_connections and queue: who goes to a backend, who waits, and that every place is given back."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    Running,
    abort,
    fields_of,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
)
from tests.wire.held import Gate, begun
from tests.wire.test_running import reloaded
from tests.wire.test_workers import Workers, patiently, several

pytestmark = pytest.mark.unit


def taken(proxy: Running) -> int:
    """Places that somebody has, or waits for."""
    upstream = proxy.server.proxy.snapshot.upstreams["up"]
    places = [state.places.count.total() for state in upstream.backends.values() if state.places is not None]
    return sum(places) + (len(upstream.line) if upstream.line is not None else 0)


def waiting(proxy: Running) -> int:
    line = proxy.server.proxy.snapshot.upstreams["up"].line
    return len(line) if line is not None else 0


def waits(proxy: Running, count: int) -> bool:
    return waiting(proxy) == count


def asks(proxy: Running, target: str = "/", *lines: str) -> asyncio.Future[bytes]:
    return begun(proxy.get(target, *lines))


async def all_of(asked: list[asyncio.Future[bytes]]) -> list[int]:
    return [status_of(answer) for answer in await asyncio.gather(*asked)]


@live
async def test_a_full_backend_gets_no_more_and_another_one_does(tmp_path: Path) -> None:
    one, other = Gate(), Gate()
    origins = Origin(one.answer, "one"), Origin(other.answer, "other")
    async with running(tmp_path, *origins, upstream="    max_connections: 1") as proxy:
        asked = [asks(proxy), asks(proxy)]
        await one.has(1)
        await other.has(1)
        answer = await proxy.get()
        assert status_of(answer) == 503
        assert fields_of(answer, b"retry-after")
        assert b"connection_limit_reached" in fields_of(answer, b"proxy-status")[0]
        one.open()
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(4):  # whoever's turn it is
            assert (await proxy.get()).endswith(b"one")
        other.open()
        assert await all_of(asked) == [200, 200]
        assert taken(proxy) == 0


@live
async def test_a_backends_own_limit_wins(tmp_path: Path) -> None:
    gate = Gate()
    async with running(tmp_path, Origin(gate.answer), upstream="    max_connections: 1") as proxy:
        proxy.path.write_text(proxy.path.read_text().replace("b0: {", "b0: {max_connections: 3, "))
        await reloaded(proxy)
        asked = [asks(proxy) for _ in range(3)]
        await gate.has(3)
        assert status_of(await proxy.get()) == 503
        gate.open()
        assert await all_of(asked) == [200] * 3


@live
async def test_who_waits_goes_in_turn_and_the_log_says_how_long(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    upstream = "    max_connections: 1\n    queue: {length: 3, timeout: 5s}"
    async with running(tmp_path, Origin(gate.answer), upstream=upstream, access_log="json") as proxy:
        asked = [asks(proxy, "/0")]
        await gate.has(1)
        for place in range(1, 4):
            asked.append(asks(proxy, f"/{place}"))
            await proxy.until(functools.partial(waits, proxy, place))
        answer = await proxy.get("/4")
        assert status_of(answer) == 503
        assert b"connection_limit_reached" in fields_of(answer, b"proxy-status")[0]
        gate.open()
        assert await all_of(asked) == [200] * 4
        assert gate.seen == [b"/0", b"/1", b"/2", b"/3"]
        assert gate.most == 1
        assert taken(proxy) == 0
        line = proxy.server.proxy.snapshot.upstreams["up"].line
        assert line is not None
        assert (line.entered, line.is_busy) == (3, False)
        assert line.waited_s > 0
    lines = [each for each in capfd.readouterr().out.splitlines() if '"target":"/3"' in each]
    assert float(re.findall(r'"queue_ms":([0-9.]+)', lines[0])[0]) > 0


@live
async def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    gate = Gate()
    upstream = "    max_connections: 1\n    queue: {timeout: 30ms}"
    async with running(tmp_path, Origin(gate.answer), upstream=upstream) as proxy:
        asked = asks(proxy)
        await gate.has(1)
        answer = await proxy.get()
        assert status_of(answer) == 503
        assert b'details="queue_timeout"' in fields_of(answer, b"proxy-status")[0]
        assert fields_of(answer, b"retry-after")
        gate.open()
        assert status_of(await asked) == 200
        assert taken(proxy) == 0


@live
async def test_who_leaves_while_waiting_frees_its_place(tmp_path: Path) -> None:
    gate = Gate()
    upstream = "    max_connections: 1\n    queue: {length: 1}"
    async with running(tmp_path, Origin(gate.answer), upstream=upstream) as proxy:
        asked = [asks(proxy, "/first")]
        await gate.has(1)
        _, writer = await proxy.connect()
        writer.write(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: waiting(proxy) == 1)
        writer.close()
        await proxy.until(lambda: waiting(proxy) == 0)
        asked.append(asks(proxy, "/second"))
        await proxy.until(lambda: waiting(proxy) == 1)
        gate.open()
        assert await all_of(asked) == [200, 200]
        assert gate.seen == [b"/first", b"/second"]


@live
async def test_a_session_waits_for_its_backend_and_lets_others_pass(tmp_path: Path) -> None:
    one, other = Gate(), Gate()
    other.open()
    origins = Origin(one.answer, "one"), Origin(other.answer, "other")
    upstream = "    max_connections: 1\n    queue: {length: 9}\n    sticky: {cookie: S, plain_names: true}"
    async with running(tmp_path, *origins, upstream=upstream) as proxy:
        first = asks(proxy, "/", "Cookie: S=b0")
        await one.has(1)
        second = asks(proxy, "/", "Cookie: S=b0")
        await proxy.until(lambda: waiting(proxy) == 1)
        for _ in range(3):
            assert (await proxy.get()).endswith(b"other")
        assert waiting(proxy) == 1
        one.open()
        assert [(await each).endswith(b"one") for each in (first, second)] == [True, True]
        assert taken(proxy) == 0


@live
async def test_a_reload_keeps_who_waits_and_a_higher_limit_lets_them_go(tmp_path: Path) -> None:
    gate = Gate()
    upstream = "    max_connections: 1\n    queue: {length: 9}"
    async with running(tmp_path, Origin(gate.answer), upstream=upstream) as proxy:
        asked = [asks(proxy) for _ in range(3)]
        await proxy.until(lambda: waiting(proxy) == 2)
        proxy.path.write_text(proxy.path.read_text().replace("max_connections: 1", "max_connections: 2"))
        await reloaded(proxy)
        await gate.has(2)
        assert waiting(proxy) == 1
        gate.open()
        assert await all_of(asked) == [200] * 3
        proxy.path.write_text(proxy.path.read_text().replace(upstream.replace("1", "2", 1), ""))
        await reloaded(proxy)
        assert status_of(await proxy.get()) == 200
        assert gate.most == 2


async def upgraded(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    writer.write(await reader.read(5))
    raise EOFError


@live
async def test_a_tunnel_has_a_place_until_it_ends(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(upgraded), upstream="    max_connections: 1") as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 101
        assert status_of(await proxy.get()) == 503
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await proxy.until(lambda: taken(proxy) == 0)


async def trouble(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Whatever a backend can do."""
    what = int(head.split(b" ")[1].rpartition(b"/")[2]) % 6
    if what == 0:
        abort(writer)
        raise EOFError
    if what == 1:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        raise EOFError
    if what == 2:
        writer.write(b"nonsense\r\n\r\n")
        raise EOFError
    if what == 3:
        await asyncio.sleep(0.005)
    if what == 4:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n")
        return
    await named(origin, head, reader, writer)


@live
async def test_whatever_happens_no_place_is_lost(tmp_path: Path) -> None:
    """Clients that leave at any time, backends that fail in every way, one that nobody reaches, reloads meanwhile."""
    rng = random.Random(6)  # noqa: S311 -- reproducible, not secret
    upstream = "    max_connections: 2\n    queue: {length: 6, timeout: 40ms}\n    timeouts: {response: 60ms}"
    refusing = 9  # nobody listens there
    origins = Origin(trouble, "one"), Origin(trouble, "other"), refusing
    seen: Counter[int] = Counter()
    async with running(tmp_path, *origins, upstream=upstream) as proxy:

        async def client(number: int) -> None:
            reader, writer = await proxy.connect()
            target = rng.randint(0, 5)
            body = rng.choice([b"", b"x" * 10, b"x" * 200_000])
            method = b"GET" if not body else rng.choice([b"POST", b"PUT"])
            head = b"%b /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (method, target, len(body))
            writer.write(head + body[: len(body) // rng.choice([1, 1, 2])])
            try:
                async with asyncio.timeout(rng.choice([0.002, 0.01, 0.5])):
                    answer, _ = await one_answer(reader)
                    seen[status_of(answer)] += 1
            except (TimeoutError, EOFError, ConnectionError):
                pass
            if number % 3:
                abort(writer)
            else:
                writer.close()

        for round_ in range(6):
            await asyncio.gather(*(client(number) for number in range(40)))
            if round_ % 2:
                await reloaded(proxy)
        await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 0)
        assert taken(proxy) == 0
        assert seen[200] > 10
        assert seen[502] + seen[503] > 1  # how many of each is a matter of timing
        line = proxy.server.proxy.snapshot.upstreams["up"].line
        assert line is not None
        assert not line.is_busy


@patiently
async def test_two_workers_hold_one_cap_and_one_queue_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    gate = Gate()
    origin = await Origin(gate.answer).start()
    upstream = "    max_connections: 3\n    queue: {length: 10, timeout: 20s}"
    path, port, admin = several(tmp_path, origin, 2, upstream=upstream)
    async with Workers(path, port, admin) as proxy:
        asked = [begun(proxy.get(f"/{place}")) for place in range(30)]
        await gate.has(3)
        async with asyncio.timeout(PATIENCE_S):
            while sum(each.done() for each in asked) < 17:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        metrics = (await proxy.get("/metrics", admin)).decode()
        assert 'l7proxy_queue_waiting{upstream="up"} 10.0' in metrics
        assert gate.held == 3
        gate.open()
        answers = Counter([status_of(answer) for answer in await asyncio.gather(*asked)])
        assert answers == {200: 13, 503: 17}
        assert gate.most == 3
        # One that is killed takes its places with it, and those who wait in the other one get them.
        again = Gate()
        origin.answer = again.answer
        lost = [begun(proxy.get("/lost")) for _ in range(13)]
        await again.has(3)
        for pid in proxy.children():
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait(lost, timeout=PATIENCE_S)
        for each in lost:
            each.exception()
        again.open()
        origin.answer = says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await proxy.times("worker serves", 1)
        assert status_of(await proxy.get()) == 200
    await origin.stop()
