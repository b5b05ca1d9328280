"""Two tiers, aiohttp's parser and h11 read the same in the same bytes, or refuse them; and what goes on to a backend is
one request to each of them, whatever came.

What h11 takes and we refuse needs no reason. What we take, h11 must take, and see the same in it.
"""

from __future__ import annotations

from random import Random
from typing import Any

import h11
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.core import strict
from l7proxy.core.framing import LAST_CHUNK, chunk
from l7proxy.core.head import HOP_BY_HOP, NEVER_NAMED, Refusal, RequestHead, ResponseHead
from l7proxy.core.headers import own_tail, request_bytes, status_line
from l7proxy.core.scan import plain_scan_request, plain_scan_response, scan_request, scan_response
from l7proxy.http.parser import read_request, read_response
from tests.l7proxy import heads

pytestmark = pytest.mark.unit

Fields = list[tuple[bytes, bytes]]
FUZZ = settings(max_examples=300)
ROUNDS = 60
"""Of faulty heads, for each example."""


def plain(head: RequestHead | ResponseHead) -> dict[str, object]:
    """All that a head says, without the blanks around what goes to the log."""
    found: dict[str, object] = heads.facts(head)
    for name in ("agent", "referer"):
        if isinstance(head, RequestHead):
            found[name] = getattr(head, name).strip(b" \t")
    if isinstance(head, RequestHead):
        found["via"] = [part.strip(b" \t") for part in head.via.split(b",")]
    return found


def tiers_agree(data: bytes, drop: bool = True) -> RequestHead | Refusal:
    """What both tiers make of a request; the first one may leave it to the second."""
    first, second = scan_request(data), read_request(data, drop_underscores=drop)
    heads.same_to_the_byte(first, plain_scan_request(data))
    alone = strict.read_request(data, drop_underscores=drop)
    assert isinstance(alone, Refusal) == isinstance(second, Refusal), data  # aiohttp takes what strict takes
    if first is not None:
        assert isinstance(second, RequestHead), (data, second)
        assert plain(first) == plain(second), data
        assert first.odd == second.odd
    return first or second


def answer_tiers_agree(data: bytes) -> ResponseHead | str:
    first, second = scan_response(data), read_response(data)
    heads.same_to_the_byte(first, plain_scan_response(data))
    assert isinstance(strict.read_response(data), str) == isinstance(second, str), data
    if first is not None:
        assert isinstance(second, ResponseHead), (data, second)
        assert plain(first) == plain(second), data
    return first or second


# what h11 sees, and what we do with it


def kept(fields: Fields, drop: bool, claims: bool) -> Fields:
    """The header lines of a request that must go on, by what h11 sees: Host, framing and Expect have tests of their
    own."""
    cut = HOP_BY_HOP | {b"proxy"} | set(heads.tokens(fields, b"connection"))
    apart = {b"host", b"content-length", b"transfer-encoding", b"expect"}

    def goes_on(low: bytes) -> bool:
        if b"_" in low and (drop or claims or low.replace(b"_", b"-") in cut | NEVER_NAMED):
            return False
        return low not in cut | apart and strict.is_claim(low) == claims

    return [(name, value) for name, value in fields if goes_on(name.lower())]


def is_origin_form(target: bytes) -> bool:
    return target.startswith(b"/") or target == b"*"


def h11_agrees(data: bytes, head: RequestHead, drop: bool) -> None:
    """h11 takes what we take, and sees the same."""
    seen = heads.by_h11(data)
    assert seen is not None, data
    method, target = seen.start
    assert isinstance(method, bytes)
    assert (head.method, head.target, head.http10) == (method, target, seen.version == b"1.0"), data
    if is_origin_form(target):
        assert head.start == b"%b %b HTTP/1.1" % (method, target)
        hosts = [value for name, value in seen.fields if name.lower() == b"host"]
        assert hosts == ([head.authority] if head.authority else []), data
    lines = [heads.split(line) for line in head.lines]
    apart = {b"host", b"content-length", b"expect"}
    assert [line for line in lines if line[0].lower() not in apart] == kept(seen.fields, drop, claims=False), data
    assert [heads.split(line) for line in head.claims] == kept(seen.fields, drop, claims=True), data
    assert (-1 if head.chunked else head.length or 0) == seen.length, data
    assert [name for name, _ in lines if name.lower() == b"host"] or not head.authority
    expects = heads.tokens(seen.fields, b"expect") == [b"100-continue"]
    assert head.expects_continue == (expects and not head.http10 and head.has_body), data


def body_of(head: RequestHead) -> tuple[bytes, bytes]:
    """A body that fits a head, on the wire and by itself; of a long one nothing."""
    if head.chunked:
        return chunk(b"body") + LAST_CHUNK, b"body"
    length = head.length or 0
    return (b"b" * length, b"b" * length) if length < 100 else (b"", b"")


def is_one_request(data: bytes, head: RequestHead) -> None:
    """What a backend is sent is one request to h11 and to aiohttp, with nothing in it that must not be."""
    tail = own_tail("192.0.2.1", "http", head.authority, b"edge")
    wire = request_bytes(head, tail, b"10.0.0.1:80")
    assert wire.endswith(b"\r\n\r\n")
    assert wire.count(b"\r\n\r\n") == 1
    body, content = body_of(head)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(wire + body)
    request = connection.next_event()
    assert isinstance(request, h11.Request), (data, request)
    whole = content or not head.has_body
    came = b""
    while whole:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        assert isinstance(event, h11.Data), (data, event)
        came += event.data
    assert came == content
    assert connection.trailing_data == (b"", False), (data, wire)
    fields = request.headers.raw_items()
    one(wire, fields, data)
    names = [name.lower() for name, _ in fields]
    assert names.count(b"x-forwarded-for") == names.count(b"via") - len(heads_of(head, b"via")) == 1
    assert not {b"forwarded", b"x-real-ip", b"te", b"keep-alive", b"proxy-authorization", b"trailer"} & set(names)
    assert (b"connection" in names) == (b"upgrade" in names) == bool(head.upgrade)
    aiohttp_agrees(HttpRequestParser, wire, fields)


def heads_of(head: RequestHead, name: bytes) -> list[bytes]:
    return [line for line in head.lines if heads.split(line)[0].lower() == name]


def one(wire: bytes, fields: Fields, data: bytes) -> None:
    """There is one Host, and not more than one line about the body's length."""
    names = [name.lower() for name, _ in fields]
    assert names.count(b"host") == 1, data
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, data
    assert names.count(b"content_length") + names.count(b"transfer_encoding") == 0, data
    lines = wire.split(b"\r\n")[1:-2]
    assert [heads.split(line) for line in lines] == fields, (data, wire)
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)


def aiohttp_agrees(kind: Any, wire: bytes, fields: Fields) -> None:
    """aiohttp's parser sees the header lines that h11 sees. It does not know every method, and refuses a second header
    of some names: what these are called plays no part."""
    if kind is HttpRequestParser:
        wire = b"OPTIONS" + wire[wire.index(b" ") :]
    lines = wire.split(b"\r\n")
    fields = fields.copy()
    known = {b"user-agent", b"content-type", b"server", b"max-forwards"}
    for at, (name, value) in enumerate(fields):
        if name.lower() in known and name.lower() in {other.lower() for other, _ in fields[:at]}:
            fields[at] = b"X", value
            lines[at + 1] = b"X:" + value
    none: Any = None
    parser = kind(BaseProtocol(none), none, 2**16, max_line_size=2**20, max_field_size=2**20, response_with_body=False)
    messages, _, _ = parser.feed_data(b"\r\n".join(lines))
    assert len(messages) == 1
    assert [(name, value.strip(b" \t")) for name, value in messages[0][0].raw_headers] == fields, wire


def check(data: bytes, drop: bool = True) -> bool:
    """Everything about a request; whether it was taken. `drop` is whether names with `_` are."""
    head = tiers_agree(data, drop)
    if isinstance(head, Refusal):
        assert head.reason
        return False
    h11_agrees(data, head, drop)
    is_one_request(data, head)
    return True


@FUZZ
@given(heads.requests(), st.booleans())
@example(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\r\nUser-Agent: b\r\nReferer: a\r\nreferer: b", True)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked", True)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked", False)
def test_requests_are_read_alike_by_all(data: bytes, drop: bool) -> None:
    check(data, drop)


@FUZZ
@given(st.integers(0, 2**32))
def test_faulty_requests_are_read_alike_by_all_or_refused(seed: int) -> None:
    random = Random(seed)  # noqa: S311 -- chance that can be had again
    for _ in range(ROUNDS):
        data = heads.mutate(heads.corpus(random), random).partition(b"\r\n\r\n")[0]
        check(data, drop=random.random() < 0.5)


def check_answer(data: bytes) -> bool:
    """Everything about an answer; whether it was taken."""
    head = answer_tiers_agree(data)
    if isinstance(head, str):
        assert head
        return False
    seen = heads.answer_by_h11(data)
    assert seen is not None, data
    assert (head.status, head.phrase) == seen.start, data
    named = set(heads.tokens(seen.fields, b"connection")) - NEVER_NAMED
    apart = {b"content-length"}
    expected = [line for line in seen.fields if line[0].lower() not in HOP_BY_HOP | named | apart]
    lines = [heads.split(line) for line in head.lines]
    assert [line for line in lines if line[0].lower() not in apart] == expected, data
    bodiless = head.status in {204, 304} or head.status < 200
    if not bodiless:
        assert (-1 if head.chunked else head.length) == seen.length, data
    assert head.dated == any(name.lower() == b"date" for name, _ in lines), data
    wire = b"\r\n".join((status_line(head), *head.lines, b"\r\n"))
    again = heads.answer_by_h11(wire[:-4])
    assert again is not None
    assert (again.start, again.fields) == (seen.start, lines), data
    if not head.chunked:
        assert again.length == seen.length
    aiohttp_agrees(HttpResponseParser, wire, lines)
    return True


@FUZZ
@given(heads.answers())
@example(b"HTTP/1.1 200 OK\r\nUpgrade: h2c")
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ,chunked")
def test_answers_are_read_alike_by_all(data: bytes) -> None:
    check_answer(data)


@FUZZ
@given(st.integers(0, 2**32))
def test_faulty_answers_are_read_alike_by_all_or_refused(seed: int) -> None:
    random = Random(seed)  # noqa: S311 -- chance that can be had again
    for _ in range(ROUNDS):
        check_answer(heads.mutate(heads.corpus(random, answer=True), random).partition(b"\r\n\r\n")[0])


def test_these_tests_see_enough_of_both() -> None:
    """That heads are taken, by each of the tiers, and refused."""
    random = Random(1)  # noqa: S311 -- as above
    requests = [heads.mutate(heads.corpus(random), random).partition(b"\r\n\r\n")[0] for _ in range(1000)]
    answers = [heads.mutate(heads.corpus(random, answer=True), random).partition(b"\r\n\r\n")[0] for _ in range(1000)]
    taken = sum(map(check, requests))
    assert 100 < taken < 900
    assert 30 < sum(scan_request(data) is not None for data in requests) < taken - 30
    taken = sum(map(check_answer, answers))
    assert 100 < taken < 900
    assert 30 < sum(scan_response(data) is not None for data in answers) < taken - 30
