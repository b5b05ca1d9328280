"""Upgrades (RFC 9110 7.8): a tunnel begins with 101, passes bytes as they are, and ends like a connection.

One rule: until 101 everything is HTTP, and a refused upgrade stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Answer,
    Logged,
    Origin,
    Running,
    abort,
    body_back,
    fields_of,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
    take,
)
from tests.wire.test_running import reloaded

pytestmark = pytest.mark.unit

ASK = (
    b"GET /chat?x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
LOOKS_LIKE_HTTP = b"GET /x HTTP/1.1\r\nHost: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
ANYTHING = bytes(range(256)) * 8 + LOOKS_LIKE_HTTP


class Ends:
    """The backend's end of a tunnel, once there is one."""

    def __init__(self, early: bytes = b"") -> None:
        self.early = early
        self.opened = asyncio.Event()
        self.over = asyncio.Event()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not fields_of(head, b"upgrade"):
            await named(origin, head, reader, writer)
            return
        self.reader, self.writer = reader, writer
        writer.write(SWITCH + self.early)
        self.opened.set()
        while not (self.over.is_set() or writer.transport.is_closing()):  # noqa: ASYNC110 -- a test that fails sets nothing
            await asyncio.sleep(0.005)
        raise EOFError


async def open_tunnel(proxy: Running, early: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A client's end of a tunnel, and the head it was opened with."""
    reader, writer = await proxy.connect()
    writer.write(ASK + early)
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
    assert status_of(head) == 101
    return reader, writer, head


@live
async def test_an_upgrade_to_websocket_passes_with_its_fields(tmp_path: Path) -> None:
    ends = Ends()
    origin = Origin(ends.answer)
    async with running(tmp_path, origin) as proxy:
        _, writer, answer = await open_tunnel(proxy)
        writer.close()
        ends.over.set()
    asked = origin.heads[0]
    assert asked.startswith(b"GET /chat?x HTTP/1.1\r\n")
    assert fields_of(asked, b"upgrade") == [b"websocket"]
    assert [value.lower() for value in fields_of(asked, b"connection")] == [b"upgrade"]
    assert fields_of(asked, b"sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
    assert fields_of(asked, b"x-forwarded-for") == [b"127.0.0.1"]
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert fields_of(answer, b"upgrade") == [b"websocket"]
    assert [value.lower() for value in fields_of(answer, b"connection")] == [b"upgrade"]
    assert fields_of(answer, b"sec-websocket-accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    assert fields_of(answer, b"transfer-encoding") == []
    assert fields_of(answer, b"content-length") == []


@live
async def test_a_tunnel_passes_any_bytes_both_ways(tmp_path: Path) -> None:
    ends = Ends()
    origin = Origin(ends.answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        for _ in range(3):
            writer.write(ANYTHING)
            assert await ends.reader.readexactly(len(ANYTHING)) == ANYTHING
            ends.writer.write(ANYTHING)
            assert await reader.readexactly(len(ANYTHING)) == ANYTHING
        writer.close()
        ends.over.set()
    assert len(origin.heads) == 1


@live
async def test_a_tunnel_passes_much_both_ways_at_once(tmp_path: Path) -> None:
    ends, piece, count = Ends(), os.urandom(1 << 16), 128

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(count):
            writer.write(piece)
            await writer.drain()

    async def check(reader: asyncio.StreamReader) -> None:
        for _ in range(count):
            assert await reader.readexactly(len(piece)) == piece

    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        async with asyncio.TaskGroup() as group:
            for one in (pour(writer), pour(ends.writer), check(reader), check(ends.reader)):
                group.create_task(one)
        writer.close()
        ends.over.set()


@pytest.mark.parametrize("early", [b"x", ANYTHING, b"y" * 300_000])
@live
async def test_what_the_backend_sends_at_once_with_101_is_kept(tmp_path: Path, early: bytes) -> None:
    ends = Ends(early)
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(len(early)) == early
        writer.close()
        ends.over.set()


@pytest.mark.parametrize("early", [b"x", ANYTHING])
@live
async def test_what_the_client_sends_before_101_is_kept_and_held_until_then(tmp_path: Path, early: bytes) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    before: list[bytes] = []
    after: list[bytes] = []

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go.wait()
        try:
            before.append(await asyncio.wait_for(reader.read(1), 0.05))
        except TimeoutError:
            before.append(b"")
        writer.write(SWITCH)
        after.append(await reader.readexactly(len(early)))
        writer.write(b"over")

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(ASK + early)
        await asked.wait()
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == b"over"
        writer.close()
    assert before == [b""]
    assert after == [early]


@live
async def test_where_the_bytes_of_a_101_are_cut_changes_nothing(tmp_path: Path) -> None:
    stream = SWITCH + b"early"

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = int(fields_of(head, b"x-at")[0])
        writer.write(stream[:at])
        await writer.drain()
        await asyncio.sleep(0.001)
        writer.write(stream[at:])
        writer.write(await reader.readexactly(4))
        await writer.drain()
        writer.write_eof()
        await reader.read()
        raise EOFError

    async with running(tmp_path, Origin(answer)) as proxy:
        for at in range(1, len(stream), 3):
            got = await proxy.talk(ASK[:-2] + b"X-At: %d\r\n\r\nback" % at)
            assert got.endswith(b"\r\n\r\nearlyback"), at


@live
async def test_a_tunnel_that_a_client_closes_one_way_stays_open_the_other(tmp_path: Path) -> None:
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        writer.write(b"last words")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await ends.reader.read() == b"last words"
            await asyncio.sleep(0.1)
            ends.writer.write(b"and mine")
            ends.over.set()
            assert await reader.read() == b"and mine"
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@live
async def test_a_tunnel_that_a_backend_closes_one_way_stays_open_the_other(tmp_path: Path) -> None:
    ends = Ends(b"early")
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        ends.writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b"early"
            await asyncio.sleep(0.1)
            writer.write(b"still here")
            assert await ends.reader.readexactly(10) == b"still here"
            writer.write_eof()
            assert await ends.reader.read() == b""
        ends.over.set()
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@live
async def test_a_tunnel_ends_when_either_end_is_reset(tmp_path: Path) -> None:
    for who in ("client", "backend"):
        ends = Ends()
        async with running(tmp_path, Origin(ends.answer)) as proxy:
            reader, writer, _ = await open_tunnel(proxy)
            await ends.opened.wait()
            abort(writer if who == "client" else ends.writer)
            async with asyncio.timeout(1.0):
                with contextlib.suppress(ConnectionResetError):
                    assert await (ends.reader if who == "client" else reader).read() == b""
            await proxy.until(lambda: not proxy.server.proxy.connections)
            ends.over.set()
            writer.close()


REFUSALS = {
    "200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    "403 chunked": b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "426": b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
}


@pytest.mark.parametrize("refusal", REFUSALS)
@live
async def test_a_refused_upgrade_stays_http_on_a_connection_that_goes_on(tmp_path: Path, refusal: str) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/chat" in head:
            writer.write(REFUSALS[refusal])
        else:
            await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        for _ in range(2):
            writer.write(ASK)
            head, body = await one_answer(reader)
            assert status_of(head) == int(refusal[:3])
            assert body == b"no"
            assert fields_of(head, b"connection") in ([], [b"Upgrade"], [b"upgrade"], [b"keep-alive"])
            writer.write(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            head, body = await one_answer(reader)
            assert (status_of(head), body) == (200, b"origin")
        writer.close()
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/chat?x", b"/next"] * 2


@live
async def test_what_is_pipelined_behind_a_refused_upgrade_is_a_request(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(ASK + b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/chat?x", b"/next"]
    assert fields_of(origin.heads[1], b"upgrade") == []


@live
async def test_a_refused_upgrade_with_a_body_keeps_its_framing(tmp_path: Path) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            ASK.replace(b"GET", b"POST")[:-2]
            + b"Content-Length: 5\r\n\r\nhello"
            + b"POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nyo"
        )
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"\r\n\r\nhello" in got
    assert got.endswith(b"\r\n\r\nyo")


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", b""),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", b""),
        ("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n", b"websocket"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", b"websocket"),
        ("Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n", b""),
        ("Connection: Upgrade\r\nUpgrade: rubbish\r\n", b""),
        ("Upgrade: websocket\r\n", b""),
        ("Connection: close\r\nUpgrade: websocket\r\n", b""),
    ],
)
@live
async def test_only_websocket_that_connection_names_is_asked_for_and_h2c_never(
    tmp_path: Path, lines: str, kept: bytes
) -> None:
    """None of these is an error: what is not passed on is ignored. Of a mixed list nothing at all may pass, too."""
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        assert status_of((await one_answer(reader))[0]) == 200
        writer.close()
    head = origin.heads[0].lower()
    assert b"h2c" not in head
    assert b"http2-settings" not in head
    assert fields_of(head, b"upgrade") in ([], [kept] if kept else [])
    assert (b"upgrade" in b",".join(fields_of(head, b"connection"))) == bool(fields_of(head, b"upgrade"))


@live
async def test_h2c_with_prior_knowledge_is_refused(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert status_of(got.removesuffix(b"<RST>")) in {400, 405, 505}
    assert origin.heads == []


@live
async def test_http10_clients_are_not_upgraded(tmp_path: Path) -> None:
    """RFC 9110 7.8: an Upgrade in an HTTP/1.0 request is ignored."""
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(ASK.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"keep-alive", b"close"))
    assert status_of(got) == 200
    assert fields_of(origin.heads[0], b"upgrade") == []


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(b"websocket", b"h2c"),
        SWITCH.replace(b"Upgrade: websocket\r\n", b""),
    ],
)
@live
async def test_a_switch_to_what_was_not_asked_for_is_502(tmp_path: Path, answer: bytes) -> None:
    async with running(tmp_path, Origin(says(answer, LOOKS_LIKE_HTTP))) as proxy:
        got = await proxy.talk(ASK.replace(b"keep-alive", b"close"))
    assert status_of(got) == 502
    assert got.count(b"HTTP/1.1") == 1


@live
async def test_a_switch_that_nobody_asked_for_is_502(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(says(SWITCH, LOOKS_LIKE_HTTP))) as proxy:
        got = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        h2c = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
        other = await proxy.talk(h2c)
    assert (status_of(got), got.count(b"HTTP/1.1")) == (502, 1)
    assert (status_of(other), other.count(b"HTTP/1.1")) == (502, 1)


@pytest.mark.parametrize("target", [b"a:443", b"127.0.0.1:%d", b"/", b"http://a/"])
@live
async def test_connect_is_refused_and_opens_nothing(tmp_path: Path, target: bytes) -> None:
    origin = Origin(says(b"HTTP/1.1 200 OK\r\n\r\n"))
    async with running(tmp_path, origin) as proxy:
        target = target.replace(b"%d", b"%d" % origin.port)
        got = await proxy.talk(b"CONNECT %b HTTP/1.1\r\nHost: a\r\n\r\n" % target + LOOKS_LIKE_HTTP)
    got = got.removesuffix(b"<RST>")
    assert status_of(got) in {400, 405, 501}
    assert got.count(b"HTTP/1.1") == 1
    assert origin.connections == 0


def accepted(proxy: Running, writer: asyncio.StreamWriter) -> socket.socket:
    """The proxy's end of a client's connection, duplicated: it runs in this process."""
    here = writer.get_extra_info("sockname")
    for link in Path("/proc/self/fd").iterdir():
        try:
            if not str(link.readlink()).startswith("socket:"):
                continue
            candidate = socket.socket(fileno=os.dup(int(link.name)))
        except OSError:
            continue
        try:
            if candidate.getsockname()[1:] == (proxy.port,) and candidate.getpeername() == here:
                return candidate
        except (OSError, IndexError):
            pass
        candidate.close()
    raise AssertionError("the proxy has no such connection")


@live
async def test_client_connections_are_probed_before_ipvs_forgets_them(tmp_path: Path) -> None:
    """IPVS forgets an idle TCP connection after 900 s (ip_vs_proto_tcp.c): probes must come earlier."""
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await one_answer(reader)
        _, upgraded, _ = await open_tunnel(proxy)
        for to in (writer, upgraded):
            with accepted(proxy, to) as held:
                assert held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                idle_s = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                assert idle_s + held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) < 900
            to.close()
        ends.over.set()


@live
async def test_an_idle_tunnel_is_closed(tmp_path: Path) -> None:
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer), more="timeouts: {tunnel: 300ms}") as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        begun_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            took_s = asyncio.get_running_loop().time() - begun_at
            with contextlib.suppress(ConnectionResetError):
                assert await ends.reader.read() == b""
        assert 0.2 < took_s < 3
        ends.over.set()
        writer.close()


@pytest.mark.parametrize("who", ["client", "backend"])
@live
async def test_a_tunnel_in_which_one_side_speaks_is_not_idle(tmp_path: Path, who: str) -> None:
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer), more="timeouts: {tunnel: 400ms}") as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        await ends.opened.wait()
        for _ in range(12):
            (writer if who == "client" else ends.writer).write(b"x")
            assert await (ends.reader if who == "client" else reader).readexactly(1) == b"x"
            await asyncio.sleep(0.1)
        (ends.writer if who == "client" else writer).write(b"y")
        assert await (reader if who == "client" else ends.reader).readexactly(1) == b"y"
        ends.over.set()
        writer.close()


@live
async def test_no_other_timeout_touches_a_tunnel(tmp_path: Path) -> None:
    ends = Ends()
    short = "timeouts: {head: 200ms, idle: 200ms, keepalive: 200ms}"
    upstream = "    timeouts: {connect: 200ms, response: 200ms, idle: 200ms, keepalive: 200ms}"
    async with running(tmp_path, Origin(ends.answer), more=short, upstream=upstream) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        await asyncio.sleep(1.0)
        writer.write(b"x")
        assert await ends.reader.readexactly(1) == b"x"
        ends.writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        ends.over.set()
        writer.close()


@live
async def test_a_client_that_goes_while_a_tunnel_is_full_frees_the_backend(tmp_path: Path) -> None:
    """The backend reads nothing, so that nothing is read of the client either: its end must be seen all the same."""
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        _, writer, _ = await open_tunnel(proxy)
        writer.write(b"x" * 64 * 1024 * 1024)
        await asyncio.sleep(0.3)
        abort(writer)
        async with asyncio.timeout(1.0):
            await proxy.until(lambda: not proxy.server.proxy.connections)
        ends.over.set()


@live
async def test_a_reload_leaves_tunnels_alone(tmp_path: Path) -> None:
    ends = Ends()
    async with running(tmp_path, Origin(ends.answer)) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        proxy.path.write_text(proxy.path.read_text() + "via: false\n")
        await reloaded(proxy)
        await asyncio.sleep(0.1)
        writer.write(b"x")
        assert await ends.reader.readexactly(1) == b"x"
        ends.writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        ends.over.set()
        writer.close()


@live
async def test_a_tunnels_connection_is_never_shared_or_used_again(tmp_path: Path) -> None:
    ends = Ends()
    origin = Origin(ends.answer)
    async with running(tmp_path, origin) as proxy:
        _, writer, _ = await open_tunnel(proxy)
        assert status_of(await proxy.get("/other")) == 200
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await ends.reader.read() == b""
        ends.over.set()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert status_of(await proxy.get("/after")) == 200
    assert origin.connections == 2


@live
async def test_a_tunnel_is_logged_as_101_when_it_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ends, logged = Ends(), Logged(capfd)
    async with running(tmp_path, Origin(ends.answer), access_log=True) as proxy:
        reader, writer, _ = await open_tunnel(proxy)
        writer.write(b"x" * 1000)
        await take(ends.reader, 1000)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await ends.reader.read() == b""
        ends.over.set()
        await proxy.until(lambda: logged.statuses() == [101])
        assert await reader.read() == b""


@pytest.mark.parametrize("answer", [says(b""), named])
@live
async def test_an_upgrade_is_not_waited_for_longer_than_an_answer(tmp_path: Path, answer: Answer) -> None:
    upstream = "    timeouts: {response: 300ms}"
    async with running(tmp_path, Origin(answer), upstream=upstream) as proxy:
        reader, writer = await proxy.connect()
        writer.write(ASK)
        async with asyncio.timeout(PATIENCE_S):
            assert status_of((await one_answer(reader))[0]) == (200 if answer is named else 504)
        writer.close()
