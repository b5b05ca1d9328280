"""The client's side: HTTP/1.1 on one connection, its deadlines, and what is refused before an exchange begins.

One rule: every connection is bounded in time and in bytes, whatever its client does or leaves undone.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from l7proxy.core.framing import LAST_CHUNK, Chunked, FramingError, chunk
from l7proxy.core.head import Refusal, RequestHead, ResponseHead
from l7proxy.core.headers import own_tail, own_tail_around, status_line
from l7proxy.core.proxyprotocol import Malformed, read_proxy_header
from l7proxy.core.proxystatus import Cause, proxy_status
from l7proxy.core.scan import scan_request
from l7proxy.core.x509 import ClientCertificate
from l7proxy.http.exchange import Exchange
from l7proxy.http.link import LARGE_BYTES, Piece
from l7proxy.http.parser import read_request
from l7proxy.http.quick import head_end, write
from l7proxy.http.replies import answer_bytes, http_date, reply_bytes
from l7proxy.runtime import Proxy, Snapshot
from l7proxy.upstreams import BackendState

if TYPE_CHECKING:
    from l7proxy.http.front import Front
    from l7proxy.http.link import UpstreamLink

LINGER_S = 2.0
"""How long a client that was told to go may still send: closed at once, its answer might be lost with a reset."""
HALF_CLOSED_S = 0.5
"""A client that sends no more may still wait for its answer (`nc -N`, old health checkers), or be gone: no telling. The
answer must begin, and then go on, within this time; else the backend is let go."""
RATE_AFTER_S = 10.0
"""From when on a request's body must keep up its rate."""
_RESET = struct.pack("ii", 1, 0)

# What a connection is at: a head is awaited; a request's body passes; the answer is awaited, or passes; a tunnel;
# what comes is forgotten until the client leaves; closed; a PROXY header is awaited.
HEAD, BODY, ANSWER, TUNNEL, LINGER, CLOSED, PROXY = range(7)

_monotonic = time.monotonic
_HANDSHAKE = 22
"""How a record of TLS begins that opens a connection."""
_GLIMPSE_BYTES = 512
"""What is looked at, for the log, of what is no request."""
_PARTING = frozenset({400, 408, 413, 414, 417, 431, 501, 505})
"""After these nobody can tell where the next request would begin."""


class ClientConnection:
    """One client connection."""

    __slots__ = (
        "_backed_up",
        "_body_since_at",
        "_chunked",
        "_full",
        "_half_closed",
        "_head_since_at",
        "_held",
        "_idle_since_at",
        "_left",
        "_paused_at",
        "_pumping",
        "_recode",
        "_tail",
        "_tail_of",
        "_unsent",
        "_unsent_since_at",
        "bound",
        "certificate",
        "exchange",
        "fd",
        "front",
        "keep_alive",
        "peer",
        "proxy",
        "read_at",
        "scheme",
        "state",
        "told",
        "transport",
    )

    def __init__(self, front: Front) -> None:
        self.front = front
        self.proxy: Proxy = front.proxy
        self.transport: asyncio.Transport | None = None
        self.fd = -1
        self.peer = "-"
        self.scheme = "http"
        self.told: tuple[int, str, int] | None = None
        """What a PROXY header says of ports, and of the address that the client came to."""
        self.certificate: ClientCertificate | None = None
        """Who the client has proved to be."""
        self.state = HEAD
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.bound: Mapping[BackendState, UpstreamLink] = _NONE
        self.read_at = 0.0
        self._held: bytes | bytearray = b""
        """What has come and is not looked at: part of a head, or the next requests."""
        self._left = 0
        self._chunked: Chunked | None = None
        self._recode = False
        self._pumping = False
        self._full = False
        self._backed_up = False
        self._paused_at = 0.0
        self._half_closed = False
        self._idle_since_at = self._head_since_at = self._body_since_at = 0.0
        self._tail = (b"", b"")
        self._tail_of: Snapshot | None = None
        self._unsent = 0
        self._unsent_since_at = 0.0

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        proxy = self.proxy
        self.transport = wire = cast("asyncio.Transport", transport)
        peer = wire.get_extra_info("peername")
        self.peer = str(peer[0]).partition("%")[0] if peer else "-"
        if proxy.connections >= proxy.most_clients:
            self.state = CLOSED
            wire.write(self._no_room())
            wire.close()
            proxy.refusals.write("connection refused", fields={"reason": proxy.full_because, "client": self.peer})
            return
        self.fd = wire.get_extra_info("socket").fileno()
        self._idle_since_at = _monotonic()
        if self.front.listener.proxy_protocol and self.front.trusted.trust(self.peer):
            self.state = PROXY
        self.front.clients.add(self)
        proxy.connections += 1

    def _no_room(self) -> bytes:
        """What a client is told for whom there is no room."""
        status = proxy_status(self.proxy.snapshot.name, Cause.TOO_MANY_CONNECTIONS)
        return reply_bytes(503, Cause.TOO_MANY_CONNECTIONS.text, proxy_status=status)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.fd = -1
        self.state = CLOSED
        self.transport = None
        self._held = b""
        if self in self.front.clients:
            self.front.clients.discard(self)
            self.proxy.connections -= 1
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_gone()
        for link in self.bound.values():
            link.abort()
        self.bound = _NONE

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            if self._full:
                self._hold(data)
            elif self._held:
                self._pump(data)
            else:
                self._pumping = True
                self._begin(data)
                self._pumping = False
                if self._held and self.state == HEAD and not self._head_since_at:
                    self._go_on()
        elif state == BODY:
            self._take_body(data)
        elif state == ANSWER:
            self._hold(data)
        elif state == TUNNEL and self.exchange is not None:
            self.exchange.from_client(data)
        elif state == PROXY:
            self._read_proxy(data)

    def _read_proxy(self, data: bytes) -> None:
        """The PROXY header, and what follows it."""
        data = bytes(self._held) + data
        found = read_proxy_header(data)
        if found is None:
            self._held = data
        elif isinstance(found, Malformed):
            self.proxy.refusals.write("connection refused", fields={"reason": found.reason, "client": self.peer})
            self.abort()
        else:
            if found.source is not None:
                self.peer = found.source
                self.told = found.source_port, found.destination or "", found.destination_port
            self._held = b""
            self._head_since_at = 0.0
            self.state = HEAD
            if len(data) > found.used_bytes:
                self.data_received(data[found.used_bytes :])

    def eof_received(self) -> bool:
        """Stay for the answer to a request that is whole; a client that leaves midway is gone."""
        if self.state == TUNNEL and self.exchange is not None:
            self.exchange.client_end()
            return True
        if self.state != ANSWER:
            return False
        self._half_closed = True
        self._await_answer()
        return True

    def _await_answer(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            seen = exchange.status, exchange.sent_bytes
            asyncio.get_running_loop().call_later(HALF_CLOSED_S, self._leave_unless_answered, exchange, seen)

    def _leave_unless_answered(self, exchange: Exchange, seen: tuple[int, int]) -> None:
        if self.exchange is not exchange:
            return
        if (exchange.status, exchange.sent_bytes) == seen:
            self.abort()
        else:
            self._await_answer()

    # requests

    def _pump(self, data: bytes) -> None:
        """Read heads and begin their exchanges, until there is no more, or one must be waited for."""
        held = self._held
        if held:
            before = len(held)
            self._held = held = bytearray(held) if isinstance(held, bytes) else held
            held += data
            if held.find(b"\r\n\r\n", max(0, before - 3)) < 0:
                self._partial(held)
                return
            data = bytes(held)
        self._pumping = True
        try:
            while True:
                self._held = b""
                if not self._begin(data) or self.state != HEAD or not self._held or self._full:
                    return
                data = bytes(self._held)
        finally:
            self._pumping = False

    def _go_on(self) -> None:
        """Go on with what is held: it begins with a request."""
        held, self._held = self._held, b""
        self._pump(bytes(held))

    def _begin(self, data: bytes) -> bool:
        """Begin with the request in `data`; what follows it is held. False: there is none, or none that is taken."""
        limits = self.proxy.snapshot.config.limits
        end = head_end(data)
        if end < 0 or end > limits.head_bytes:
            self._partial(data)
            return False
        text = data[:end]
        head: RequestHead | Refusal | None = scan_request(text, limits.headers)
        if head is None:
            if text[:2] == b"\r\n":  # RFC 9112 2.2
                text = text[2:]
            drop = self.proxy.snapshot.config.drop_underscores
            head = read_request(text, most_headers=limits.headers, drop_underscores=drop)
        first = len(head.start) if isinstance(head, RequestHead) else text.find(b"\r\n")
        if first > limits.request_line_bytes:
            head = Refusal(Cause.TARGET_TOO_LONG, f"a request line above {limits.request_line_bytes} bytes")
        if isinstance(head, Refusal):
            self._refuse(head, text)
            return False
        if len(data) > end + 4:
            self._held = data[end + 4 :]
        self.keep_alive = head.keep_alive
        self._head_since_at = 0.0
        self.exchange = exchange = Exchange(self, head)
        if self._half_closed:
            self._await_answer()
        if head.length:
            if limits.body_bytes is not None and head.length > limits.body_bytes:
                self.state = BODY
                exchange.start_refused(Cause.BODY_TOO_LARGE, f"a body of {head.length} bytes is above limits.body")
                return False
            self._left = head.length
            self._begin_body(exchange)
        elif head.chunked:
            self._chunked = Chunked()
            self._begin_body(exchange)
        else:
            self.state = ANSWER
            exchange.start(b"", True)
        return True

    def _partial(self, data: bytes | bytearray) -> None:
        """A head that is not whole yet: wait for more of it, within limits."""
        limits = self.proxy.snapshot.config.limits
        first = data.find(b"\n", 0, limits.request_line_bytes + 2)
        if data[0] == _HANDSHAKE:
            self._refuse(Refusal(Cause.MALFORMED_REQUEST, "TLS where plain HTTP is spoken: https:// for http://"), b"")
        elif first < 0 and len(data) > limits.request_line_bytes:
            self._refuse(
                Refusal(Cause.TARGET_TOO_LONG, f"a request line above {limits.request_line_bytes} bytes"), data
            )
        elif len(data) > limits.head_bytes:
            self._refuse(Refusal(Cause.HEAD_TOO_LARGE, f"a head above {limits.head_bytes} bytes"), data)
        elif first >= 0 and (first == 0 or data[first - 1] != 13):
            self._refuse(Refusal(Cause.MALFORMED_REQUEST, "a line end that is not CRLF"), data)
        elif self._half_closed:
            self.close()
        else:
            if not self._head_since_at:
                self._head_since_at = _monotonic()
            self._held = data

    def _refuse(self, refusal: Refusal, data: bytes | bytearray) -> None:
        """Answer what is no request, and close; the log shows what can be seen of one in `data`."""
        head = RequestHead()
        head.method, head.target = _glimpse(data)
        self.keep_alive = False
        self.state = BODY  # what follows cannot be told from a body
        self.exchange = exchange = Exchange(self, head)
        exchange.started_at = self._head_since_at or exchange.started_at
        exchange.start_refused(refusal.cause, refusal.reason)

    def _begin_body(self, exchange: Exchange) -> None:
        self.state = BODY
        self.read_at = self._body_since_at = _monotonic()
        data, self._held = bytes(self._held), b""
        try:
            piece, last, self._held = self._unframe(data)
        except FramingError as error:
            exchange.start_refused(Cause.MALFORMED_BODY, str(error))
            return
        if self._too_large(len(piece)):
            exchange.start_refused(Cause.BODY_TOO_LARGE, "the body is above limits.body")
            return
        if last:
            self.state = ANSWER
        exchange.start(piece, last)

    def _take_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        self.read_at = _monotonic()
        try:
            piece, last, rest = self._unframe(data)
        except FramingError as error:
            exchange.refuse(Cause.MALFORMED_BODY, str(error))
            return
        if self._too_large(exchange.received_bytes + len(piece)):
            exchange.refuse(Cause.BODY_TOO_LARGE, "the body is above limits.body")
            return
        if last:
            self.state = ANSWER
            if rest:
                self._hold(rest)
        if piece or last:
            exchange.body(piece, last)

    def _too_large(self, received_bytes: int) -> bool:
        """Whether the body is above its limit, with what its present chunk will still bring."""
        most = self.proxy.snapshot.config.limits.body_bytes
        if most is None:
            return False
        return received_bytes + (self._chunked.left if self._chunked is not None else 0) > most

    def _unframe(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """The body's bytes in `data`, whether it is whole with them, and what follows. Raises: FramingError."""
        chunked = self._chunked
        if chunked is not None:
            piece = chunked.feed(data)
            if chunked.done:
                self._chunked = None
                return piece, True, chunked.rest
            return piece, False, b""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, False, b""
        self._left = 0
        return (data, True, b"") if len(data) == left else (data[:left], True, data[left:])

    def _hold(self, data: bytes) -> None:
        """Keep what comes before its turn; more than a head's worth of it waits in the kernel."""
        self._held = bytearray(self._held) + data if self._held else bytearray(data)
        if len(self._held) > self._most_held:
            self.pause()

    @property
    def _most_held(self) -> int:
        return self.proxy.snapshot.config.limits.head_bytes

    # what an exchange asks for

    def ends(self) -> tuple[int, str, int]:
        """The client's port, and the address and port that it came to."""
        if self.told is not None:
            return self.told
        wire = self.transport
        if wire is None:
            return 0, "", 0
        peer, here = wire.get_extra_info("peername"), wire.get_extra_info("sockname")
        return (peer[1], here[0], here[1]) if peer and here else (0, "", 0)

    def tail(self, authority: bytes) -> bytes:
        """The end of a request's head, for a client that nobody vouches for."""
        exchange = self.exchange
        snapshot = self.proxy.snapshot
        http10 = exchange is not None and exchange.head.http10
        if http10 or not authority:
            return own_tail(self.peer, self.scheme, authority, snapshot.via, http10)
        if self._tail_of is not snapshot:
            self._tail_of = snapshot
            self._tail = own_tail_around(self.peer, self.scheme, snapshot.via)
        before, after = self._tail
        return b"".join((before, authority, after))

    def reply(self, status: int, text: str, cause: Cause | None) -> int:
        """A whole answer of our own; how many bytes its body has."""
        exchange = self.exchange
        if exchange is None:
            return 0
        close = self._parts_after(exchange, status, cause)
        why = proxy_status(self.proxy.snapshot.name, cause) if cause is not None else b""
        head_only = exchange.head.method == b"HEAD"
        told = reply_bytes(status, text, close=close, head_only=head_only, named=cause is None, proxy_status=why)
        self.say(told)
        return len(told) - told.index(b"\r\n\r\n") - 4

    def respond(self, status: int, fields: bytes, body: bytes, cause: Cause | None) -> int:
        """A whole answer of our own, with header lines of its own; how many bytes its body has."""
        exchange = self.exchange
        if exchange is None:
            return 0
        close = self._parts_after(exchange, status, cause)
        why = proxy_status(self.proxy.snapshot.name, cause) if cause is not None else b""
        head_only = exchange.head.method == b"HEAD"
        self.say(answer_bytes(status, fields, body, close=close, head_only=head_only, proxy_status=why))
        return 0 if head_only else len(body)

    def say(self, told: bytes) -> None:
        """Send a whole answer of our own."""
        self._write(told)

    def _parts_after(self, exchange: Exchange, status: int, cause: Cause | None) -> bool:
        """Whether the connection ends with an answer of ours. To HTTP/1.0 it says so, whatever the client asked for."""
        close = not self._stays(exchange) or exchange.head.http10 or (cause is not None and status in _PARTING)
        if close:
            self.keep_alive = False
        return close

    def take_bound(self, backend: BackendState) -> UpstreamLink | None:
        """The link on which this client, and nobody else, is known to `backend`."""
        link = self.bound.get(backend)
        if link is None:
            return None
        self.bound = {other: each for other, each in self.bound.items() if other is not backend}
        if not link.is_quiet():
            link.abort()
            return None
        return link

    def bind(self, backend: BackendState, link: UpstreamLink) -> None:
        """Keep a link for this client alone."""
        self.bound = {**self.bound, backend: link}

    def interim(self, head: ResponseHead) -> None:
        """A 1xx answer. From a 100 on, the time for the body is the client's."""
        if head.status == 100:
            self.read_at = self._body_since_at = _monotonic()
        self._write(b"%b\r\n%b\r\n" % (status_line(head), head.fields))

    def answer(self, head: ResponseHead, piece: Piece, last: bool) -> None:
        """The answer's head, with what has come of its body."""
        exchange = self.exchange
        if exchange is None:
            return
        fields = head.fields
        request = exchange.head
        if not head.dated:
            fields += b"Date: %b\r\n" % http_date()
        self._recode = False
        if head.length is None and request.method != b"HEAD" and head.status not in {304, 204}:
            if request.http10:
                self.keep_alive = False
            else:
                self._recode = True
                fields += b"Transfer-Encoding: chunked\r\n"
                if piece:
                    piece = chunk(piece)
                if last:
                    piece = bytes(piece) + LAST_CHUNK
        if not self._stays(exchange):
            self.keep_alive = False
            fields += b"Connection: close\r\n"
        elif request.http10:
            fields += b"Connection: keep-alive\r\n"
        if len(piece) < LARGE_BYTES:
            self._write(b"".join((status_line(head), b"\r\n", fields, b"\r\n", piece)))
        else:
            self._write_both(b"%b\r\n%b\r\n" % (status_line(head), fields), piece)

    def _stays(self, exchange: Exchange) -> bool:
        """Whether the connection goes on after the present answer."""
        if self._half_closed and not self._held:
            return False
        return self.keep_alive and exchange.body_done and not self.proxy.draining

    def more(self, piece: Piece, last: bool) -> None:
        """More of the answer's body, or of a tunnel."""
        if self._recode:
            piece = chunk(piece) if piece else b""
            if last:
                piece = bytes(piece) + LAST_CHUNK
        if piece:
            self._write(piece)

    def switch(self, head: ResponseHead, early: bytes) -> bytes:
        """Become a tunnel; what the client has sent already is returned."""
        self._recode = False
        self.state = TUNNEL
        self.keep_alive = False
        fields = b"%bConnection: Upgrade\r\nUpgrade: %b\r\n" % (head.fields, head.upgrade)
        self._write(b"%b\r\n%b\r\n%b" % (status_line(head), fields, early))
        waiting = bytes(self._held)
        self._held = b""
        self.resume()
        return waiting

    def break_off(self) -> None:
        """Close so that the client sees that the answer is not whole."""
        exchange, self.exchange = self.exchange, None
        transport = self.transport
        if transport is None:
            return
        delimited = self._recode or exchange is None or not exchange.head.http10
        self.fd = -1
        self.state = CLOSED
        if delimited:
            transport.close()
        else:  # only a reset tells this from the end
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()

    def write_eof(self) -> None:
        """No more will be sent; the tunnel's other direction goes on."""
        if self.transport is not None:
            self.transport.write_eof()

    def ended(self, now: float) -> None:
        """The exchange is over, its answer sent: on to the next request, or close."""
        self.exchange = None
        if self.transport is None:
            return
        if not self.keep_alive or self.state != ANSWER:
            self._part()
            return
        self.state = HEAD
        self._idle_since_at = now
        if self._paused_at:
            self.resume()
        if self._held and not self._pumping and not self._full:
            self._go_on()
            if self._paused_at and self.state != BODY:
                self.resume()

    def _part(self) -> None:
        """Close, but not before the client has its answer: what it still sends is read and forgotten for a while."""
        transport = self.transport
        if transport is None:
            return
        if self.state == TUNNEL or (self.state == ANSWER and not self._held and not self._paused_at):
            self.close()
            return
        self._held = b""
        self.state = LINGER
        self._idle_since_at = _monotonic()
        self.resume()
        self.write_eof()

    # writing and flow control

    def _write(self, data: Piece) -> None:
        transport = self.transport
        if transport is None:
            return
        if self._backed_up:
            if transport.get_write_buffer_size():
                transport.write(bytes(data))  # a view may be good for this call only
                return
            self._backed_up = False
        try:
            sent = write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()  # the client is gone; after its half close the loop would not tell
            return
        if sent != len(data):
            self._backed_up = True
            transport.write(bytes(memoryview(data)[sent:]))

    def _write_both(self, start: bytes, piece: Piece) -> None:
        """Write a head and a large piece without joining them."""
        if self._backed_up or self.transport is None:
            self._write(start)
            self._write(piece)
            return
        try:
            sent = os.writev(self.fd, (start, piece))
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent < len(start):
            self._backed_up = True
            self.transport.write(start[sent:])
            self.transport.write(bytes(piece))
        elif sent < len(start) + len(piece):
            self._backed_up = True
            self.transport.write(bytes(memoryview(piece)[sent - len(start) :]))

    def pause_writing(self) -> None:
        self._full = True
        if self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        self._full = False
        if self.exchange is not None:
            self.exchange.client_ready()
        elif self.state == HEAD and self._held and not self._head_since_at:
            self._go_on()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self._paused_at and self.transport is not None:
            self._paused_at = _monotonic()
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless too much is held still."""
        if self._paused_at and self.transport is not None and len(self._held) <= self._most_held:
            now = _monotonic()
            self._body_since_at += now - self._paused_at  # the client cannot help that time
            self.read_at = now
            self._paused_at = 0.0
            self.transport.resume_reading()

    # deadlines and the end

    def close_if_idle(self, idle_s: float = 0.0) -> None:
        """Close unless a request is being answered, or is about to be."""
        if self.state == HEAD and not self._held and _monotonic() - self._idle_since_at >= idle_s:
            self.close()

    def close(self) -> None:
        """Leave, sending what waits."""
        self.fd = -1
        self.state = CLOSED
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection off."""
        self.fd = -1
        if self.transport is not None:
            self.transport.abort()

    def doom(self, reason: str, cause: Cause | None = None) -> None:
        """Cut the connection off, and say why if an exchange ends with it."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone(reason, cause)
        self.abort()

    def sweep(self, now: float) -> None:
        """Close what has taken too long."""
        state = self.state
        timeouts = self.proxy.snapshot.config.timeouts
        exchange = self.exchange
        if state == HEAD:
            if self._head_since_at:
                if now - self._head_since_at > timeouts.head_s:
                    self._refuse(Refusal(Cause.HEAD_TIMEOUT, f"no whole head within {timeouts.head_s:g}s"), self._held)
            elif not self._held and now - self._idle_since_at > timeouts.keepalive_s:
                self.close()
        elif state == PROXY:
            if now - self._idle_since_at > timeouts.head_s:
                self.abort()
        elif exchange is not None:
            if state == BODY and not self._paused_at and exchange.status < 200 and not exchange.awaits_welcome:
                self._sweep_body(exchange, now, timeouts.idle_s)
            exchange.sweep(now)
        elif state == LINGER:
            if self._backed_up and self.transport is not None and self.transport.get_write_buffer_size():
                self._idle_since_at = now  # it has its answer first, if it takes it
            elif now - self._idle_since_at > LINGER_S:
                self.abort()
        self._sweep_unsent(now, timeouts.idle_s)
        if self._paused_at and self.fd >= 0 and _has_left(self.fd, self.state == BODY):
            self.abort()

    def _sweep_body(self, exchange: Exchange, now: float, idle_s: float) -> None:
        if now - self.read_at > idle_s:
            exchange.refuse(Cause.BODY_TIMEOUT, f"the client sent nothing of its body for {idle_s:g}s")
            return
        rate = self.proxy.snapshot.config.limits.body_rate
        took_s = now - self._body_since_at
        if rate and took_s > RATE_AFTER_S and exchange.received_bytes < rate * took_s:
            exchange.refuse(Cause.BODY_TIMEOUT, f"the client's body came slower than {rate} bytes a second")

    def _sweep_unsent(self, now: float, idle_s: float) -> None:
        """Close when the client has taken nothing of what waits for it; also after the last answer was written."""
        if not self._backed_up or self.transport is None:
            return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since_at = unsent, now
        elif now - self._unsent_since_at > idle_s:
            self.doom(f"the client took nothing for {idle_s:g}s")


def _glimpse(data: bytes | bytearray) -> tuple[bytes, bytes]:
    """A method and the beginning of a target, where `data` begins with something like them."""
    words = bytes(data[:_GLIMPSE_BYTES]).lstrip(b"\r\n").partition(b"\r\n")[0].split(b" ")
    if len(words) < 2 or not words[0].isalpha() or len(words[0]) > 32:
        return b"", b""
    return words[0], words[1]


def _has_left(fd: int, midway: bool) -> bool:
    """Whether a connection that is not read from was reset by its peer, or closed `midway` through what it sends."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP if midway else 0)
    return bool(poll.poll(0))


_NONE: Mapping[BackendState, UpstreamLink] = MappingProxyType({})
