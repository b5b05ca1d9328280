"""Requests as bytes: good ones with what must reach a backend, and bad ones with the answers that may be given.

One rule: what is here follows from RFC 9110 and RFC 9112 alone, so that it can judge any proxy.
"""

from __future__ import annotations

from dataclasses import dataclass

GET = b"GET /bad HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /bad HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""Follows each bad request on its connection: whoever reads the bad one in another way sees it."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A request to refuse with one of `statuses`."""

    request: bytes
    statuses: frozenset[int]


@dataclass(frozen=True, slots=True)
class Good:
    """A request, or several, and the method, target and body of each that reaches the backend."""

    request: bytes
    reaches: tuple[tuple[bytes, bytes, bytes], ...]


def bad(request: bytes, *statuses: int) -> Bad:
    return Bad(request, frozenset(statuses or (400,)))


def good(request: bytes, *bodies: bytes, method: bytes = b"POST", target: bytes = b"/good") -> Good:
    return Good(request, tuple((method, target, body) for body in bodies))


LENGTHS: dict[str, Bad] = {
    f"Content-Length: {value!r}": bad(POST + b"Content-Length: " + value + b"\r\n\r\nabc")
    for value in (
        b"+3", b"-3", b"-0", b"1 3", b"1_3", b"0x3", b"0b1", b"3.0", b"3e0", b"3;", b'"3"', b"abc", b"", b",", b"3,4",
        b"3, 4", b"4,3", b"3,", b"3,abc", b"3, -3", b"\xb3", b"\xd9\xa3", b"\xef\xbc\x93", b"18446744073709551619",
        b"9223372036854775808", b"3\x0b", b"\x0c3", b"9" * 5000,
    )
}  # fmt: skip
"""RFC 9112 6.3, 5."""

FRAMINGS: dict[str, Bad] = {
    "two lengths": bad(POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "two lengths, apart and in other case": bad(POST + b"Content-Length: 4\r\nX: y\r\ncontent-length: 3\r\n\r\nabcd"),
    "a length and one that is none": bad(POST + b"Content-Length: 3\r\nContent-Length: x\r\n\r\nabc"),
    "a length and an empty one": bad(POST + b"Content-Length: 3\r\nContent-Length:\r\n\r\nabc"),
    "length, then chunked": bad(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END),
    "chunked, then length": bad(CHUNKED + b"Content-Length: 5\r\n\r\n" + END),
    "chunked and length in a GET": bad(GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END),
    "chunked and length 0": bad(CHUNKED + b"Content-Length: 0\r\n\r\n" + END),
    "chunked in other case, and length": bad(POST + b"tRANSFER-eNCODING: ChUnKeD\r\nContent-Length: 5\r\n\r\n" + END),
    "unknown coding and length": bad(POST + b"Transfer-Encoding: x\r\nContent-Length: 3\r\n\r\nabc", 400, 501),
    "chunked and length in 1.0": bad(
        b"POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + END
    ),
    "chunked in 1.0": bad(b"POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + END),
    "chunked in 1.0, kept alive": bad(
        b"POST /bad HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + END
    ),
    "chunked twice": bad(CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n" + END),
    "chunked twice in a list": bad(POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + END),
    "chunked is not last": bad(POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + END),
    "chunked is not last, over two lines": bad(CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + END),
    "no coding": bad(POST + b"Transfer-Encoding:\r\n\r\n" + END),
    "only a comma": bad(POST + b"Transfer-Encoding: ,\r\n\r\n" + END),
    "a list with a hole is no list": bad(POST + b"Transfer-Encoding: chun,ked\r\n\r\n" + END, 400, 501),
    "coding behind VT": bad(POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END),
    "coding before NUL": bad(POST + b"Transfer-Encoding: chunked\x00\r\n\r\n" + END),
    "coding in quotes": bad(POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + END, 400, 501),
    "coding with a parameter": bad(POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + END, 400, 501),
    "coding with a space in it": bad(POST + b"Transfer-Encoding: chunked x\r\n\r\n" + END, 400, 501),
    "an unknown coding": bad(POST + b"Transfer-Encoding: xchunked\r\n\r\n" + END, 501),
    "identity, which is no coding": bad(POST + b"Transfer-Encoding: identity\r\n\r\n" + END, 501),
    "a coding that is not undone here": bad(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END, 501),
    "the same over two lines": bad(POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + END, 501),
    "space before the colon of a length": bad(POST + b"Content-Length : 3\r\n\r\nabc"),
    "space before the colon of a coding": bad(POST + b"Transfer-Encoding : chunked\r\n\r\n" + END),
    "tab before the colon of a coding": bad(POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + END),
    "VT before the colon of a coding": bad(POST + b"Transfer-Encoding\x0b: chunked\r\n\r\n" + END),
    "folded coding": bad(POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END),
    "folded length": bad(POST + b"Content-Length:\r\n\t3\r\n\r\nabc"),
    "coding behind a bare LF": bad(POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + END),
    "coding behind a bare CR": bad(POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + END),
}  # fmt: skip
"""RFC 9112 6.1 to 6.3."""

LINES: dict[str, Bad] = {
    "bare LF everywhere": bad(b"GET /bad HTTP/1.1\nHost: a\n\n"),
    "bare LF after the request line": bad(b"GET /bad HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF after a field": bad(b"GET /bad HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    "bare LF in a value": bad(GET + b"X: a\nb\r\n\r\n"),
    "bare LF as the empty line": bad(b"GET /bad HTTP/1.1\r\nHost: a\r\n\nX: y\r\n\r\n"),
    "LF CR": bad(b"GET /bad HTTP/1.1\r\nHost: a\n\rX: y\r\n\r\n"),
    "bare CR everywhere": bad(b"GET /bad HTTP/1.1\rHost: a\r\r"),
    "bare CR after the request line": bad(b"GET /bad HTTP/1.1\rHost: a\r\n\r\n"),
    "bare CR in a value": bad(GET + b"X: a\rb\r\n\r\n"),
    "bare CR at the start of a value": bad(GET + b"X:\rb\r\n\r\n"),
    "CR before CRLF": bad(GET + b"X: b\r\r\n\r\n"),
    "CR before CRLF in the request line": bad(b"GET /bad HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    "bare CR in a name": bad(GET + b"X\rY: b\r\n\r\n"),
    "NUL in a value": bad(GET + b"X: a\x00b\r\n\r\n"),
    "NUL at the end of a value": bad(GET + b"X: a\x00\r\n\r\n"),
    "NUL in Host": bad(b"GET /bad HTTP/1.1\r\nHost: a\x00\r\n\r\n"),
    "NUL in a name": bad(GET + b"X\x00: a\r\n\r\n"),
    "NUL in the target": bad(b"GET /bad\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "NUL in the method": bad(b"GE\x00T /bad HTTP/1.1\r\nHost: a\r\n\r\n"),
    "obs-fold with a space": bad(GET + b"X: a\r\n b\r\n\r\n"),
    "obs-fold with a tab": bad(GET + b"X: a\r\n\tb\r\n\r\n"),
    "obs-fold of nothing": bad(GET + b"X: a\r\n \r\n\r\n"),
    "obs-fold of Host": bad(b"GET /bad HTTP/1.1\r\nHost: a\r\n .example\r\n\r\n"),
    "space before the first field": bad(b"GET /bad HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n"),
    "a first line of space": bad(b"GET /bad HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
    "space before a colon": bad(GET + b"X : a\r\n\r\n"),
    "tab before a colon": bad(GET + b"X\t: a\r\n\r\n"),
    "space before Host's colon": bad(b"GET /bad HTTP/1.1\r\nHost : a\r\n\r\n"),
    "no name": bad(GET + b": a\r\n\r\n"),
    "no colon": bad(GET + b"rubbish\r\n\r\n"),
    "no colon, and the end": bad(GET + b"X: y\r\nrubbish\r\n\r\n"),
    **{
        f"{chr(octet)!r} in a name": bad(GET + b"X%cY: a\r\n\r\n" % octet)
        for octet in (*b'"(),/;<=>?@[\\]{}', 0x01, 0x08, 0x0B, 0x0C, 0x1F, 0x20, 0x09, 0x7F, 0x80, 0xA0, 0xFF)
    },
}  # fmt: skip
"""RFC 9112 2.2, 5; RFC 9110 5.1, 5.5, 5.6.2."""

REQUEST_LINES: dict[str, Bad] = {
    **{
        repr(line): bad(line + b"\r\nHost: a\r\n\r\n", 400)
        for line in (
            b"GET  /bad HTTP/1.1", b"GET /bad  HTTP/1.1", b"GET\t/bad HTTP/1.1", b"GET /bad\tHTTP/1.1",
            b"GET /bad HTTP/1.1 ", b" GET /bad HTTP/1.1", b"GET /a bad HTTP/1.1", b"GET /bad HTTP/1.1 HTTP/1.1",
            b"GET /bad", b"GET", b"/bad HTTP/1.1", b" /bad HTTP/1.1", b"GET /bad HTTP", b"GET /bad HTTP/",
            b"GET /bad HTTP/1", b"GET /bad HTTP/1.", b"GET /bad HTTP/.1", b"GET /bad HTTP/1.1.1", b"GET /bad HTTP/1,1",
            b"GET /bad HTTP/1.x", b"GET /bad HTTP/x.1", b"GET /bad HTTP/1.1x", b"GET /bad http/1.1",
            b"GET /bad Http/1.1", b"GET /bad HTTQ/1.1", b"GET /bad HTTP /1.1", b"GET /bad HTTP/ 1.1",
            b"GET /bad HTTP/+1.1", b"GET /bad HTTP/-1.1", b"GET /bad HTTP/1.1\x0b", b"GET /bad XHTTP/1.1",
            b"G(T /bad HTTP/1.1", b"GET, /bad HTTP/1.1", b"G\xc3\x89T /bad HTTP/1.1", b"\x16\x03\x01\x02\x00\x01",
            b"GET /b\xc3\xa4d HTTP/1.1", b"GET /b\x7fd HTTP/1.1", b"GET /b\x01d HTTP/1.1", b"GET bad HTTP/1.1",
            b"GET /bad#top HTTP/1.1", b"GET  HTTP/1.1", b"GET * HTTP/1.1", b"POST * HTTP/1.1",
        )
    },
    **{
        repr(line): bad(line + b"\r\nHost: a\r\n\r\n", 400, 505)
        for line in (b"GET /bad HTTP/01.1", b"GET /bad HTTP/1.01", b"GET /bad HTTP/1.10", b"GET /bad HTTP/11",
                     b"GET /bad HTTP/11.1", b"GET /bad HTTP/0.9", b"GET /bad HTTP/0.0")
    },
    "HTTP/2.0": bad(b"GET /bad HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/3.0": bad(b"GET /bad HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2's preface": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400, 505),
}  # fmt: skip
"""RFC 9112 2.3, 3, 3.2."""

HEADS: dict[str, Bad] = {**LENGTHS, **FRAMINGS, **LINES, **REQUEST_LINES}
"""Refused by their heads: not one byte goes on."""

CHUNKS: dict[str, Bad] = {
    name: bad(CHUNKED + b"\r\n" + body)
    for name, body in {
        "size with 0x": b"0x3\r\nabc\r\n" + END,
        "size with 0X": b"0X3\r\nabc\r\n" + END,
        "size with h": b"3h\r\nabc\r\n" + END,
        "signed size": b"+3\r\nabc\r\n" + END,
        "negative size": b"-3\r\nabc\r\n" + END,
        "minus nothing": b"-0\r\n\r\n",
        "size with an underscore": b"1_0\r\n0123456789abcdef\r\n" + END,
        "size behind a space": b" 3\r\nabc\r\n" + END,
        "size behind a tab": b"\t3\r\nabc\r\n" + END,
        "size before a space": b"3 \r\nabc\r\n" + END,
        "size of two words": b"3 3\r\nabc\r\n" + END,
        "size in quotes": b'"3"\r\nabc\r\n' + END,
        "no size": b"\r\nabc\r\n" + END,
        "no size but an extension": b";a=b\r\nabc\r\n" + END,
        "no number": b"xyz\r\nabc\r\n" + END,
        "a letter behind the size": b"3g\r\nabc\r\n" + END,
        "a digit that is none in ASCII": b"\xd9\xa3\r\nabc\r\n" + END,
        "NUL in the size": b"3\x00\r\nabc\r\n" + END,
        "size of 2^64 and 3": b"10000000000000003\r\nabc\r\n" + END,
        "size of 2^68 - 1": b"fffffffffffffffff\r\nabc\r\n" + END,
        "size of 2^64 - 1": b"ffffffffffffffff\r\nabc\r\n" + END,
        "size without end": b"1" * 40_000 + b"\r\nabc\r\n" + END,
        "bare LF after the size": b"3\nabc\r\n" + END,
        "bare CR after the size": b"3\rabc\r\n" + END,
        "bare LF everywhere": b"3\nabc\n0\n\n",
        "bare LF in an extension": b"3;a\nb\r\nabc\r\n" + END,
        "bare CR in an extension": b"3;a\rb\r\nabc\r\n" + END,
        "bare LF at an extension's end": b"3;a\nabc\r\n" + END,
        "NUL in an extension": b"3;a\x00b\r\nabc\r\n" + END,
        "an extension of 100 KB": b"3;" + b"a" * 100_000 + b"\r\nabc\r\n" + END,
        "data longer than the size": b"3\r\nabcd\r\n" + END,
        "data longer by a line": b"3\r\nabc\r\n\r\n" + END,
        "data shorter than the size": b"5\r\nabc\r\n" + END,
        "no end of the data": b"3\r\nabc" + END,
        "bare LF after the data": b"3\r\nabc\n" + END,
        "bare CR after the data": b"3\r\nabc\r" + END,
        "LF CR after the data": b"3\r\nabc\n\r" + END,
        "bare LF after the last chunk": b"3\r\nabc\r\n0\n\r\n",
        "bare LF as the end": b"3\r\nabc\r\n0\r\n\n",
        "CR and no LF as the end": b"3\r\nabc\r\n0\r\n\rX",
        "bare LF in a trailer": b"3\r\nabc\r\n0\r\nX: a\nY: b\r\n\r\n",
        "bare CR in a trailer": b"3\r\nabc\r\n0\r\nX: a\rb\r\n\r\n",
        "NUL in a trailer": b"3\r\nabc\r\n0\r\nX: a\x00\r\n\r\n",
        "obs-fold in a trailer": b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
        "space before a trailer": b"3\r\nabc\r\n0\r\n X: a\r\n\r\n",
        "space before a trailer's colon": b"3\r\nabc\r\n0\r\nX : a\r\n\r\n",
        "a bad token in a trailer": b"3\r\nabc\r\n0\r\nX(): a\r\n\r\n",
        "a trailer without a name": b"3\r\nabc\r\n0\r\n: a\r\n\r\n",
        "a trailer without a colon": b"3\r\nabc\r\n0\r\nrubbish\r\n\r\n",
        "a request where a trailer stands": b"3\r\nabc\r\n0\r\n" + SMUGGLED,
    }.items()
}
"""RFC 9112 7.1: refused in their bodies, where the head may have gone on already; no whole request does."""

TRAILERS_TOO_LARGE = bad(CHUNKED + b"\r\n0\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 8000 + b"\r\n", 400, 431)

LENGTH_3 = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED_3 = b"POST /good HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
PLAIN = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def _posted(*lines: bytes, body: bytes) -> bytes:
    return b"POST /good HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


_TE = b"Transfer-Encoding: chunked"

GOODS: dict[str, Good] = {
    "a GET": good(PLAIN, b"", method=b"GET"),
    "a body with a length": good(LENGTH_3, b"abc"),
    "a length of 0": good(_posted(b"Content-Length: 0", body=b""), b""),
    "a POST without a body": good(_posted(body=b""), b""),
    "no space before the length": good(_posted(b"Content-Length:3", body=b"abc"), b"abc"),
    "spaces and tabs around the length": good(_posted(b"Content-Length: \t 3\t ", body=b"abc"), b"abc"),
    "length in other case": good(_posted(b"cONTENT-lENGTH: 3", body=b"abc"), b"abc"),
    "a GET with a body": good(LENGTH_3.replace(b"POST", b"GET"), b"abc", method=b"GET"),
    "a DELETE with chunks": good(CHUNKED_3.replace(b"POST", b"DELETE"), b"abc", method=b"DELETE"),
    "a method of its own": good(PLAIN.replace(b"GET", b"M-SEARCH"), b"", method=b"M-SEARCH"),
    "a body that looks like a request": good(_posted(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), SMUGGLED),
    "a body of CRLFs": good(_posted(b"Content-Length: 6", body=b"\r\n\r\n\r\n"), b"\r\n\r\n\r\n"),
    "a chunk": good(CHUNKED_3, b"abc"),
    "no chunk": good(_posted(_TE, body=END), b""),
    "three chunks": good(_posted(_TE, body=b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n" + END), b"abcdef"),
    "coding in other case": good(_posted(b"tRANSFER-eNCODING:CHUNKED", body=b"3\r\nabc\r\n" + END), b"abc"),
    "spaces around the coding": good(_posted(_TE.replace(b" ", b"\t ") + b" \t", body=b"3\r\nabc\r\n" + END), b"abc"),
    "sizes in either case": good(
        _posted(_TE, body=b"a\r\n0123456789\r\nB\r\n0123456789A\r\n" + END), b"01234567890123456789A"
    ),
    "zeros before the size": good(_posted(_TE, body=b"0003\r\nabc\r\n" + END), b"abc"),
    "zeros as the last chunk": good(_posted(_TE, body=b"3\r\nabc\r\n000\r\n\r\n"), b"abc"),
    "an extension": good(_posted(_TE, body=b"3;a=b\r\nabc\r\n0;last\r\n\r\n"), b"abc"),
    "a quoted extension": good(_posted(_TE, body=b'3;a="b;c"\r\nabc\r\n' + END), b"abc"),
    "a chunk of CRLFs": good(_posted(_TE, body=b"4\r\n\r\n\r\n\r\n" + END), b"\r\n\r\n"),
    "a chunk that looks like the last": good(_posted(_TE, body=b"5\r\n0\r\n\r\n\r\n" + END), b"0\r\n\r\n"),
    "trailers": good(_posted(_TE, b"Trailer: X-Sum", body=b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More:\r\n\r\n"), b"abc"),
    "an empty line before a request": good(b"\r\n" + PLAIN, b"", method=b"GET"),
    "CRLF behind a body": good(LENGTH_3 + b"\r\n" + LENGTH_3, b"abc", b"abc"),
    "1.0 with a length": good(LENGTH_3.replace(b"HTTP/1.1", b"HTTP/1.0"), b"abc"),
    "1.0 without Host": good(b"GET /good HTTP/1.0\r\n\r\n", b"", method=b"GET"),
    "absolute form": good(b"GET http://b/good HTTP/1.1\r\nHost: a\r\n\r\n", b"", method=b"GET"),
    "OPTIONS *": good(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"", method=b"OPTIONS", target=b"*"),
    "HEAD": good(PLAIN.replace(b"GET", b"HEAD"), b"", method=b"HEAD"),
    "odd names and values": good(
        PLAIN[:-2] + b"!#$%&'*+-.^`|~09aZ: 1\r\nX:\r\nX: \r\nX:\ta \t b\t\r\nX: \x80\xff\r\nX: :;,=\"\r\n\r\n",
        b"",
        method=b"GET",
    ),
    "a head of 10 KB": good(PLAIN[:-2] + b"X: %b\r\n" % (b"x" * 500) * 20 + b"\r\n", b"", method=b"GET"),
    "three in a row": Good(
        LENGTH_3 + CHUNKED_3 + PLAIN,
        ((b"POST", b"/good", b"abc"), (b"POST", b"/good", b"abc"), (b"GET", b"/good", b"")),
    ),
}
