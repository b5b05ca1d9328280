"""What a client says before it is known where it goes: a PROXY header, a ClientHello.

One rule: what is read here goes on as it came, except the PROXY header. Both are bounded in bytes by those who read
them.
"""

from __future__ import annotations

from l7proxy.core.clienthello import ClientHelloReader, NoHello
from l7proxy.core.proxyprotocol import Malformed, ProxyHeader, read_proxy_header
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.tcp import Tcp


class Greeting:
    """Takes in the first bytes of a connection, until `is_over`; then `upstream` is where it goes, or `cause` why it
    goes nowhere, with a `reason` for the log."""

    def __init__(self, tcp: Tcp, awaits_header: bool) -> None:
        self._tcp = tcp
        self._hello = ClientHelloReader() if tcp.looks else None
        self.awaits_header = awaits_header
        self.held = b""
        """What goes on to the backend, or may still be part of a PROXY header."""
        self.header: ProxyHeader | None = None
        self.name: str | None = None
        """The server name, in its ClientHello."""
        self.upstream = ""
        self.cause: Cause | None = None
        self.reason = ""
        self.is_over = False

    def feed(self, data: bytes) -> None:
        """More has come."""
        self.held += data
        if self.awaits_header:
            found = read_proxy_header(self.held)
            if found is None:
                return
            if isinstance(found, Malformed):
                self._refuse(Cause.MALFORMED_REQUEST, found.reason)
                return
            self.awaits_header = False
            self.header = found
            self.held = data = self.held[found.used_bytes :]
            if self._hello is None:
                self._route(self._tcp.upstream, "")
                return
        if self._hello is None or not data:
            return
        told = self._hello.feed(data)
        if told is None:
            return
        if isinstance(told, NoHello):
            self._route(self._tcp.upstream, told.reason)
        else:
            self.name = told.name
            why_not = f"no upstream for this server name ({told.name})" if told.name else "no server name"
            self._route(self._tcp.upstream_for(told.name), why_not)

    def late(self, after_s: float) -> None:
        """It has not come in time."""
        what = "PROXY header" if self.awaits_header else "ClientHello"
        self._refuse(Cause.HEAD_TIMEOUT, f"no whole {what} within {after_s:g}s")

    def _route(self, upstream: str, why_not: str) -> None:
        if upstream:
            self.upstream = upstream
            self.is_over = True
        else:
            self._refuse(Cause.NO_ROUTE, why_not)

    def _refuse(self, cause: Cause, reason: str) -> None:
        self.cause, self.reason = cause, reason
        self.is_over = True
