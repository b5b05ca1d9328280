"""What is a request, and what is refused: cases of RFC 9112, read without a parser in front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.head import Refusal, RequestHead, read_head

pytestmark = pytest.mark.unit

HOST = (b"Host", b"shop.example.org")


def read(
    fields: list[tuple[bytes, bytes]], target: str = "/", method: str = "GET", version: tuple[int, int] = (1, 1)
) -> RequestHead | Refusal:
    return read_head(method, target, version, fields)


def good(
    fields: list[tuple[bytes, bytes]], target: str = "/", method: str = "GET", version: tuple[int, int] = (1, 1)
) -> RequestHead:
    found = read(fields, target, method, version)
    assert isinstance(found, RequestHead), found
    return found


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 400),
        ([HOST, HOST], 400),
        ([(b"Host", b"a b")], 400),
        ([(b"Host", b"a/c")], 400),
        ([(b"Host", b"u@a")], 400),
        ([(b"Host", b"a,b")], 400),
        ([(b"Host", b"")], 400),
        ([(b"Host", b"a:99999")], 400),
        ([(b"Host", b"[::1")], 400),
        ([(b"Host", b"\xc3\xa4")], 400),
        ([HOST, (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")], 400),
        ([HOST, (b"Content-Length", b"3"), (b"Content-Length", b"3")], 400),
        ([HOST, (b"Content-Length", b"3,3")], 400),
        ([HOST, (b"Content-Length", b"+3")], 400),
        ([HOST, (b"Content-Length", b"-3")], 400),
        ([HOST, (b"Content-Length", b"0x3")], 400),
        ([HOST, (b"Content-Length", b"")], 400),
        ([HOST, (b"Content-Length", b"18446744073709551616")], 400),
        ([HOST, (b"Content-Length", b"9223372036854775808")], 400),
        ([HOST, (b"Transfer-Encoding", b"gzip, chunked")], 501),
        ([HOST, (b"Transfer-Encoding", b"identity")], 501),
        ([HOST, (b"Transfer-Encoding", b"chunked, chunked")], 400),
        ([HOST, (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")], 400),
        ([HOST, (b"Transfer-Encoding", b"")], 400),
        ([HOST, (b"Connection", b"Host")], 400),
        ([HOST, (b"Connection", b"close, Content-Length")], 400),
        ([HOST, (b"Connection", b"transfer-encoding")], 400),
        ([HOST, (b"Connection", b"Cookie")], 400),
        ([HOST, (b"Connection", b"authorization")], 400),
        ([HOST, (b"Connection", b"X-Forwarded-For")], 400),
        ([HOST, (b"X", b"a\x00")], 400),
        ([HOST, (b"X", b"a\r\nY: b")], 400),
        ([HOST, (b"X Y", b"a")], 400),
        ([HOST, (b"", b"a")], 400),
    ],
)
def test_ambiguous_heads_are_refused(fields: list[tuple[bytes, bytes]], status: int) -> None:
    found = read(fields)
    assert isinstance(found, Refusal)
    assert found.status == status


@pytest.mark.parametrize(
    ("method", "target", "version", "status"),
    [
        ("TRACE", "/", (1, 1), 405),
        ("CONNECT", "a:80", (1, 1), 405),
        ("GET", "/", (2, 0), 505),
        ("GET", "/", (0, 9), 505),
        ("GET", "/", (1, 2), 505),
        ("GET", "*", (1, 1), 400),
        ("GET", "foo", (1, 1), 400),
        ("GET", "", (1, 1), 400),
        ("GET", "/a#b", (1, 1), 400),
        ("GET", "/a b", (1, 1), 400),
        ("GET", "/\u00e4", (1, 1), 400),
        ("GET", "ftp://a/", (1, 1), 400),
        ("GET", "http:///x", (1, 1), 400),
        ("GET", "http://u:p@a/", (1, 1), 400),
    ],
)
def test_targets_and_methods_that_go_no_further(
    method: str, target: str, version: tuple[int, int], status: int
) -> None:
    found = read([HOST], target, method, version)
    assert isinstance(found, Refusal)
    assert found.status == status


@pytest.mark.parametrize(
    ("target", "method", "sent", "authority", "path"),
    [
        ("/a%2Fb//c?x=%41&y=/../", "GET", b"/a%2Fb//c?x=%41&y=/../", b"shop.example.org", "/a%2Fb//c"),
        ("//evil/x", "GET", b"//evil/x", b"shop.example.org", "//evil/x"),
        ("http://Other.Example:8080/p?q", "GET", b"/p?q", b"Other.Example:8080", "/p"),
        ("http://other?q", "GET", b"/?q", b"other", "/"),
        ("http://other", "GET", b"/", b"other", "/"),
        ("http://other", "OPTIONS", b"*", b"other", "/"),
        ("*", "OPTIONS", b"*", b"shop.example.org", "/"),
    ],
)
def test_target_forms(target: str, method: str, sent: bytes, authority: bytes, path: str) -> None:
    head = good([HOST], target, method)
    assert (head.target, head.authority, head.path) == (sent, authority, path)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"Shop.Example.ORG", "shop.example.org"),
        (b"shop.example.org:8080", "shop.example.org"),
        (b"shop.example.org.", "shop.example.org"),
        (b"shop.example.org.:80", "shop.example.org"),
        (b"10.0.0.1:80", "10.0.0.1"),
        (b"[2001:DB8::1]:80", "[2001:db8::1]"),
        (b"[::1]", "[::1]"),
        (b"my_host", "my_host"),
    ],
)
def test_hosts_are_compared_without_port_and_case(value: bytes, host: str) -> None:
    head = good([(b"Host", value)])
    assert head.host == host
    assert head.authority == value


def test_http10_needs_no_host() -> None:
    head = good([], version=(1, 0))
    assert (head.host, head.authority, head.http10) == ("", b"", True)


def test_transfer_encoding_in_http10_is_refused() -> None:
    found = read([HOST, (b"Transfer-Encoding", b"chunked")], version=(1, 0))
    assert isinstance(found, Refusal)


def test_framing_is_read() -> None:
    assert good([HOST, (b"content-LENGTH", b"10")]).length == 10
    assert good([HOST, (b"Transfer-Encoding", b"Chunked")]).chunked
    assert not good([HOST, (b"Content-Length", b"0")]).has_body
    assert not good([HOST], method="POST").has_body


def test_expect_counts_only_in_http11() -> None:
    expect = (b"Expect", b"100-Continue")
    assert good([HOST, expect]).expects_continue
    assert not good([HOST, expect], version=(1, 0)).expects_continue


def test_large_head_is_refused() -> None:
    found = read_head("GET", "/", (1, 1), [HOST, (b"X", b"a" * 2000)], largest_bytes=1024)
    assert isinstance(found, Refusal)
    assert found.status == 431


@given(
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20)), max_size=6),
    st.text(max_size=20),
    st.sampled_from(["GET", "OPTIONS", "POST"]),
)
def test_anything_is_either_read_or_refused(fields: list[tuple[bytes, bytes]], target: str, method: str) -> None:
    head = read_head(method, target, (1, 1), [HOST, *fields])
    if isinstance(head, RequestHead):
        assert head.target[:1] in {b"/", b"*"}
        assert not any(b"\r" in value or b"\n" in value for _, value in head.fields)
