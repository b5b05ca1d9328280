"""Several requests in one packet (RFC 9112 9.3.2): answered in order, each by itself, and only so far ahead."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    body_back,
    config_text,
    dechunk,
    fields_of,
    free_port,
    length_of,
    live,
    named,
    one_answer,
    running,
    status_of,
)
from tests.wire.test_process import Process

pytestmark = pytest.mark.unit

MB = 1024 * 1024
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def target_back(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200 with the target and the request's body; slower the earlier its number."""
    body = b""
    if fields_of(head, b"content-length"):
        body = await reader.readexactly(length_of(head))
    elif fields_of(head, b"transfer-encoding"):
        body = await dechunk(reader)
    method, target, _ = head.split(b" ", 2)
    if target[1:].isdigit():
        await asyncio.sleep(max(0, 5 - int(target[1:])) * 0.01)
    text = target + b"|" + body
    fields = b"Content-Length: %d\r\n\r\n" % len(text)
    writer.write(b"HTTP/1.1 200 OK\r\n" + fields + (b"" if method == b"HEAD" else text))


def targets(origin: Origin) -> list[bytes]:
    return [head.split(b" ")[1] for head in origin.heads]


async def bodies(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    async with asyncio.timeout(PATIENCE_S):
        return [(await one_answer(reader))[1] for _ in range(count)]


@live
async def test_requests_in_one_packet_are_answered_in_order(tmp_path: Path) -> None:
    """The first ones take the longest, and there are two backends to be faster at."""
    first, second = Origin(target_back), Origin(target_back)
    async with running(tmp_path, first, second) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % index for index in range(20)))
        assert await bodies(reader, 20) == [b"/%d|" % index for index in range(20)]
        writer.close()
    assert len(first.heads) + len(second.heads) == 20


MIXED = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"
    b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n0\r\nX-T: 1\r\n\r\n"
    b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    b"\r\nDELETE /e HTTP/1.1\r\nHost: a\r\n\r\n"
    b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)
MIXED_BODIES = [b"/a|GET /", b"/b|", b"/c|onetwo", b"/d|", b"/e|", b"/f|"]


@live
async def test_requests_with_bodies_in_one_packet_keep_apart(tmp_path: Path) -> None:
    origin = Origin(target_back)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(MIXED)
        assert await bodies(reader, 6) == MIXED_BODIES
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
    assert targets(origin) == [b"/a", b"/b", b"/c", b"/d", b"/e", b"/f"]


@live
async def test_where_pipelined_bytes_are_cut_changes_nothing(tmp_path: Path) -> None:
    origin = Origin(target_back)
    async with running(tmp_path, origin) as proxy:

        async def cut(at: int) -> None:
            reader, writer = await proxy.connect()
            writer.write(MIXED[:at])
            await asyncio.sleep(0.005)
            writer.write(MIXED[at:])
            assert await bodies(reader, 6) == MIXED_BODIES, at
            writer.close()

        for start in range(1, len(MIXED), 40):
            async with asyncio.TaskGroup() as group:
                for at in range(start, min(start + 40, len(MIXED))):
                    group.create_task(cut(at))


@live
async def test_requests_a_byte_at_a_time_are_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(target_back)) as proxy:
        reader, writer = await proxy.connect()
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(MIXED)):
            writer.write(MIXED[at : at + 1])
            await asyncio.sleep(0)
        assert await bodies(reader, 6) == MIXED_BODIES
        writer.close()


@live
async def test_answers_without_a_body_keep_their_place(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b" /304 " in head:
            writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n")
        elif b" /204 " in head:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await target_back(origin, head, reader, writer)

    asked = [(b"GET", b"/304"), (b"HEAD", b"/x"), (b"GET", b"/204"), (b"HEAD", b"/304"), (b"GET", b"/y")]
    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.talk(b"".join(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % one for one in asked) + LAST)
    heads = got.split(b"\r\n\r\n")
    assert [head.split(b" ")[1] for head in heads[:4]] == [b"304", b"200", b"204", b"304"]
    assert heads[5].startswith(b"/y|HTTP/1.1 200 OK")
    assert heads[6] == b"/last|"


@live
async def test_a_bad_request_is_answered_in_its_turn_and_ends_it(tmp_path: Path) -> None:
    origin = Origin(target_back)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /bad HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        )
    assert not got.endswith(b"<RST>")
    assert [part.split(b" ")[0] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
    assert targets(origin) == [b"/1", b"/2"]


@live
async def test_what_follows_a_request_to_close_is_not_begun(tmp_path: Path) -> None:
    """RFC 9112 9.6."""
    origin = Origin(target_back)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + LAST + b"DELETE /3 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert targets(origin) == [b"/1", b"/last"]
    assert fields_of(b"HTTP/1.1 " + got.rsplit(b"HTTP/1.1 ", 1)[1], b"connection") == [b"close"]


@live
async def test_what_follows_an_answer_that_closes_is_not_begun(tmp_path: Path) -> None:
    """An HTTP/1.0 client without keep-alive gets one answer."""
    origin = Origin(target_back)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(b"GET /1 HTTP/1.0\r\nHost: a\r\n\r\nDELETE /2 HTTP/1.0\r\nHost: a\r\n\r\n")
    assert got.count(b"HTTP/1.") == 1
    assert targets(origin) == [b"/1"]


@live
async def test_requests_behind_a_failure_are_answered(tmp_path: Path) -> None:
    """A 502 with nothing wrong on the client's side does not cost it its connection's other requests."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b" /bad " in head:
            writer.write(b"rubbish\r\n\r\n")
            await writer.drain()
            raise EOFError
        await target_back(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of((await one_answer(reader))[0]) == 200
        head, _ = await one_answer(reader)
        assert status_of(head) == 502
        if fields_of(head, b"connection") != [b"close"]:
            writer.write(LAST)
            assert status_of((await one_answer(reader))[0]) == 200
        writer.close()


@live
async def test_requests_are_given_to_backends_one_at_a_time(tmp_path: Path) -> None:
    """A DELETE behind a GET is not begun before the GET is answered, and never if the client has gone by then."""
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    first, second = Origin(answer), Origin(answer)
    async with running(tmp_path, first, second) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nDELETE /2 HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
        await proxy.until(lambda: bool(first.heads or second.heads))
        await asyncio.sleep(0.05)
        assert len(first.heads) + len(second.heads) == 1
        go.set()
        assert len(await bodies(reader, 3)) == 3
        writer.close()


def poured(client: socket.socket, piece: bytes, most: int) -> int:
    """Write until nothing is taken for 300 ms, but for no longer than 3 s; how much was."""
    client.setblocking(False)
    sent = 0
    begun_at = since = time.monotonic()
    while sent < most and time.monotonic() - since < 0.3 and time.monotonic() - begun_at < 3:
        try:
            sent += client.send(piece)
            since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    return sent


@live
async def test_requests_far_ahead_of_their_answers_are_not_taken_in(tmp_path: Path) -> None:
    """The first one is never answered: what comes behind it waits in the client's own buffers, mostly."""

    async def wait(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        raise EOFError

    origin = await Origin(wait).start()
    port, path = free_port(), tmp_path / "a.yaml"
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
        before = proxy.memory_bytes()
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            sent = await asyncio.to_thread(poured, client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000, 200 * MB)
            assert sent < 40 * MB
            assert proxy.memory_bytes() - before < 10 * MB
            assert len(origin.heads) == 1
    await origin.stop()


@live
async def test_a_client_that_asks_and_never_reads_is_held_back(tmp_path: Path) -> None:
    body = b"b" * 50_000

    async def much(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    origin = await Origin(much).start()
    port, path = free_port(), tmp_path / "a.yaml"
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
        before = proxy.memory_bytes()
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            sent = await asyncio.to_thread(poured, client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000, 100 * MB)
            assert proxy.memory_bytes() - before < 10 * MB
            assert len(origin.heads) < 1000
            assert sent < 40 * MB
    await origin.stop()


@live
async def test_many_small_requests_in_one_packet_do_not_starve_others(tmp_path: Path) -> None:
    """2,000 at once on one connection; somebody else's request is answered among the first of them."""
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /many HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        await reader.readuntil(b"origin")
        assert status_of(await proxy.get("/other")) == 200
        answered_before = [b" /other " in head for head in origin.heads].index(True)
        assert answered_before < 1000
        await bodies(reader, 1999)
        writer.close()


@live
async def test_the_next_request_may_come_while_the_last_answer_is_still_sent(tmp_path: Path) -> None:
    big = b"y" * 3_000_000

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b" /big " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big)
        else:
            await body_back(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsmall")
        assert await reader.readexactly(len(big)) == big
        assert (await one_answer(reader))[1] == b"small"
        writer.close()
