"""Which headers go on, in both directions."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from l7proxy.core.head import RequestHead, read_head
from l7proxy.core.headers import (
    AnswerHead,
    BodyFraming,
    Origin,
    forward_answer,
    forward_request,
    is_claim,
    join,
    origin_of,
)

pytestmark = pytest.mark.unit

Lines = list[tuple[bytes, bytes]]
HOST = (b"Host", b"Shop:80")
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def head(fields: Lines, method: str = "GET", version: tuple[int, int] = (1, 1)) -> RequestHead:
    found = read_head(method, "/", version, [HOST, *fields])
    assert isinstance(found, RequestHead), found
    return found


def forwarded(fields: Lines, origin: Origin | None = None, version: tuple[int, int] = (1, 1)) -> Lines:
    """What goes on, without what is always there."""
    request = head(fields, version=version)
    lines = forward_request(request, origin or Origin("192.0.2.1", "192.0.2.1", False), True, b"backend:1")
    always = {b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"via"}
    return [line for line in lines if line[0].lower() not in always]


@pytest.mark.parametrize(
    "dropped",
    [
        [(b"Connection", b"keep-alive")],
        [(b"Connection", b"close, X-Mine"), (b"X-Mine", b"1"), (b"x-mine", b"2")],
        [(b"X-Mine", b"1"), (b"Connection", b"x-MINE ,")],
        [(b"Keep-Alive", b"timeout=5")],
        [(b"Proxy-Connection", b"keep-alive")],
        [(b"Proxy-Authorization", b"Basic x")],
        [(b"TE", b"trailers")],
        [(b"Trailer", b"X-Sum")],
        [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAA")],
        [(b"X-Forwarded-For", b"1.2.3.4"), (b"x-forwarded-for", b"5.6.7.8")],
        [(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Port", b"443"), (b"X-Forwarded-Prefix", b"/a")],
        [(b"X_Forwarded_For", b"1.2.3.4"), (b"X-Forwarded_Host", b"evil")],
        [(b"Forwarded", b"for=1.2.3.4")],
        [(b"X-Real-IP", b"1.2.3.4")],
    ],
)
def test_these_never_reach_the_backend(dropped: Lines) -> None:
    kept = [(b"Accept", b"*/*")]
    assert forwarded([*dropped, *kept]) == kept


def test_everything_else_keeps_bytes_order_and_duplicates() -> None:
    lines = [
        (b"aCCept", b"a"),
        (b"Cookie", b"a=1"),
        (b"X", b"\xe4\xff"),
        (b"cookie", b"b=2"),
        (b"ACCEPT", b""),
        (b"Authorization", b"Bearer x"),
        (b"Content-Length", b"007"),
        (b"Expect", b"100-continue"),
    ]
    assert forwarded(lines) == lines


def test_chunked_is_said_anew() -> None:
    assert forwarded([(b"Transfer-Encoding", b"CHUNKED")]) == [(b"Transfer-Encoding", b"chunked")]


def test_expect_is_dropped_from_http10() -> None:
    assert forwarded([(b"Expect", b"100-continue")], version=(1, 0)) == []


def values(lines: Lines, name: bytes) -> list[bytes]:
    return [value for key, value in lines if key.lower() == name]


def test_a_strangers_claims_are_replaced() -> None:
    request = head([(b"X-Forwarded-For", b"1.2.3.4"), (b"X-Forwarded-Host", b"evil"), (b"X-Forwarded-Proto", b"https")])
    origin = origin_of(request, "192.0.2.1", TRUSTED)
    lines = forward_request(request, origin, True, b"backend:1")
    assert origin.client == "192.0.2.1"
    assert values(lines, b"x-forwarded-for") == [b"192.0.2.1"]
    assert values(lines, b"x-forwarded-proto") == [b"http"]
    assert values(lines, b"x-forwarded-host") == [b"Shop:80"]
    assert values(lines, b"host") == [b"Shop:80"]
    assert values(lines, b"via") == [b"1.1 l7proxy"]


def test_a_trusted_proxys_claims_are_extended() -> None:
    request = head(
        [
            (b"X-Forwarded-For", b"198.51.100.1"),
            (b"X-Forwarded-For", b"203.0.113.9, 10.0.0.7"),
            (b"X-Forwarded-Proto", b"https"),
            (b"Via", b"1.1 edge"),
        ]
    )
    origin = origin_of(request, "10.0.0.1", TRUSTED)
    lines = forward_request(request, origin, True, b"backend:1")
    assert values(lines, b"x-forwarded-for") == [b"198.51.100.1, 203.0.113.9, 10.0.0.7, 10.0.0.1"]
    assert values(lines, b"x-forwarded-proto") == [b"https"]
    assert values(lines, b"x-forwarded-host") == [b"Shop:80"]
    assert values(lines, b"via") == [b"1.1 edge", b"1.1 l7proxy"]


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("192.0.2.1", b"1.1.1.1", "192.0.2.1"),
        ("10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", b"6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", b"10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("10.0.0.1", b"1.1.1.1, rubbish", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("2001:db8::1", b"2001:0:0::5", "2001::5"),
    ],
)
def test_the_client_is_the_last_address_nobody_vouches_for(peer: str, chain: bytes, client: str) -> None:
    assert origin_of(head([(b"X-Forwarded-For", chain)]), peer, TRUSTED).client == client


def test_http10_without_host_gets_the_backends() -> None:
    request = read_head("GET", "/", (1, 0), [])
    assert isinstance(request, RequestHead)
    lines = forward_request(request, Origin("a", "192.0.2.1", False), False, b"10.0.0.1:80")
    assert lines == [
        (b"Host", b"10.0.0.1:80"),
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"X-Forwarded-Proto", b"http"),
    ]


def test_underscores_make_the_same_claim() -> None:
    assert is_claim(b"x_real_ip")
    assert not is_claim(b"x-request-id")


def answer(
    status: int, fields: Lines, method: str = "GET", version: tuple[int, int] = (1, 1), chunked: bool = False
) -> AnswerHead | str:
    return forward_answer(status, [(b"Date", DATE), *fields], head([], method, version), chunked, b"now")


@pytest.mark.parametrize(
    ("status", "fields", "method", "version", "framing"),
    [
        (200, [(b"Content-Length", b"5")], "GET", (1, 1), BodyFraming.LENGTH),
        (200, [], "GET", (1, 1), BodyFraming.CHUNKED),
        (200, [], "GET", (1, 0), BodyFraming.CLOSE),
        (200, [(b"Content-Length", b"5")], "HEAD", (1, 1), BodyFraming.NONE),
        (204, [], "GET", (1, 1), BodyFraming.NONE),
        (304, [(b"Content-Length", b"5")], "GET", (1, 1), BodyFraming.NONE),
        (103, [], "GET", (1, 1), BodyFraming.NONE),
    ],
)
def test_how_an_answers_end_is_told(
    status: int, fields: Lines, method: str, version: tuple[int, int], framing: BodyFraming
) -> None:
    found = answer(status, fields, method, version)
    assert isinstance(found, AnswerHead)
    assert found.framing is framing
    assert [line for line in found.fields if line[0] != b"Date"] == fields


def test_answers_lose_what_is_about_the_connection() -> None:
    kept = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"Server", b"origin"), (b"X", b"\xe4")]
    dropped = [
        (b"Connection", b"close, X-Hop, Set-Cookie"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Trailer", b"X-Sum"),
        (b"Upgrade", b"h2c"),
        (b"Proxy-Authenticate", b"Basic"),
    ]
    found = answer(200, [*dropped, *kept], chunked=True)
    assert isinstance(found, AnswerHead)
    assert found.fields == [(b"Date", DATE), *kept]


def test_204_has_no_length() -> None:
    found = answer(204, [(b"Content-Length", b"0")])
    assert isinstance(found, AnswerHead)
    assert found.fields == [(b"Date", DATE)]


def test_date_is_added_where_it_lacks() -> None:
    found = forward_answer(200, [], head([]), False, b"now")
    assert isinstance(found, AnswerHead)
    assert found.fields == [(b"Date", b"now")]


@pytest.mark.parametrize(
    ("fields", "chunked"),
    [
        ([(b"X", b"a\rb")], False),
        ([(b"X", b"a\nb")], False),
        ([(b"X", b"a\x00b")], False),
        ([(b"Content-Length", b"5"), (b"Content-Length", b"6")], False),
        ([(b"Content-Length", b"-5")], False),
        ([(b"Content-Length", b"5")], True),
        ([(b"Transfer-Encoding", b"gzip, chunked")], True),
    ],
)
def test_answers_that_could_be_read_two_ways_are_not_passed_on(fields: Lines, chunked: bool) -> None:
    assert isinstance(answer(200, fields, chunked=chunked), str)


def test_join() -> None:
    assert join(b"GET / HTTP/1.1", [(b"A", b"1"), (b"B", b"")]) == b"GET / HTTP/1.1\r\nA: 1\r\nB: \r\n\r\n"
