"""Which server a TLS client asks for: the beginning of its stream, up to the name in its ClientHello (RFC 8446 4.1.2).

One rule: nothing is decrypted, changed or guessed at. What is no ClientHello is said to be none with its first wrong
byte; what takes too long to become one is bounded by LONGEST_BYTES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_BYTES = 16 * 1024
"""Of the stream, with the heads of its records. Clients with post-quantum key shares send below 2 KB."""
_RECORD_HEAD_BYTES = 5
_MESSAGE_HEAD_BYTES = 4
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_NAME = re.compile(rb"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")


@dataclass(frozen=True, slots=True)
class Hello:
    """A ClientHello. `name` is in lower case, without a dot at its end; None where the client names no server."""

    name: str | None


@dataclass(frozen=True, slots=True)
class NoHello:
    """No ClientHello; for the log."""

    reason: str


class ClientHelloReader:
    """Takes in a stream as it comes, however it is cut: each byte is looked at once."""

    def __init__(self) -> None:
        self._seen = 0
        self._head = b""
        """The beginning of a record's head, or of the message's."""
        self._left = 0
        """What the present record still has."""
        self._message = bytearray()

    def feed(self, data: bytes | memoryview) -> Hello | NoHello | None:
        r"""What the stream is, with `data` behind what came before; None while it may yet become a ClientHello.

        >>> ClientHelloReader().feed(b"GET / HTTP/1.1\r\n")
        NoHello(reason='no TLS: it begins with 0x47')
        >>> ClientHelloReader().feed(b"\x16\x03")
        """
        self._seen += len(data)
        at = 0
        while at < len(data):
            if not self._left:
                head = self._head + bytes(data[at : at + _RECORD_HEAD_BYTES - len(self._head)])
                at += len(head) - len(self._head)
                self._head = head
                if reason := _wrong_with_record(head, self._message):
                    return NoHello(reason)
                if len(head) < _RECORD_HEAD_BYTES:
                    break
                self._left = int.from_bytes(head[3:5], "big")
                self._head = b""
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            self._message += piece
            found = _in_message(self._message)
            if found is not None:
                return found
        if self._seen >= LONGEST_BYTES:
            return NoHello(f"no whole ClientHello within {LONGEST_BYTES} bytes")
        return None


def _wrong_with_record(head: bytes, message: bytearray) -> str:
    """What is wrong with the beginning of a record's head; RFC 8446 5.1."""
    if head[0] != _HANDSHAKE:
        if not message and len(head) > 2 and head[0] & 0x80 and head[2] == _CLIENT_HELLO:
            return "a ClientHello of SSL 2.0"
        if not message and head[0] & 0x80 and len(head) <= 2:
            return ""  # one more byte tells
        return (
            f"a record of type {head[0]} within the ClientHello"
            if message
            else f"no TLS: it begins with 0x{head[0]:02x}"
        )
    if len(head) > 1 and head[1] != 3:
        return f"no TLS: its version is {head[1]}.x"
    if len(head) == _RECORD_HEAD_BYTES:
        length = int.from_bytes(head[3:5], "big")
        if not length:
            return "a record without content"
        if length > LONGEST_BYTES:
            return f"a record of {length} bytes"
    return ""


def _in_message(message: bytearray) -> Hello | NoHello | None:
    """What the handshake's first message is, as far as it has come."""
    if message[0] != _CLIENT_HELLO:
        return NoHello(f"a handshake message of type {message[0]} in place of a ClientHello")
    if len(message) < _MESSAGE_HEAD_BYTES:
        return None
    length = int.from_bytes(message[1:4], "big")
    if length + _MESSAGE_HEAD_BYTES + _RECORD_HEAD_BYTES > LONGEST_BYTES:
        return NoHello(f"a ClientHello of {length} bytes: at most {LONGEST_BYTES} are read")
    if len(message) < _MESSAGE_HEAD_BYTES + length:
        return None
    try:
        return _read(_Cursor(bytes(message[_MESSAGE_HEAD_BYTES : _MESSAGE_HEAD_BYTES + length])))
    except _CutError:
        return NoHello("a ClientHello that ends within a field")


class _CutError(ValueError):
    """A field goes on behind its end."""


class _Cursor:
    """Reads fields off a vector."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """So many bytes. Raises: _CutError."""
        end = self._at + count
        if end > len(self._data):
            raise _CutError
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """What stands behind its length of `size` bytes."""
        return self.take(self.number(size))


def _read(body: _Cursor) -> Hello | NoHello:
    version = body.take(2)
    if version[0] != 3:
        return NoHello(f"a ClientHello of version {version[0]}.{version[1]}")
    body.take(32)
    body.vector(1)  # session
    body.vector(2)  # cipher suites, unknown ones (GREASE, RFC 8701) too
    body.vector(1)  # compression
    if not body:
        return Hello(None)  # before TLS 1.2 a ClientHello may end here
    names = [value for kind, value in _extensions(body.vector(2)) if kind == _SERVER_NAME]
    if len(names) > 1:
        return NoHello("a ClientHello with two lists of server names")
    return _named(names[0]) if names else Hello(None)


def _extensions(text: bytes) -> Iterator[tuple[int, bytes]]:
    extensions = _Cursor(text)
    while extensions:
        kind = extensions.number(2)
        yield kind, extensions.vector(2)


def _named(value: bytes) -> Hello | NoHello:
    """RFC 6066 3: a list in which each type of name comes once."""
    entries = _Cursor(_Cursor(value).vector(2))
    found: bytes | None = None
    while entries:
        kind, name = entries.number(1), entries.vector(2)
        if kind != _HOST_NAME:
            continue
        if found is not None:
            return NoHello("a ClientHello with two server names")
        found = name
    if found is None:
        return Hello(None)
    if not _NAME.fullmatch(found):
        return NoHello("a ClientHello whose server name is none")
    return Hello(found.decode("ascii").lower().removesuffix("."))
