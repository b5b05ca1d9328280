"""What heads are: a request's and an answer's, understood, or the refusal of one.

One rule: these are made only by `scan.py` (the ordinary) and `strict.py` (everything else), which agree on what both
can read. Objects of the hot path: no
dataclasses, but class-level defaults, so that one is made by setting what differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from l7proxy.core.proxystatus import Cause

_SHARED_LOGIN = re.compile(rb"(?i)(?:^|,)[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)")
LONGEST_BODY = 2**63 - 1
"""What a Content-Length or the size of a chunk can say."""

LONGEST_HOST = 261
"""Of a name 255 (RFC 3986 3.2.2), and a port: it is kept for each connection, and among the hosts that are known."""

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


def names_shared_login(value: bytes) -> bool:
    """Whether a value of Authorization or WWW-Authenticate names a scheme that authenticates a connection: NTLM or
    Negotiate (RFC 4559), anywhere in a list.

    >>> names_shared_login(b'Basic realm="a, b", NTLM'), names_shared_login(b'Basic realm="ntlm"')
    (True, False)
    """
    return _SHARED_LOGIN.search(value) is not None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What answers a request that goes no further, and why, for the log."""

    cause: Cause
    reason: str


class RequestHead:
    """A request's head, understood.

    `start` is the request line for the backend and `lines` are the header lines that go on, as they came, without
    their line ends; Host is one of them unless `authority` came otherwise (`lines` then has it anew) or not at all
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
    lines: list[bytes]
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
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.chunked or bool(self.length)


class ResponseHead:
    """An answer's head, understood. `lines` are the header lines that go on, without those about the connection."""

    status: int = 200
    phrase: bytes = b""
    lines: list[bytes]
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    """Whether the backend goes on with the connection."""
    dated: bool = False
    upgrade: bytes = b""
    """What a 101 switches to."""
    bound: bool = False
    """Whether who has authenticated is known to the connection (NTLM, Negotiate): it must not change hands."""
