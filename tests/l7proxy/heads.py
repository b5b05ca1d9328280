"""Heads to try the parsers with: ordinary ones, odd ones, and what becomes of them when bytes are lost or made up;
and h11 as the judge of what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import h11
from hypothesis import strategies as st

from l7proxy.core.head import RequestHead, ResponseHead

STARTS = [
    b"GET / HTTP/1.1",
    b"GET /a/b?c=d&e=%20 HTTP/1.1",
    b"POST /%2e%2E/./x;y=1//z HTTP/1.1",
    b"PUT /~a HTTP/1.1",
    b"DELETE /\\..\\ HTTP/1.1",
    b"HEAD /a%00 HTTP/1.1",
    b"PATCH / HTTP/1.1",
]
ODD_STARTS = [
    b"OPTIONS * HTTP/1.1",
    b"OPTIONS http://b.example HTTP/1.1",
    b"GET http://b.example:8080/x?y HTTP/1.1",
    b"POST HTTPS://[2001:DB8::1]?q HTTP/1.1",
    b"GET http://u@b/ HTTP/1.1",
    b"GET //[x]:y/ HTTP/1.1",
    b"GET / HTTP/1.0",
    b"POST /x HTTP/1.0",
    b"PROPFIND /x HTTP/1.1",
    b"get / HTTP/1.1",
    b"CONNECT a:80 HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"GET * HTTP/1.1",
    b"GET /#x HTTP/1.1",
    b"GET / HTTP/2.0",
    b"GET / HTTP/1.1 ",
    b"GET  / HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"GET /\xe4 HTTP/1.1",
]
LINES = [
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
    b"user-agent:  other ",
    b"Accept: text/html, */*;q=0.8",
    b"Accept-Encoding: gzip, br",
    b"Cookie: a=1; b=2",
    b"cookie: c=3",
    b"Referer: https://a.example/x",
    b"REFERER: y ",
    b"Connection: keep-alive",
    b"connection: close",
    b"Connection: Keep-Alive",
    b"connection:Close",
    b"Keep-Alive: timeout=5",
    b"proxy: http://evil.example:3128/",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic x",
    b"HTTP2-Settings: AAA",
    b"X-Forwarded-For: 198.51.100.1, 10.0.0.1",
    b"x-forwarded-proto: https",
    b"Forwarded: for=198.51.100.1",
    b"X-Real-IP: 198.51.100.1",
    b"Via: 1.1 a",
    b"via: 1.0 b (c)",
    b"Authorization: Basic x",
    b"Authorization: NTLM TlRM",
    b"Max-Forwards: 3",
    b"X-1: a:b",
    b"!#$%&'*+.^`|~: x",
]
FRAMINGS = [
    b"Content-Length: 5",
    b"content-length: 0",
    b"Content-Length:  007 ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked",
]
ODD_LINES = [
    b"Host: other.example",
    b"host:",
    b"Host: a b",
    b"Host: a.example.",
    b"Host: a%41.example",
    b"Host: [::1]:80",
    b"Host: u:p@a",
    b"Host: a, b",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5,6",
    b"Content-Length: 6",
    b"Content-Length: 5\t",
    b"Content-Length: 0x5",
    b"Content-Length: 9223372036854775807",
    b"Content-Length: 9223372036854775808",
    b"Content-Length: 18446744073709551621",
    b"Content_Length: 7",
    b"Content-Length : 5",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\tchunked\t",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: chunked;x=1",
    b'Transfer-Encoding: "chunked"',
    b"Connection: close, X-1",
    b"Connection: keep-alive, Upgrade",
    b"Connection: upgrade, TE",
    b"Connection: Content-Length",
    b"Connection: x_1",
    b'Connection: "a',
    b"Connection: Expect, Max-Forwards",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Expect: x",
    b"X_Forwarded_For: 1.2.3.4",
    b"X_1: 2",
    b"X-Empty:",
    b"X-Blank: ",
    b"X-Tabs:\t a \t b\t",
    b"X-Text: \xe4\xff\x80",
    b"X-Nul: \x00",
    b"X-Control: a\x01\x7f",
    b"X-Bare: a\rb",
    b"X-Line: a\nContent-Length: 9",
    b"X-End: a\r",
    b" X-Fold: a",
    b"\tfolded: b",
    b"X Y: 1",
    b"X-None",
    b": x",
    b"\x0bX: 1",
    b"X\xe4: 1",
    b"GET / HTTP/1.1",
]
HOSTS = [b"Host: shop.example.org", b"host: A.example:8080", b"HOST:\t[2001:db8::1]:80 ", b"Host:10.0.0.1"]

ANSWERS = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 503 ",
    b"HTTP/1.1 299 what ever",
]
ODD_ANSWERS = [
    b"HTTP/1.1 200",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 103 Early Hints",
    b"HTTP/1.1 200 sch\xf6n",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 600 x",
    b"HTTP/1.1 2000 x",
    b"HTTP/1.1 000 x",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 200 O\tK",
    b"HTTP/1.1\t200 OK",
    b"ICY 200 OK",
]
ANSWER_LINES = [
    b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
    b"Server: x",
    b"Content-Type: text/html",
    b"Set-Cookie: a=1",
    b"set-cookie: b=2",
    b"Connection: keep-alive",
    b"connection: close",
    b"Keep-Alive: timeout=5",
    b"proxy: http://evil.example:3128/",
    b"Trailer: X",
    b"Upgrade: h2c",
    b"WWW-Authenticate: Basic",
    b"WWW-Authenticate: Negotiate x",
    b"Proxy-Authenticate: Basic",
    b"TE: x",
    b"X-1: 2",
]
ODD_ANSWER_LINES = [
    *ODD_LINES,
    b"Connection: Set-Cookie, Server",
    b"Connection: Date",
    b"Upgrade: WebSocket",
    b"Content-Length: 05",
]


def _mostly(usual: Sequence[bytes], odd: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of `usual`; of `odd` once in four times."""
    return st.integers(0, 3).flatmap(lambda which: st.sampled_from(odd if which == 0 else usual))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request's head, without its empty line: most of them have a fault or an oddity, many none."""
    lines = draw(st.lists(_mostly(LINES, ODD_LINES), max_size=6))
    host = draw(st.sampled_from(HOSTS))
    lines.insert(draw(st.integers(0, len(lines))), host)
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(FRAMINGS)))
    return b"\r\n".join((draw(_mostly(STARTS, ODD_STARTS)), *lines))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer's head, likewise."""
    lines = draw(st.lists(_mostly(ANSWER_LINES, ODD_ANSWER_LINES), max_size=6))
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(FRAMINGS)))
    return b"\r\n".join((draw(_mostly(ANSWERS, ODD_ANSWERS)), *lines))


def corpus(random: Random, *, answer: bool = False) -> bytes:
    """A head without its empty line: whole, or nearly."""
    usual, odd = (ANSWERS, ODD_ANSWERS) if answer else (STARTS, ODD_STARTS)
    start = random.choice(odd if random.random() < 0.3 else usual)
    lines = random.choices(ANSWER_LINES if answer else LINES, k=random.randrange(4))
    if random.random() < 0.3:
        lines.append(random.choice(ODD_ANSWER_LINES if answer else ODD_LINES))
    if random.random() < 0.5:
        lines.append(random.choice(FRAMINGS))
    if not answer:
        lines.append(random.choice(HOSTS))
    random.shuffle(lines)
    return b"\r\n".join((start, *lines))


_PIECES = [
    *(bytes([octet]) for octet in b'\x00\t\n\x0b\x0c\r !"#%,/:;=@[\\]_\x7f\x80\x85\xa0\xff0159af'),
    b"\r\n",
    b"\n\r",
    b"\r\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"\n ",
    b"\r\n\r\n",
    b"\r\nContent-Length: 5",
    b"\r\ncontent-length: 6",
    b"\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\n Transfer-Encoding: chunked",
    b"\r\nHost: x",
    b" HTTP/1.1\r\nX: ",
    b"GET / HTTP/1.1\r\n",
    b", ",
    b"http://",
    b"%0d%0a",
]


def mutate(data: bytes, random: Random) -> bytes:
    """`data` with one to three faults: bytes flipped, put in, lost or doubled, lines doubled or moved."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(found) + 1)
        what = random.randrange(7)
        if what == 0 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif what == 1 and at < len(found):
            found[at] = random.randrange(256)
        elif what in {2, 3}:
            found[at:at] = random.choice(_PIECES)
        elif what == 4:
            del found[at : at + random.choice((1, 1, 2, 5))]
        elif what == 5:
            found[at:at] = found[at : at + random.randrange(1, 20)]
        else:
            lines = bytes(found).split(b"\r\n")
            lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
            found = bytearray(b"\r\n".join(lines))
    return bytes(found)


def split(line: bytes) -> tuple[bytes, bytes]:
    """A header line's name and value."""
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def tokens(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """What a list says, over all of its lines."""
    values = [value for key, value in fields if key.lower() == name]
    return [part.strip().lower() for value in values for part in value.split(b",") if part.strip()]


@dataclass(frozen=True)
class Seen:
    """A message as h11 sees it. `length` is -1 of a chunked body, None where only the connection's end tells it."""

    start: tuple[bytes, bytes] | tuple[int, bytes]
    fields: list[tuple[bytes, bytes]]
    version: bytes
    length: int | None


_LARGEST = 2**20


def by_h11(data: bytes) -> Seen | None:
    """The request's head in `data`, or None where h11 refuses it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST)
    connection.receive_data(data + b"\r\n\r\n")
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request), event
    return Seen((event.method, event.target), event.headers.raw_items(), event.http_version, _length(event.headers, 0))


def answer_by_h11(data: bytes) -> Seen | None:
    """The answer's head in `data` (to a GET that wants websocket), or None where h11 refuses it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST)
    asked = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    connection.send(h11.Request(method="GET", target="/", headers=asked))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data + b"\r\n\r\n")
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Response | h11.InformationalResponse), event
    fields = event.headers.raw_items()
    bodiless = event.status_code in {204, 304} or event.status_code < 200
    length = 0 if bodiless else _length(event.headers, None)
    return Seen((event.status_code, event.reason), fields, event.http_version, length)


def _length(headers: Iterable[tuple[bytes, bytes]], default: int | None) -> int | None:
    found = dict(headers)
    if b"transfer-encoding" in found:
        return -1
    return int(found[b"content-length"]) if b"content-length" in found else default


def facts(head: RequestHead | ResponseHead) -> dict[str, object]:
    """All that a head says."""
    return {name: getattr(head, name) for name in dir(head) if name[0] != "_"}


def same_to_the_byte(one: RequestHead | ResponseHead | None, other: RequestHead | ResponseHead | None) -> None:
    """What the first tier found in C, and in Python. (Where it is not compiled, they are one.)"""
    assert (facts(one) if one is not None else None) == (facts(other) if other is not None else None)
