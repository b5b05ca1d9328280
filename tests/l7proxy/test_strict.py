"""What is a request or an answer, and what is refused: cases of RFC 9112, read without a parser in front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.head import Refusal, RequestHead, ResponseHead
from l7proxy.core.proxystatus import Cause
from l7proxy.core.strict import is_claim, read_request, read_response

pytestmark = pytest.mark.unit

HOST = b"Host: shop.example.org"


def read(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead | Refusal:
    return read_request(b"\r\n".join((start, *lines)))


def good(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    found = read(*lines, start=start)
    assert isinstance(found, RequestHead), found
    return found


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 400),
        ([HOST, HOST], 400),
        ([HOST, b"host: other"], 400),
        ([b"Host: a b"], 400),
        ([b"Host: a/c"], 400),
        ([b"Host: u@a"], 400),
        ([b"Host: u:p@a"], 400),
        ([b"Host: a,b"], 400),
        ([b"Host: "], 400),
        ([b"Host: :80"], 400),
        ([b"Host: a:99999"], 400),
        ([b"Host: a:+80"], 400),
        ([b"Host: a:80:80"], 400),
        ([b"Host: [::1"], 400),
        ([b"Host: ::1"], 400),
        ([b"Host: [fe80::1%eth0]"], 400),
        ([b"Host: [1.2.3.4]"], 400),
        ([b"Host: [::::]"], 400),
        ([b"Host: [1:2:3:4:5:6:7:8:9]"], 400),
        ([b"Host: [12345::]"], 400),
        ([b"Host: []"], 400),
        ([b"Host: [v1.x]"], 400),
        ([b"Host: " + b"a" * 262], 400),
        ([b"Host: [fe80::1%25eth0]"], 400),
        ([b"Host: a%2"], 400),
        ([b"Host: \xc3\xa4"], 400),
        ([HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked"], 400),
        ([HOST, b"Transfer-Encoding: chunked", b"content-length: 0"], 400),
        ([HOST, b"Content-Length: 3", b"Content-Length: 3"], 400),
        ([HOST, b"Content-Length: 3", b"content-length: 4"], 400),
        ([HOST, b"Content-Length: 3,3"], 400),
        ([HOST, b"Content-Length: 3, 4"], 400),
        ([HOST, b"Content-Length: +3"], 400),
        ([HOST, b"Content-Length: -3"], 400),
        ([HOST, b"Content-Length: 0x3"], 400),
        ([HOST, b"Content-Length: 3 3"], 400),
        ([HOST, b"Content-Length: 3_0"], 400),
        ([HOST, b"Content-Length: 3.0"], 400),
        ([HOST, b"Content-Length: \xb2"], 400),
        ([HOST, b"Content-Length: "], 400),
        ([HOST, b"Content-Length: 18446744073709551616"], 400),
        ([HOST, b"Content-Length: 9223372036854775808"], 400),
        ([HOST, b"Content-Length: " + b"1" * 5000], 400),
        ([HOST, b"Transfer-Encoding: gzip, chunked"], 501),
        ([HOST, b"Transfer-Encoding: x-chunked, chunked"], 501),
        ([HOST, b"Transfer-Encoding: chunked, gzip"], 400),
        ([HOST, b"Transfer-Encoding: identity"], 501),
        ([HOST, b"Transfer-Encoding: chunked, chunked"], 400),
        ([HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([HOST, b"Transfer-Encoding: chunked", b"transfer-encoding: identity"], 400),
        ([HOST, b"Transfer-Encoding: chunked;q=1"], 501),
        ([HOST, b"Transfer-Encoding: , chunked ,"], 400),
        ([HOST, b"Transfer-Encoding: ", b"Transfer-Encoding: chunked"], 400),
        ([HOST, b"Transfer-Encoding: \x0bchunked"], 400),
        ([HOST, b"Transfer-Encoding: "], 400),
        ([HOST, b"Connection: Host"], 400),
        ([HOST, b"Connection: close, Content-Length"], 400),
        ([HOST, b"Connection: transfer-encoding"], 400),
        ([HOST, b"Connection: Cookie"], 400),
        ([HOST, b"Connection: authorization"], 400),
        ([HOST, b'Connection: "x"'], 400),
        ([HOST, b"Connection: a b"], 400),
        ([HOST, b"X: a\x00"], 400),
        ([HOST, b"X: a\x7f"], 400),
        ([HOST, b"X: a\x0b"], 400),
        ([HOST, b"X: a\nY: b"], 400),
        ([HOST, b"X: a\rY: b"], 400),
        ([HOST, b"X: a\r"], 400),
        ([HOST, b"X Y: a"], 400),
        ([HOST, b"X : a"], 400),
        ([HOST, b"X\t: a"], 400),
        ([HOST, b": a"], 400),
        ([HOST, b"X"], 400),
        ([HOST, b""], 400),
        ([HOST, b"X: a", b" folded"], 400),
        ([b" " + HOST], 400),
        ([HOST, b"X\xe4: a"], 400),
        ([HOST, b'"X": a'], 400),
        ([HOST, b"Expect: 200-ok"], 417),
        ([HOST, b"Expect: 100-continue, 100-continue"], 417),
        ([HOST, b"Expect: "], 417),
        ([HOST, *[b"X: 1"] * 100], 431),
    ],
)
def test_ambiguous_heads_are_refused(lines: list[bytes], status: int) -> None:
    found = read(*lines)
    assert isinstance(found, Refusal)
    assert found.cause.status == status
    assert found.reason


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"TRACE / HTTP/1.1", 405),
        (b"CONNECT a:80 HTTP/1.1", 405),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET /", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"A" * 33 + b" / HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET foo HTTP/1.1", 400),
        (b"GET  HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\tb HTTP/1.1", 400),
        (b"GET /\xc3\xa4 HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\n HTTP/1.1", 400),
        (b"GET ftp://a/ HTTP/1.1", 400),
        (b"GET file:///etc/passwd HTTP/1.1", 400),
        (b"GET httpx://a/ HTTP/1.1", 400),
        (b"GET http:/a HTTP/1.1", 400),
        (b"GET http:a HTTP/1.1", 400),
        (b"GET http:///x HTTP/1.1", 400),
        (b"GET http://u:p@a/ HTTP/1.1", 400),
        (b"GET http://a:b/ HTTP/1.1", 400),
        (b"GET http://a\\b/ HTTP/1.1", 400),
        (b"GET a.example:80 HTTP/1.1", 400),
        (b"GET ?x HTTP/1.1", 400),
        (b"", 400),
    ],
)
def test_targets_and_methods_that_go_no_further(start: bytes, status: int) -> None:
    found = read(HOST, start=start)
    assert isinstance(found, Refusal)
    assert found.cause.status == status


@pytest.mark.parametrize(
    ("target", "method", "sent", "authority", "path"),
    [
        (b"/a%2Fb//c?x=%41&y=/../", b"GET", b"/a%2Fb//c?x=%41&y=/../", b"shop.example.org", "/a%2Fb//c"),
        (b"//evil/x", b"GET", b"//evil/x", b"shop.example.org", "//evil/x"),
        (b"/a/../%62", b"GET", b"/a/../%62", b"shop.example.org", "/b"),
        (b"http://Other.Example:8080/p?q", b"GET", b"/p?q", b"Other.Example:8080", "/p"),
        (b"HTTPS://other/p", b"GET", b"/p", b"other", "/p"),
        (b"http://other?q", b"GET", b"/?q", b"other", "/"),
        (b"http://other", b"GET", b"/", b"other", "/"),
        (b"http://other?http://x/", b"GET", b"/?http://x/", b"other", "/"),
        (b"http://[::1]:80/", b"GET", b"/", b"[::1]:80", "/"),
        (b"http://other", b"OPTIONS", b"*", b"other", "/"),
        (b"http://other/", b"OPTIONS", b"/", b"other", "/"),
        (b"http://other?q", b"OPTIONS", b"/?q", b"other", "/"),
        (b"*", b"OPTIONS", b"*", b"shop.example.org", "/"),
    ],
)
def test_target_forms(target: bytes, method: bytes, sent: bytes, authority: bytes, path: str) -> None:
    head = good(HOST, b"X: 1", start=b"%b %b HTTP/1.1" % (method, target))
    assert head.start == b"%b %b HTTP/1.1" % (method, sent)
    assert (head.target, head.authority, head.path) == (target, authority, path)
    assert head.lines == [b"Host: " + authority, b"X: 1"]


def test_absolute_form_overrules_host_and_makes_it_where_http10_sent_none() -> None:
    assert good(b"X: 1", b"hOST: b", start=b"GET http://a/ HTTP/1.1").lines == [b"X: 1", b"Host: a"]
    assert good(b"X: 1", start=b"GET http://a/ HTTP/1.0").lines == [b"Host: a", b"X: 1"]
    assert good(b"X: 1", b"hOST: a", start=b"GET http://a/ HTTP/1.1").lines == [b"X: 1", b"hOST: a"]


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
        (b"[::ffff:192.0.2.1]:8", "[::ffff:192.0.2.1]"),
        (b"a" * 255 + b":12345", "a" * 255),
        (b"my_host", "my_host"),
        (b"shop:", "shop"),
        (b"[::1]:", "[::1]"),
    ],
)
def test_hosts_are_compared_without_port_and_case(value: bytes, host: str) -> None:
    head = good(b"Host:\t" + value + b" ")
    assert head.host == host
    assert head.authority == value


def test_http10_needs_no_host() -> None:
    head = good(start=b"GET / HTTP/1.0")
    assert (head.host, head.authority, head.http10, head.keep_alive) == ("", b"", True, False)
    assert head.start == b"GET / HTTP/1.1"


def test_transfer_encoding_in_http10_is_refused() -> None:
    found = read(HOST, b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")
    assert isinstance(found, Refusal)
    assert found.cause is Cause.MALFORMED_REQUEST


def test_framing_is_read() -> None:
    assert good(HOST, b"content-LENGTH: \t10\t ").length == 10
    assert good(HOST, b"Content-Length: 007").length == 7
    assert good(HOST, b"Content-Length: 9223372036854775807").length == 2**63 - 1
    assert good(HOST, b"Transfer-Encoding: Chunked").chunked
    assert good(HOST, b"Transfer-Encoding:chunked\t").chunked
    assert not good(HOST, b"Content-Length: 0").has_body
    assert not good(HOST, start=b"POST / HTTP/1.1").has_body


@pytest.mark.parametrize(
    ("version", "values", "stays"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"close"], False),
        (b"1.1", [b"CLOSE , x"], False),
        (b"1.1", [b"keep-alive", b"close"], False),
        (b"1.1", [b"not-close"], True),
        (b"1.0", [], False),
        (b"1.0", [b"Keep-Alive"], True),
        (b"1.0", [b"keep-alive, close"], False),
    ],
)
def test_whether_the_client_stays(version: bytes, values: list[bytes], stays: bool) -> None:
    lines = [b"Connection: " + value for value in values]
    assert good(HOST, *lines, start=b"GET / HTTP/" + version).keep_alive is stays


def test_expect_counts_only_in_http11_and_with_a_body() -> None:
    expect = b"Expect: 100-Continue"
    head = good(HOST, expect, b"Content-Length: 5")
    assert head.expects_continue
    assert expect in head.lines
    for other in (
        good(HOST, expect),
        good(HOST, expect, b"Content-Length: 0"),
        good(HOST, expect, b"Content-Length: 5", start=b"POST / HTTP/1.0"),
        good(HOST, b"Expect: 200-ok", start=b"POST / HTTP/1.0"),
    ):
        assert not other.expects_continue
        assert not [line for line in other.lines if line.startswith(b"Expect")]


@pytest.mark.parametrize(
    ("lines", "start", "upgrade"),
    [
        ([b"Connection: Upgrade", b"Upgrade: WebSocket"], b"GET / HTTP/1.1", b"websocket"),
        ([b"Connection: keep-alive, upgrade", b"Upgrade: h2c, websocket"], b"GET / HTTP/1.1", b"websocket"),
        ([b"Upgrade: websocket"], b"GET / HTTP/1.1", b""),
        ([b"Connection: upgrade"], b"GET / HTTP/1.1", b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket"], b"GET / HTTP/1.0", b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket"], b"POST / HTTP/1.1", b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 1"], b"GET / HTTP/1.1", b""),
        ([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"], b"GET / HTTP/1.1", b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket/13"], b"GET / HTTP/1.1", b""),
    ],
)
def test_only_websockets_are_asked_for(lines: list[bytes], start: bytes, upgrade: bytes) -> None:
    assert good(HOST, *lines, start=start).upgrade == upgrade


def test_max_forwards_counts_for_options() -> None:
    options = b"OPTIONS * HTTP/1.1"
    assert good(HOST, b"Max-Forwards: 3", start=options).max_forwards == 3
    assert good(HOST, b"Max-Forwards: 3").max_forwards is None
    for lines in ([b"Max-Forwards: -1"], [b"Max-Forwards: 1", b"Max-Forwards: 2"], [b"Max-Forwards: 9999999999"]):
        assert isinstance(read(HOST, *lines, start=options), Refusal)


def test_who_authenticates_the_connection_is_bound_to_it() -> None:
    assert good(HOST, b"Authorization: NTLM TlRM").bound
    assert good(HOST, b"authorization:\tnegotiate x").bound
    assert not good(HOST, b"Authorization: Basic TlRM").bound


def test_what_the_log_and_the_loop_want_is_found() -> None:
    head = good(HOST, b"Via: 1.0 a", b"Referer: r", b"User-Agent:  u ", b"via: 1.1 b")
    assert (head.via, head.referer, head.agent) == (b"1.0 a,1.1 b", b"r", b"u")


@pytest.mark.parametrize(
    "dropped",
    [
        [b"Connection: keep-alive"],
        [b"Connection: close, X-Mine", b"X-Mine: 1", b"x-mine: 2"],
        [b"X-Mine: 1", b"Connection: x-MINE ,"],
        [b"Keep-Alive: timeout=5"],
        [b"Proxy-Connection: keep-alive"],
        [b"Proxy-Authorization: Basic x"],
        [b"TE: trailers"],
        [b"Trailer: X-Sum"],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA"],
        [b"X_Forwarded_For: 1.2.3.4", b"X-Forwarded_Host: evil"],
        [b"Connection: X-Forwarded-For, forwarded", b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1.2.3.4"],
        [b"X_Other: 1", b"Content_Length: 5", b"Transfer_Encoding: chunked"],
    ],
)
def test_these_never_go_on(dropped: list[bytes]) -> None:
    head = good(*dropped, HOST, b"Accept: */*")
    assert (head.lines, head.claims) == ([HOST, b"Accept: */*"], ())
    assert not head.has_body


@pytest.mark.parametrize(
    "claims",
    [
        [b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-for: 5.6.7.8"],
        [b"X-Forwarded-Proto: https", b"X-Forwarded-Port: 443", b"X-Forwarded-Prefix: /a"],
        [b"Forwarded: for=1.2.3.4"],
        [b"X-Real-IP: 1.2.3.4"],
    ],
)
def test_what_a_client_claims_is_set_apart(claims: list[bytes]) -> None:
    head = good(*claims, HOST, b"Accept: */*")
    assert (head.lines, head.claims) == ([HOST, b"Accept: */*"], tuple(claims))


def test_underscores_make_the_same_claim() -> None:
    assert is_claim(b"x_real_ip")
    assert not is_claim(b"x-request-id")


def test_underscores_go_on_where_wanted_but_not_in_what_is_ours_to_say() -> None:
    """CGI makes both the same: a body's length may come twice with them."""
    lines = [
        b"X_Forwarded_For: 1.2.3.4",
        b"Content_Length: 5",
        b"transfer_encoding: chunked",
        b"PROXY_authorization: x",
    ]
    lines += [b"Connection: X-Named", b"X_Named: 1", b"Content_Type: a", b"Content-Type_: a"]
    data = b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", b"X_Mine: 1", *lines))
    head = read_request(data, drop_underscores=False)
    assert isinstance(head, RequestHead)
    assert (head.lines, head.claims) == ([b"Host: a", b"X_Mine: 1", b"Content-Type_: a"], ())


def test_everything_else_keeps_bytes_order_and_duplicates() -> None:
    lines = [
        b"aCCept:a",
        b"Cookie: a=1",
        b"X:\t \xe4\xff ",
        HOST,
        b"cookie: b=2",
        b"ACCEPT:",
        b"Authorization: Bearer x",
        b"Content-Length: 007",
        b"Expect: 100-continue",
        b"Via: 1.1 a",
    ]
    assert good(*lines).lines == lines


def answer(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    found = read_response(b"\r\n".join((start, *lines)))
    assert isinstance(found, ResponseHead), found
    return found


def test_answers_lose_what_is_about_the_connection() -> None:
    kept = [b"Set-Cookie: a=1", b"set-cookie: b=2", b"Server: origin", b"X:\xe4", b"Location: /"]
    dropped = [
        b"Connection: close, X-Hop, Set-Cookie, Date",
        b"Date: x",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Transfer-Encoding: chunked",
        b"Trailer: X-Sum",
        b"Upgrade: h2c",
        b"Proxy-Authenticate: Basic",
    ]
    head = answer(*dropped, *kept)
    assert head.lines == kept
    assert (head.chunked, head.length, head.keep_alive, head.dated) == (True, None, False, False)
    assert answer(b"date: x").dated


@pytest.mark.parametrize("start", [b"HTTP/1.1 204 No Content", b"HTTP/1.1 103 Early Hints"])
def test_what_has_no_body_has_no_length(start: bytes) -> None:
    assert answer(b"Content-Length: 0", b"Link: </a>", start=start).lines == [b"Link: </a>"]


def test_304_keeps_its_length() -> None:
    assert answer(b"Content-Length: 9", start=b"HTTP/1.1 304 Not Modified").lines == [b"Content-Length: 9"]


@pytest.mark.parametrize(
    ("start", "status", "phrase"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 299 sch\xf6n \t!", 299, b"sch\xf6n \t!"),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found"),
    ],
)
def test_status_lines(start: bytes, status: int, phrase: bytes) -> None:
    head = answer(start=start)
    assert (head.status, head.phrase) == (status, phrase)


def test_whether_the_backend_stays() -> None:
    assert answer().keep_alive
    assert not answer(b"Connection: x, Close").keep_alive
    assert not answer(start=b"HTTP/1.0 200 OK").keep_alive
    assert answer(b"Connection: Keep-Alive", start=b"HTTP/1.0 200 OK").keep_alive


def test_what_an_answer_switches_to() -> None:
    head = answer(b"Connection: upgrade", b"Upgrade: WebSocket", start=b"HTTP/1.1 101 Switching Protocols")
    assert (head.upgrade, head.lines) == (b"websocket", [])


def test_a_connection_that_is_authenticated_is_marked() -> None:
    assert answer(b"WWW-Authenticate: Negotiate", start=b"HTTP/1.1 401 x").bound
    assert not answer(b"WWW-Authenticate: Basic", start=b"HTTP/1.1 401 x").bound


@pytest.mark.parametrize(
    ("start", "lines"),
    [
        (b"HTTP/1.1 200 OK", [b"X: a\rb"]),
        (b"HTTP/1.1 200 OK", [b"X: a\nb"]),
        (b"HTTP/1.1 200 OK", [b"X: a\x00b"]),
        (b"HTTP/1.1 200 OK", [b"X : a"]),
        (b"HTTP/1.1 200 OK", [b"X: a", b" b"]),
        (b"HTTP/1.1 200 OK", [b"X"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Content-Length: 6"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"content-length: 5"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5, 5"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: -5"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 9223372036854775808"]),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: gzip, chunked"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: identity"]),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: "]),
        (b"HTTP/1.0 200 OK", [b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 O\x00K", []),
        (b"HTTP/1.1 200 O\nK", []),
        (b"HTTP/1.1 600 What", []),
        (b"HTTP/1.1 099 What", []),
        (b"HTTP/1.1 20 OK", []),
        (b"HTTP/1.1 2000 OK", []),
        (b"HTTP/1.1  200 OK", []),
        (b"HTTP/1.1 200\tOK", []),
        (b"HTTP/1.2 200 OK", []),
        (b"HTTP/2 200 OK", []),
        (b"http/1.1 200 OK", []),
        (b"ICY 200 OK", []),
        (b"SSH-2.0-OpenSSH_9.2", []),
        (b"", []),
    ],
)
def test_answers_that_could_be_read_two_ways_are_not_passed_on(start: bytes, lines: list[bytes]) -> None:
    assert isinstance(read_response(b"\r\n".join((start, *lines))), str)


@given(
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20)), max_size=6),
    st.binary(max_size=20),
    st.sampled_from([b"GET", b"OPTIONS", b"POST"]),
)
def test_anything_is_either_read_or_refused(fields: list[tuple[bytes, bytes]], target: bytes, method: bytes) -> None:
    head = read(HOST, *(b"%b:%b" % each for each in fields), start=b"%b %b HTTP/1.1" % (method, target))
    if isinstance(head, RequestHead):
        assert head.start.split(b" ")[1][:1] in {b"/", b"*"}
        assert not any(b"\r" in line or b"\n" in line for line in head.lines)
    text = b"\r\n".join((b"HTTP/1.1 200 OK", *(b"%b:%b" % each for each in fields)))
    assert isinstance(read_response(text), str | ResponseHead)
