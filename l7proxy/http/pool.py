"""The links to one backend: idle ones last in, first out, and how new ones are made.

One rule: an idle link is bounded in number and in time; whatever became of it while idle is known before it is used.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import cast

from director.kit.errors import DirectorError
from director.kit.net import Endpoint
from director.kit.probes.failures import describe_os_error
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.backside import Way
from l7proxy.files.backside import context_of
from l7proxy.http.link import IDLE, UpstreamLink
from l7proxy.http.tlslink import TlsLink
from l7proxy.http.tlswords import said

PLAIN_WAY = Way()
MOST_IDLE = 256
"""Idle links kept for each backend; further ones are closed."""
SHORTAGE_S = 0.02
"""Pause before another try to connect when there was no descriptor: a burst of refused clients has them for moments."""


class ConnectError(DirectorError):
    """There is no connection; nothing was sent."""

    def __init__(self, reason: str, cause: Cause) -> None:
        super().__init__(reason)
        self.cause = cause


class IdleBudget:
    """How many links of all pools together are idle, and how many may be."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept = 0


class LinkPool:
    """The links to one backend. `is_personal`: each of them serves one client only, for whom it was opened."""

    def __init__(self, endpoint: Endpoint, budget: IdleBudget, way: Way = PLAIN_WAY) -> None:
        self.endpoint = endpoint
        self.way = way
        self.is_personal = way.proxy_protocol is not None
        self.session: ssl.SSLSession | None = None
        """The last one that a backend gave, to be resumed."""
        self._budget = budget
        self._idle: list[UpstreamLink] = []
        self._closed = False
        self.made = 0
        self.reused = 0
        self.connecting = 0
        """Links that are being made."""

    @property
    def idle(self) -> int:
        """How many links wait."""
        return len(self._idle)

    def take(self) -> UpstreamLink | None:
        """An idle link. Each is looked at once more: what lies unread on it would answer the next request."""
        while self._idle:
            link = self._idle.pop()
            self._budget.kept -= 1
            if link.is_quiet():
                self.reused += 1
                return link
            link.abort()
        return None

    async def connect(self, connect_s: float, opening: bytes = b"") -> UpstreamLink:
        """A new link, ready for a request; `opening` goes before everything else. Raises: ConnectError."""
        tls = self.way.tls
        if tls is None:
            link = UpstreamLink(self)
        else:
            try:
                link = TlsLink(self, context_of(tls), tls.name or self.way.name or str(self.endpoint.address), opening)
            except (OSError, ValueError) as error:
                raise ConnectError(f"TLS: {error}", Cause.TLS_FAILED) from error
        short = ""
        self.connecting += 1
        try:
            async with asyncio.timeout(connect_s):
                while True:
                    try:
                        await self._open(cast("asyncio.BufferedProtocol", link))
                        break
                    except OSError as error:
                        if error.errno not in {errno.EMFILE, errno.ENFILE}:
                            raise
                        short = f": {describe_os_error(error)}"
                    await asyncio.sleep(SHORTAGE_S)
                if isinstance(link, TlsLink):
                    await link.opened
                elif opening:
                    link.write(opening)
        except TimeoutError:
            link.abort()
            raise ConnectError(f"no connection within {connect_s:g}s{short}", Cause.CONNECTION_TIMEOUT) from None
        except ssl.SSLCertVerificationError as error:
            raise ConnectError(f"TLS: certificate: {error.verify_message}", Cause.TLS_CERTIFICATE) from error
        except ssl.SSLError as error:
            raise ConnectError(f"TLS: {said(error)}", Cause.TLS_FAILED) from error
        except OSError as error:
            raise ConnectError(describe_os_error(error), _cause(error)) from error
        except asyncio.CancelledError:
            link.abort()
            raise
        finally:
            self.connecting -= 1
        if link.transport is None:
            raise ConnectError("connection closed as soon as it was made", Cause.CONNECTION_TERMINATED)
        self.made += 1
        return link

    async def _open(self, protocol: asyncio.BufferedProtocol) -> None:
        """Connect. Raises: OSError."""
        loop = asyncio.get_running_loop()
        host, port = str(self.endpoint.address), self.endpoint.port
        if self.way.dscp is None:
            await loop.create_connection(lambda: protocol, host, port)
            return
        marked = socket.socket(socket.AF_INET6 if self.endpoint.address.version == 6 else socket.AF_INET)
        try:
            marked.setblocking(False)
            if self.endpoint.address.version == 6:
                marked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self.way.dscp << 2)
            else:
                marked.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.way.dscp << 2)
            await loop.sock_connect(marked, (host, port))
            await loop.create_connection(lambda: protocol, sock=marked)
        except BaseException:
            marked.close()
            raise

    def give_back(self, link: UpstreamLink, whole: bool, now: float) -> None:
        """Take `link` back after an exchange; `whole` is whether request and answer are complete."""
        link.asker = None
        link.phase = IDLE
        if link.fd < 0:
            link.abort()
            return
        idle, budget = self._idle, self._budget
        if not whole or link.paused or len(idle) >= MOST_IDLE or budget.kept >= budget.most or self._closed:
            link.abort()
            return
        link.idle_since_at = now
        idle.append(link)
        budget.kept += 1

    def forget(self, link: UpstreamLink) -> None:
        """Drop a link that is gone."""
        if link in self._idle:
            self._idle.remove(link)
            self._budget.kept -= 1

    def sweep(self, now: float, keepalive_s: float) -> None:
        """Close what has been idle for too long; the oldest stand first."""
        gone = 0
        for link in self._idle:
            if now - link.idle_since_at <= keepalive_s:
                break
            gone += 1
        for link in self._idle[:gone]:
            link.close()
        del self._idle[:gone]
        self._budget.kept -= gone

    def close(self) -> None:
        """Close idle links now, busy ones after their exchange."""
        self._closed = True
        self.sweep(float("inf"), 0.0)


def _cause(error: OSError) -> Cause:
    if error.errno == errno.ECONNREFUSED:
        return Cause.CONNECTION_REFUSED
    if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return Cause.UNROUTABLE
    return Cause.CONNECTION_TIMEOUT if error.errno == errno.ETIMEDOUT else Cause.CONNECTION_FAILED
