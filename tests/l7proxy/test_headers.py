"""What is added to the heads that go on."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.headers import (
    decrement_max_forwards,
    names_in_via,
    own_tail,
    request_bytes,
    status_line,
    trusted_tail,
)
from l7proxy.core.strict import read_request, read_response

pytestmark = pytest.mark.unit

TRUSTED = TrustedNetworks([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: Shop:80") -> RequestHead:
    found = read_request(b"\r\n".join((start, host, *lines)))
    assert isinstance(found, RequestHead), found
    return found


def values(block: bytes, name: bytes) -> list[bytes]:
    lines = [line.partition(b": ") for line in block.split(b"\r\n")]
    return [value for key, _, value in lines if key.lower() == name]


def test_what_is_said_for_a_stranger() -> None:
    assert own_tail("192.0.2.1", "https", b"Shop:80", b"edge-1") == (
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: Shop:80\r\nVia: 1.1 edge-1\r\n\r\n"
    )
    assert own_tail("::1", "http", b"", b"") == b"X-Forwarded-For: ::1\r\nX-Forwarded-Proto: http\r\n\r\n"
    assert own_tail("::1", "http", b"", b"e", http10=True).endswith(b"\r\nVia: 1.0 e\r\n\r\n")


def test_a_trusted_proxys_claims_are_extended() -> None:
    request = head(
        b"X-Forwarded-For: 198.51.100.1",
        b"x-forwarded-for:203.0.113.9, 10.0.0.7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port:  443",
    )
    client, tail = trusted_tail(request, "10.0.0.1", "http", b"edge", TRUSTED)
    assert client == "203.0.113.9"
    assert tail == (
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Port:  443\r\n"
        b"X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.7, 10.0.0.1\r\n"
        b"X-Forwarded-Host: Shop:80\r\nVia: 1.1 edge\r\n\r\n"
    )


def test_what_a_trusted_proxy_does_not_claim_is_said_for_it() -> None:
    client, tail = trusted_tail(head(), "10.0.0.1", "http", b"", TRUSTED)
    assert client == "10.0.0.1"
    assert tail == (b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: Shop:80\r\n\r\n")


def test_a_trusted_proxys_host_and_forwarded_stand() -> None:
    request = head(b"X-Forwarded-Host: orig", b"Forwarded: for=203.0.113.9;host=orig", b"X-Real-IP: 1.1.1.1")
    client, tail = trusted_tail(request, "10.0.0.1", "http", b"", TRUSTED)
    assert client == "203.0.113.9"
    assert values(tail, b"x-forwarded-host") == [b"orig"]
    assert values(tail, b"forwarded") == [b"for=203.0.113.9;host=orig"]
    assert values(tail, b"x-real-ip") == [b"1.1.1.1"]


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", b"6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", b"10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("10.0.0.1", b"1.1.1.1, rubbish", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("2001:db8::1", b"2001:0:0::5", "2001::5"),
    ],
)
def test_the_client_is_the_last_address_nobody_vouches_for(peer: str, chain: bytes, client: str) -> None:
    assert trusted_tail(head(b"X-Forwarded-For: " + chain), peer, "http", b"", TRUSTED)[0] == client


def test_a_request_goes_on_with_its_lines_and_the_tail() -> None:
    request = head(b"Accept:a", b"Content-Length: 3", start=b"POST /x HTTP/1.1")
    assert request_bytes(request, b"T: 1\r\n\r\n", b"backend:1") == (
        b"POST /x HTTP/1.1\r\nHost: Shop:80\r\nAccept:a\r\nContent-Length: 3\r\nT: 1\r\n\r\n"
    )


def test_chunked_is_said_anew() -> None:
    request = head(b"Transfer-Encoding: CHUNKED", b"TE: trailers", start=b"POST /x HTTP/1.1")
    assert request_bytes(request, b"\r\n", b"backend:1") == (
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: Shop:80\r\n\r\n"
    )


def test_an_upgrade_is_asked_for_anew() -> None:
    request = head(b"Connection: keep-alive, Upgrade", b"Upgrade: foo, WebSocket", b"Sec-WebSocket-Key: x")
    assert request_bytes(request, b"\r\n", b"backend:1") == (
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nHost: Shop:80\r\nSec-WebSocket-Key: x\r\n\r\n"
    )


def test_http10_without_host_gets_the_backends() -> None:
    request = read_request(b"GET / HTTP/1.0\r\nX: 1")
    assert isinstance(request, RequestHead)
    assert request_bytes(request, b"\r\n", b"10.0.0.1:80") == b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX: 1\r\n\r\n"


def test_a_hop_is_taken_off_max_forwards() -> None:
    request = head(b"MAX-forwards: 010", b"Max-Forwards-Not: 1", start=b"OPTIONS * HTTP/1.1")
    decrement_max_forwards(request)
    assert request.lines == [b"Host: Shop:80", b"Max-Forwards-Not: 1", b"Max-Forwards: 9"]
    other = head(b"Max-Forwards: 10")
    decrement_max_forwards(other)
    assert other.lines == [b"Host: Shop:80", b"Max-Forwards: 10"]


@pytest.mark.parametrize(
    ("via", "found"),
    [
        (b"1.1 edge", True),
        (b"1.0 a, 1.1 edge", True),
        (b"1.0 a,HTTP/1.1\tedge (the, edge)", True),
        (b" 1.1  edge ,1.1 b", True),
        (b"1.1 edge-1", False),
        (b"1.1 a (edge)", False),
        (b"edge", False),
        (b"edge 1.1", False),
        (b"", False),
    ],
)
def test_the_own_name_is_found_in_via(via: bytes, found: bool) -> None:
    assert names_in_via(via, b"edge") is found


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 418 I'm a \xf6 teapot", b"HTTP/1.1 299 a \t b"]
)
def test_a_backends_own_phrase_goes_on(start: bytes) -> None:
    found = read_response(start)
    assert isinstance(found, ResponseHead)
    assert [status_line(found), status_line(found)] == [start, start]
