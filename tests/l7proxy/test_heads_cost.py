"""No head takes longer to read than its bytes do, and none is remembered for long."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from l7proxy.core import headers, scan
from l7proxy.core.head import Refusal, RequestHead, ResponseHead
from l7proxy.http.parser import read_request, read_response

pytestmark = pytest.mark.unit

SIZE = 32 * 1024
ANSWER_SIZE = 256 * 1024
MOST_S = 0.1
"""Of processor time, for any head; an honest one of this size takes 1 ms, what grows with its square takes seconds."""
START = b"GET / HTTP/1.1\r\nHost: a\r\n"

LINES: dict[str, Callable[[int], bytes]] = {
    "one long value": lambda size: b"X: " + b"a" * size,
    "blanks and a letter": lambda size: b"X:" + b" " * size + b"a",
    "blanks and what is refused": lambda size: b"X:" + b" " * size + b"\x00",
    "tabs and what is refused": lambda size: b"X:" + b"\t " * (size // 2) + b"\x7f",
    "blanks within": lambda size: b"X: a" + b" " * size + b"b",
    "blanks behind": lambda size: b"Referer: a" + b" " * size,
    "one long name": lambda size: b"X" * size + b": a",
    "one long name without a colon": lambda size: b"X" * size,
    "colons": lambda size: b"X" + b":" * size,
    "a list in Connection": lambda size: b"Connection: " + b"a," * (size // 2),
    "names in Connection": lambda size: b"Connection: " + b",".join(b"%x" % n for n in range(size // 5)),
    "commas in Connection": lambda size: b"Connection: " + b"," * size,
    "a list of codings": lambda size: b"Transfer-Encoding: " + b"chunked," * (size // 8),
    "a list of protocols": lambda size: b"Connection: upgrade\r\nUpgrade: " + b"a/b, " * (size // 5),
    "Via": lambda size: b"Via: " + b"1.1 l7proxy (" * (size // 13),
    "many digits": lambda size: b"Content-Length: " + b"1" * size,
    "blanks and digits": lambda size: b"Content-Length: " + b" " * size + b"1x",
    "text that is not ASCII": lambda size: b"X: " + b"\xe4" * size,
    "folds": lambda size: b"X: a" + b"\r\n a" * (size // 4),
    "lone CRs": lambda size: b"X: a" + b"\r" * size,
    "lone LFs": lambda size: b"X: a" + b"\n" * size,
    "lines that are cut": lambda size: b"\r\n".join([b"A: b"] * (size // 12) + [b"TE: x"] * (size // 12)),
    "different lines that are cut": lambda size: b"\r\n".join(b"TE: %x" % n for n in range(size // 10)),
    "cut lines and others by turns": lambda size: b"\r\n".join(b"TE: %x\r\nA: b" % n for n in range(size // 16)),
    "claims": lambda size: b"\r\n".join(b"X-Forwarded-%x: a" % n for n in range(size // 20)),
    "names with _": lambda size: b"\r\n".join(b"_%x: a" % n for n in range(size // 9)),
    "empty values": lambda size: b"\r\n".join(b"%x:" % n for n in range(size // 7)),
    "the same length again": lambda size: b"\r\n".join([b"Content-Length: 5"] * (size // 19)),
    "logins": lambda size: b"Authorization: " + b", \tBasic x" * (size // 10),
    "commas in Authorization": lambda size: b"Authorization: " + b",\t" * (size // 2),
    "blanks in WWW-Authenticate": lambda size: b"WWW-Authenticate: ," + b" " * size,
    "lengths": lambda size: b"\r\n".join(b"Content-Length: 5%x" % n for n in range(size // 22)),
}
HEADS = {
    "labels": b"GET / HTTP/1.1\r\nHost: " + b"a." * (SIZE // 2) + b"a",
    "labels and what is refused": b"GET / HTTP/1.1\r\nHost: " + b"a." * (SIZE // 2) + b"!",
    "a long label and what is refused": b"GET / HTTP/1.1\r\nHost: " + b"a" * SIZE + b"!",
    "escapes in Host": b"GET / HTTP/1.1\r\nHost: " + b"%41" * (SIZE // 3) + b"%4",
    "blanks around Host": b"GET / HTTP/1.1\r\nHost: " + b" " * SIZE + b"a" + b" " * SIZE + b"!",
    "an address as Host": b"GET / HTTP/1.1\r\nHost: [" + b":" * SIZE,
    "a path that climbs": b"GET " + b"/.." * (SIZE // 3) + b" HTTP/1.1\r\nHost: a",
    "a path that goes down and climbs": b"GET " + b"/a" * (SIZE // 5) + b"/.." * (SIZE // 5) + b" HTTP/1.1\r\nHost: a",
    "a path that climbs in escapes": b"GET " + b"/%2e%2E" * (SIZE // 7) + b" HTTP/1.1\r\nHost: a",
    "broken escapes": b"GET /" + b"%" * SIZE + b" HTTP/1.1\r\nHost: a",
    "dots": b"GET /" + b"." * SIZE + b" HTTP/1.1\r\nHost: a",
    "blanks in the first line": b"GET" + b" " * SIZE + b"/ HTTP/1.1\r\nHost: a",
    "a long method": b"A" * SIZE + b" / HTTP/1.1\r\nHost: a",
    "an URL": b"GET http://" + b"a." * (SIZE // 2) + b"/ HTTP/1.1\r\nHost: a",
    "an URL without a path": b"GET http://a?" + b"/" * SIZE + b" HTTP/1.1\r\nHost: a",
    "no first line": b"\r\n" * (SIZE // 2),
}


def seconds(read: Callable[[], object]) -> float:
    """Of processor time, the best of two runs: the first one may have been disturbed."""
    best = 60.0
    for _ in range(2):
        began_at = time.process_time()
        read()
        best = min(best, time.process_time() - began_at)
        if best < MOST_S:
            break
    return best


def request(data: bytes) -> RequestHead | Refusal:
    scan.plain_scan_request(data, 10**6)
    return scan.scan_request(data, 10**6) or read_request(data, most_headers=10**6)


def answer(data: bytes) -> ResponseHead | str:
    scan.plain_scan_response(data)
    return scan.scan_response(data) or read_response(data)


@pytest.mark.parametrize("shape", LINES)
def test_no_header_line_takes_long_to_read(shape: str) -> None:
    assert seconds(lambda: request(START + LINES[shape](SIZE))) < MOST_S
    assert seconds(lambda: answer(b"HTTP/1.1 200 OK\r\n" + LINES[shape](ANSWER_SIZE))) < 8 * MOST_S


@pytest.mark.parametrize("shape", HEADS)
def test_no_head_takes_long_to_read(shape: str) -> None:
    assert seconds(lambda: request(HEADS[shape])) < MOST_S


def test_what_is_remembered_of_heads_is_small() -> None:
    """Names, hosts and phrases are remembered: thousands of them that are as long as a head must not stay."""
    tracemalloc.start()
    try:
        for n in range(300):
            odd = b"%05x" % n * (SIZE // 5)
            scan.plain_scan_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b: b" % odd)
            scan.plain_scan_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b" % odd)
            scan.plain_scan_request(b"GET / HTTP/1.1\r\nHost: %b" % odd)
            scan.plain_scan_response(b"HTTP/1.1 200 OK\r\n%b: b" % odd)
            head = answer(b"HTTP/1.1 200 %b" % odd)
            assert isinstance(head, ResponseHead)
            assert headers.status_line(head).endswith(odd)
        del odd, head
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
