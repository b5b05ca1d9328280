"""Bodies of half a gigabyte through the program itself: what is produced is not ahead of what is read, nor held."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.wire.harness import PATIENCE_S, Origin, config_text, free_port, live, named, one_answer, running, status_of
from tests.wire.test_process import Process

pytestmark = pytest.mark.unit

MB = 1024 * 1024
TOTAL = 500 * MB
PIECE = b"x" * MB
MAY_GROW = 10 * MB
"""How much more the program may have resident at most, ever."""
MAY_BE_UNDERWAY = 64 * MB
"""What the kernel's buffers of two connections may hold, and then some."""

FRAMINGS = {
    "length": (b"Content-Length: %d\r\n\r\n" % TOTAL, PIECE, b""),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n" % (MB, PIECE), b"0\r\n\r\n"),
    "small chunks": (b"Transfer-Encoding: chunked\r\n\r\n", (b"800\r\n" + b"x" * 2048 + b"\r\n") * 512, b"0\r\n\r\n"),
}


class Far:
    """A backend of blocking sockets in threads, which keep up with half a gigabyte: `serve` gets each connection."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(3 * PATIENCE_S)
            try:
                self._serve(connection)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def far(serve: Callable[[socket.socket], None]) -> Iterator[Far]:
    backend = Far(serve)
    try:
        yield backend
    finally:
        backend.close()


def head_from(connection: socket.socket) -> tuple[bytes, bytes]:
    """A head, and what came behind it."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


class Counted:
    """How far a sender has come."""

    def __init__(self) -> None:
        self.bytes = 0

    def send(self, connection: socket.socket, framing: str) -> None:
        """A body of TOTAL bytes."""
        _, piece, last = FRAMINGS[framing]
        for _ in range(TOTAL // MB):
            view = memoryview(piece)
            while view:
                sent = connection.send(view)
                self.bytes += sent
                view = view[sent:]
        connection.sendall(last)

    def wait_until_it_stalls(self) -> None:
        """Begun, and then nothing more for a while."""
        before, since = -1, time.monotonic()
        deadline = since + PATIENCE_S
        while time.monotonic() < deadline:
            if self.bytes != before or not self.bytes:
                before, since = self.bytes, time.monotonic()
            elif time.monotonic() - since > 0.4:
                return
            time.sleep(0.02)
        raise TimeoutError(f"it never stalled: {self.bytes} bytes were taken")


def drained(connection: socket.socket, last: bytes, had: bytes, at_least: int) -> int:
    """Read until `last` ends what came, or without one until `at_least` bytes came; how many came."""
    buffer, count, tail = bytearray(MB), len(had), had[-16:]
    while not (count >= at_least and tail.endswith(last)):
        size = connection.recv_into(buffer)
        if not size:
            raise ConnectionResetError(f"ended after {count} bytes")
        count += size
        tail = (tail + bytes(buffer[max(0, size - 16) : size]))[-16:]
    return count


def warm(port: int) -> None:
    """One exchange, so that what is loaded once is there."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while client.recv(65536):
            pass


@pytest.mark.parametrize("framing", FRAMINGS)
@live
async def test_half_a_gigabyte_down_to_a_client_that_stalls_takes_no_memory(tmp_path: Path, framing: str) -> None:
    written = Counted()

    def serve(connection: socket.socket) -> None:
        while True:
            head, _ = head_from(connection)
            if head.startswith(b"GET /small"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + FRAMINGS[framing][0])
            written.send(connection, framing)

    def fetch(port: int, proxy: Process, before: int) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            _, rest = head_from(client)
            written.wait_until_it_stalls()
            assert written.bytes < MAY_BE_UNDERWAY
            assert proxy.memory_bytes() - before < MAY_GROW
            drained(client, FRAMINGS[framing][2], rest, TOTAL)

    port, path = free_port(), tmp_path / "a.yaml"
    with far(serve) as backend:
        path.write_text(config_text(port, backend.port))
        async with Process(path, port) as proxy:
            await asyncio.to_thread(warm, port)
            before = proxy.memory_bytes()
            await asyncio.to_thread(fetch, port, proxy, before)
            assert proxy.memory_bytes() - before < MAY_GROW


@pytest.mark.parametrize("framing", FRAMINGS)
@live
async def test_half_a_gigabyte_up_to_a_backend_that_stalls_takes_no_memory(tmp_path: Path, framing: str) -> None:
    go, written = threading.Event(), Counted()

    def serve(connection: socket.socket) -> None:
        while True:
            head, rest = head_from(connection)
            if head.startswith(b"POST"):
                go.wait(PATIENCE_S)
                drained(connection, FRAMINGS[framing][2], rest, TOTAL)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def upload(port: int, proxy: Process, before: int) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + FRAMINGS[framing][0])
            client.settimeout(3 * PATIENCE_S)
            sender = threading.Thread(target=written.send, args=(client, framing), daemon=True)
            sender.start()
            written.wait_until_it_stalls()
            assert written.bytes < MAY_BE_UNDERWAY
            assert proxy.memory_bytes() - before < MAY_GROW
            go.set()
            sender.join()
            assert status_of(head_from(client)[0]) == 200

    port, path = free_port(), tmp_path / "a.yaml"
    with far(serve) as backend:
        path.write_text(config_text(port, backend.port))
        async with Process(path, port) as proxy:
            await asyncio.to_thread(warm, port)
            before = proxy.memory_bytes()
            await asyncio.to_thread(upload, port, proxy, before)
            assert proxy.memory_bytes() - before < MAY_GROW


@pytest.mark.parametrize("who", ["client", "backend"])
@live
async def test_a_tunnel_whose_one_end_stalls_takes_no_memory(tmp_path: Path, who: str) -> None:
    go, written, took = threading.Event(), Counted(), Counted()
    total = 100 * MB

    def pour(connection: socket.socket) -> None:
        for _ in range(total // MB):
            view = memoryview(PIECE)
            while view:
                sent = connection.send(view)
                written.bytes += sent
                view = view[sent:]

    def swallow(connection: socket.socket, rest: bytes) -> None:
        go.wait(PATIENCE_S)
        took.bytes = drained(connection, b"", rest, total)

    def serve(connection: socket.socket) -> None:
        head, rest = head_from(connection)
        if head.startswith(b"GET /small"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        if who == "client":
            pour(connection)
            connection.recv(1)
        else:
            swallow(connection, rest)

    def client_side(port: int, proxy: Process, before: int) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            head, rest = head_from(client)
            assert status_of(head) == 101
            client.settimeout(3 * PATIENCE_S)
            one = threading.Thread(target=pour, args=(client,)) if who == "backend" else None
            if one:
                one.start()
            written.wait_until_it_stalls()
            assert written.bytes < MAY_BE_UNDERWAY
            assert proxy.memory_bytes() - before < MAY_GROW
            go.set()
            if one:
                one.join()
                assert client.recv(1) == b""  # the backend took all, and closed
            else:
                swallow(client, rest)
            assert took.bytes == total

    port, path = free_port(), tmp_path / "a.yaml"
    with far(serve) as backend:
        path.write_text(config_text(port, backend.port))
        async with Process(path, port) as proxy:
            await asyncio.to_thread(warm, port)
            before = proxy.memory_bytes()
            await asyncio.to_thread(client_side, port, proxy, before)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@live
async def test_each_event_of_a_stream_arrives_before_the_next_is_made(tmp_path: Path, framing: str) -> None:
    """Server-sent events: an echo a piece, so that anything held back is a standstill."""
    count = 50
    first = {
        "length": b"Content-Length: %d\r\n" % (count * 10),
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "close": b"",
    }
    told: asyncio.Queue[int] = asyncio.Queue()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + first[framing] + b"\r\n")
        for index in range(count):
            event = b"data:%03d\n\n" % index
            writer.write(b"a\r\n%b\r\n" % event if framing == "chunked" else event)
            async with asyncio.timeout(PATIENCE_S):
                assert await told.get() == index
        writer.write(b"0\r\n\r\n" if framing == "chunked" else b"")
        if framing == "close":
            raise EOFError

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            for index in range(count):
                await reader.readuntil(b"data:%03d\n\n" % index)
                told.put_nowait(index)
            await reader.read()
        writer.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@live
async def test_each_piece_of_an_upload_arrives_before_the_next_is_made(tmp_path: Path, framing: str) -> None:
    count = 50
    came: asyncio.Queue[int] = asyncio.Queue()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for index in range(count):
            await reader.readuntil(b"piece:%03d\n" % index)
            came.put_nowait(index)
        if framing == "chunked":
            await reader.readuntil(b"0\r\n\r\n")
        await named(origin, head, reader, writer)

    field = b"Content-Length: %d" % (count * 10) if framing == "length" else b"Transfer-Encoding: chunked"
    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % field)
        async with asyncio.timeout(PATIENCE_S):
            for index in range(count):
                piece = b"piece:%03d\n" % index
                writer.write(b"a\r\n%b\r\n" % piece if framing == "chunked" else piece)
                assert await came.get() == index
            writer.write(b"0\r\n\r\n" if framing == "chunked" else b"")
            assert status_of((await one_answer(reader))[0]) == 200
        writer.close()


@live
async def test_the_head_of_an_answer_arrives_before_its_body_begins(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await seen.wait()
        writer.write(b"body")

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"\r\n\r\n")
            seen.set()
            assert await reader.readexactly(4) == b"body"
        writer.close()


@live
async def test_a_body_in_both_directions_at_once_flows(tmp_path: Path) -> None:
    """The answer begins while the request is still being sent: neither waits for the other."""
    total, piece = 16 * MB, b"z" * 65536

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        left = total
        while left:
            got = await reader.read(65536)
            if not got:
                raise EOFError
            left -= len(got)
            writer.write(got)
            await writer.drain()

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % total)

        async def send() -> None:
            for _ in range(total // len(piece)):
                writer.write(piece)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            while more := await reader.read(MB):
                got += len(more)
        assert got == total
        writer.close()
