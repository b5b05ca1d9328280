"""Answers: what is framed badly goes no further and costs the connection, and what is framed well stays as it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.wire.harness import Answer, Origin, chunks_of, fields_of, live, named, running, says, statuses_of, takes
from tests.wire.verdicts import LEFT_OPEN_S, expect_none, fault_of_answer, no_errors_logged

pytestmark = pytest.mark.unit

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
NEXT = b"HTTP/1.1 200 Next\r\nContent-Length: 4\r\n\r\nnext"

NO_ANSWER: dict[str, bytes] = {
    "length and chunked": CHUNKED + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "the same, length first": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a list of lengths": OK + b"Content-Length: 2, 3\r\n\r\nok!",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "length with a space": OK + b"Content-Length: 2 2\r\n\r\nok",
    "length with an underscore": OK + b"Content-Length: 0_2\r\n\r\nok",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "empty length": OK + b"Content-Length:\r\n\r\nok",
    "length over 2^64": OK + b"Content-Length: 18446744073709551618\r\n\r\nok",
    "length in letters": OK + b"Content-Length: two\r\n\r\nok",
    "unknown coding": OK + b"Transfer-Encoding: x\r\n\r\nok",
    "a coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in a list": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "no coding": OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "bare CR in a value": OK + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "bare CR that would hide a coding": OK + b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a name": OK + b"X\x00: a\r\nContent-Length: 2\r\n\r\nok",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "space in a name": OK + b"X Y: a\r\nContent-Length: 2\r\n\r\nok",
    "a bad token": OK + b"X(): a\r\nContent-Length: 2\r\n\r\nok",
    "no name": OK + b": a\r\nContent-Length: 2\r\n\r\nok",
    "no colon": OK + b"rubbish\r\nContent-Length: 2\r\n\r\nok",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "signed status": b"HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "no version": b"200 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an HTTP/2 frame": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a body alone": b"ok ok ok\r\n\r\n",
}
"""RFC 9112 4, 5, 6.1 to 6.3."""


def first_says(answer: bytes) -> Answer:
    """These bytes to the first request, and NEXT to later ones."""

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer if len(origin.heads) == 1 else NEXT)

    return respond


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@live
async def test_bad_framing_is_502_and_its_connection_is_not_used_again(tmp_path: Path) -> None:
    faults = {}
    for name, answer in NO_ANSWER.items():
        origin = Origin(first_says(answer))
        async with running(tmp_path, origin) as proxy:
            with no_errors_logged():
                first = await proxy.send(LAST, patience_s=LEFT_OPEN_S)
                second = await proxy.send(LAST, patience_s=LEFT_OPEN_S)
        fault = fault_of_answer(first, [502])
        if fault:
            faults[name] = fault
        elif not second.endswith(b"\r\n\r\nnext") or origin.connections != 2:
            faults[name] = f"then {second!r}, over {origin.connections} connections"
    expect_none(faults)


@live
async def test_a_client_may_go_on_behind_a_502(tmp_path: Path) -> None:
    """Or is told that it may not: what it sent is not lost in silence."""
    origin = Origin(first_says(NO_ANSWER["two lengths"]))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(REQUEST, LAST)
    first = got.partition(b"\r\n\r\n")[0]
    assert statuses_of(got) == ([502] if b"close" in fields_of(first, b"connection") else [502, 200])


MENDED: dict[str, tuple[bytes, bytes]] = {
    "obs-fold": (OK + b"X: a\r\n  b\r\nContent-Length: 2\r\n\r\nok", b"\r\n  b"),
    "space before a colon": (OK + b"X : a\r\nContent-Length: 2\r\n\r\nok", b"X :"),
    "space before the length's colon": (OK + b"Content-Length : 2\r\n\r\nok", b"Content-Length :"),
    "bare LF": (OK + b"X: a\nY: b\r\nContent-Length: 2\r\n\r\nok", b"a\nY"),
    "bare LF everywhere": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"OK\n"),
    "equal lengths": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"2\r\nContent-Length: 2"),
    "a list of equal lengths": (OK + b"Content-Length: 2, 2\r\n\r\nok", b"2, 2"),
}


@live
async def test_what_may_be_mended_is_mended_or_502_and_never_passed_on(tmp_path: Path) -> None:
    """RFC 9112 2.2, 5.1, 5.2, 6.3."""
    faults = {}
    for name, (answer, never) in MENDED.items():
        async with running(tmp_path, Origin(says(answer))) as proxy:
            got = await proxy.send(LAST, patience_s=LEFT_OPEN_S)
        mended = statuses_of(got) == [200] and never not in got and (b"ok" in got.partition(b"\r\n\r\n")[2])
        if fault_of_answer(got, [502]) and not mended:
            faults[name] = f"got {got!r}"
    expect_none(faults)


BAD_CHUNKS = [
    b"0x2\r\nok\r\n0\r\n\r\n", b"-2\r\nok\r\n0\r\n\r\n", b"+2\r\nok\r\n0\r\n\r\n", b"zz\r\nok\r\n0\r\n\r\n",
    b"\r\nok\r\n0\r\n\r\n", b"2\nok\n0\n\n", b"2\r\nokk\r\n0\r\n\r\n", b"5\r\nok\r\n0\r\n\r\n", b"2\r\nok0\r\n\r\n",
    b"10000000000000002\r\nok\r\n0\r\n\r\n", b"2;" + b"x" * 100_000 + b"\r\nok\r\n0\r\n\r\n", b"1_0\r\n" + b"x" * 16,
    b"2\r\nok\r\n0\r\nX : a\r\n\r\n", b"2\r\nok\r\n0\r\nX: a\nY: b\r\n\r\n",
]  # fmt: skip


@live
async def test_malformed_chunks_of_an_answer_never_come_to_a_clean_end(tmp_path: Path) -> None:
    """Whether the head is on its way or not: 502, or a body that visibly breaks off."""
    faults = {}
    for chunks in BAD_CHUNKS:
        for version in (b"1.1", b"1.0"):
            origin = Origin(first_says(CHUNKED + b"\r\n" + chunks))
            async with running(tmp_path, origin) as proxy:
                request = LAST.replace(b"1.1", version)
                got = await proxy.send(request, patience_s=1.0)
                after = await proxy.send(LAST, patience_s=1.0)
            cut = got.startswith(b"HTTP/1.1 200 ") and (
                not got.endswith((b"0\r\n\r\n", b"<OPEN>"))
                if b"chunked" in got.partition(b"\r\n\r\n")[0]
                else got.endswith(b"<RST>")
            )
            if (statuses_of(got) != [502] and not cut) or len(statuses_of(got)) != 1:
                faults[f"{chunks[:40]!r} to {version!r}"] = f"got {got[:300]!r}"
            elif not after.endswith(b"next") or origin.connections != 2:
                faults[f"{chunks[:40]!r} to {version!r}, then"] = f"{after!r}, {origin.connections} connections"
    expect_none(faults)


POISON = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"
WITH_MORE: dict[str, tuple[bytes, bytes, int]] = {
    "behind a length": (b"GET", OK + b"Content-Length: 2\r\n\r\nok", 200),
    "behind a length of 0": (b"GET", OK + b"Content-Length: 0\r\n\r\n", 200),
    "behind chunks": (b"GET", CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", 200),
    "behind trailers": (b"GET", CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n", 200),
    "behind an answer to HEAD": (b"HEAD", OK + b"Content-Length: 66\r\n\r\n", 200),
    "behind a chunked answer to HEAD": (b"HEAD", CHUNKED + b"\r\n", 200),
    "behind 204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "behind 204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 66\r\n\r\n", 204),
    "behind 204 with chunks": (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204),
    "behind 304": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 66\r\n\r\n", 304),
    "behind 304 with chunks": (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
}


@pytest.mark.parametrize("pause_s", [0.0, 0.02], ids=["at once", "later"])
@live
async def test_unread_bytes_on_a_backends_connection_answer_nobody(tmp_path: Path, pause_s: float) -> None:
    """A second answer that nobody asked for is lost with its connection, whenever it comes."""
    faults = {}
    for name, (method, answer, status) in WITH_MORE.items():
        more_is_out = asyncio.Event()

        async def respond(
            origin: Origin,
            head: bytes,
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            *,
            answer: bytes = answer,
            more_is_out: asyncio.Event = more_is_out,
        ) -> None:
            if len(origin.heads) > 1:
                writer.write(NEXT)
                return
            writer.write(answer + (b"" if pause_s else POISON))
            if pause_s:
                await asyncio.sleep(pause_s)
                writer.write(POISON)
            more_is_out.set()

        origin = Origin(respond)
        async with running(tmp_path, origin) as proxy:
            reader, writer = await proxy.connect()
            writer.write(REQUEST.replace(b"GET", method))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(2) if head.startswith(b"HTTP/1.1 200") and b"Length: 2\r\n" in head else b""
            await more_is_out.wait()
            await asyncio.sleep(0.01)
            writer.write(LAST)
            got = await reader.read()
            other = await proxy.send(LAST, patience_s=LEFT_OPEN_S)
            writer.close()
        if b"poison" in (head + body + got + other).lower():
            faults[name] = f"poisoned: {head + body + got + other!r}"
        elif statuses_of(head) != [status] or not other.endswith(b"\r\n\r\nnext") or origin.connections != 2:
            faults[name] = f"got {head + body + got!r}, then {other!r}, over {origin.connections} connections"
    expect_none(faults)


@live
async def test_a_408_on_an_idle_connection_is_nobodys_answer(tmp_path: Path) -> None:
    """Servers say it when they close: the next request goes over a fresh connection, also one that must not repeat."""
    timed_out = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    is_out = asyncio.Event()

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await named(origin, head, reader, writer)
        if len(origin.heads) == 1:
            await asyncio.sleep(0.01)
            writer.write(timed_out)
            writer.close()
            is_out.set()

    origin = Origin(respond)
    async with running(tmp_path, origin) as proxy:
        assert statuses_of(await proxy.send(LAST)) == [200]
        await is_out.wait()
        await asyncio.sleep(0.01)
        assert statuses_of(await proxy.send(LAST.replace(b"GET", b"POST"))) == [200]
    assert origin.connections == 2


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"142 Odd", b"199 Last"])
@live
async def test_interim_answers_pass_and_end_nothing(tmp_path: Path, status: bytes) -> None:
    """To HTTP/1.1 as they came, to HTTP/1.0 never (RFC 9110 15.2). 100 is for who asked: here nobody did."""
    interim = b"HTTP/1.1 " + status + b"\r\nX-Interim: 1\r\nX-Interim: 2\r\n\r\n"
    origin = Origin(says(interim, interim, b"HTTP/1.1 200 OK\r\nX-Final: 1\r\nContent-Length: 2\r\n\r\nok"))
    async with running(tmp_path, origin) as proxy:
        new = await proxy.send(REQUEST, LAST)
        old = await proxy.send(b"GET / HTTP/1.0\r\n\r\n")
        kept = await proxy.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    code = int(status[:3])
    if code == 100:
        assert [found for found in statuses_of(new) if found != 100] == [200, 200]
    else:
        assert statuses_of(new) == [code, code, 200] * 2
        assert new.startswith(interim * 2 + OK)
    assert statuses_of(old) == [200]
    assert statuses_of(kept) == [200, 200]
    assert b"X-Interim" not in old + kept
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("method", "final", "rest"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
        ("GET", CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"),
        ("GET", b"HTTP/1.1 500 Sorry\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
@live
async def test_any_answer_may_follow_an_interim_one(tmp_path: Path, method: str, final: bytes, rest: bytes) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with running(tmp_path, Origin(says(hints, final))) as proxy:
        got = await proxy.send(LAST.replace(b"GET", method.encode()))
    assert statuses_of(got) == [103, int(final[9:12])]
    assert got.split(b"\r\n\r\n", 2)[2] == rest


@live
async def test_an_interim_answer_does_not_wait_for_the_final_one(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await seen.wait()
        await named(origin, head, reader, writer)

    async with running(tmp_path, Origin(respond)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(LAST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
        seen.set()
        assert statuses_of(await reader.read()) == [200]
        writer.close()


@live
async def test_only_interim_answers_are_no_answer(tmp_path: Path) -> None:
    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        writer.close()

    async with running(tmp_path, Origin(respond)) as proxy:
        got = await proxy.send(LAST)
    assert statuses_of(got)[-1] == 502
    assert statuses_of(got)[:-1] in ([], [103])


TRAILERS = b"X-Sum: 1\r\nx-sum: 2\r\n"


async def split_answer(got: bytes) -> tuple[bytes, bytes, bytes]:
    """Head, decoded body, trailer section."""
    head, _, rest = got.partition(b"\r\n\r\n")
    reader = asyncio.StreamReader()
    reader.feed_data(rest)
    reader.feed_eof()
    body, trailers = await chunks_of(reader)
    assert await reader.read() == b""
    return head, body, trailers


@live
async def test_an_answers_trailers_pass_or_are_dropped_and_never_become_headers(tmp_path: Path) -> None:
    chunks = b"Trailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\n" + TRAILERS + b"\r\n"
    async with running(tmp_path, Origin(says(CHUNKED + chunks))) as proxy:
        for te in (b"", b"TE: trailers\r\n"):
            head, body, trailers = await split_answer(await proxy.send(LAST[:-2] + te + b"\r\n"))
            assert fields_of(head + b"\r\n\r\n", b"x-sum") == []
            assert body == b"ok"
            assert trailers in (b"", TRAILERS)
        old = await proxy.send(b"GET / HTTP/1.0\r\n\r\n")
        assert old.endswith(b"\r\n\r\nok")
        assert b"X-Sum: 1" not in old
        both = await proxy.send(REQUEST, LAST)
        assert statuses_of(both) == [200, 200]


@live
async def test_a_requests_trailers_pass_or_are_dropped_and_never_become_headers(tmp_path: Path) -> None:
    origin = Origin(takes)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n"
    async with running(tmp_path, origin) as proxy:
        body = b"\r\n2\r\nok\r\n0\r\n" + TRAILERS + b"\r\n"
        got = await proxy.send(head + body, head + b"Connection: close\r\n" + body)
    assert statuses_of(got) == [200, 200]
    for message in origin.messages:
        assert fields_of(message.head, b"x-sum") == []
        assert message.body == b"ok"
        assert message.trailers in (b"", TRAILERS)
    assert len(origin.messages) == 2


@live
async def test_trailers_cannot_say_what_only_headers_may(tmp_path: Path) -> None:
    """RFC 9110 6.5.1: framing, routing and whom it is from. A backend that merges them would believe it."""
    origin, faults = Origin(takes), {}
    names = (
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"X-Forwarded-For", b"x-forwarded-proto",
        b"X-Forwarded-Host", b"Forwarded", b"X_Forwarded_For", b"X-Real-IP", b"Authorization", b"Cookie", b"Via",
    )  # fmt: skip
    async with running(tmp_path, origin) as proxy:
        for name in names:
            got = await proxy.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"2\r\nok\r\n0\r\nX-Sum: 1\r\n" + name + b": 5\r\n\r\n"
            )
            passed = origin.messages[-1].trailers if statuses_of(got) == [200] else b""
            if statuses_of(got) not in ([200], [400]) or name.lower() in passed.lower():
                faults[name.decode()] = f"got {got[:60]!r}, passed {passed!r}"
    expect_none(faults)


DATE = re.compile(rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"304 Not Modified", b"404 No", b"500 Sorry"])
@live
async def test_date_is_added_only_where_there_is_none(tmp_path: Path, status: bytes) -> None:
    dates = [b"", b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b"dAtE: never\r\n", b"DATE: \r\n"]
    for date in dates:
        length = b"" if status.startswith(b"204") else b"Content-Length: 0\r\n"
        async with running(tmp_path, Origin(says(b"HTTP/1.1 ", status, b"\r\n", date, length, b"\r\n"))) as proxy:
            got = await proxy.send(LAST)
        found = fields_of(got, b"date")
        assert len(found) == 1
        if date:
            assert found == [date.partition(b":")[2].strip()]
        else:
            assert DATE.fullmatch(found[0])


def given_and_got(lines: Sequence[bytes], got: bytes) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Names and values of both, without what the proxy adds at the end and the space around values."""

    def parted(line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.partition(b":")
        return name, value.strip(b" \t")

    found = [parted(line) for line in got.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    return [parted(line) for line in lines], found[: len(lines)]


@live
async def test_an_answers_headers_keep_order_case_duplicates_and_bytes(tmp_path: Path) -> None:
    lines = [
        b"Server: mine/1 (odd  spaces)", b"Set-Cookie: a=1; Path=/", b"X-A: 1", b"set-cookie: b=2", b"x-a:2",
        b"SET-COOKIE: c=\xe4\xff\x80", b"X-Empty:", b"X-Tab: a\tb", b"X-Obs: \xc3\xa4 \xff", b"X_Under_score: 1",
        b"Vary: A", b"Vary: B", b"Content-Type:text/html;charset=latin1", b'ETag: W/"\xe9"', b"Content-Length: 2",
        b"!#$%&'*+-.^_`|~9: odd", b"Cache-Control: no-cache, , private", b"Content-Encoding: gzip",
        b'WWW-Authenticate: Basic realm="a, b", Digest x=y', b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Via: 1.0 other",
    ]  # fmt: skip
    answer = b"HTTP/1.1 200 F\xefne, so to say\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer + (b"" if head.startswith(b"HEAD ") else b"ok"))

    async with running(tmp_path, Origin(respond)) as proxy:
        for method in (b"GET", b"HEAD"):
            got = await proxy.send(LAST.replace(b"GET", method))
            assert got.startswith(b"HTTP/1.1 200 F\xefne, so to say\r\n")
            given, found = given_and_got(lines, got)
            assert found == given
            assert got.endswith(b"\r\n\r\nok" if method == b"GET" else b"\r\n\r\n")


@live
async def test_server_is_neither_added_nor_changed(tmp_path: Path) -> None:
    for server in (b"", b"Server: mine\r\n"):
        async with running(tmp_path, Origin(says(OK + server + b"Content-Length: 0\r\n\r\n"))) as proxy:
            got = await proxy.send(LAST)
        assert fields_of(got, b"server") == ([b"mine"] if server else [])


@pytest.mark.parametrize("line", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 Not  here"])
@live
async def test_a_status_line_keeps_status_and_reason_and_has_our_version(tmp_path: Path, line: bytes) -> None:
    """RFC 9110 2.5: the version is that of who sends."""
    async with running(tmp_path, Origin(says(line, b"\r\nContent-Length: 0\r\n\r\n"))) as proxy:
        got = await proxy.send(LAST)
    assert got.startswith(line.replace(b"HTTP/1.0", b"HTTP/1.1") + b"\r\n")


@pytest.mark.parametrize("te", [b"", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("POST", 204), ("HEAD", 304)]
)
@live
async def test_an_answer_without_a_body_has_none_on_the_wire(
    tmp_path: Path, method: str, status: int, te: bytes
) -> None:
    """HEAD and 304 keep Content-Length, 204 has none (RFC 9110 8.6), and the connection serves the next."""
    length = b"" if te or status == 204 else b"Content-Length: 1234\r\n"
    origin = Origin(says(b"HTTP/1.1 %d Said\r\n" % status, b"X-A: 1\r\n", te, length, b"\r\n"))
    async with running(tmp_path, origin) as proxy:
        request = REQUEST.replace(b"GET", method.encode())
        got = await proxy.send(request, request, LAST.replace(b"GET", method.encode()))
    heads = got.split(b"\r\n\r\n")
    assert statuses_of(got) == [status] * 3
    assert len(heads) == 4
    assert heads[3] == b""
    for head in heads[:3]:
        assert fields_of(head, b"content-length") == ([b"1234"] if length else [])
        if status == 204:
            assert fields_of(head, b"transfer-encoding") == []
    assert origin.connections == 1


@live
async def test_a_204_loses_its_length(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(says(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"))) as proxy:
        got = await proxy.send(LAST)
    assert fields_of(got, b"content-length") == []
    assert got.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (OK + b"Content-Length: 2\r\n\r\nok", True),
        (CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", True),
        (CHUNKED + b"\r\n2;a=b\r\nok\r\n00;c\r\nX: y\r\n\r\n", True),
        (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", False),
        (OK + b"Connection: x, CLOSE\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", None),
    ],
)
@live
async def test_a_backends_connection_is_used_again_only_where_it_may(
    tmp_path: Path, answer: bytes, again: bool | None
) -> None:
    origin = Origin(says(answer))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(REQUEST, LAST)
    assert statuses_of(got) == [200, 200]
    assert got.count(b"ok") == 2
    assert (origin.connections == 1) is (again if again is not None else origin.connections == 1)


@live
async def test_a_body_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n")
        await writer.drain()
        writer.close()

    async with running(tmp_path, Origin(respond)) as proxy:
        head, body, trailers = await split_answer(await proxy.send(LAST))
        old = await proxy.send(b"GET / HTTP/1.0\r\n\r\n")
    assert fields_of(head + b"\r\n\r\n", b"transfer-encoding") == [b"chunked"]
    assert (body, trailers) == (b"0\r\n\r\nHTTP/1.1 200 OK\r\n", b"")
    assert old.endswith(b"\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert fields_of(old, b"transfer-encoding") == []


@live
async def test_a_head_without_end_is_502_before_it_fills_the_memory(tmp_path: Path) -> None:
    sent = 0

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK)
        while sent < 64 << 20:
            writer.write(b"X: " + b"x" * 8000 + b"\r\n")
            sent += 8005
            await writer.drain()

    async with running(tmp_path, Origin(respond)) as proxy:
        got = await proxy.send(LAST)
    assert not fault_of_answer(got, [502])
    assert sent < 32 << 20


@live
async def test_answers_come_in_the_order_of_their_requests(tmp_path: Path) -> None:
    """Each in its own framing, whatever the pieces they come in."""
    answers = [
        OK + b"Content-Length: 1\r\n\r\n1",
        CHUNKED + b"\r\n1\r\n2\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\n3",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        OK + b"Content-Length: 1\r\n\r\n4",
    ]

    async def respond(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = answers[int(head.split(b" ")[1][1:])]
        for index in range(len(answer)):
            writer.write(answer[index : index + 1])
            await asyncio.sleep(0)

    origin = Origin(respond)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(
            b"".join(REQUEST.replace(b"/ ", b"/%d " % index, 1) for index in range(5)) + LAST.replace(b"/ ", b"/5 ", 1)
        )
    assert statuses_of(got) == [200, 200, 204, 103, 200, 304, 200]
    assert got.endswith(b"\r\n\r\n4")
    assert got.count(b"\r\n\r\n1") == 2  # a body, and the size of a chunk
    assert origin.connections == 1
