"""An HTTP/1 answer out of bytes: its head, and its body as it comes.

One rule: what the proxy's parser (llhttp) takes is taken here, and it makes no difference in which pieces it comes.

RFC 9112: 2.2 (empty lines before a head, a bare LF), 5.2 (folded lines), 6.3 (the body's length), 7.1 (chunks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from director.kit.checks.payload import shown_bytes

LARGEST_HEAD_BYTES = 64 * 1024
"""Of all that comes until the final head is whole, and of what follows the last chunk."""

_LARGEST_CHUNK_LINE_BYTES = 16 * 1024
_LARGEST_LENGTH = 2**63 - 1
_ENOUGH_BYTES = 64
"""Of a first line, to say what it is."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_BEGINS = re.compile(rb"HTTP/(?:0\.9|1\.[01]|2\.0) [0-9]{3}[ \r\n]")
_HEAD = re.compile(rb"HTTP/(.\..) (...)(?: [^\r\n]*+)?\r?((?:\n(?:" + _TOKEN + rb":|[ \t])[^\r\n\x00]*+\r?)*+)\n\r?\n")
_FIELD = re.compile(rb"(?:" + _TOKEN + rb":|[ \t])[^\r\n\x00]*+\r?")
_VALUE = rb"[ \t]*+([^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*+)"
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection|proxy-connection):" + _VALUE, re.IGNORECASE)
_FOLD = re.compile(rb"\r?\n[ \t]++")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16}+)[ \t]*+(?:;[^\r\n]*+)?\r?\n")
_TRAILER = re.compile(rb"(" + _TOKEN + rb":[^\r\n\x00]*+)?\r?\n")


class BadAnswer(Exception):  # noqa: N818 -- a peer's doing, which the caller turns into a value
    """What came is no HTTP answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """A status line and the headers below it, each line of `fields` with its LF before it.

    `length` is Content-Length; `keeps` is whether the peer will take another request on the connection.
    """

    status: int
    fields: bytes
    length: int | None
    is_chunked: bool
    keeps: bool

    def values(self, name: str) -> list[bytes]:
        """Every value of a header, in their order."""
        found = re.findall(rb"\n" + re.escape(name.encode()) + rb":" + _VALUE, self.fields, re.IGNORECASE)
        return [_FOLD.sub(b" ", value).rstrip(b" \t") for value in found]


class HeadReader:
    """Collects bytes until there is a final head (none of 1xx but 101, RFC 9110 15.2)."""

    __slots__ = ("_buffer", "_looked", "_passed_bytes")

    def __init__(self) -> None:
        self._buffer = b""
        self._looked = 0
        self._passed_bytes = 0

    @property
    def has_none(self) -> bool:
        """Whether nothing of a final head has come."""
        return not self._buffer

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and what follows it, once it is whole.

        Raises: BadAnswer.
        """
        buffer = self._buffer + data if self._buffer else data
        while True:
            if buffer[:1] in {b"\r", b"\n"}:
                rest = buffer.lstrip(b"\r\n")
                self._passed_bytes += len(buffer) - len(rest)
                buffer = rest
            room = max(0, LARGEST_HEAD_BYTES - self._passed_bytes)
            window = buffer if len(buffer) <= room else buffer[:room]
            end = _end_of_head(window, self._looked)
            if not end:
                if not self._looked:
                    _look_at_first_line(window)
                if len(buffer) > room:
                    raise BadAnswer(f"its head is larger than {LARGEST_HEAD_BYTES // 1024} KiB")
                self._buffer = buffer
                # From the first look at a whole line on, only the end is looked for.
                self._looked = len(buffer) - 2 if len(buffer) >= _ENOUGH_BYTES else 0
                return None
            _look_at_first_line(window)
            head = _read(window[:end])
            self._looked = 0
            buffer = buffer[end:]
            if head.status // 100 != 1 or head.status == 101:
                self._buffer = b""
                return head, buffer
            self._passed_bytes += end

    def broken_off(self) -> BadAnswer:
        """Why what has come is no answer, now that no more comes."""
        try:
            _look_at_first_line(self._buffer + b"\n")
        except BadAnswer as error:
            return error
        return BadAnswer("it ends within its head")


def _end_of_head(buffer: bytes, start: int) -> int:
    """Where what follows the head begins; 0 where its end has not come."""
    crlf = buffer.find(b"\n\r\n", start)
    lf = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
    return lf + 2 if lf >= 0 else crlf + 3 if crlf >= 0 else 0


def _look_at_first_line(buffer: bytes) -> None:
    end = buffer.find(b"\n", 0, _ENOUGH_BYTES)
    if (end >= 0 or len(buffer) >= _ENOUGH_BYTES) and not _BEGINS.match(buffer):
        raise BadAnswer(f"it begins with {shown_bytes(buffer[: end if end >= 0 else _ENOUGH_BYTES], _ENOUGH_BYTES)}")


def _read(head: bytes) -> Head:
    match = _HEAD.fullmatch(head)
    if match is None:
        first, *lines = head.rstrip(b"\r\n").split(b"\n")
        wrong = next((line for line in lines if not _FIELD.fullmatch(line)), first)
        raise BadAnswer(f"{shown_bytes(wrong.rstrip(), _ENOUGH_BYTES)} is no header")
    version, status, fields = match.groups()
    length: int | None = None
    codings: list[bytes] = []
    options: list[bytes] = []
    for name, value in _FRAMING.findall(fields):
        text = _FOLD.sub(b" ", value).strip(b" \t").lower()
        if len(name) == 14:  # content-length
            if length is not None or not _LENGTH.fullmatch(text) or int(text) > _LARGEST_LENGTH:
                what = (
                    f"{shown_bytes(text)} is no length of a body"
                    if length is None
                    else "it has two lengths of its body"
                )
                raise BadAnswer(what)
            length = int(text)
        else:
            (codings if len(name) == 17 else options).extend(each.strip() for each in text.split(b","))
    if codings and length is not None:
        raise BadAnswer("it has both Content-Length and Transfer-Encoding")
    keeps = b"keep-alive" in options if version in {b"1.0", b"0.9"} else b"close" not in options
    return Head(int(status), fields, length, bool(codings) and codings[-1] == b"chunked", keeps)


class _State(Enum):
    DATA = "data"
    """Of a known length, or of a chunk."""
    AFTER = "after"
    """The line end behind a chunk's data."""
    SIZE = "size"
    TRAILERS = "trailers"
    OPEN = "open"
    """Until the connection's end."""
    DONE = "done"


class BodyReader:
    """The body that follows a head, without its framing.

    `bad` is why its framing is none, or empty; `has_extra` is whether more has come than the body.
    """

    __slots__ = ("_chunked", "_left", "_line", "_state", "_trailer_bytes", "bad", "has_extra")

    def __init__(self, head: Head, to_head_request: bool = False) -> None:
        self._chunked = head.is_chunked
        self._left = head.length or 0
        self._line = b""
        self._trailer_bytes = 0
        self.bad = ""
        self.has_extra = False
        # RFC 9112 6.3
        if to_head_request or head.status in {101, 204, 304} or head.length == 0:
            self._state = _State.DONE
            self._left = 0
        elif head.is_chunked:
            self._state = _State.SIZE
        else:
            self._state = _State.OPEN if head.length is None else _State.DATA

    @property
    def is_done(self) -> bool:
        """Whether the body is whole."""
        return self._state is _State.DONE

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end says that the body is whole."""
        return self._state is _State.OPEN

    @property
    def missing(self) -> str:
        """What has not come, when the connection ends before the body is whole."""
        return "the last chunk" if self._chunked else f"{self._left} bytes of its content length"

    def feed(self, data: bytes) -> bytes:
        """What `data` has of the body. Once the framing is `bad`, nothing."""
        if self._state is _State.OPEN:
            return data
        if not self._chunked:
            return self._take(data)
        found = []
        if self._line:
            data, self._line = self._line + data, b""
        at = 0
        while at < len(data) and not self.bad and self._state is not _State.DONE:
            if self._state is _State.DATA:
                part = data[at : at + self._left]
                found.append(part)
                at += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _State.AFTER
                continue
            end = data.find(b"\n", at, at + _LARGEST_CHUNK_LINE_BYTES) + 1
            if not end:
                if self._state is _State.AFTER and data[at:] != b"\r":
                    self.bad = "a chunk is longer than it says"
                elif len(data) - at >= _LARGEST_CHUNK_LINE_BYTES:
                    self.bad = "a line of its chunks is too long"
                else:
                    self._line = data[at:]
                break
            self._read_line(data[at:end])
            at = end
        if self._state is _State.DONE and at < len(data):
            self.has_extra = True
        return b"".join(found)

    def _take(self, data: bytes) -> bytes:
        if len(data) > self._left:
            self.has_extra = True
            data = data[: self._left]
        self._left -= len(data)
        if not self._left:
            self._state = _State.DONE
        return data

    def _read_line(self, line: bytes) -> None:
        if self._state is _State.AFTER:
            self._state = _State.SIZE
            if line not in {b"\r\n", b"\n"}:
                self.bad = "a chunk is longer than it says"
        elif self._state is _State.SIZE:
            match = _CHUNK.fullmatch(line)
            self._left = int(match[1], 16) if match else -1
            self._state = _State.DATA if self._left else _State.TRAILERS
            if not 0 <= self._left <= _LARGEST_LENGTH:
                self.bad = f"{shown_bytes(line)} is no length of a chunk"
        else:
            self._trailer_bytes += len(line)
            match = _TRAILER.fullmatch(line)
            if match is None or self._trailer_bytes > LARGEST_HEAD_BYTES:
                self.bad = f"{shown_bytes(line)} is no trailer" if match is None else "its trailers are too large"
            elif not match[1]:
                self._state = _State.DONE
