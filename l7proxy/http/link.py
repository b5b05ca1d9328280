"""The backend's side: one connection to a backend.

One rule: a link goes back to its pool only after a whole answer that left nothing behind, and after a whole request.
Bytes that nobody asked for end it. Whatever it has to say, it says to the exchange that has it.
"""

from __future__ import annotations

import asyncio
import errno
import select
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from l7proxy.core.framing import Chunked, FramingError
from l7proxy.core.head import ResponseHead
from l7proxy.core.proxystatus import Cause
from l7proxy.core.scan import scan_response
from l7proxy.http.parser import read_response
from l7proxy.http.quick import copied, head_end_within, write

if TYPE_CHECKING:
    from l7proxy.http.pool import LinkPool

Piece: TypeAlias = bytes | memoryview
"""A view is one of the buffer that all links read into: it is good until the call that hands it on returns."""
LARGE_BYTES = 8 * 1024
"""What is smaller is handed on as a copy; what is not is not copied to be joined with its head either."""
_ENDED = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})
LARGEST_HEAD = 256 * 1024
LONGEST_STATUS_LINE = 8 * 1024
MOST_INTERIM = 100
"""1xx answers before the final one."""
CLOSES_WITHIN_S = 30.0
"""How long the last bytes of a tunnel may take: nobody looks after a link that is closing."""

buffer = bytearray(256 * 1024)
_view = memoryview(buffer)

IDLE, HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, TUNNEL, DONE = range(7)


class Asker(Protocol):
    """What a link needs of an exchange. `last` is whether the answer is whole with it."""

    def interim(self, head: ResponseHead) -> None: ...

    def switched(self, head: ResponseHead, early: bytes) -> None: ...

    def answer(self, head: ResponseHead, piece: Piece, last: bool) -> None: ...

    def more(self, piece: Piece, last: bool) -> None: ...

    def bad_answer(self, cause: Cause, reason: str) -> None: ...

    def lost(self, reason: str) -> None: ...

    def link_end(self) -> None: ...

    def link_full(self) -> None: ...

    def link_ready(self) -> None: ...


class UpstreamLink:
    """One connection to a backend. `answered` is whether a byte of the present answer has come."""

    def __init__(self, pool: LinkPool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.fd = -1
        self.asker: Asker | None = None
        self.phase = IDLE
        self.uses = 0
        self.answered = False
        self.reusable = False
        self.idle_since_at = 0.0
        self.heard_at = 0.0
        """When bytes came last, while an answer's body passes."""
        self.paused = False
        self.full = False
        """Whether the backend takes less than it is sent."""
        self.owner: object | None = None
        """The client connection that has authenticated itself on this link: nobody else may have it."""
        self.vouched = ""
        """Whose address a PROXY header has told the backend; empty without one."""
        self._bodiless = False
        self._left = 0
        self._interim = 0
        self._chunked: Chunked | None = None
        self._held: bytearray | None = None
        """The beginning of a head."""
        self._backed_up = False
        self._poll = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.fd = transport.get_extra_info("socket").fileno()
        self._poll.register(self.fd, select.POLLIN)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.fd = -1
        self.transport = None
        self._has_ended(exc)
        self.pool.forget(self)

    def _has_ended(self, exc: BaseException | None) -> None:
        """No more will come."""
        asker = self.asker
        if asker is None:
            return
        if self.phase == UNTIL_CLOSE and exc is None:
            self.phase = DONE
            asker.more(b"", True)
        else:
            self.phase = DONE
            asker.lost(_words(exc))

    @property
    def unsent(self) -> int:
        """Bytes that the backend has not taken yet."""
        return self.transport.get_write_buffer_size() if self._backed_up and self.transport is not None else 0

    def is_quiet(self) -> bool:
        """Whether nothing lies unread on an idle link, neither bytes nor its end, which the loop has not come to."""
        return self.fd >= 0 and not self._poll.poll(0)

    def begin(self, asker: Asker, bodiless: bool) -> None:
        """Get ready for one more exchange; `bodiless` is whether its answer has no body in any case (HEAD)."""
        self.asker = asker
        self.uses += 1
        self.answered = self.reusable = False
        self.phase = HEAD
        self._interim = 0
        self._bodiless = bodiless

    def write(self, data: bytes) -> bool:
        """Send; False when nothing could be sent because the connection is gone."""
        transport = self.transport
        if transport is None:
            return False
        if self._backed_up:
            if transport.get_write_buffer_size():
                transport.write(data)
                return True
            self._backed_up = False
        try:
            sent = write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno not in _ENDED:
                transport.abort()  # nothing may be left out of what is sent
            return False  # its end has come, or is about to be told
        if sent != len(data):
            self._backed_up = True
            transport.write(data[sent:])
        return True

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        asker = self.asker
        phase = self.phase
        if asker is None:
            self.abort()
        elif phase == HEAD:
            self.answered = True
            if self._held is not None:
                self._read_more_head(asker, self._held, _view[:nbytes])
                return
            end = head_end_within(buffer, nbytes)
            if end >= 0:
                head = scan_response(copied(buffer, 0, end))
                if head is not None:
                    small = nbytes - end < LARGE_BYTES
                    piece = copied(buffer, end + 4, nbytes) if small else _view[end + 4 : nbytes]
                    self._begin_body(asker, head, piece)
                    return
            self._read_head(asker, bytes(_view[:nbytes]))
        elif phase == LENGTH:
            left = self._left - nbytes
            self._left = left
            if left > 0:
                asker.more(_view[:nbytes], False)
            else:
                self.phase = DONE
                if left < 0:
                    self.reusable = False
                asker.more(_view[: nbytes + left], True)
        elif phase == CHUNKED:
            self._read_chunks(asker, bytes(_view[:nbytes]))
        elif phase == DONE:
            self.reusable = False
        else:
            asker.more(_view[:nbytes], False)

    def _read_more_head(self, asker: Asker, held: bytearray, data: memoryview) -> None:
        """Look at what is new alone: a head that comes byte by byte is not searched from its beginning each time."""
        before = len(held)
        held += data
        looked_at = held.find(b"\n", 0, before) >= 0  # at its first line
        if not looked_at or len(held) > LARGEST_HEAD or held.find(b"\r\n\r\n", max(0, before - 3)) >= 0:
            self._read_head(asker, bytes(held))

    def _read_head(self, asker: Asker, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > LARGEST_HEAD:
                    asker.bad_answer(
                        Cause.RESPONSE_HEAD_TOO_LARGE, f"the answer's head is larger than {LARGEST_HEAD} bytes"
                    )
                    return
                first = data.find(b"\n", 0, LONGEST_STATUS_LINE)
                if first == 0 or (first > 0 and data[first - 1] != 13):
                    asker.bad_answer(Cause.MALFORMED_RESPONSE, "a line end that is not CRLF")
                    return
                if first < 0 and len(data) >= LONGEST_STATUS_LINE:
                    asker.bad_answer(Cause.MALFORMED_RESPONSE, "what came is no HTTP answer")
                    return
                self._held = bytearray(data)
                return
            text = data[:end]
            head = scan_response(text) or read_response(text)
            if isinstance(head, str):
                asker.bad_answer(Cause.MALFORMED_RESPONSE, head)
                return
            if head.status >= 200:
                break
            data = data[end + 4 :]
            if head.status == 101:
                self._held = None
                self.phase = TUNNEL
                asker.switched(head, data)
                return
            self._interim += 1
            if self._interim > MOST_INTERIM:
                asker.bad_answer(Cause.MALFORMED_RESPONSE, f"more than {MOST_INTERIM} interim answers")
                return
            asker.interim(head)
            if self.asker is not asker:
                return
        self._held = None
        self._begin_body(asker, head, data[end + 4 :])

    def _begin_body(self, asker: Asker, head: ResponseHead, data: Piece) -> None:
        length = head.length
        if self._bodiless or head.status in {204, 304}:
            length = 0
        elif head.chunked:
            self.phase = CHUNKED
            chunked = self._chunked = Chunked()
            try:
                data = chunked.feed(bytes(data))
            except FramingError as error:
                asker.bad_answer(Cause.RESPONSE_CODING, str(error))
                return
            if chunked.done:
                self.phase = DONE
                self.reusable = head.keep_alive and not chunked.rest
                asker.answer(head, data, True)
            else:
                self.reusable = head.keep_alive
                asker.answer(head, data, False)
            return
        elif length is None:
            self.phase = UNTIL_CLOSE
            asker.answer(head, data, False)
            return
        left = length - len(data)
        if left > 0:
            self.phase = LENGTH
            self._left = left
            self.reusable = head.keep_alive
            asker.answer(head, data, False)
        else:
            self.phase = DONE
            self.reusable = head.keep_alive and left == 0
            asker.answer(head, data if left == 0 else data[:length], True)

    def _read_chunks(self, asker: Asker, data: bytes) -> None:
        chunked = self._chunked
        assert chunked is not None  # noqa: S101 -- set with the phase
        try:
            piece = chunked.feed(data)
        except FramingError as error:
            asker.bad_answer(Cause.RESPONSE_CODING, str(error))
            return
        if chunked.done:
            self.phase = DONE
            self.reusable = self.reusable and not chunked.rest
            asker.more(piece, True)
        elif piece:
            asker.more(piece, False)

    def eof_received(self) -> bool:
        """Half closed, a tunnel stays for the other direction."""
        if self.phase == TUNNEL and self.asker is not None:
            self.asker.link_end()
            return True
        self._has_ended(None)  # at once: what waits to be sent would hold the connection open
        return False

    def pause_writing(self) -> None:
        self.full = True
        if self.asker is not None:
            self.asker.link_full()

    def resume_writing(self) -> None:
        self.full = False
        if self.asker is not None:
            self.asker.link_ready()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self.paused and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()

    def write_eof(self) -> None:
        """No more will be sent; a tunnel's other direction goes on."""
        if self.transport is not None:
            self.transport.write_eof()

    def close(self) -> None:
        """Leave, sending what waits, if it is taken soon."""
        unsent = self.unsent
        self.fd = -1
        if self.transport is not None:
            self.transport.close()
            if unsent:
                asyncio.get_running_loop().call_later(CLOSES_WITHIN_S, self.abort)

    def abort(self) -> None:
        """Leave at once."""
        self.fd = -1
        if self.transport is not None:
            self.transport.abort()


def _words(exc: BaseException | None) -> str:
    return "connection closed" if exc is None else "connection reset"
