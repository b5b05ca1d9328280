"""The client's side over TLS: the same connection, with OpenSSL between it and the socket.

One rule: an end that is said (close_notify) is a whole one, and one that is not said is a cut. So we say it wherever a
connection closes in order, and nowhere else; a tunnel that a client ends without saying so is broken off.

There is no transport in between: what comes is decrypted in `data_received`, and what is said is encrypted in `_write`,
so that an answer is one system call as it is without TLS.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from l7proxy.core.head import Refusal
from l7proxy.core.proxystatus import Cause
from l7proxy.core.x509 import client_certificate
from l7proxy.files.contexts import UNFINISHED, Seal
from l7proxy.http.client import ANSWER, BODY, CLOSED, HEAD, LINGER, PROXY, TUNNEL, ClientConnection
from l7proxy.http.link import Piece
from l7proxy.http.tlswords import said

if TYPE_CHECKING:
    from l7proxy.http.front import Front

RECORD_BYTES = 16 * 1024
"""The most that one record holds (RFC 8446 5.1). OpenSSL's buffers in memory never shrink: what is written record by
record leaves an idle connection small."""
FEED_BYTES = 32 * 1024
"""The same for what comes: the most that waits in OpenSSL's buffer."""
MOST_HANDSHAKE_BYTES = 64 * 1024
MOST_UNREAD_BYTES = 1 << 20
"""Of answers to the client's key updates, and whatever waits before them."""

# What a connection is at: nothing has come; it shakes hands; it is open; it is none, and is answered in plain text.
NEW, SHAKING, OPEN, PLAIN = range(4)

_HANDSHAKE = 22
"""The first octet of a ClientHello's record."""

_monotonic = time.monotonic
_receive = ClientConnection.data_received
_send = ClientConnection._write


class TlsConnection(ClientConnection):
    """One client connection over TLS."""

    __slots__ = (
        "_client_ended",
        "_decrypt",
        "_encrypt",
        "_greeted_bytes",
        "_incoming",
        "_made_at",
        "_may_say",
        "_outgoing",
        "_seal",
        "_stage",
        "_tls",
    )

    _tls: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO

    def __init__(self, front: Front, seal: Seal) -> None:
        super().__init__(front)
        self.scheme = "https"
        self._seal = seal
        self._stage = NEW
        self._may_say = False
        """Whether we are past the handshake, and have not said that we end."""
        self._client_ended = False
        """Whether the client has said that it ends."""
        self._greeted_bytes = 0
        self._made_at = _monotonic()

    # what comes

    def data_received(self, data: bytes) -> None:
        if self._stage != OPEN:
            self._greet(data)
            return
        if self._client_ended or self.state >= LINGER:
            return
        incoming = self._incoming
        if len(data) > FEED_BYTES:
            self._take(data)
            return
        incoming.write(data)
        try:
            plain = self._decrypt(RECORD_BYTES)
        except ssl.SSLError as error:
            self._stopped(error)
            return
        if incoming.pending or not plain:
            self._take(b"", plain)
            return
        if self._outgoing.pending:
            self._reply_to_record()
        _receive(self, plain)

    def _take(self, data: bytes, plain: bytes = b"") -> None:
        """The long way: any number of records, or the client's end; `plain` has come before `data`."""
        decrypt, incoming = self._decrypt, self._incoming
        pieces = [plain] if plain else []
        failure: ssl.SSLError | None = None
        ended = bool(not data and not plain and not incoming.pending)
        view = memoryview(data)
        try:
            while not ended:
                if not incoming.pending:
                    if not view:
                        break
                    incoming.write(view[:FEED_BYTES])
                    view = view[FEED_BYTES:]
                try:
                    piece = decrypt(RECORD_BYTES)
                except ssl.SSLWantReadError:
                    continue
                if piece:
                    pieces.append(piece)
                else:
                    ended = True
        except ssl.SSLError as error:
            failure = error
        if self._outgoing.pending:
            self._reply_to_record()
        if len(pieces) == 1:
            _receive(self, pieces[0])
        elif pieces:
            _receive(self, b"".join(pieces))
        if failure is not None:
            self._stopped(failure)
        elif ended:
            self._end_of_client()

    def _reply_to_record(self) -> None:
        """A key update is answered with ours (RFC 8446 4.6.3)."""
        _send(self, self._outgoing.read())
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self.doom("the client has its key updates answered, and does not read that")

    def _stopped(self, error: ssl.SSLError) -> None:
        """OpenSSL reads no further: it wants more, the client has ended, or what came is not what it sent."""
        if isinstance(error, ssl.SSLWantReadError):
            if self._outgoing.pending:
                self._reply_to_record()
            return
        if isinstance(error, ssl.SSLZeroReturnError):
            self._end_of_client()
            return
        self._may_say = False
        if self._outgoing.pending:
            _send(self, self._outgoing.read())
        if self.state == CLOSED:
            return
        reason = f"TLS: {said(error)}"
        if self.exchange is None:
            self._log("TLS connection broken off", reason)
        self.doom(reason)

    def _end_of_client(self) -> None:
        """close_notify: as the end of what a client sends is without TLS."""
        self._client_ended = True
        if self.state == CLOSED or super().eof_received():
            return
        if self.state == BODY:
            self.abort()
        else:
            self.close()

    def eof_received(self) -> bool:
        """The end of the connection, announced or not."""
        if self._client_ended:
            return self.state in {ANSWER, TUNNEL}
        if self._stage == OPEN and self.state != TUNNEL:
            return super().eof_received()
        return False

    # the handshake

    def _greet(self, data: bytes) -> None:
        if self._stage == PLAIN or self.state == CLOSED:
            return
        if self.state == PROXY:  # it stands before the handshake
            _receive(self, data)
            return
        if self._stage == NEW:
            if data[0] != _HANDSHAKE:
                self._refuse_plain(data)
                return
            self._begin_tls()
        view = memoryview(data)
        while True:
            self._incoming.write(view[:FEED_BYTES])
            self._greeted_bytes += min(len(view), FEED_BYTES)
            view = view[FEED_BYTES:]
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if self._greeted_bytes > MOST_HANDSHAKE_BYTES:
                    self._fail(f"more than {MOST_HANDSHAKE_BYTES >> 10} KiB, and it is not over")
                    return
                if not view:
                    _send(self, self._outgoing.read())
                    return
            except ssl.SSLError as error:
                self._fail(self._seal.why(error) or said(error), error)
                return
        _send(self, self._outgoing.read())
        self._stage = OPEN
        self._may_say = True
        self._shaken()
        self._idle_since_at = _monotonic()
        if view or self._incoming.pending:
            self._take(bytes(view))

    def _begin_tls(self) -> None:
        self._stage = SHAKING
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = tls = self._seal.root.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._decrypt = tls.read
        self._encrypt = tls.write

    def _refuse_plain(self, data: bytes) -> None:
        self._stage = PLAIN
        if data[:1].isalpha():
            self.scheme = "http"
            self._refuse(Refusal(Cause.NOT_TLS, "plain HTTP where TLS is spoken"), data)
        else:
            self._fail("what came is no TLS")

    def _shaken(self) -> None:
        """Count it, and learn who the client is."""
        seal = self._seal
        seal.handshakes += 1
        if self._tls.session_reused:
            seal.resumed += 1
        if seal.asks_clients:
            shown = self._tls.getpeercert(binary_form=True)
            self.certificate = client_certificate(shown) if shown else None

    def _fail(self, reason: str, error: ssl.SSLError | None = None) -> None:
        """Say so, to the client in an alert if OpenSSL has made one."""
        self._failed(reason, self._seal.kind_of(error))
        if self._stage == SHAKING and self._outgoing.pending:
            _send(self, self._outgoing.read())
        super().close()

    def _failed(self, reason: str, kind: str) -> None:
        self._seal.count(kind)
        self._log("TLS handshake failed", reason)

    def _log(self, message: str, reason: str) -> None:
        self.proxy.refusals.write(message, fields={"reason": reason, "client": self.peer})

    def _no_room(self) -> bytes:
        return b""  # it could be told only after a handshake, which is what there is no room for

    # what is said

    def _write(self, data: Piece) -> None:
        if not self._may_say:
            if self._stage == PLAIN:
                _send(self, data)
            return
        try:
            if len(data) <= RECORD_BYTES:
                self._encrypt(data)
                sealed = self._outgoing.read()
            else:
                encrypt, outgoing = self._encrypt, self._outgoing
                view = memoryview(data)
                records = []
                for start in range(0, len(data), RECORD_BYTES):
                    encrypt(view[start : start + RECORD_BYTES])
                    records.append(outgoing.read())
                sealed = b"".join(records)
        except ssl.SSLError as error:
            self._may_say = False
            # Not from here: who writes goes on with what it was about.
            asyncio.get_running_loop().call_soon(self.doom, f"TLS: {said(error)}")
            return
        _send(self, sealed)

    def _write_both(self, start: bytes, piece: Piece) -> None:
        self._write(b"".join((start, piece)))  # not joined, the head would have a record and a system call of its own

    def _say_end(self) -> None:
        """close_notify, once."""
        if not self._may_say or self.fd < 0:
            return
        self._may_say = False
        with suppress(ssl.SSLError):  # it also waits for the client's, which may never come
            self._tls.unwrap()
        if self._outgoing.pending:
            _send(self, self._outgoing.read())

    def write_eof(self) -> None:
        self._say_end()
        super().write_eof()

    def close(self) -> None:
        self._say_end()
        super().close()

    # deadlines and the end

    def sweep(self, now: float) -> None:
        if self._stage in {NEW, SHAKING} and self.state == HEAD:
            within_s = self.proxy.snapshot.config.timeouts.head_s
            if now - self._made_at > within_s:
                if self._stage == SHAKING:
                    self._failed(f"it is not over after {within_s:g}s", UNFINISHED)
                self.state = CLOSED
                self.abort()
            return
        super().sweep(now)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._stage == SHAKING and self.state == HEAD:
            self._failed("the client left", UNFINISHED)
        self._may_say = False
        super().connection_lost(exc)
