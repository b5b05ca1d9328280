"""Interim answers and trailers: what comes before the answer and behind it is never taken for the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import PATIENCE_S, Origin, fields_of, live, named, one_answer, running, says, status_of

pytestmark = pytest.mark.unit

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal"
TWICE = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "interim",
    [
        HINT,
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 199 Unheard Of\r\nX-Mine: \xe4\r\n\r\n",
        b"HTTP/1.1 110 \r\n\r\n",
    ],
)
@live
async def test_an_interim_answer_passes_and_ends_nothing(tmp_path: Path, interim: bytes) -> None:
    origin = Origin(says(interim, FINAL))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(TWICE)
    line, *fields = interim.split(b"\r\n")[:-2]
    assert got.count(line) == 2
    assert got.startswith(line)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert got.count(b"\r\n\r\nfinal") == 2
    for field in fields:
        assert field in got.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert origin.connections == 1


@pytest.mark.parametrize("interim", [HINT, b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
@live
async def test_http10_clients_never_see_an_interim_answer(tmp_path: Path, interim: bytes) -> None:
    async with running(tmp_path, Origin(says(interim, FINAL))) as proxy:
        got = await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
    assert status_of(got) == 200
    assert got.count(b"HTTP/1.") == 1
    assert got.endswith(b"\r\n\r\nfinal")


@live
async def test_an_interim_answer_is_there_before_the_answer_is(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HINT)
        await writer.drain()
        await seen.wait()
        writer.write(FINAL)

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert status_of(await reader.readuntil(b"\r\n\r\n")) == 103
        seen.set()
        assert (await one_answer(reader))[1] == b"final"
        writer.close()


@live
async def test_many_interim_answers_pass_in_order(tmp_path: Path) -> None:
    many = b"".join(b"HTTP/1.1 103 Early Hints\r\nX-N: %d\r\n\r\n" % index for index in range(20))
    async with running(tmp_path, Origin(says(many, FINAL))) as proxy:
        got = await proxy.get()
    assert fields_of(got.replace(b"\r\n\r\n", b"\r\n"), b"x-n") == [b"%d" % index for index in range(20)]
    assert got.endswith(b"\r\n\r\nfinal")


@live
async def test_where_the_bytes_of_interim_answers_are_cut_changes_nothing(tmp_path: Path) -> None:
    stream = b"HTTP/1.1 102 P\r\n\r\n" + HINT + FINAL

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = int(head.split(b" ")[1][1:])
        writer.write(stream[:at])
        await writer.drain()
        await asyncio.sleep(0.001)
        writer.write(stream[at:])

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        for at in range(1, len(stream)):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % at)
            heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
            assert [status_of(head) for head in heads] == [102, 103, 200], at
            assert await reader.readexactly(5) == b"final", at
        writer.close()


@live
async def test_hop_by_hop_fields_of_an_interim_answer_stop_here(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
    async with running(tmp_path, Origin(says(interim, b"Upgrade: h2c\r\nX-End: 1\r\n\r\n", FINAL))) as proxy:
        got = await proxy.get()
    head = got.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-end: 1" in head
    for name in [b"connection", b"x-hop", b"keep-alive", b"upgrade"]:
        assert b"\r\n" + name + b":" not in head


@pytest.mark.parametrize("field", [b"Content-Length: 40", b"Transfer-Encoding: chunked"])
@live
async def test_framing_fields_of_an_interim_answer_frame_nothing(tmp_path: Path, field: bytes) -> None:
    """RFC 9112 6.3: a 1xx ends at its empty line. Whoever sends this is refused, or what it says is not repeated."""
    async with running(tmp_path, Origin(says(b"HTTP/1.1 103 Early Hints\r\n", field, b"\r\n\r\n", FINAL))) as proxy:
        got = await proxy.get()
    if status_of(got) == 502:
        return
    assert got.endswith(b"\r\n\r\nfinal")
    interim = got.partition(b"\r\n\r\n")[0]
    assert fields_of(interim + b"\r\n\r\n", b"content-length") == []
    assert fields_of(interim + b"\r\n\r\n", b"transfer-encoding") == []


@pytest.mark.parametrize(
    ("method", "final"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
@live
async def test_an_interim_answer_gives_no_body_to_one_that_has_none(tmp_path: Path, method: str, final: bytes) -> None:
    async with running(tmp_path, Origin(says(HINT, final))) as proxy:
        got = await proxy.talk(TWICE.replace(b"GET", method.encode()))
    assert got.count(b"HTTP/1.1 103 ") == 2
    assert got.count(final.partition(b"\r\n")[0]) == 2
    assert [piece.split(b" ")[1] for piece in got.split(b"\r\n\r\n")[:-1]] == [b"103", final.split(b" ")[1]] * 2


@live
async def test_a_backend_that_ends_after_an_interim_answer_is_502_and_not_asked_again(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HINT)
        await writer.drain()
        writer.close()

    first, second = Origin(answer), Origin(answer)
    async with running(tmp_path, first, second) as proxy:
        got = await proxy.get()
    assert got.count(b"HTTP/1.1 103 ") == 1
    assert got.count(b"HTTP/1.1 502 ") == 1
    assert len(first.heads) + len(second.heads) == 1


@live
async def test_an_interim_answer_that_is_no_http_is_502(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(says(b"HTTP/1.1 103 Early Hints\r\nX : 1\r\n\r\n", FINAL))) as proxy:
        got = await proxy.get()
    assert status_of(got) == 502
    assert got.count(b"HTTP/1.1") == 1


TRAILED = b"5\r\nfinal\r\n0\r\nX-Sum: 1\r\nSet-Cookie: t=1\r\n\r\n"


@live
async def test_trailers_of_an_answer_never_join_its_head(tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    origin = Origin(says(chunked, TRAILED))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(TWICE)
    first, _, rest = got.partition(b"\r\n\r\n")
    assert b"x-sum:" not in first.lower()
    assert b"set-cookie" not in first.lower()
    assert rest.startswith(b"5\r\nfinal\r\n0\r\n")
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert got.count(b"5\r\nfinal\r\n0\r\n") == 2
    assert got.endswith(b"\r\n\r\n")
    assert origin.connections == 1


@pytest.mark.parametrize("field", [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Host: b"])
@live
async def test_framing_fields_in_trailers_frame_nothing(tmp_path: Path, field: bytes) -> None:
    """RFC 9110 6.5.1: such a trailer is dropped, or the whole answer is refused or broken off."""
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfinal\r\n0\r\n%b\r\n\r\n" % field
    async with running(tmp_path, Origin(says(whole))) as proxy:
        got = await proxy.get()
    assert got.count(b"HTTP/1.1") == 1
    if status_of(got) == 200:
        assert got.count(field) == (1 if field.startswith(b"Transfer-Encoding") else 0)  # that one is the head's own


@live
async def test_trailers_do_not_reach_http10_clients(tmp_path: Path) -> None:
    async with running(
        tmp_path, Origin(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TRAILED))
    ) as proxy:
        got = await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\nfinal")
    assert b"X-Sum" not in got


@live
async def test_trailers_of_a_request_never_join_its_head(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            await reader.readuntil(b"5\r\nfinal\r\n0\r\n")
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfinal\r\n0\r\nX-Sum: 1\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert len(origin.heads) == 2
    assert fields_of(origin.heads[0], b"x-sum") == []
    assert b"6.6.6.6" not in b"".join(origin.heads)


@pytest.mark.parametrize("trailer", [b"X : 1", b" X: 1", b"X: a\rb", b"X: \x00", b"no colon", b"X: " + b"a" * 200_000])
@live
async def test_bad_or_endless_trailers_of_a_request_are_refused(tmp_path: Path, trailer: bytes) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        await named(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%b\r\n\r\n" % trailer
            + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        )
    answer_ = got.removesuffix(b"<RST>")
    assert answer_ == b"" or status_of(answer_) in {400, 413, 431}
    assert answer_.count(b"HTTP/1.1") <= 1
