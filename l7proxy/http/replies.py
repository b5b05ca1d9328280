"""Answers of the proxy's own.

One rule: they say to a client no more than it needs; addresses and causes stand in the log.
"""

from __future__ import annotations

import re
import time
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

RETRY_AFTER_S = 5
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Sent(web.StreamResponse):
    """What a handler returns when everything is on the wire already; only `keep_alive` is left to say."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


KEEP = Sent(keep_alive=True)
CLOSE = Sent(keep_alive=False)

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


def status_line(status: int, phrase: str) -> bytes:
    """A status line with the backend's own phrase, unless that has a control character."""
    text = phrase.encode("utf-8", "surrogateescape")
    if _CONTROL.search(text):
        text = reason_phrase(status).encode("ascii")
    return b"HTTP/1.1 %d %b" % (status, text)


def reply_bytes(
    status: int,
    text: str,
    *,
    close: bool = True,
    head_only: bool = False,
    retry_after: bool = False,
    named: bool = False,
) -> bytes:
    """A whole answer in plain text; `named` says in it who answers."""
    body = f"{status} {reason_phrase(status)}: {text}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason_phrase(status)}".encode(),
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Date: " + http_date(),
    ]
    if named:
        lines.append(b"Server: l7proxy")
    if status == 405:
        lines.append(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    if retry_after:
        lines.append(b"Retry-After: %d" % RETRY_AFTER_S)
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
