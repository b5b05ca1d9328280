"""What connections leave behind, and what is waited for: links that go from one client to the next, bodies that meet a
full backend, timers that run for the wrong side.

One rule: each test is of one defect that was there once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from l7proxy.http.link import Asker, UpstreamLink
from tests.wire.harness import (
    Origin,
    abort,
    body_back,
    free_port,
    live,
    named,
    one_answer,
    running,
    status_of,
)

pytestmark = pytest.mark.unit


class SmallLink(UpstreamLink):
    """A link that sends as little at once as one over a network that is no loopback."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)


def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all links be such."""
    monkeypatch.setattr("l7proxy.http.pool.UpstreamLink", SmallLink)


@live
async def test_a_backend_that_is_full_from_the_first_piece_on_holds_the_client_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_buffers(monkeypatch)
    total, written = 64 * 1024 * 1024, [0]

    async def stalls(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reader.read()

    async with running(tmp_path, Origin(stalls)) as proxy:
        _, writer = await proxy.connect()

        async def send() -> None:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total + bytes(300_000))
            while written[0] < total:
                writer.write(bytes(65536))
                await writer.drain()
                written[0] += 65536

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            before = -1
            while before != written[0]:
                before = written[0]
                await asyncio.sleep(0.3)
            sending.cancel()
        abort(writer)
        assert written[0] < total / 4


@live
async def test_a_connection_that_has_not_sent_its_request_yet_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_buffers(monkeypatch)

    async def answers_early(
        origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if head.startswith(b"GET"):
            await named(origin, head, reader, writer)
            return
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    backend = Origin(answers_early)
    async with running(tmp_path, backend) as proxy:
        for listening in backend.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000))
        assert status_of((await one_answer(reader))[0]) == 200
        writer.close()
        async with asyncio.timeout(3.0):
            assert (await proxy.get()).endswith(b"origin")


@live
async def test_an_authenticated_connection_goes_on_after_an_answer_that_its_client_took_slowly(tmp_path: Path) -> None:
    size = 1_000_000

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 U\r\nWWW-Authenticate: NTLM\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    backend = Origin(answer)
    async with running(tmp_path, backend) as proxy:
        for listening in proxy.server._listeners.sockets.values():
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reader, writer = await proxy.connect()
        async with asyncio.timeout(5.0):
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await asyncio.sleep(0.1)
                assert len((await one_answer(reader))[1]) == size
        writer.close()
    assert backend.connections == 1


@live
async def test_a_connection_made_for_a_client_that_left_may_be_stale_too(tmp_path: Path) -> None:
    """It was never used, but it was idle: that it ends just then is no failure of the next request."""
    heads: list[int] = []

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(origin.connections)
        if origin.connections == 1:
            abort(writer)
            raise EOFError
        await named(origin, head, reader, writer)

    backend = Origin(answer)
    async with running(tmp_path, backend) as proxy:
        state = proxy.server.proxy.snapshot.upstreams["up"].backends["b0"]
        _, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        while not state.pool.made:
            front = proxy.server._engine.listeners.fronts[0]
            for connection in list(front.clients):
                if connection.exchange is not None:
                    connection.abort()
            await asyncio.sleep(0)
        assert not heads
        writer.close()
        await proxy.until(lambda: state.pool.idle == 1)
        assert status_of(await proxy.get()) == 200


@live
async def test_an_answer_of_our_own_to_http10_ends_the_connection_or_says_that_it_stays(tmp_path: Path) -> None:
    routes = "  - {match: {path: /none}, upstream: up}"
    async with running(tmp_path, Origin(named), routes=routes) as proxy, asyncio.timeout(3.0):
        answer = await proxy.talk(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert status_of(answer) == 404


@live
async def test_the_next_backend_has_its_own_time_for_an_answer(tmp_path: Path) -> None:
    slow = asyncio.Event()

    async def dies(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in head:
            await asyncio.sleep(1.2)
            raise EOFError
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        slow.set()

    async def thinks(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in head:
            await asyncio.sleep(1.5)
        await named(origin, head, reader, writer)

    timeouts = "    timeouts: {response: 2s}"
    async with running(tmp_path, Origin(dies), Origin(thinks), upstream=timeouts) as proxy:
        for _ in range(6):
            await proxy.get()
            if slow.is_set():
                break
        await proxy.get()
        while proxy.server.proxy.counters.ended:
            before = proxy.server.proxy.snapshot.upstreams["up"].backends["b0"].counters.requests
            answer = await proxy.get("/slow")
            assert status_of(answer) == 200
            if proxy.server.proxy.snapshot.upstreams["up"].backends["b0"].counters.requests > before:
                break


@contextmanager
def blocking_backend(port: int, more: bytes) -> Iterator[threading.Event]:
    """A backend in a thread: one good answer, and `more` on the same connection when the event is set."""
    now, said = threading.Event(), threading.Event()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    listener.settimeout(5.0)

    def good(connection: socket.socket) -> None:
        connection.settimeout(5.0)
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")

    def serve() -> None:
        first, _ = listener.accept()
        good(first)
        now.wait(5.0)
        first.sendall(more)
        said.set()
        second, _ = listener.accept()
        good(second)
        first.close()
        second.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    class Both(threading.Event):
        def set(self) -> None:
            now.set()
            said.wait(5.0)

    try:
        yield Both()
    finally:
        listener.close()
        thread.join(6.0)


@live
async def test_bytes_that_lie_unread_on_a_connection_answer_nobody(tmp_path: Path) -> None:
    port = free_port()
    leftover = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
    with blocking_backend(port, leftover) as more:
        async with running(tmp_path, port) as proxy:
            assert (await proxy.get()).endswith(b"good")
            with socket.create_connection(("127.0.0.1", proxy.port)) as plain:
                await proxy.until(lambda: proxy.server.proxy.connections == 1)
                plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")  # the loop does not run yet
                more.set()
                plain.setblocking(False)
                loop = asyncio.get_running_loop()
                answer = b""
                while piece := await loop.sock_recv(plain, 65536):
                    answer += piece
    assert answer.endswith(b"good")


@live
async def test_an_answer_that_ended_is_whole_though_its_request_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_buffers(monkeypatch)

    async def refuses(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.0 413 Too Large\r\n\r\ntoo large")
        writer.write_eof()
        await reader.read()

    async with running(tmp_path, Origin(refuses)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + bytes(7_000_000))
        async with asyncio.timeout(3.0):
            assert (await one_answer(reader))[1] == b"too large"
        writer.close()


@live
async def test_what_fails_in_itself_while_it_connects_is_500_and_ends_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError("a defect")]

    class Failing(UpstreamLink):
        def begin(self, asker: Asker, bodiless: bool) -> None:
            if failures:
                raise failures.pop()
            super().begin(asker, bodiless)

    monkeypatch.setattr("l7proxy.http.pool.UpstreamLink", Failing)
    async with running(tmp_path, Origin(named)) as proxy:
        assert [status_of(await proxy.get()) for _ in range(2)] == [500, 200]


@live
async def test_a_body_whose_first_chunk_is_cut_behind_much_that_was_held_goes_on(tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nX-Long: %b\r\n\r\n"
    first = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET"):
            await first.wait()
            await named(origin, head, reader, writer)
        else:
            await body_back(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer), more="limits: {head_bytes: 1024, request_line: 512}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(head % (b"x" * 800) + b"4;" + b"e" * 200)
        await asyncio.sleep(0.1)
        first.set()
        await one_answer(reader)
        writer.write(b"\r\nwiki\r\n0\r\n\r\n")
        async with asyncio.timeout(3.0):
            assert (await one_answer(reader))[1] == b"wiki"
        writer.close()


@live
async def test_an_early_answer_is_taken_as_slowly_as_its_client_likes(tmp_path: Path) -> None:
    size = 200_000

    async def refuses(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 U\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await writer.drain()
        await reader.read()

    async with running(tmp_path, Origin(refuses)) as proxy:
        for listening in proxy.server._listeners.sockets.values():
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(plain, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
        answer = b""
        while piece := await loop.sock_recv(plain, 4096):
            answer += piece
            await asyncio.sleep(0.1)  # 5 s for all of it
        plain.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert len(body) == size


@live
async def test_a_tunnel_that_has_ended_waits_no_longer_for_a_backend_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("l7proxy.http.link.CLOSES_WITHIN_S", 0.3)
    links: list[UpstreamLink] = []

    class Known(SmallLink):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            links.append(self)
            super().connection_made(transport)

    monkeypatch.setattr("l7proxy.http.pool.UpstreamLink", Known)

    async def stalls(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        writer.write_eof()
        await reader.read()

    backend = Origin(stalls)
    async with running(tmp_path, backend) as proxy:
        for listening in backend.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()
        writer.write(bytes(50_000))
        writer.write_eof()
        await proxy.until(lambda: not proxy.server.proxy.counters.in_flight)
        async with asyncio.timeout(3.0):
            await proxy.until(lambda: links[0].transport is None)
        writer.close()
