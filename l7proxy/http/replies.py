"""Answers of the proxy's own.

One rule: they say to a client no more than it needs; addresses and reasons stand in the log.
"""

from __future__ import annotations

import time
from http import HTTPStatus

RETRY_AFTER_S = 5

_date: tuple[int, bytes] = (0, b"")


def http_date() -> bytes:
    """Now, as Date says it (RFC 9110 5.6.7); made once a second."""
    global _date  # noqa: PLW0603 -- one value for the process
    now = int(time.time())
    if _date[0] != now:
        _date = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode("ascii"))
    return _date[1]


def reason_phrase(status: int) -> str:
    """`Not Found` for 404; empty for a status without a name."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def reply_bytes(
    status: int,
    text: str,
    *,
    close: bool = True,
    head_only: bool = False,
    named: bool = False,
    proxy_status: bytes = b"",
) -> bytes:
    """A whole answer in plain text; `named` says in it who answers, `proxy_status` why (RFC 9209)."""
    fields, body = reply_parts(status, text, named=named)
    return answer_bytes(status, fields, body, close=close, head_only=head_only, proxy_status=proxy_status)


def reply_parts(status: int, text: str, *, named: bool = False) -> tuple[bytes, bytes]:
    """The header lines that are its own, and the body, of an answer in plain text."""
    body = f"{status} {reason_phrase(status)}: {text}\n".encode()
    lines = [b"Content-Type: text/plain; charset=utf-8"]
    if named:
        lines.append(b"Server: l7proxy")
    if status in {200, 405}:
        lines.append(
            b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" if status == 405 else b"Cache-Control: no-store"
        )
    if status == 503:
        lines.append(b"Retry-After: %d" % RETRY_AFTER_S)
    return b"\r\n".join((*lines, b"")), body


def answer_bytes(
    status: int, fields: bytes, body: bytes, *, close: bool, head_only: bool = False, proxy_status: bytes = b""
) -> bytes:
    """A whole answer: `fields` are header lines, each with its line end."""
    more = b"Proxy-Status: %b\r\n" % proxy_status if proxy_status else b""
    if close:
        more += b"Connection: close\r\n"
    if status not in {204, 304}:
        more += b"Content-Length: %d\r\n" % len(body)
    start = f"HTTP/1.1 {status} {reason_phrase(status)}".encode()
    head = b"%b\r\n%bDate: %b\r\n%b\r\n" % (start, fields, http_date(), more)
    return head if head_only or status in {204, 304} else head + body
