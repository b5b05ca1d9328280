"""The first tier: what it reads, and what it leaves to the second."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.scan import plain_scan_request, plain_scan_response, scan_request, scan_response
from tests.l7proxy import heads

pytestmark = pytest.mark.unit

HOST = b"Host: shop.example.org"


def scan(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead | None:
    data = b"\r\n".join((start, *lines))
    found = scan_request(data)
    heads.same_to_the_byte(found, plain_scan_request(data))
    return found


def good(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    found = scan(*lines, start=start)
    assert found is not None
    return found


def test_an_ordinary_request() -> None:
    kept = [
        b"Host: Shop.example.org:8080",
        b"user-agent: Mozilla/5.0",
        b"Accept:*/*",
        b"Referer: http://a/",
        b"Cookie: a=1; b=2",
        b"Cookie: c",
        b"Content-Length: 12",
        b"Authorization: Basic x",
        b"via: 1.1 a",
        b"Via: 1.0 b",
    ]
    cut = [
        b"Connection: keep-alive",
        b"Keep-Alive: 5",
        b"TE: trailers",
        b"Trailer: X",
        b"Proxy-Authorization: x",
        b"Proxy-Connection: close",
        b"HTTP2-Settings: x",
    ]
    claims = [b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-what: 1", b"Forwarded: for=1", b"X-Real-IP: 1"]
    head = good(*cut, *kept, *claims, start=b"POST /a/../b%7E?q HTTP/1.1")
    assert head.start == b"POST /a/../b%7E?q HTTP/1.1"
    assert (head.method, head.target, head.path) == (b"POST", b"/a/../b%7E?q", "/b~")
    assert (head.authority, head.host) == (b"Shop.example.org:8080", "shop.example.org")
    assert head.lines == kept
    assert head.claims == tuple(claims)
    assert (head.length, head.chunked, head.keep_alive, head.bound) == (12, False, True, False)
    assert (head.agent.strip(), head.referer.strip()) == (b"Mozilla/5.0", b"http://a/")
    assert head.via == b" 1.1 a, 1.0 b"


def test_what_is_cut_may_stand_twice() -> None:
    assert good(HOST, b"TE: a", b"X: 1", b"TE: a", b"X: 1", b"te: a").lines == [HOST, b"X: 1", b"X: 1"]


def test_close_is_heard() -> None:
    assert not good(HOST, b"Connection: close").keep_alive
    assert not good(HOST, b"Connection: close", b"connection: keep-alive").keep_alive
    assert not good(HOST, b"Connection: Close").keep_alive
    assert not good(HOST, b"Connection:close").keep_alive
    assert good(HOST, b"Connection: Keep-Alive").keep_alive
    assert good(HOST, b"Connection:keep-alive").keep_alive
    assert scan(HOST, b"Connection: Keep-alive") is None
    assert scan(HOST, b"Connection: CLOSE") is None


@pytest.mark.parametrize("name", ["keep-alive", "close"])
def test_connection_is_read_in_its_usual_spellings(name: str) -> None:
    usual = {f" {name}", f" {name.title()}", name}
    others = {f" {name.upper()}", f"{name.title()}", f"{name} ", f"  {name}", f"{name},", f" {name}d"}
    for value in {*usual, *others, " Keep-alive"}:
        found = scan(HOST, b"Connection:" + value.encode())
        assert (found is not None) == (value in usual)
        assert found is None or found.keep_alive == (name == "keep-alive")
        assert (answer(b"Connection:" + value.encode()) is not None) == (value in usual)


def test_logins_of_the_connection_are_seen() -> None:
    assert good(HOST, b"Authorization: NTLM x").bound
    assert good(HOST, b"authorization:negotiate x").bound


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [HOST, HOST],
        [b"Host: a b"],
        [b"Host: a/b"],
        [b"Host: a,b"],
        [b"Host: u@a"],
        [b"Host: [::1]"],
        [b"Host: a."],
        [b"Host: "],
        [HOST, b"Content-Length: 3", b"content-length: 3"],
        [HOST, b"Content-Length: +3"],
        [HOST, b"Content-Length: 3, 3"],
        [HOST, b"Content-Length: 1234567890123456"],
        [HOST, b"Transfer-Encoding: chunked"],
        [HOST, b"Connection: x"],
        [HOST, b"Connection: keep-alive, close"],
        [HOST, b"Connection: upgrade"],
        [HOST, b"Upgrade: websocket"],
        [HOST, b"Expect: 100-continue"],
        [HOST, b"X_Y: 1"],
        [HOST, b"X :1"],
        [HOST, b": 1"],
        [HOST, b"X"],
        [HOST, b"X:"],
        [HOST, b" X: 1"],
        [HOST, b"X: 1", b" folded: 2"],
        [HOST, b"X: \t"],
        [HOST, b"X: \xe4"],
        [HOST, b"X: \x00"],
        [HOST, b"X: a\nY: b"],
        [HOST, b"X: a\rY: b"],
        [HOST, b"X: a\r"],
        [HOST, b"X: a\n\r"],
        [HOST, b""],
        [HOST, *[b"X: 1"] * 100],
    ],
)
def test_what_is_not_ordinary_is_left_to_the_second_tier(lines: list[bytes]) -> None:
    assert scan(*lines) is None


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"get / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"OPTIONS / HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"GET http://a/ HTTP/1.1",
        b"GET /#a HTTP/1.1",
        b"GET HTTP/1.1",
        b"GET  HTTP/1.1",
        b"\r\nGET / HTTP/1.1",
    ],
)
def test_what_does_not_begin_ordinarily_neither(start: bytes) -> None:
    assert scan(HOST, start=start) is None


def answer(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> ResponseHead | None:
    data = b"\r\n".join((start, *lines))
    found = scan_response(data)
    heads.same_to_the_byte(found, plain_scan_response(data))
    return found


def test_an_ordinary_answer() -> None:
    kept = [b"Date: x", b"Content-Type: a", b"Set-Cookie: a", b"set-cookie: b", b"Content-Length: 5", b"Server:x"]
    cut = [b"Connection: keep-alive", b"Keep-Alive: 5", b"Trailer: x", b"Upgrade: h2c", b"Keep-Alive: 5"]
    head = answer(cut[0], *kept, *cut[1:], start=b"HTTP/1.1 404 Not Found here")
    assert head is not None
    assert (head.status, head.phrase, head.lines) == (404, b"Not Found here", kept)
    assert (head.length, head.chunked, head.keep_alive, head.dated, head.bound) == (5, False, True, True, False)


def test_a_chunked_answer_that_is_the_last() -> None:
    head = answer(b"transfer-encoding: Chunked", b"connection: close", b"WWW-Authenticate: NTLM")
    assert head is not None
    assert head.lines == [b"WWW-Authenticate: NTLM"]
    assert (head.length, head.chunked, head.keep_alive, head.dated, head.bound) == (None, True, False, False, True)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 1", b"Content-Length: 1"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 1"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Connection: x"],
        [b"X_Y: 1"],
        [b"X: \xe4"],
        [b"X: a\nb"],
        [b"X"],
        [b"X:"],
        [b" X: 1"],
    ],
)
def test_an_answer_that_is_not_ordinary_is_left_to_the_second_tier(lines: list[bytes]) -> None:
    assert answer(*lines) is None


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 600 x",
    ],
)
def test_other_status_lines_neither(start: bytes) -> None:
    assert answer(start=start) is None


PIECES = [
    b"GET ", b"POST ", b"/", b"/a.b/", b"?", b"%41", b"..", b" HTTP/1.1", b"HTTP/1.1 200 ", b"OK", b"HTTP/1.1 503 x",
    b"\r\n", b"\r\n", b"\r\n", b"\r",
    b"\n", b" ", b":", b": ", b"Host: a", b"Host:B.c:80", b"hOST: ", b"Content-Length:",
    b"12", b"Connection: ", b"close", b"keep-alive", b"Keep-Alive: x", b"X-Forwarded-", b"For: 1", b"Forwarded: x",
    b"Via: 1.1 a", b"User-Agent: ", b"Referer: b", b"Authorization: ", b"NTLM", b"Transfer-Encoding: ", b"chunked",
    b"Date: x",
    b"X: y", b"Accept: */*", b"Upgrade: z", b"_", b"\t", b"\x80", b"\0", b"q" * 300,
]  # fmt: skip


@settings(max_examples=2000)
@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join), st.integers(0, 5))
@example(b"GET / HTTP/1.1\r\nHost: a\r", 100)
@example(b"GET / HTTP/1.1\r\nHost: a\r\n", 100)
@example(b"GET / HTTP/1.1\r\nHost: " + b"A" * 300, 100)
@example(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 70_000, 100)
@example(b"GET / HTTP/1.1\r\nHost: a" + b"\r\nTE: x\r\nX: y" * 3000, 10_000)
def test_both_scanners_are_one(tail: bytes, most_headers: int) -> None:
    for data in (tail, b"GET / HTTP/1.1\r\nHost: a\r\n" + tail, b"PUT /" + tail + b" HTTP/1.1\r\nHost: a.b:8"):
        heads.same_to_the_byte(scan_request(data, most_headers), plain_scan_request(data, most_headers))
    for data in (tail, b"HTTP/1.1 200 OK\r\n" + tail):
        heads.same_to_the_byte(scan_response(data), plain_scan_response(data))
