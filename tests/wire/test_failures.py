"""What clients see when backends fail, and what backends never see of bad clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    body_back,
    fields_of,
    free_port,
    live,
    named,
    running,
    says,
    status_of,
)

pytestmark = pytest.mark.unit

FAST = "    timeouts: {connect: 5s, response: 1s, idle: 1s}"


def reasons(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.getMessage(), getattr(record, "reason", "")) for record in caplog.records]


@live
async def test_no_route_is_404(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, Origin(named)) as proxy:
        proxy.path.write_text(proxy.path.read_text().replace("{name: all,", "{match: {host: only.example},"))
        proxy.server.request_reload()
        await proxy.until(lambda: bool(proxy.server.proxy.snapshot.config.routes[0].hosts))
        assert status_of(await proxy.get(host="other.example")) == 404
        assert status_of(await proxy.get(host="ONLY.example.:80")) == 200
    assert ("no route", "nothing matches host other.example and path /") in reasons(caplog)


@live
async def test_refused_everywhere_is_502(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, free_port(), free_port()) as proxy:
        answer = await proxy.get()
    assert status_of(answer) == 502
    assert b"127.0.0.1" not in answer
    assert ("request failed", "connection refused") in reasons(caplog)
    assert fields_of(answer, b"server") == []


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n"])
@live
async def test_another_backend_is_tried_when_one_refuses(tmp_path: Path, request_: bytes) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, free_port(), origin, free_port()) as proxy:
        for _ in range(6):
            body = b"hello" if b"POST" in request_ else b""
            request = request_ + b"Host: a\r\nConnection: close\r\n" + (b"" if body else b"Content-Length: 0\r\n")
            answer = await proxy.talk(request + b"\r\n" + body)
            assert status_of(answer) == 200
            assert answer.endswith(b"\r\n\r\n" + body)
    assert len(origin.heads) == 6


@live
async def test_no_head_in_time_is_504(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(says())
    async with running(tmp_path, origin, Origin(says()), upstream=FAST) as proxy:
        assert status_of(await proxy.get()) == 504
    assert ("request failed", "no answer in time") in reasons(caplog)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"rubbish\r\n\r\n", "what came is no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "two Content-Lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length and Transfer-"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "a Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "the backend switched"),
    ],
)
@live
async def test_what_is_no_answer_is_502(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: bytes, reason: str
) -> None:
    async with running(tmp_path, Origin(says(answer))) as proxy:
        assert status_of(await proxy.get()) == 502
    assert any(message == "request failed" and why.startswith(reason) for message, why in reasons(caplog))


async def hang_up(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close; with a reset when asked for."""
    if b"/reset" in head:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


@live
async def test_a_backend_that_hangs_up_is_502_and_gets_nothing_twice(tmp_path: Path) -> None:
    first, second = Origin(hang_up), Origin(hang_up)
    async with running(tmp_path, first, second) as proxy:
        for target in ("/", "/reset"):
            request = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            assert status_of(await proxy.talk(request.encode())) == 502
    assert len(first.heads) + len(second.heads) == 2


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("POST", 502), ("PUT", 200), ("DELETE", 200), ("PATCH", 502)]
)
@live
async def test_a_dead_kept_alive_connection_is_replaced_only_for_what_may_be_repeated(
    tmp_path: Path, method: str, status: int
) -> None:
    async def once(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b" /second" in head and len(origin.heads) == 2:
            writer.close()  # the race: it closes just as the next request comes
            return
        await named(origin, head, reader, writer)

    origin = Origin(once)
    async with running(tmp_path, origin) as proxy:
        assert status_of(await proxy.get("/first")) == 200
        answer = await proxy.talk(
            f"{method} /second HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
    assert status_of(answer) == status
    assert len(origin.heads) == (3 if status == 200 else 2)


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "close /reset": b"HTTP/1.1 200 OK\r\n\r\nhalf",
}


@pytest.mark.parametrize("framing", CUT)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@live
async def test_a_cut_answer_never_looks_whole(tmp_path: Path, framing: str, version: str) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CUT[framing])
        await writer.drain()
        await asyncio.sleep(0.05)
        await hang_up(origin, framing.encode(), reader, writer)

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.talk(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert not got.endswith(b"0\r\n\r\n")
    if not fields_of(got, b"content-length") and not fields_of(got, b"transfer-encoding"):
        assert got.endswith(b"<RST>")  # nothing else tells a cut from the end
    assert b"half" in got


@live
async def test_an_answer_that_stalls_is_broken_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, Origin(says(CUT["chunked"])), upstream=FAST) as proxy:
        got = await proxy.get()
    assert got.endswith(b"half\r\n")
    assert "answer broken off" in [message for message, _ in reasons(caplog)]


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
SMUGGLING = {
    "length and chunked": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "length overflow": POST + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in fields": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "space in host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "path in host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunk size overflow": CHUNKED + b"\r\nfffffffffffffffff\r\nabc",
    "chunk size with 0x": CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk with bare LF": CHUNKED + b"\r\n3\nabc\n0\n\n",
    "two codings": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding with tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "Connection: Host": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n",
    "Connection: Content-Length": POST + b"Connection: Content-Length\r\nContent-Length: 0\r\n\r\n",
}


@live
async def test_smuggling_is_refused_and_nothing_reaches_the_backend(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        refused = {}
        for name, request in SMUGGLING.items():
            answer = await proxy.talk(request + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            refused[name] = (status_of(answer), answer.count(b"HTTP/1.1"), b"aiohttp" in answer)
    assert refused == dict.fromkeys(SMUGGLING, (400, 1, False))
    assert origin.heads == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: aaaaaaaaaaaaaaaaaaaa\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X: %b\r\n" % (b"a" * 1000) for _ in range(50)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X: %b\r\n" % (b"a" * 1000) for _ in range(90)), 431),
    ],
)
@live
async def test_other_refusals(tmp_path: Path, request_: bytes, status: int) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        answer = await proxy.talk(request_)
    assert status_of(answer) == status
    assert origin.heads == []


@live
async def test_a_body_whose_framing_breaks_midway_is_400(tmp_path: Path) -> None:
    async def hold(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")

    origin = Origin(hold)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await proxy.until(lambda: bool(origin.heads))
        writer.write(b"zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1
    assert len(origin.heads) == 1


@live
async def test_log_lines_a_client_can_cause_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path, free_port()) as proxy:
        for _ in range(100):
            await proxy.talk(b"\x16\x03\x01\r\n\r\n")
        assert status_of(await proxy.get()) == 502
    refused = len([message for message, _ in reasons(caplog) if message == "request refused"])
    assert 1 <= refused <= 60
    assert ("request failed", "connection refused") in reasons(caplog)  # garbage does not hide it


@live
async def test_connections_above_the_limit_are_answered_503(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), more="limits: {connections: 1}") as proxy:
        _, first = await proxy.connect()
        await proxy.until(lambda: proxy.server.proxy.connections == 1)
        answer = await proxy.get()
        assert status_of(answer) == 503
        assert fields_of(answer, b"retry-after") == [b"5"]
        first.close()
        await proxy.until(lambda: proxy.server.proxy.connections == 0)
        assert status_of(await proxy.get()) == 200


QUICK = "timeouts: {head: 1s, idle: 1s, keepalive: 2s}"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", 408),
        (b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", 408),
    ],
)
@live
async def test_slow_clients_are_closed(tmp_path: Path, sent: bytes, status: int | None) -> None:
    origin = Origin(body_back if b"POST" in sent else named)
    async with running(tmp_path, origin, more=QUICK) as proxy:
        answer = await proxy.talk(sent)  # returns once the proxy closes
        await proxy.until(lambda: proxy.server.proxy.connections == 0)
    assert (status_of(answer) if answer.startswith(b"HTTP") else None) == status


@live
async def test_a_client_that_drips_its_head_is_closed(tmp_path: Path) -> None:
    """What it has still sent may turn the close into a reset, which eats the 408: closed is what counts."""
    origin = Origin(named)
    async with running(tmp_path, origin, more=QUICK) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await proxy.until(lambda: proxy.server.proxy.connections == 1)
        started_at = time.monotonic()
        while proxy.server.proxy.connections:
            assert time.monotonic() - started_at < PATIENCE_S
            if not writer.transport.is_closing():
                writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        with contextlib.suppress(ConnectionError):
            got = await reader.read()
            assert status_of(got) == 408
        writer.close()
    assert origin.heads == []


@live
async def test_a_client_that_never_reads_is_closed(tmp_path: Path) -> None:
    body = b"b" * 4_000_000
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body))
    async with running(tmp_path, origin, more=QUICK) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: proxy.server.proxy.counters.requests == 1)
        await proxy.until(lambda: proxy.server.proxy.connections == 0)
        assert proxy.server.proxy.counters.in_flight == 0
        writer.close()
        del reader


@live
async def test_the_backend_is_let_go_when_the_client_leaves(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def wait(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with running(tmp_path, Origin(wait)) as proxy:
        _, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 1)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
@pytest.mark.parametrize("lines", ["", "Content-Length: 5\r\n"])
@live
async def test_a_client_that_closes_only_its_side_is_answered(tmp_path: Path, lines: str, pause_s: float) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(pause_s)
        await (body_back if b"Content-Length" in head else named)(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer, "hello")) as proxy:
        reader, writer = await proxy.connect()
        request = f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{'hello' if lines else ''}".encode()
        writer.write(request * 2)  # pipelined
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            got = await reader.read()  # and closed, though nobody asked
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert got.endswith(b"hello")
    assert got.count(b"Connection: close") == 1


@live
async def test_a_client_that_closes_its_side_midway_is_gone(tmp_path: Path) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await proxy.until(lambda: bool(origin.heads))
        writer.write_eof()
        assert await reader.read() == b""
        await proxy.until(lambda: not proxy.server.proxy.connections)
        writer.close()
