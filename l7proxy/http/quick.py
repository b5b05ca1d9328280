"""Small steps that every exchange takes several times; `_quick.pyx` has them once more, for a C compiler.

One rule: the compiled ones do the same.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING


def write(fd: int, data: bytes | memoryview) -> int:
    """Write to a descriptor that does not block; how much of it was. Raises: OSError."""
    return os.write(fd, data)


def head_end(data: bytes) -> int:
    """Where the empty line after a head begins, or -1."""
    return data.find(b"\r\n\r\n")


def head_end_within(buffer: bytearray, length: int) -> int:
    """The same in the first `length` bytes of a buffer."""
    return buffer.find(b"\r\n\r\n", 0, length)


def copied(buffer: bytearray, start: int, end: int) -> bytes:
    """A part of a buffer."""
    return bytes(memoryview(buffer)[start:end])


if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.http._quick import copied, head_end, head_end_within, write  # noqa: F401 -- for who imports them
