"""Bodies flow: nothing is held back until its end, and nothing piles up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import Origin, Running, live, named, running, status_of, take

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("framing", ["Content-Length: 8", "Transfer-Encoding: chunked"])
@live
async def test_a_piece_of_an_answer_arrives_before_the_backend_is_done(tmp_path: Path, framing: str) -> None:
    seen = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunked = "chunked" in framing
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"4\r\none.\r\n" if chunked else b"one.")
        await seen.wait()
        writer.write(b"4\r\ntwo.\r\n0\r\n\r\n" if chunked else b"two.")

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert b"two" not in await reader.readuntil(b"one.")
        seen.set()
        await reader.readuntil(b"two.")
        writer.close()


@pytest.mark.parametrize("framing", ["Content-Length: 8", "Transfer-Encoding: chunked"])
@live
async def test_a_piece_of_an_upload_arrives_before_the_client_is_done(tmp_path: Path, framing: str) -> None:
    seen = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one.")
        seen.set()
        await reader.readuntil(b"two.\r\n0\r\n\r\n" if "chunked" in framing else b"two.")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        chunked = "chunked" in framing
        writer.write(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
        writer.write(b"4\r\none.\r\n" if chunked else b"one.")
        await seen.wait()
        writer.write(b"4\r\ntwo.\r\n0\r\n\r\n" if chunked else b"two.")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.close()


@live
async def test_an_early_answer_ends_an_upload(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        writer.close()

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nstart")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 413
        assert await reader.readexactly(2) == b"no"
        writer.close()


@live
async def test_what_an_early_answer_left_unread_is_no_new_request(tmp_path: Path) -> None:
    """The client goes on sending a while: the rest is read and dropped, so that no reset eats the answer."""
    async with running(tmp_path, Origin(named)) as proxy:
        proxy.path.write_text(proxy.path.read_text().replace("{name: all,", "{match: {host: only.example},"))
        proxy.server.request_reload()
        await proxy.until(lambda: bool(proxy.server.proxy.snapshot.config.routes[0].hosts))
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 2000000\r\n\r\n")
        assert status_of(await reader.readuntil(b"no route\n")) == 404
        for _ in range(20):
            writer.write(b"x" * 100_000)
            await writer.drain()
        assert await reader.read() == b""
        writer.close()


async def comes_to_rest(proxy: Running, written: list[int]) -> None:
    """Wait until something was written and then, through many turns of the loop that writes, nothing more."""
    await proxy.until(lambda: written[0] > 0)
    turns, before = 0, -1
    while turns < 200:
        turns, before = (turns + 1, before) if written[0] == before else (0, written[0])
        await asyncio.sleep(0.002)


@live
async def test_a_slow_reader_holds_the_backend_back(tmp_path: Path) -> None:
    """The backend can be ahead by what buffers hold, not by the whole body."""
    total, written = 64 * 1024 * 1024, [0]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written[0] < total:
            writer.write(b"x" * 65536)
            await writer.drain()
            written[0] += 65536

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=65536)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await comes_to_rest(proxy, written)
        assert 0 < written[0] < total / 2
        got = 0
        while piece := await reader.read(1 << 20):
            got += len(piece)
        writer.close()
    assert got == total


@live
async def test_a_slow_backend_holds_the_client_back(tmp_path: Path) -> None:
    total, written, go = 64 * 1024 * 1024, [0], asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await take(reader, total)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    backend = Origin(answer)
    async with running(tmp_path, backend) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)

        async def send() -> None:
            while written[0] < total:
                writer.write(b"x" * 65536)
                await writer.drain()
                written[0] += 65536

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            await proxy.until(lambda: bool(backend.heads))
            await comes_to_rest(proxy, written)
            assert 0 < written[0] < total / 2
            go.set()
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.close()
