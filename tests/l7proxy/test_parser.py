"""Two full parsers, ours and aiohttp's, of which each may refuse."""

from __future__ import annotations

import pytest

from l7proxy.core.head import Refusal, RequestHead, ResponseHead
from l7proxy.core.proxystatus import Cause
from l7proxy.http import parser

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1",
        b"get / HTTP/1.1",
        b"PROPFIND /a HTTP/1.1",
        b"BREW /pot HTTP/1.1",
        b"PURGE /x HTTP/1.0",
        b"M-SEARCH /a HTTP/1.1",
        b"!#$%&'*+.^_`|~-09 / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http://b:80/x?y HTTP/1.1",
        b"GET http://[2001:db8::1]/ HTTP/1.1",
        b'GET //[x/?"<>\\^`{|} HTTP/1.1',
        b"GET /:80@x/http://y HTTP/1.1",
    ],
)
def test_both_take_what_is_allowed(start: bytes) -> None:
    kept = [b"X: \xe4\xff\t", b"Empty:", b"Content-Length: 3", b"Content-Encoding: gzip"]
    found = parser.read_request(b"\r\n".join((start, b"Host: a", b"Y_Z: 1", *kept)))
    assert isinstance(found, RequestHead), found
    assert found.method == start.split(b" ")[0]
    assert found.lines == [b"Host: " + found.authority, *kept]


def test_what_strict_refuses_keeps_its_cause() -> None:
    found = parser.read_request(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked")
    assert isinstance(found, Refusal)
    assert found.cause is Cause.UNKNOWN_CODING


def test_what_aiohttp_refuses_is_refused() -> None:
    found = parser.read_request(b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key1: a")
    assert isinstance(found, Refusal)
    assert found.cause is Cause.MALFORMED_REQUEST
    assert found.reason


def test_limits_of_header_lines_are_the_callers() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX_Y: 1" * 150
    assert isinstance(parser.read_request(data), Refusal)
    assert isinstance(parser.read_request(data, most_headers=151), RequestHead)


def test_underscores_are_kept_where_wanted() -> None:
    found = parser.read_request(b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1", drop_underscores=False)
    assert isinstance(found, RequestHead)
    assert found.lines == [b"Host: a", b"X_Y: 1"]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX_Y: 1",
        b"HTTP/1.1 200\r\nX: \xe4",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2",
    ],
)
def test_both_take_these_answers(data: bytes) -> None:
    found = parser.read_response(data)
    assert isinstance(found, ResponseHead), found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\nX: 1",
        b"HTTP/1.1 200 OK\r\nX : 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
def test_these_answers_are_none(data: bytes) -> None:
    assert isinstance(parser.read_response(data), str)
