"""What heads are: a request's and an answer's, understood, or the refusal of one.

One rule: these are made only by `scan.py` (the ordinary) and `strict.py` (everything else), which agree on what both
can read. Objects of the hot path: no
dataclasses, but class-level defaults, so that one is made by setting what differs. Where `_scan.pyx` is compiled, its
classes stand here in place of these, with the same attributes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l7proxy.core.proxystatus import Cause

LONGEST_BODY = 2**63 - 1
"""What a Content-Length or the size of a chunk can say."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
    }
)
"""Headers about one connection (RFC 9110 7.6.1). Trailer is one here because trailers are not forwarded."""

NEVER_NAMED = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"set-cookie",
    }
)
"""End-to-end headers that Connection must not take away: a client could blind a backend with it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What answers a request that goes no further, and why, for the log."""

    cause: Cause
    reason: str


class RequestHead:
    """A request's head, understood.

    `start` is the request line for the backend and `fields` the header lines that go on, as they came, each with its
    line end; Host is one of them unless `authority` came otherwise (`fields` then has it anew) or not at all
    (HTTP/1.0, `authority` is empty). `claims` are the lines in which a client says where it comes from; they go on only
    from trusted proxies. `host` and `path` (in normal form) are what routes look at, `target` is what came.
    """

    method: bytes = b"GET"
    target: bytes = b"/"
    start: bytes = b""
    authority: bytes = b""
    host: str = ""
    path: str = "/"
    odd: bool = False
    """Whether the path may be dangerous: it has an escape, two dots or a backslash."""
    http10: bool = False
    fields: bytes = b""
    claims: tuple[bytes, ...] = ()
    length: int | None = None
    """What Content-Length says."""
    chunked: bool = False
    keep_alive: bool = True
    """Whether the client would go on with the connection."""
    expects_continue: bool = False
    upgrade: bytes = b""
    """`websocket` where the client asks for it: the only protocol that is passed on."""
    via: bytes = b""
    """All of Via's values, joined."""
    max_forwards: int | None = None
    """Of OPTIONS only (RFC 9110 7.6.2)."""
    bound: bool = False
    """Whether it authenticates its connection (NTLM, Negotiate)."""
    referer: bytes = b""
    agent: bytes = b""

    @property
    def lines(self) -> list[bytes]:
        """`fields`, one by one."""
        return self.fields.split(b"\r\n")[:-1]

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.chunked or bool(self.length)


class ResponseHead:
    """An answer's head, understood. `fields` are the header lines that go on, without those about the connection."""

    status: int = 200
    phrase: bytes = b""
    fields: bytes = b""
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    """Whether the backend goes on with the connection."""
    dated: bool = False
    upgrade: bytes = b""
    """What a 101 switches to."""
    bound: bool = False
    """Whether who has authenticated is known to the connection (NTLM, Negotiate): it must not change hands."""

    @property
    def lines(self) -> list[bytes]:
        """`fields`, one by one."""
        return self.fields.split(b"\r\n")[:-1]


if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._scan import RequestHead, ResponseHead  # noqa: F401 -- for who imports from here
