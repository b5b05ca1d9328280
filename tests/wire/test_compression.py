"""Answers are compressed for who takes it, and look like what they are."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import brotli
import pytest

from tests.wire.codings import WHOLE, pieces_of
from tests.wire.harness import (
    Origin,
    chunks_of,
    fields_of,
    free_port,
    live,
    one_answer,
    running,
    says,
    status_of,
)

pytestmark = pytest.mark.unit

TEXT = b"".join(b"line %d of a text that is long enough\n" % number for number in range(200))
ROUTE = "  - {name: all, upstream: up, compress: true}"


def plain(*lines: bytes, status: bytes = b"200 OK", body: bytes = TEXT) -> Origin:
    head = b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Type: text/plain", *lines])
    return Origin(says(head, b"\r\nContent-Length: %d\r\n\r\n" % len(body), body))


@pytest.mark.parametrize("coding", WHOLE)
def test_an_answer_comes_back_whole_and_says_what_it_is(tmp_path: Path, coding: str) -> None:
    @live
    async def trial() -> None:
        origin = plain(
            b'ETag: "a"', b"Accept-Ranges: bytes", b"Vary: Cookie", b"Repr-Digest: sha-256=:x:", b"Content-MD5: x"
        )
        async with running(tmp_path, origin, routes=ROUTE) as proxy:
            reader, writer = await proxy.connect()
            for _ in range(2):
                writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
                head, body = await one_answer(reader)
                assert WHOLE[coding](body) == TEXT
                assert len(body) < len(TEXT) / 2
                assert fields_of(head, b"content-encoding") == [coding.encode()]
                assert fields_of(head, b"content-length") == [b"%d" % len(body)]
                assert fields_of(head, b"etag") == [b'W/"a"']
                assert fields_of(head, b"vary") == [b"Cookie", b"Accept-Encoding"]
                for name in (b"accept-ranges", b"repr-digest", b"content-md5", b"transfer-encoding"):
                    assert not fields_of(head, name)
            writer.close()

    trial()


@pytest.mark.parametrize("coding", WHOLE)
def test_each_piece_can_be_decoded_when_it_has_come(tmp_path: Path, coding: str) -> None:
    @live
    async def trial() -> None:
        go_on = asyncio.Event()

        async def answer(
            origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b'{"a": 1', b', "b": 2', b"}"):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await go_on.wait()
                go_on.clear()
            writer.write(b"0\r\n\r\n")

        decoder = pieces_of(coding)
        async with running(tmp_path, Origin(answer), routes=ROUTE) as proxy:
            reader, writer = await proxy.connect()
            writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert fields_of(head, b"transfer-encoding") == [b"chunked"]
            found = b""
            for want in (b'{"a": 1', b'{"a": 1, "b": 2', b'{"a": 1, "b": 2}'):
                while found != want:
                    size = int(await reader.readuntil(b"\r\n"), 16)
                    found += decoder((await reader.readexactly(size + 2))[:-2])
                go_on.set()
            rest, _ = await chunks_of(reader)
            assert decoder(rest) == b""
            writer.close()

    trial()


@live
async def test_large_answers_pass_in_pieces(tmp_path: Path) -> None:
    body = TEXT * 500
    async with running(tmp_path, plain(body=body), routes=ROUTE, access_log="combined") as proxy:
        for coding, decode in WHOLE.items():
            reader, writer = await proxy.connect()
            writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
            _, made = await one_answer(reader)
            assert decode(made) == body
            writer.close()
        old = await proxy.talk(b"GET / HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        head, _, made = old.partition(b"\r\n\r\n")
        assert gzip.decompress(made) == body
        assert not fields_of(head, b"content-length")


@live
async def test_what_is_left_as_it_is(tmp_path: Path) -> None:
    """The answer's lines, the request's, whether Vary says that others may get it compressed."""
    cases: list[tuple[bytes, tuple[bytes, ...], tuple[str, ...], bool]] = [
        (b"200 OK", (b"Content-Encoding: br", b'ETag: "a"'), (), False),
        (b"200 OK", (b"Cache-Control: public, no-transform",), (), False),
        (b"206 Part", (b"Content-Range: bytes 0-1/2",), (), True),
        (b"200 OK", (b"Accept-Ranges: bytes",), ("Range: bytes=0-",), True),
        (b"200 OK", (), ("Cache-Control: no-transform",), True),
        (b"200 OK", (b"Vary: accept-encoding, Cookie",), ("Accept-Encoding: gzip;q=0",), True),
    ]
    for status, lines, asked, varies in cases:
        async with running(tmp_path, plain(*lines, status=status), routes=ROUTE) as proxy:
            accepts = () if any(line.startswith("Accept-E") for line in asked) else ("Accept-Encoding: gzip",)
            answer = await proxy.get("/", *accepts, *asked)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == TEXT
        assert fields_of(head, b"content-length") == [b"%d" % len(TEXT)]
        named = [value for value in fields_of(head, b"vary") if b"ccept-" in value]
        assert len(named) == varies, lines
        for line in lines:
            assert line in head.split(b"\r\n")
    async with running(tmp_path, plain(body=b"short"), routes=ROUTE) as proxy:
        assert (await proxy.get("/", "Accept-Encoding: gzip")).endswith(b"\r\n\r\nshort")


@live
async def test_head_and_304_have_no_body_to_compress(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = b"200 OK" if head.startswith(b"HEAD") else b"304 Not Modified"
        writer.write(b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\n" % status)

    async with running(tmp_path, Origin(answer), routes=ROUTE) as proxy:
        for method in ("HEAD", "GET"):
            said = await proxy.talk(
                f"{method} / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n".encode()
            )
            assert said.endswith(b"\r\n\r\n")
            assert fields_of(said, b"content-length") == [b"5000"]
            assert fields_of(said, b"vary") == [b"Accept-Encoding"]
            assert not fields_of(said, b"content-encoding")


@live
async def test_event_streams_are_compressed_only_where_they_are_named(tmp_path: Path) -> None:
    table = (
        "  - {match: {path: /no}, upstream: up, compress: true}\n"
        "  - {match: {path: /yes}, upstream: up, compress: {types: [text/event-stream], minimum_bytes: 0}}"
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: 9\r\n\r\ndata: 1\n\n"
    async with running(tmp_path, Origin(says(head)), routes=table) as proxy:
        assert not fields_of(await proxy.get("/no", "Accept-Encoding: gzip"), b"content-encoding")
        answer = await proxy.get("/yes", "Accept-Encoding: gzip")
        assert gzip.decompress(answer.partition(b"\r\n\r\n")[2]) == b"data: 1\n\n"


@live
async def test_an_answer_that_breaks_off_does_not_look_whole(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9999\r\n\r\n" + TEXT[:3000])
        await writer.drain()
        writer.close()

    async with running(tmp_path, Origin(answer), routes=ROUTE) as proxy:
        said = await proxy.get("/", "Accept-Encoding: gzip")
    assert status_of(said) == 200
    assert fields_of(said, b"transfer-encoding") == [b"chunked"]
    assert not said.endswith(b"0\r\n\r\n")


@live
async def test_our_own_answers_are_compressed_too(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(TEXT)
    table = (
        f"  - {{match: {{path: /own}}, respond: {{file: {page}, headers: {{ETag: '\"a\"'}}}}, compress: true}}\n"
        "  - {match: {path: /none}, upstream: up, compress: {algorithms: [br]}}"
    )
    async with running(tmp_path, free_port(), upstream=f"    sorry: {{file: {page}}}", routes=table) as proxy:
        for path, status in (("/own", 200), ("/none", 503)):
            answer = await proxy.get(path, "Accept-Encoding: br")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert status_of(head) == status
            assert brotli.decompress(body) == TEXT
            assert fields_of(head, b"content-length") == [b"%d" % len(body)]
            assert fields_of(head, b"vary") == [b"Accept-Encoding"]
        as_it_is = await proxy.get("/own")
        assert as_it_is.endswith(TEXT)
        assert fields_of(as_it_is, b"vary") == [b"Accept-Encoding"]
        assert fields_of(as_it_is, b"etag") == [b'"a"']
