"""What makes clients come by TLS: plain requests are sent there, and answers tell browsers to come so.

One rule: where a client is sent is the host that it has asked for, checked when its head was read, and never another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l7proxy.core.head import ResponseHead
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.https import ToHttps, redirected
from l7proxy.http.link import Piece
from l7proxy.http.steps import GO_ON, OVER
from l7proxy.http.tls import PLAIN, TlsConnection

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange

_NAME = b"strict-transport-security:"


class GoToHttps:
    """Answers every request with a redirect, unless a trusted proxy says that its client has come by TLS."""

    def __init__(self, to: ToHttps) -> None:
        self._to = to

    def before(self, exchange: Exchange) -> int:
        """OVER, or GO_ON behind a proxy that has taken TLS off."""
        head = exchange.head
        if exchange.from_proxy and exchange.scheme == "https":
            return GO_ON
        if not head.host:
            exchange.refuse(Cause.MALFORMED_REQUEST, "a request without a host cannot be sent to https://")
            return OVER
        where = redirected(head.host, head.start.split(b" ")[1], self._to)
        exchange.respond(self._to.status, b"Location: %b\r\n" % where)
        return OVER


class StrictConnection(TlsConnection):
    """One client connection over TLS whose answers all have Strict-Transport-Security, and only ours."""

    __slots__ = ()

    def answer(self, head: ResponseHead, piece: Piece, last: bool) -> None:
        head.fields = without_hsts(head.fields) + self.front.listener.hsts
        super().answer(head, piece, last)

    def switch(self, head: ResponseHead, early: bytes) -> bytes:
        head.fields = without_hsts(head.fields) + self.front.listener.hsts
        return super().switch(head, early)

    def say(self, told: bytes) -> None:
        if self._stage != PLAIN:  # RFC 6797 7.2
            start, end, rest = told.partition(b"\r\n")
            told = b"".join((start, end, self.front.listener.hsts, rest))
        super().say(told)


def without_hsts(fields: bytes) -> bytes:
    """Header lines without Strict-Transport-Security.

    >>> without_hsts(b"A: b\\r\\nstrict-transport-security: max-age=0\\r\\n")
    b'A: b\\r\\n'
    """
    if _NAME not in fields.lower():
        return fields
    return b"".join(line for line in fields.splitlines(keepends=True) if not line.lower().startswith(_NAME))
