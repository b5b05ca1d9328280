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
    body = f"{status} {reason_phrase(status)}: {text}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason_phrase(status)}".encode(),
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Date: " + http_date(),
    ]
    if named:
        lines.append(b"Server: l7proxy")
    if status in {200, 405}:
        lines.append(
            b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" if status == 405 else b"Cache-Control: no-store"
        )
    if status == 503:
        lines.append(b"Retry-After: %d" % RETRY_AFTER_S)
    if proxy_status:
        lines.append(b"Proxy-Status: " + proxy_status)
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
