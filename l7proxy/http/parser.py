"""The full parser: aiohttp's (llhttp), and our own strict reading, of any head.

One rule: a head goes on only if both take it, and both see the same lines in it.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser

from l7proxy.core import strict
from l7proxy.core.head import Refusal, RequestHead, ResponseHead
from l7proxy.core.proxystatus import Cause

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"})
_SINGLE = frozenset(
    {b"content-location", b"content-range", b"content-type", b"etag", b"max-forwards", b"server", b"user-agent"}
)
"""Headers of which aiohttp takes one; a second one is the backend's business. (It is strict's for the others.)"""
_DISAGREED = "two parsers see different header lines"
_LARGEST = 2**20
"""Of what is given here; whoever calls has set narrower limits already."""


def read_request(data: bytes, *, most_headers: int = 100, drop_underscores: bool = True) -> RequestHead | Refusal:
    """The request's head in `data` (without its empty line), or why it is refused."""
    head = strict.read_request(data, most_headers=most_headers, drop_underscores=drop_underscores)
    if isinstance(head, Refusal):
        return head
    if head.method not in _METHODS:  # llhttp has a list of its own; what a method is called parses nothing
        data = b"POST" + data[len(head.method) :]
    seen = _parse(HttpRequestParser, _renamed(data))
    if seen != data.count(b"\r\n"):
        return Refusal(Cause.MALFORMED_REQUEST, seen if isinstance(seen, str) else _DISAGREED)
    return head


def read_response(data: bytes) -> ResponseHead | str:
    """The answer's head in `data` (without its empty line), or what is wrong with it."""
    head = strict.read_response(data)
    if isinstance(head, str):
        return head
    seen = _parse(HttpResponseParser, _renamed(data))
    if seen != data.count(b"\r\n"):
        return seen if isinstance(seen, str) else _DISAGREED
    return head


def _renamed(data: bytes) -> bytes:
    """`data` with another name where one of `_SINGLE` comes again."""
    lines = data.split(b"\r\n")
    seen = set()
    for at, line in enumerate(lines):
        name = line.partition(b":")[0].lower()
        if name in _SINGLE:
            if name in seen:
                lines[at] = b"X-" + line
            seen.add(name)
    return b"\r\n".join(lines)


def _parse(kind: Any, data: bytes) -> int | str:
    """How many header lines aiohttp's parser finds, or why it refuses them."""
    parser = kind(
        _protocol(),
        cast("Any", None),
        2**16,
        max_line_size=_LARGEST,
        max_field_size=_LARGEST,
        max_headers=2**14,
        response_with_body=False,
        auto_decompress=False,
    )
    try:
        messages, _, _ = parser.feed_data(data + b"\r\n\r\n")
    except HttpProcessingError as error:
        return error.message.partition("\n")[0].strip().rstrip(":") or "malformed head"
    if len(messages) != 1:
        return "not one head but several"
    return len(messages[0][0].raw_headers)


@cache
def _protocol() -> BaseProtocol:
    """A protocol without a connection, which is what the parser wants to be given."""
    return BaseProtocol(cast("asyncio.AbstractEventLoop", None))
