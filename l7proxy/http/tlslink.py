"""The backend's side over TLS: the same link, with OpenSSL between it and the socket.

One rule: an answer that ends with its connection is whole only where the backend has said that it ends (close_notify).

There is no transport in between: what comes is decrypted where it came, and what is said is encrypted in `write`, so
that a request is one system call as it is without TLS.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from l7proxy.http.link import IDLE, TUNNEL, UpstreamLink, buffer

if TYPE_CHECKING:
    from l7proxy.http.pool import LinkPool

RECORD_BYTES = 16 * 1024
FEED_BYTES = 32 * 1024
"""OpenSSL's buffers in memory never shrink: feeding them piece by piece leaves an idle link small."""

_cipher = bytearray(256 * 1024)
_cipher_view = memoryview(_cipher)
_view = memoryview(buffer)
_send = UpstreamLink.write
_take = UpstreamLink.buffer_updated


class TlsLink(UpstreamLink):
    """One connection to a backend over TLS. `opened` is done when the handshake is; it fails with ssl.SSLError or
    ConnectionError."""

    def __init__(self, pool: LinkPool, context: ssl.SSLContext, name: str, opening: bytes = b"") -> None:
        super().__init__(pool)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._opening = opening
        """What stands before the handshake: a PROXY header."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=pool.session)
        self._shaking = True
        self._unread = 0
        """Bytes that came and that OpenSSL has not got yet."""
        self._may_say = False
        self._ended = False
        """Whether the backend has said that it ends."""
        self._known = False
        """Whether the session is kept already, for links to come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._opening:
            _send(self, self._opening)
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            _send(self, self._outgoing.read())
            return
        except ssl.SSLError as error:
            if self._outgoing.pending:  # an alert says it to the backend
                _send(self, self._outgoing.read())
            self._fail(error)
            return
        if self._outgoing.pending:
            _send(self, self._outgoing.read())
        self._shaking = False
        self._may_say = True
        if not self.opened.done():
            self.opened.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("connection closed in the TLS handshake"))
        if exc is None and not self._ended:
            exc = ConnectionError("cut off")
        super().connection_lost(exc)

    # what comes

    def get_buffer(self, sizehint: int) -> bytearray:
        return _cipher

    def buffer_updated(self, nbytes: int) -> None:
        start = 0
        while start < nbytes and self.transport is not None:
            stop = min(start + FEED_BYTES, nbytes)
            self._incoming.write(_cipher_view[start:stop])
            start = stop
            self._unread = nbytes - start
            if self._shaking:
                self._shake()
                if self._shaking:
                    continue
            if not self._decrypt():
                return

    def _decrypt(self) -> bool:
        """Hand on what can be read; False when no more is to be."""
        tls = self._tls
        while True:
            filled = 0
            try:
                while filled + RECORD_BYTES <= len(_view):
                    count = cast("int", tls.read(RECORD_BYTES, cast("bytearray", _view[filled:])))
                    if not count:
                        self._ended = True
                        break
                    filled += count
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLError as error:
                if filled:
                    _take(self, filled)
                self._has_ended(error)
                self.abort()
                return False
            if self._outgoing.pending and self.fd >= 0:  # a key update is answered
                _send(self, self._outgoing.read())
            if filled:
                if not self._known:
                    self._known = True
                    self.pool.session = tls.session  # tickets of TLS 1.3 have come by now, if there are any
                _take(self, filled)
            if self._ended:
                self._end()
                return False
            if filled + RECORD_BYTES <= len(_view) or self.transport is None:
                return True

    def _end(self) -> None:
        """The backend has said that it ends."""
        if not UpstreamLink.eof_received(self) and self.transport is not None:
            self.transport.close()

    def eof_received(self) -> bool:
        if self._ended:
            return self.phase == TUNNEL and self.asker is not None
        self._has_ended(ConnectionError("cut off"))
        return False

    def is_quiet(self) -> bool:
        """The same; session tickets, which come when they like, are no noise. An answer may end in the middle of what
        has come: what lies here behind it is as unread as what lies in the socket."""
        if self._ended or self.fd < 0 or self._unread or self._incoming.pending:
            return False
        if super().is_quiet():
            return True
        try:
            came = os.readv(self.fd, (_cipher,))
        except OSError:
            return False
        if not came or self.phase != IDLE:
            return False
        self._incoming.write(_cipher_view[:came])
        with suppress(ssl.SSLWantReadError):
            try:
                self._tls.read(1)
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError:
                return False
            return False
        return super().is_quiet()

    # what is said

    def write(self, data: bytes) -> bool:
        if not self._may_say or self.transport is None:
            return False
        try:
            if len(data) <= RECORD_BYTES:
                self._tls.write(data)
                return _send(self, self._outgoing.read())
            view = memoryview(data)
            records = []
            for start in range(0, len(data), RECORD_BYTES):
                self._tls.write(view[start : start + RECORD_BYTES])
                records.append(self._outgoing.read())
        except ssl.SSLError:
            self.abort()
            return False
        return _send(self, b"".join(records))

    def write_eof(self) -> None:
        self._say_end()
        super().write_eof()

    def close(self) -> None:
        self._say_end()
        super().close()

    def _say_end(self) -> None:
        """close_notify, once."""
        if not self._may_say or self.fd < 0:
            return
        self._may_say = False
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        if self._outgoing.pending:
            _send(self, self._outgoing.read())
