"""Whoever goes away midway: the other side learns of it soon, and nothing that was cut looks whole."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Logged,
    Origin,
    Running,
    abort,
    fields_of,
    live,
    named,
    one_answer,
    running,
    status_of,
    stuck_port,
    take,
)

pytestmark = pytest.mark.unit

SOON_S = 1.0
BIG = 64 * 1024 * 1024
ENDLESS = 1 << 40
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Watched:
    """A backend that begins as it is told, and then notes when its connection ends."""

    def __init__(self, begins: bytes = b"", *, pours: bool = False, reads_first: bytes = b"") -> None:
        self._begins, self._pours, self._reads_first = begins, pours, reads_first
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.received = b""

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if self._reads_first:
                self.received += await reader.readuntil(self._reads_first)
            writer.write(self._begins)
            self.begun.set()
            while self._pours:
                writer.write(b"x" * 65536)
                await writer.drain()
            while piece := await reader.read(65536):
                self.received += piece
        except (EOFError, ConnectionError):
            pass
        finally:
            self.ended.set()
        raise EOFError


async def leaves(proxy: Running, watched: Watched, writer: asyncio.StreamWriter, how: str) -> float:
    """The client goes; the seconds until the backend's connection ended."""
    async with asyncio.timeout(PATIENCE_S):
        await watched.begun.wait()
    left_at = asyncio.get_running_loop().time()
    if how == "reset":
        abort(writer)
    else:
        writer.close()
    async with asyncio.timeout(PATIENCE_S):
        await watched.ended.wait()
    took_s = asyncio.get_running_loop().time() - left_at
    await proxy.until(lambda: not proxy.server.proxy.connections)
    return took_s


CASES: dict[str, tuple[bytes, bytes, bool, bytes]] = {
    "while it waits": (GET, b"", False, b""),
    "after an interim answer": (GET, b"HTTP/1.1 103 Early Hints\r\n\r\n", False, b""),
    "within a body": (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", False, b""),
    "within chunks": (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", False, b""),
    "within what a close ends": (GET, b"HTTP/1.1 200 OK\r\n\r\nhalf", False, b""),
    "while much comes": (GET, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ENDLESS, True, b""),
    "within its upload": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", b"", False, b"half"),
    "within its chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"",
        False,
        b"half\r\n",
    ),
    "after its upload": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhalf", b"", False, b"half"),
}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("case", CASES)
@live
async def test_a_client_that_goes_closes_the_backends_connection_within_a_second_and_is_499(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str, how: str
) -> None:
    request, begins, pours, reads_first = CASES[case]
    watched, logged = Watched(begins, pours=pours, reads_first=reads_first), Logged(capfd)
    async with running(tmp_path, Origin(watched.answer), access_log=True) as proxy:
        reader, writer = await proxy.connect()
        writer.write(request)
        if b"half" in begins:
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"half")
        assert await leaves(proxy, watched, writer, how) < SOON_S
        await proxy.until(lambda: bool(logged.statuses()))
        assert logged.statuses() == [499]
        assert proxy.server.proxy.counters.in_flight == 0


@live
async def test_a_client_that_goes_does_not_end_a_chunked_upload(tmp_path: Path) -> None:
    """The backend must not take the half of it for the whole."""
    watched = Watched(reads_first=b"half\r\n")
    async with running(tmp_path, Origin(watched.answer)) as proxy:
        _, writer = await proxy.connect()
        writer.write(CASES["within its chunks"][0])
        assert await leaves(proxy, watched, writer, "close") < SOON_S
    assert b"0\r\n" not in watched.received


@live
async def test_a_client_that_goes_while_it_uploads_much_frees_the_backend(tmp_path: Path) -> None:
    """The backend reads nothing: what is buffered must not hide that the client is gone."""
    gone = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(0.3)
            await take(reader, BIG)
        finally:
            gone.set()

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        _, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BIG + b"x" * (BIG // 2))
        await proxy.until(lambda: bool(origin.heads))
        abort(writer)
        async with asyncio.timeout(SOON_S + 0.3):
            await gone.wait()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@pytest.mark.parametrize("what", ["a body", "requests"])
@live
async def test_a_client_that_is_held_back_and_goes_is_noticed(tmp_path: Path, what: str) -> None:
    """The backend takes nothing and says nothing: the proxy has stopped reading from a client that then goes.

    With a reset: a FIN waits in the client behind what it could not send, where nobody sees it.
    """
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.transport.is_closing():  # noqa: ASYNC110 -- bounded by the test
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.setblocking(False)
            if what == "a body":
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BIG)
            piece = (b"x" if what == "a body" else GET) * 10_000
            quiet = 0
            while quiet < 20:
                try:
                    client.send(piece)
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                await asyncio.sleep(0.005)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with asyncio.timeout(SOON_S):
            await proxy.until(lambda: not proxy.server.proxy.connections)
    assert len(origin.heads) == 1


@live
async def test_a_client_that_goes_while_the_backend_is_being_connected_to_is_499(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    origin, logged = Origin(named), Logged(capfd)
    async with running(tmp_path, stuck_port(), upstream="    timeouts: {connect: 5s}", access_log=True) as proxy:
        _, writer = await proxy.connect()
        writer.write(GET)
        await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 1)
        writer.close()
        async with asyncio.timeout(SOON_S):
            await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 0)
        await proxy.until(lambda: bool(logged.statuses()))
        assert logged.statuses() == [499]
    assert origin.heads == []


@live
async def test_what_is_pipelined_by_a_client_that_goes_is_not_begun(tmp_path: Path) -> None:
    watched = Watched()
    origin = Origin(watched.answer)
    async with running(tmp_path, origin) as proxy:
        _, writer = await proxy.connect()
        writer.write(GET + b"DELETE /2 HTTP/1.1\r\nHost: a\r\n\r\n" + b"DELETE /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await leaves(proxy, watched, writer, "reset") < SOON_S
    assert len(origin.heads) == 1


@live
async def test_a_client_that_goes_after_its_answer_is_not_499(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logged = Logged(capfd)
    async with running(tmp_path, Origin(named), access_log=True) as proxy:
        for how in ("close", "reset"):
            reader, writer = await proxy.connect()
            writer.write(GET)
            assert status_of((await one_answer(reader))[0]) == 200
            if how == "reset":
                abort(writer)
            else:
                writer.close()
        await proxy.until(lambda: len(logged.statuses()) == 2)
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert logged.statuses() == [200, 200]


CUTS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    "within a chunk's size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n6",
    "before the last line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "within a trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-T: ",
    "rubbish for a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    "a chunk too long": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfhalf\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
    "close by HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhalf",
}


def looks_whole(got: bytes) -> bool:
    """Whether a client that got this would think it had everything."""
    if got.endswith(b"<RST>"):
        return False
    head, _, body = got.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    if fields_of(head, b"transfer-encoding"):
        return body.endswith(b"0\r\n\r\n")
    if fields_of(head, b"content-length"):
        return len(body) >= int(fields_of(head, b"content-length")[0])
    return True


@pytest.mark.parametrize("at_once", [True, False], ids=["one packet", "two packets"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("cut", CUTS)
@live
async def test_a_cut_answer_is_a_break_and_nothing_follows_it(
    tmp_path: Path, cut: str, version: bytes, at_once: bool
) -> None:
    """Cut with a reset where only that tells it from the end. What broke before any byte went out may be a 502."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, rest = CUTS[cut].partition(b"\r\n\r\n")
        writer.write(first + b"\r\n\r\n" + (rest if at_once else b""))
        if not at_once:
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(rest)
        await writer.drain()
        await asyncio.sleep(0.02)
        if cut.startswith("close"):
            abort(writer)
        raise EOFError

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        for target in (b"/1", b"/2"):
            writer.write(b"GET %b HTTP/%b\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % (target, version))
        async with asyncio.timeout(PATIENCE_S):
            got = await reader.readuntil(b"\r\n\r\n")
            if status_of(got) == 502:
                writer.close()
                return
            try:
                while piece := await reader.read(65536):
                    got += piece
            except ConnectionResetError:
                got += b"<RST>"
        writer.close()
    assert status_of(got) == 200
    assert got.count(b"HTTP/1.") == 1
    assert len(origin.heads) == 1
    assert not looks_whole(got)


@live
async def test_a_break_after_much_of_a_body_is_a_break(tmp_path: Path) -> None:
    """What the client has not read yet when the backend breaks off still comes, and no more."""
    sent = 4 * 1024 * 1024

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * sent) + b"x" * sent)
        await writer.drain()
        raise EOFError

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.talk(GET)
    body = got.partition(b"\r\n\r\n")[2]
    assert got.count(b"HTTP/1.") == 1
    assert set(body.removesuffix(b"<RST>")) <= set(b"x")
    assert len(body) <= sent + len(b"<RST>")


@pytest.mark.parametrize("answered", [False, True])
@live
async def test_a_backend_that_ends_within_an_upload_is_one_answer(tmp_path: Path, answered: bool) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        if answered:
            writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            await writer.drain()
        raise EOFError

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        async with asyncio.timeout(PATIENCE_S):
            got = await reader.read()
        writer.close()
    assert status_of(got) == (413 if answered else 502)
    assert got.count(b"HTTP/1.") == 1
    assert len(origin.heads) == 1


@live
async def test_a_backend_that_stalls_midway_is_a_break_in_time(tmp_path: Path) -> None:
    watched = Watched(CUTS["length"])
    async with running(tmp_path, Origin(watched.answer), upstream="    timeouts: {idle: 300ms}") as proxy:
        got = await proxy.talk(GET)
        async with asyncio.timeout(SOON_S):
            await watched.ended.wait()
    assert got.removesuffix(b"<RST>").endswith(b"half")
    assert got.count(b"HTTP/1.") == 1
