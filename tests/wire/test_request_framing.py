"""Requests whose end could be told in two ways are refused, and whatever is well framed arrives as it was meant."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.wire.corpus import (
    CHUNKED_3,
    CHUNKS,
    END,
    FRAMINGS,
    GOODS,
    HEADS,
    LENGTH_3,
    LENGTHS,
    LINES,
    PLAIN,
    POST,
    REQUEST_LINES,
    SMUGGLED,
    TRAILERS_TOO_LARGE,
    Bad,
    bad,
)
from tests.wire.harness import Origin, fields_of, live, running, statuses_of, takes
from tests.wire.verdicts import (
    LEFT_OPEN_S,
    expect_none,
    fault_of_answer,
    fault_of_refusal,
    faults_of_refusals,
    gist_of,
    no_errors_logged,
)

pytestmark = pytest.mark.unit

REFUSED_BY_HEAD = [
    pytest.param(LENGTHS, id="malformed lengths"),
    pytest.param(FRAMINGS, id="two framings or an unknown one"),
    pytest.param(LINES, id="malformed lines"),
    pytest.param(REQUEST_LINES, id="malformed request lines"),
]


@pytest.mark.parametrize("cases", REFUSED_BY_HEAD)
@live
async def test_an_ambiguous_head_is_refused_and_nothing_of_it_goes_on(tmp_path: Path, cases: dict[str, Bad]) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        with no_errors_logged():
            expect_none(await faults_of_refusals(proxy, origin, cases))


@pytest.mark.parametrize("cases", REFUSED_BY_HEAD)
@live
async def test_behind_a_good_request_an_ambiguous_head_is_refused_too(tmp_path: Path, cases: dict[str, Bad]) -> None:
    """The connection is warm, and so is the one to the backend."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases, before=LENGTH_3))


@live
async def test_a_refusal_waits_for_nothing_that_comes_behind(tmp_path: Path) -> None:
    """Whoever sent it may be waiting for the answer, and sends no more."""
    origin, faults = Origin(takes), {}
    cases = {**HEADS, **CHUNKS}
    del cases["bare CR everywhere"]  # no line has ended, so it may
    del cases["CR and no LF as the end"]
    async with running(tmp_path, origin) as proxy:
        for name, case in cases.items():
            got = await proxy.send(case.request, patience_s=LEFT_OPEN_S)
            if fault := fault_of_answer(got, case.statuses):
                faults[name] = fault
    expect_none(faults)
    assert origin.messages == []


@live
async def test_malformed_chunks_never_become_a_whole_request(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        with no_errors_logged():
            expect_none(await faults_of_refusals(proxy, origin, CHUNKS, heard=True))


@live
async def test_trailers_have_a_bound(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        assert not await fault_of_refusal(proxy, origin, TRAILERS_TOO_LARGE, heard=True)


@live
async def test_a_chunk_extension_without_end_is_refused_before_its_end(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        request = POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 100_000
        got = await proxy.send(request, patience_s=LEFT_OPEN_S)
        assert not fault_of_answer(got, [400])
    assert origin.messages == []


@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\nContent-Length: 3", b"Content-Length: 3, 3"])
@live
async def test_equal_lengths_are_refused_or_become_one(tmp_path: Path, framing: bytes) -> None:
    """RFC 9112 6.3, 5 leaves the choice."""
    origin = Origin(takes)
    request = POST + framing + b"\r\n\r\nabc"
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(request + SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    if statuses_of(got) == [400]:
        assert not fault_of_answer(got, [400])
        assert origin.received == b""
    else:
        assert statuses_of(got) == [200, 200]
        assert [gist_of(message) for message in origin.messages] == [
            (b"POST", b"/bad", b"abc"),
            (b"GET", b"/smuggled", b""),
        ]
        assert fields_of(origin.messages[0].head, b"content-length") == [b"3"]


@pytest.mark.parametrize("coding", [b", chunked", b"chunked,", b", ,chunked , ,"])
@live
async def test_a_list_with_empty_members_is_refused_or_said_anew(tmp_path: Path, coding: bytes) -> None:
    """RFC 9110 5.6.1.2: a recipient reads over them, but whoever is behind may not."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(POST + b"Connection: close\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + END)
    if statuses_of(got) == [400]:
        assert origin.received == b""
    else:
        assert statuses_of(got) == [200]
        assert fields_of(origin.messages[0].head, b"transfer-encoding") == [b"chunked"]


@live
async def test_well_framed_requests_arrive_whole(tmp_path: Path) -> None:
    """Each is followed by another on its connection, which shows where it was thought to end."""
    origin = Origin(takes)
    faults: dict[str, str] = {}
    async with running(tmp_path, origin) as proxy:
        for name, case in GOODS.items():
            count, old = len(origin.messages), b" HTTP/1.0\r\n" in case.request
            more = b"" if old else b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            got = await proxy.send(case.request + more, patience_s=LEFT_OPEN_S)
            wanted = [*case.reaches, *([] if old else [(b"GET", b"/next", b"")])]
            reached = [gist_of(message) for message in origin.messages[count:]]
            if reached != wanted or statuses_of(got) != [200] * len(wanted) or got.endswith((b"<RST>", b"<OPEN>")):
                faults[name] = f"reached: {reached}, answered: {got!r}"
    expect_none(faults)


@live
async def test_five_hundred_requests_in_one_piece_are_answered_in_order(tmp_path: Path) -> None:
    async def echo(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"content-length" in head.lower():
            await reader.readexactly(3)
        target = head.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    stream = b"".join((LENGTH_3 if index % 3 else PLAIN).replace(b"/good", b"/%d;" % index) for index in range(500))
    origin = Origin(echo)
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(stream + b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"\r\n\r\n/([0-9]+);", got) == [b"%d" % index for index in range(500)]
    assert got.endswith(b"/last")
    assert origin.connections <= 2


@live
async def test_framing_is_passed_on_in_one_way_only(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for request in (LENGTH_3, CHUNKED_3, PLAIN, CHUNKED_3.replace(b"chunked", b"CHUNKED")):
            await proxy.send(request.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
    framings = [
        (fields_of(message.head, b"content-length"), fields_of(message.head, b"transfer-encoding"))
        for message in origin.messages
    ]
    assert [(lengths, [coding.lower() for coding in codings]) for lengths, codings in framings] == [
        ([b"3"], []),
        ([], [b"chunked"]),
        ([], []),
        ([], [b"chunked"]),
    ]


@live
async def test_what_follows_a_refused_request_is_not_read_as_one(tmp_path: Path) -> None:
    """The client goes on sending while the refusal is on its way."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for case in (FRAMINGS["two lengths"], LINES["obs-fold with a space"], bad(b"rubbish\r\n\r\n")):
            got = await proxy.send(case.request, SMUGGLED, SMUGGLED, patience_s=LEFT_OPEN_S)
            assert not fault_of_answer(got, case.statuses)
    assert origin.received == b""
