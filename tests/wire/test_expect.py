"""`Expect: 100-continue` from end to end (RFC 9110 10.1.1): who wants the body says so, and nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Answer,
    Origin,
    body_back,
    fields_of,
    free_port,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
)

pytestmark = pytest.mark.unit

SOON_S = 2.5
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LENGTH = b"Content-Length: 5\r\n\r\n", b"hello"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"


def expecting(rest: bytes, target: bytes = b"/", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\nHost: a\r\nExpect: 100-continue\r\n%b" % (target, version, rest)


async def welcome(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """100, then the body back."""
    if fields_of(head, b"expect"):
        writer.write(CONTINUE)
    await body_back(origin, head, reader, writer)


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@live
async def test_100_comes_only_when_the_backend_wants_the_body(tmp_path: Path, framing: tuple[bytes, bytes]) -> None:
    wants_it = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wants_it.wait()
        await welcome(origin, head, reader, writer)

    rest, body = framing
    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(rest))
        await proxy.until(lambda: bool(origin.heads))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        wants_it.set()
        assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        writer.write(body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert status_of(head) == 200
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert status_of(await reader.read()) == 200
        writer.close()
    assert fields_of(origin.heads[0], b"expect") == [b"100-continue"]


@live
async def test_a_client_that_does_not_wait_is_served_and_goes_on(tmp_path: Path) -> None:
    origin = Origin(welcome)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            expecting(b"".join(LENGTH))
            + expecting(b"".join(CHUNKED))
            + b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    assert got.count(b" 200 OK\r\n") == 3
    assert got.count(b" 100 ") <= 2  # it may be left out where the body is there (RFC 9110 10.1.1)
    assert len(origin.heads) == 3


@live
async def test_a_backend_that_knows_no_100_gets_the_body_all_the_same(tmp_path: Path) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(LENGTH[0]))
        await proxy.until(lambda: bool(origin.heads))
        writer.write(LENGTH[1])
        head, body = await one_answer(reader)
        writer.close()
    assert (status_of(head), body) == (200, b"hello")


async def refuses(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A final answer without the body; the backend would go on reading."""
    if head.startswith(b"POST"):
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    else:
        await named(origin, head, reader, writer)


async def refuses_and_closes(
    origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await refuses(origin, head, reader, writer)
    if head.startswith(b"POST"):
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("answer", [refuses, refuses_and_closes])
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@live
async def test_an_early_final_answer_closes_cleanly(
    tmp_path: Path, framing: tuple[bytes, bytes], answer: Answer
) -> None:
    """Whether the body still comes nobody can tell: both connections end, after the answer and without a reset."""
    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(framing[0]))
        got = await asyncio.wait_for(reader.read(), SOON_S)
        assert status_of(got) == 401
        assert got.endswith(b"\r\n\r\nno")
        assert fields_of(got, b"connection") == [b"close"]
        assert got.count(b"HTTP/1.1") == 1
        writer.close()
        assert status_of(await proxy.get("/next")) == 200
    assert origin.connections == 2
    assert origin.heads[1].startswith(b"GET /next ")


@live
async def test_what_follows_an_early_final_answer_is_no_request(tmp_path: Path) -> None:
    origin = Origin(refuses)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(b"Content-Length: 36\r\n\r\n"))
        head, _ = await one_answer(reader)
        assert status_of(head) == 401
        writer.write(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/"]


@pytest.mark.parametrize("value", ["200-ok", "100-continue, x-more", "x=1", "100-continued"])
@live
async def test_another_expectation_is_417(tmp_path: Path, value: str) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            f"POST / HTTP/1.1\r\nHost: a\r\nExpect: {value}\r\nConnection: close\r\nContent-Length: 5\r\n\r\n".encode()
            + b"hello"
        )
    assert status_of(got) == 417
    assert got.count(b"HTTP/1.1") == 1
    assert origin.heads == []


@pytest.mark.parametrize("value", ["100-Continue", "100-CONTINUE "])
@live
async def test_an_expectation_is_known_whatever_its_case(tmp_path: Path, value: str) -> None:
    async with running(tmp_path, Origin(welcome)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        writer.write(b"hello")
        head, body = await one_answer(reader)
        assert (status_of(head), body) == (200, b"hello")
        writer.close()


@live
async def test_http10_clients_are_never_told_to_continue(tmp_path: Path) -> None:
    """RFC 9110 10.1.1: an expectation in an HTTP/1.0 request is ignored."""
    origin = Origin(welcome)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(expecting(b"".join(LENGTH), version=b"1.0"))
    assert b" 100 " not in got
    assert status_of(got) == 200
    assert got.endswith(b"\r\n\r\nhello")


@live
async def test_an_expectation_without_a_body_is_one_answer(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(says(b"HTTP/1.1 204 No Content\r\n\r\n"))) as proxy:
        got = await proxy.get("/", "Expect: 100-continue")
    assert status_of(got) == 204
    assert got.count(b"HTTP/1.1") == 1


@live
async def test_an_expectation_goes_to_another_backend_when_one_refuses_the_connection(tmp_path: Path) -> None:
    origin = Origin(welcome)
    async with running(tmp_path, free_port(), origin, free_port()) as proxy:
        for _ in range(3):
            reader, writer = await proxy.connect()
            writer.write(expecting(LENGTH[0]))
            assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
            writer.write(LENGTH[1])
            assert (await one_answer(reader))[1] == b"hello"
            writer.close()


@live
async def test_a_body_that_would_be_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    origin = Origin(welcome)
    async with running(tmp_path, origin, more="limits: {body: 4}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(LENGTH[0]))
        got = await asyncio.wait_for(reader.read(), SOON_S)
        writer.close()
    assert status_of(got) == 413
    assert got.count(b"HTTP/1.1") == 1
    assert origin.heads == []


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@live
async def test_while_the_backend_makes_up_its_mind_the_clients_time_does_not_run(
    tmp_path: Path, framing: tuple[bytes, bytes]
) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.9)
        await welcome(origin, head, reader, writer)

    rest, body = framing
    async with running(tmp_path, Origin(answer), more="timeouts: {idle: 300ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(rest))
        assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        await asyncio.sleep(0.1)
        writer.write(body)
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.close()


@live
async def test_a_backend_that_says_nothing_to_an_expectation_is_504(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with running(tmp_path, Origin(answer), upstream="    timeouts: {response: 300ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(LENGTH[0]))
        got = await reader.read()
        assert (status_of(got), fields_of(got, b"connection")) == (504, [b"close"])
        writer.close()


@live
async def test_a_client_that_is_asked_for_its_body_and_sends_none_is_408(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(welcome), more="timeouts: {idle: 300ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(expecting(LENGTH[0]))
        assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        assert status_of(await reader.read()) == 408
        writer.close()
