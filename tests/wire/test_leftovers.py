"""What a backend sends beyond its answer's end ends that connection, wherever the bytes were cut."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from l7proxy.http.link import UpstreamLink
from tests.wire.harness import Origin, live, one_answer, running, status_of

pytestmark = pytest.mark.unit

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@pytest.mark.parametrize(
    "pieces",
    [
        (LENGTH + b"hello" + FORGED,),
        (LENGTH, b"hello" + FORGED),
        (LENGTH + b"he", b"lloX", FORGED),
        (LENGTH + b"hell", b"o" + FORGED),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + FORGED,),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\nX"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", b"\r\n" + FORGED),
    ],
)
@live
async def test_nobody_gets_what_is_left_over(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/first" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
            return
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        for target, body in ((b"/first", b"hello"), (b"/", b"second")):
            writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
            _, got = await one_answer(reader)
            assert got == body
        writer.close()
    assert origin.connections == 2


@live
async def test_an_answers_head_that_drips_takes_no_longer_with_its_length(tmp_path: Path) -> None:
    """A quarter of a megabyte, a few bytes at a time: searched from its beginning each time, it takes 2 s."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"a" * 250_000 + b"\r\n\r\n"
        for at in range(0, len(data), 8):
            writer.write(data[at : at + 8])
            await asyncio.sleep(0)

    spent_s = 0.0

    class Timed(UpstreamLink):
        def buffer_updated(self, nbytes: int) -> None:
            nonlocal spent_s
            began_at = time.process_time()
            super().buffer_updated(nbytes)
            spent_s += time.process_time() - began_at

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l7proxy.http.pool.UpstreamLink", Timed)
        async with running(tmp_path, Origin(answer)) as proxy:
            reader, writer = await proxy.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += await reader.read(2**16)
            assert status_of(got) == 200
            writer.close()
    assert spent_s < 0.5


@live
async def test_a_status_line_without_an_end_is_none(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 " + b"a" * 9000)
        await writer.drain()
        await reader.read()

    async with running(tmp_path, Origin(answer)) as proxy:
        assert status_of(await proxy.get()) == 502
