"""A proxy in this process, origins made of raw sockets, and clients that write bytes.

One rule: nothing here parses more HTTP than a test needs, so that a test sees what is on the wire.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
import struct
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, SupportsIndex

import pytest
import uvloop

from l7proxy.files.loading import load_file
from l7proxy.listeners import open_sockets
from l7proxy.server import Server

P = ParamSpec("P")
PATIENCE_S = 10.0
ALL = "  - {name: all, upstream: up}"
"""The route of every request."""


def live(test: Callable[P, Coroutine[None, None, None]], within_s: float = 3 * PATIENCE_S) -> Callable[P, None]:
    """Run an async test on the loop the product runs on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(within_s):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(bounded())
            except BaseException:
                # It left things open. Warnings of that, made errors, would keep uvloop from ever closing.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    runner.close()
                raise

    return run


_held: deque[socket.socket] = deque()


def free_port() -> int:
    """A port nobody listens at. It stays bound, so that nobody else gets it; whoever sets SO_REUSEADDR may listen."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    if len(_held) > 64:
        _held.popleft().close()
    return int(holder.getsockname()[1])


_queued: list[socket.socket] = []


def stuck_port() -> int:
    """A port whose queue of connections is full: a connection is neither accepted nor refused."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    _queued.append(listener)
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        with suppress(BlockingIOError):
            filler.connect(listener.getsockname())
        _queued.append(filler)
    return int(listener.getsockname()[1])


def let_go() -> None:
    """Close what `stuck_port` holds."""
    while _queued:
        _queued.pop().close()


Answer = Callable[["Origin", bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Message:
    """A request that reached an origin whole; the body without its chunks, and the trailer section as it came."""

    head: bytes
    body: bytes = b""
    trailers: bytes = b""


class _Keeping(asyncio.StreamReader):
    """Writes down whatever comes, also what no request is made of."""

    def __init__(self, received: bytearray) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._received = received

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self._received += bytes(data)
        super().feed_data(data)


class Origin:
    """A backend: `answer` is called with each head. What it received is kept.

    `received` is each byte that came, and `messages` the requests that `takes` saw to their end.
    """

    def __init__(self, answer: Answer, name: str = "origin", tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.tls = tls
        self.name = name
        self.port = free_port()
        self.heads: list[bytes] = []
        self.received = bytearray()
        self.messages: list[Message] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> Origin:
        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Keeping(self.received), self._serve)

        self._server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", self.port, ssl=self.tls)
        return self

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """What it listens at."""
        return self._server.sockets if self._server is not None else ()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110 -- bounded by the test
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await self.answer(self, head, reader, writer)
                await writer.drain()
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


def says(*parts: bytes) -> Answer:
    """An answer of fixed bytes."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))

    return answer


async def named(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200 with the origin's name."""
    name = origin.name.encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))


async def body_back(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200 with the request's body."""
    body = await reader.readexactly(length_of(head)) if b"content-length" in head.lower() else await dechunk(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def takes(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keep the whole request, and say 200 and `ok`. What is not framed to the letter ends the connection."""
    body, trailers = b"", b""
    if fields_of(head, b"transfer-encoding"):
        body, trailers = await chunks_of(reader)
    elif fields_of(head, b"content-length"):
        body = await reader.readexactly(length_of(head))
    origin.messages.append(Message(head, body, trailers))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if head.startswith(b"HEAD ") else b"ok"))


async def chunks_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A chunked body and its trailer section. Raises: EOFError when it is not what RFC 9112 7.1 says."""
    body, trailers = b"", b""
    while True:
        line = (await reader.readuntil(b"\r\n"))[:-2]
        size = line.partition(b";")[0]
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            raise EOFError(f"no chunk: {line!r}")
        if not int(size, 16):
            break
        piece = await reader.readexactly(int(size, 16) + 2)
        if not piece.endswith(b"\r\n"):
            raise EOFError(f"no end of a chunk: {piece[-2:]!r}")
        body += piece[:-2]
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers += line
    return body, trailers


async def take(reader: asyncio.StreamReader, size: int) -> None:
    """Read `size` bytes and forget them. Raises: EOFError when fewer come."""
    while size:
        piece = await reader.read(min(size, 1 << 20))
        if not piece:
            raise EOFError(f"{size} bytes short")
        size -= len(piece)


def length_of(head: bytes) -> int:
    return int(fields_of(head, b"content-length")[0])


def fields_of(head: bytes, name: bytes) -> list[bytes]:
    """The values of a header, in order."""
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [value.strip() for key, _, value in (line.partition(b":") for line in lines) if key.lower() == name]


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def statuses_of(answers: bytes) -> list[int]:
    """The status of each answer, interim ones too; bodies hold no status line."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", answers)]


async def dechunk(reader: asyncio.StreamReader) -> bytes:
    """A chunked body, decoded."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


async def one_answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> tuple[bytes, bytes]:
    """The head and the decoded body of the next final answer. Raises: EOFError when it does not come whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    while head.split(b" ", 2)[1].startswith(b"1"):
        head = await reader.readuntil(b"\r\n\r\n")
    if not has_body or status_of(head) in {204, 304}:
        return head, b""
    if fields_of(head, b"transfer-encoding"):
        return head, await dechunk(reader)
    return head, await reader.readexactly(length_of(head))


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Logged:
    """What the access log of a proxy in this process says, whatever its format."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.text = ""

    def statuses(self) -> list[int]:
        """Of the exchanges so far."""
        self.text += self._captured.readouterr().out
        return [int(found) for found in re.findall(r'(?:\bstatus=|"status": ?|" )(\d{3})\b', self.text)]


class Running:
    """A proxy that runs."""

    def __init__(self, server: Server, port: int, path: Path) -> None:
        self.server = server
        self.port = port
        self.path = path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, request: bytes) -> bytes:
        """Send `request` and read until the proxy closes. A reset shows as `<RST>` at the end."""
        reader, writer = await self.connect()
        writer.write(request)
        received = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while piece := await reader.read(65536):
                    received += piece
        except ConnectionResetError:
            received += b"<RST>"
        finally:
            writer.close()
        return received

    async def send(self, *pieces: bytes, patience_s: float = PATIENCE_S) -> bytes:
        """Send each piece in a packet of its own and read until the proxy closes.

        A reset shows as `<RST>` at the end, a connection that is still open after `patience_s` as `<OPEN>`.
        """
        reader, writer = await self.connect()
        received = b""
        try:
            async with asyncio.timeout(patience_s):
                for piece in pieces:
                    if writer.transport.is_closing():  # it was reset
                        break
                    writer.write(piece)
                    await asyncio.sleep(0.001 if len(pieces) > 1 else 0)
                while piece := await reader.read(65536):
                    received += piece
        except ConnectionError:
            received += b"<RST>"
        except TimeoutError:
            received += b"<OPEN>"
        finally:
            writer.close()
        return received

    async def get(self, target: str = "/", *lines: str, host: str = "any.example") -> bytes:
        """GET, and close."""
        more = "".join(line + "\r\n" for line in lines)
        return await self.talk(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode())

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a state."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    tmp_path: Path,
    *origins: Origin | int | str,
    upstream: str = "",
    more: str = "",
    listener: str = "",
    routes: str = ALL,
    access_log: str | bool = "false",
    port: int | None = None,
) -> AsyncIterator[Running]:
    """A proxy before `origins` (or bare ports, or addresses), which are one upstream `up` for every request, unless
    `routes` says otherwise."""
    for origin in origins:
        if isinstance(origin, Origin):
            await origin.start()
    port = port or free_port()
    path = tmp_path / "l7proxy.yaml"
    path.write_text(
        config_text(
            port,
            *origins,
            upstream=upstream,
            more=more,
            listener=listener,
            routes=routes,
            access_log=str(access_log).lower(),
        )
    )
    loaded = load_file(str(path))
    server = Server(str(path), loaded)
    sockets = open_sockets(loaded.config)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run(sockets))
        await asyncio.sleep(0)
        try:
            yield Running(server, port, path)
        except BaseException as error:  # noqa: BLE001 -- raised again below, when everything is closed
            failure = error
        server.request_stop()
        server.request_stop()
    for origin in origins:
        if isinstance(origin, Origin):
            await origin.stop()
    let_go()
    if failure is not None:
        raise failure


def _address(item: Origin | int) -> str:
    return f"127.0.0.1:{item if isinstance(item, int) else item.port}"


def config_text(
    port: int,
    *origins: Origin | int | str,
    upstream: str = "",
    more: str = "",
    listener: str = "",
    routes: str = ALL,
    access_log: str = "false",
) -> str:
    """A configuration with one listener, one route and one upstream; `upstream` and `more` are YAML to add."""
    backends = "".join(
        f"      b{index}: {{address: '{item if isinstance(item, str) else _address(item)}'}}\n"
        for index, item in enumerate(origins)
    )
    return (
        f"listeners:\n  http: {{bind: '127.0.0.1:{port}'{listener}}}\n"
        f"access_log: {access_log}\n"
        f"routes:\n{routes}\n"
        f"{more}\n"
        f"upstreams:\n  up:\n{upstream}\n    backends:\n{backends}"
    )
