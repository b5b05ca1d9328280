"""Limits and deadlines, none of them on the whole of a body.

One rule: who is slow is cut off, who is steady is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from l7proxy.core.config import load_config
from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    body_back,
    config_text,
    free_port,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
    stuck_port,
    take,
)

pytestmark = pytest.mark.unit

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


def chunked(*sizes: int) -> bytes:
    pieces = b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)
    return b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


def lengthy(size: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % size + b"x" * size


def test_defaults_are_as_documented() -> None:
    config = load_config(config_text(8080, 8001), "a.yaml")
    upstream = config.upstreams["up"].timeouts
    clients, limits = config.timeouts, config.limits
    assert (clients.head_s, clients.idle_s, clients.keepalive_s) == (10, 30, 30)
    assert (clients.tunnel_s, clients.drain_s) == (3600, 30)
    assert (upstream.connect_s, upstream.response_s, upstream.idle_s, upstream.keepalive_s) == (3, 30, 60, 4)
    assert limits.body_bytes is None
    assert limits.body_rate > 0


@pytest.mark.parametrize("at_once", [True, False], ids=["one packet", "two packets"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (lengthy(1000), 200),
        (lengthy(1001), 413),
        (b"Content-Length: 99999999999\r\n\r\n", 413),
        (chunked(500, 500), 200),
        (chunked(*[1] * 1000), 200),
        (chunked(500, 501), 413),
        (chunked(1001), 413),
        (chunked(*[1] * 1001), 413),
        (b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * 1001, 413),
    ],
)
@live
async def test_a_body_above_the_limit_is_413_and_never_whole_at_the_backend(
    tmp_path: Path, body: bytes, status: int, at_once: bool
) -> None:
    whole: list[bytes] = []

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await body_back(origin, head, reader, writer)
        whole.append(head)

    origin = Origin(answer)
    async with running(tmp_path, origin, more="limits: {body: 1000}") as proxy:
        asks = POST if status == 200 else POST.replace(b"Connection: close\r\n", b"")
        fields, _, rest = body.partition(b"\r\n\r\n")
        reader, writer = await proxy.connect()
        writer.write(asks + fields + b"\r\n\r\n" + (rest if at_once else b""))
        if not at_once:
            await asyncio.sleep(0.02)
            writer.write(rest)
        async with asyncio.timeout(2):
            got = await reader.readuntil(b"\r\n\r\n")
        assert status_of(got) == status
        async with asyncio.timeout(PATIENCE_S):
            got += await reader.read()
        writer.close()
        if status == 413:
            assert got.count(b"HTTP/1.") == 1
            assert whole == []
        await proxy.until(lambda: not proxy.server.proxy.connections)
    if b"Content-Length" in body and status == 413:
        assert origin.heads == []


@live
async def test_a_body_above_the_limit_after_the_answer_began_is_a_break(tmp_path: Path) -> None:
    """There is no second status: the first one is cut off."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        await reader.read()

    async with running(tmp_path, Origin(answer), more="limits: {body: 1000}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n1f4\r\n" + b"x" * 500 + b"\r\n")
        await reader.readuntil(b"begun")
        writer.write(b"1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("body", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
@live
async def test_a_body_that_stops_is_cut_off(tmp_path: Path, body: bytes) -> None:
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"0\r\n\r\n" not in await reader.read()
        ended.set()
        raise EOFError

    async with running(tmp_path, Origin(answer), more="timeouts: {idle: 300ms}") as proxy:
        begun_at = time.monotonic()
        got = await proxy.talk(POST + body)
        assert 0.2 < time.monotonic() - begun_at < 3
        async with asyncio.timeout(1):
            await ended.wait()
    assert got == b"" or status_of(got) == 408
    assert got.count(b"HTTP/1.") <= 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
@live
async def test_a_steady_upload_may_last_longer_than_every_timeout(tmp_path: Path, framing: str) -> None:
    """Pieces every 100 ms for 1.5 s, with every deadline at 400 ms: no one counts the whole."""
    origin, count = Origin(body_back), 15
    more = "timeouts: {head: 400ms, idle: 400ms, keepalive: 400ms}\nlimits: {body_rate: 1}"
    upstream = "    timeouts: {connect: 400ms, response: 400ms, idle: 400ms, keepalive: 400ms}"
    async with running(tmp_path, origin, more=more, upstream=upstream) as proxy:
        reader, writer = await proxy.connect()
        field = b"Content-Length: %d" % count if framing == "length" else b"Transfer-Encoding: chunked"
        writer.write(POST + field + b"\r\n\r\n")
        for _ in range(count):
            writer.write(b"x" if framing == "length" else b"1\r\nx\r\n")
            await asyncio.sleep(0.1)
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            head, body = await one_answer(reader)
        assert (status_of(head), body) == (200, b"x" * count)
        writer.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@live
async def test_a_steady_answer_may_last_longer_than_every_timeout(tmp_path: Path, framing: str) -> None:
    count = 15

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        field = b"Content-Length: %d" % count if framing == "length" else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n")
        for _ in range(count):
            writer.write(b"x" if framing == "length" else b"1\r\nx\r\n")
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n" if framing == "chunked" else b"")

    more = "timeouts: {head: 400ms, idle: 400ms, keepalive: 400ms}"
    upstream = "    timeouts: {connect: 400ms, response: 400ms, idle: 400ms, keepalive: 400ms}"
    async with running(tmp_path, Origin(answer), more=more, upstream=upstream) as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            assert (await one_answer(reader))[1] == b"x" * count
        writer.close()


@live
async def test_a_body_slower_than_the_rate_is_cut_off_and_a_faster_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never idle, but below 1,000 bytes/s: cut off once the time without a rate is over. Three times that: served."""
    total = 9_000
    monkeypatch.setattr("l7proxy.http.client.RATE_AFTER_S", 1.0)

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, total)
        await named(origin, head, reader, writer)

    async def drip(writer: asyncio.StreamWriter, piece: int) -> None:
        for _ in range(total // piece):
            if writer.transport.is_closing():
                return
            writer.write(b"x" * piece)
            await asyncio.sleep(0.1)

    async with running(tmp_path, Origin(answer), more="limits: {body_rate: 1000}\ntimeouts: {idle: 1s}") as proxy:
        slow, to_slow = await proxy.connect()
        fast, to_fast = await proxy.connect()
        for to in (to_slow, to_fast):
            to.write(POST + b"Content-Length: %d\r\n\r\n" % total)
        begun_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip(to_slow, 20))
            group.create_task(drip(to_fast, 300))
            async with asyncio.timeout(PATIENCE_S):
                try:
                    got = await slow.read()
                except ConnectionResetError:
                    got = b""
            assert 0.8 < time.monotonic() - begun_at < 4
            assert got == b"" or status_of(got) == 408
            dripping.cancel()
            async with asyncio.timeout(PATIENCE_S):
                assert status_of((await one_answer(fast))[0]) == 200
        to_slow.close()
        to_fast.close()


@live
async def test_a_connection_that_cannot_be_made_is_given_up_in_time(tmp_path: Path) -> None:
    async with running(tmp_path, stuck_port(), upstream="    timeouts: {connect: 300ms}") as proxy:
        begun_at = time.monotonic()
        got = await proxy.get()
        assert 0.2 < time.monotonic() - begun_at < 2
    assert status_of(got) in {502, 504}


@live
async def test_an_answer_that_does_not_begin_in_time_is_504(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        raise EOFError

    async with running(tmp_path, Origin(answer), upstream="    timeouts: {response: 300ms}") as proxy:
        begun_at = time.monotonic()
        got = await proxy.talk(POST + b"Content-Length: 2\r\n\r\nhi")
        assert 0.2 < time.monotonic() - begun_at < 2
        async with asyncio.timeout(1):
            await ended.wait()
    assert status_of(got) == 504


@live
async def test_an_answers_head_that_drips_is_504(tmp_path: Path) -> None:
    """A byte every 50 ms is never idle; the head as a whole is late."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(100):
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with running(tmp_path, Origin(answer), upstream="    timeouts: {response: 300ms}") as proxy:
        begun_at = time.monotonic()
        got = await proxy.get()
        assert time.monotonic() - begun_at < 2
    assert status_of(got) == 504


@live
async def test_the_time_of_an_upload_is_not_the_backends(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(body_back), upstream="    timeouts: {response: 300ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(POST + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            writer.write(b"x")
            await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE_S):
            assert (await one_answer(reader))[1] == b"x" * 8
        writer.close()


@pytest.mark.parametrize("before", [b"", GET])
@live
async def test_an_unused_client_connection_is_closed_without_a_word(tmp_path: Path, before: bytes) -> None:
    """A 408 to one that asked nothing would be taken for the answer to its next request."""
    async with running(tmp_path, Origin(named), more="timeouts: {keepalive: 300ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(before)
        if before:
            await one_answer(reader)
        begun_at = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        assert 0.2 < time.monotonic() - begun_at < 3
        writer.close()


@live
async def test_a_client_connection_in_use_is_kept(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6 if b" /slow " in head else 0)
        await named(origin, head, reader, writer)

    async with running(
        tmp_path, Origin(answer), more="timeouts: {head: 300ms, idle: 300ms, keepalive: 300ms}"
    ) as proxy:
        reader, writer = await proxy.connect()
        for target in (b"/slow", b"/", b"/", b"/slow"):
            writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
            assert status_of((await one_answer(reader))[0]) == 200
            await asyncio.sleep(0.1)
        writer.close()


@live
async def test_an_unused_backend_connection_is_closed(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await named(origin, head, reader, writer)
        await writer.drain()
        assert await reader.read() == b""
        ended.set()
        raise EOFError

    async with running(tmp_path, Origin(answer), upstream="    timeouts: {keepalive: 200ms}") as proxy:
        await proxy.get()
        begun_at = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        assert 0.1 < time.monotonic() - begun_at < 2


@live
async def test_a_client_that_stops_reading_is_cut_off_and_frees_the_backend(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            ended.set()

    async with running(tmp_path, Origin(answer), more="timeouts: {idle: 400ms}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(4):
            await ended.wait()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        writer.close()


@live
async def test_a_client_that_reads_slowly_but_steadily_gets_everything(tmp_path: Path) -> None:
    """Slower than the sockets' buffers drain for a while, yet never still for as long as `idle`."""
    total = 24 * 1024 * 1024
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total, b"x" * total))
    async with running(tmp_path, origin, more="timeouts: {idle: 500ms}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=65536)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        got, begun_at = 0, time.monotonic()
        while got < total:
            async with asyncio.timeout(PATIENCE_S):
                piece = await reader.read(1 << 20)
            assert piece
            got += len(piece)
            if time.monotonic() - begun_at < 1.5:
                await asyncio.sleep(0.05)
        writer.close()


@live
async def test_a_drain_waits_for_a_body_and_no_longer_than_it_says(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with running(tmp_path, Origin(answer), more="timeouts: {drain: 400ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        begun_at = time.monotonic()
        proxy.server.request_stop()
        got = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while piece := await reader.read(100):
                    got += piece
            except ConnectionResetError:
                pass
        assert 0.3 < time.monotonic() - begun_at < 2
        assert 3 < len(got) < 100
        writer.close()


@live
async def test_a_port_that_refuses_is_given_up_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, free_port()) as proxy:
        begun_at = time.monotonic()
        assert status_of(await proxy.get()) == 502
        assert time.monotonic() - begun_at < 1
