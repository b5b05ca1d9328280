"""One direction of a forwarded connection.

One rule: of what the target has not taken there is never more than one buffer or one pipe; the rest waits in the
kernel, and slows the source down.
"""

from __future__ import annotations

import errno

from l7proxy.pipes import Pipe, PipePool
from l7proxy.tcp.wire import move, receive, say_end, send

BUFFER_BYTES = 256 * 1024
"""Of the one buffer that all flows read into. Bulk that is copied costs half of what it does with 64 KiB."""
LARGE_BYTES = 64 * 1024
TURNS_AT_ONCE = 8
"""Buffers or pipes that one direction moves before others have their turn."""
MANY_LARGE = 3
"""After so many large reads a direction carries bulk, and gets a pipe."""
_AGAIN = -errno.EAGAIN
_buffer = bytearray(BUFFER_BYTES)

# What came of moving bytes: nothing more to do for now; others have their turn; the source failed, or the target.
DONE, TURN, SOURCE_FAILED, TARGET_FAILED = range(4)


class Flow:
    """One direction."""

    def __init__(self) -> None:
        self.source = -1
        self.target = -1
        self.readable = False
        self.writable = False
        self.eager = False
        """Whether a short read does not mean that there is no more: the end, or urgent data, may follow."""
        self.closing = False
        """Whether the end has come in: what is read short is followed by it, and it needs no call of its own."""
        self.ended = False
        self.finished = False
        """Whether the target knows of the end."""
        self.is_last = False
        """Whether the other direction has finished: closing tells of this one's end."""
        self.moved = 0
        self.held: bytes | None = None
        """What was read and is not sent."""
        self.large = 0
        self.pipe: Pipe | None = None
        self.piped = 0
        self.error = 0

    def pump(self, pipes: PipePool) -> int:
        """Move what can be moved."""
        turns = 0
        while True:
            if self.piped or self.held is not None:
                if not self.writable:
                    return DONE
                if not self._flush():
                    return TARGET_FAILED if self.error else DONE
            if self.ended:
                self._finish()
                return DONE
            if not self.readable or not self.writable:
                return DONE
            if turns >= TURNS_AT_ONCE:
                return TURN
            turns += 1
            if self.pipe is not None:
                taken = move(self.source, self.pipe.inlet, self.pipe.size_bytes)
                if taken > 0:
                    self.piped = taken
                    continue
            else:
                taken = receive(self.source, _buffer)
                if taken > 0:
                    if not self._pass_on(taken, pipes):
                        return TARGET_FAILED if self.error else DONE
                    continue
            if taken == 0:
                self.ended = True
                self.readable = False
            elif taken == _AGAIN:
                self.readable = False
                return DONE
            else:
                self.error = -taken
                return SOURCE_FAILED

    def _pass_on(self, taken: int, pipes: PipePool) -> bool:
        """Send what is in the buffer. False: the target takes no more of it, or failed."""
        if taken < BUFFER_BYTES:
            if self.closing:
                self.ended = True
                self.readable = False
            elif not self.eager:
                self.readable = False
        if taken >= LARGE_BYTES:
            self.large += 1
            if self.large >= MANY_LARGE:
                self.large = 0
                self.pipe = pipes.take()
        else:
            self.large = 0
        sent = send(self.target, _buffer, 0, taken)
        if sent == taken:
            self.moved += taken
            return True
        if sent < 0 and sent != _AGAIN:
            self.error = -sent
            return False
        sent = max(sent, 0)
        self.moved += sent
        self.writable = False
        self.held = bytes(_buffer[sent:taken])
        return False

    def _flush(self) -> bool:
        """Send what waits. False: it waits still, or the target failed."""
        pipe = self.pipe
        while pipe is not None and self.piped:
            sent = move(pipe.outlet, self.target, self.piped)
            if sent <= 0:
                return self._unsent(sent)
            self.piped -= sent
            self.moved += sent
        held = self.held
        if held is not None:
            sent = send(self.target, held, 0, len(held))
            if sent < 0:
                return self._unsent(sent)
            self.moved += sent
            if sent < len(held):
                self.held = held[sent:]
                return self._unsent(_AGAIN)
            self.held = None
        return True

    def _unsent(self, sent: int) -> bool:
        self.writable = False
        if sent != _AGAIN:
            self.error = -sent or errno.EPIPE
        return False

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            if not self.is_last:
                say_end(self.target)

    def rest(self, pipes: PipePool) -> None:
        """Give the pipe to others, while nothing is in it."""
        if self.pipe is not None and not self.piped:
            pipe = self.pipe
            self.pipe = None
            pipes.give_back(pipe, True)

    def drop(self, pipes: PipePool) -> None:
        """It is over."""
        self.held = None
        if self.pipe is not None:
            pipe = self.pipe
            self.pipe = None
            pipes.give_back(pipe, not self.piped)
