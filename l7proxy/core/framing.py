"""Where a chunked body ends, read strictly (RFC 9112 7.1).

One rule: what goes on is chunked anew; sizes, extensions and trailers of the sender stop here. Sizes are hexadecimal
digits and nothing else; whatever is not to the letter is an error, for the next reader may see another border.
"""

from __future__ import annotations

import re

from l7proxy.core.head import LONGEST_BODY

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
LONGEST_SIZE_LINE = 256
"""A size with its extension. Nobody is known to use extensions."""
MOST_EXTENSION_BYTES = 16 * 1024
"""Of all chunks of a body together."""
LONGEST_TRAILER = 8 * 1024


class FramingError(Exception):
    """The body's framing is broken."""


class Chunked:
    """A chunked body as it comes. `done` once its end has come; `rest` is then what followed."""

    __slots__ = ("_extension_bytes", "_held", "_left", "_trailing", "done", "rest")

    def __init__(self) -> None:
        self._left = -2
        """Of the present chunk: bytes above 0; 0 and -1: its CR LF; -2: a size line is next."""
        self._held = b""
        self._trailing = 0
        self._extension_bytes = 0
        self.done = False
        self.rest = b""

    @property
    def left(self) -> int:
        """Bytes that the present chunk still has to bring."""
        return max(0, self._left)

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`. Raises: FramingError.

        >>> body = Chunked()
        >>> body.feed(b"4\\r\\nwi"), body.feed(b"ki\\r\\n0\\r\\n\\r\\nGET"), body.done, body.rest
        (b'wi', b'ki', True, b'GET')
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            left = self._left
            if left > 0:
                piece = data[at : at + left]
                pieces.append(piece)
                at += len(piece)
                self._left = left - len(piece)
                continue
            if left in (0, -1):
                if data[at] != (13 if left == 0 else 10):
                    raise FramingError("a chunk is longer than its size")
                at += 1
                self._left = left - 1
                continue
            stop = data.find(b"\n", at, at + self._longest_line() + 2)
            if stop < 0:
                if end - at > self._longest_line() + 1:  # the CR of the longest may be here, and its LF not yet
                    raise FramingError("a line of the chunked body is too long")
                self._held = data[at:]
                break
            if stop == at or data[stop - 1] != 13:
                raise FramingError("a line end that is not CRLF")
            self._line(data[at : stop - 1])
            at = stop + 1
            if self.done:
                self.rest = data[at:]
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _longest_line(self) -> int:
        return LONGEST_TRAILER if self._trailing else LONGEST_SIZE_LINE

    def _line(self, line: bytes) -> None:
        """A size, or a line of the trailers."""
        if self._trailing:
            if not line:
                self.done = True
                return
            self._trailing += len(line)
            if self._trailing > LONGEST_TRAILER:
                raise FramingError("trailers are too long")
            if not _TRAILER.fullmatch(line):
                raise FramingError("a trailer that is no header line")
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise FramingError("a chunk's size that is none")
        size = int(match[1], 16)
        if size > LONGEST_BODY:
            raise FramingError("a chunk's size that is too large")
        if match[2] is not None:
            self._extension_bytes += len(match[2])
            if self._extension_bytes > MOST_EXTENSION_BYTES:
                raise FramingError("extensions of chunks are too long")
        if size:
            self._left = size
        else:
            self._trailing = 1


def chunk(data: bytes | memoryview) -> bytes:
    """`data`, not empty, as one chunk."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


LAST_CHUNK = b"0\r\n\r\n"
