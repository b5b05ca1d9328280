"""Header lines by their names: whether some are there, and all the others. `_lines.pyx` has it once more, for a C
compiler.

One rule: lines that stay keep their bytes and their order; names are compared without case.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING


class Named:
    """Names in lower case, begins of names, and names that are no match for a begin.

    >>> cookies = Named([b"cookie"], [b"x-"], [b"x-stays"])
    >>> cookies.in_lines(b"Accept: cookie:\\r\\n"), cookies.in_lines(b"A: b\\r\\ncookie:c\\r\\n")
    (False, True)
    >>> cookies.without(b"A: b\\r\\nCookie: c\\r\\nX-A: d\\r\\nX-Stays: e\\r\\n")
    b'A: b\\r\\nX-Stays: e\\r\\n'
    """

    def __init__(self, names: Iterable[bytes], begins: Iterable[bytes] = (), but: Iterable[bytes] = ()) -> None:
        self._names = frozenset(names)
        self._begins = tuple(begins)
        self._but = frozenset(but)
        self._marks = [b"\r\n" + name + b":" for name in self._names] + [b"\r\n" + begin for begin in self._begins]

    def in_lines(self, fields: bytes) -> bool:
        """Whether one of them is in header lines, each with its line end."""
        lowered = b"\r\n" + fields.lower()
        return any(mark in lowered for mark in self._marks) and self.without(fields) != fields

    def without(self, fields: bytes) -> bytes:
        """The lines without them."""
        return b"\r\n".join([line for line in fields.split(b"\r\n") if not self._has(line.partition(b":")[0].lower())])

    def _has(self, name: bytes) -> bool:
        return name in self._names or (bool(self._begins) and name.startswith(self._begins) and name not in self._but)


PlainNamed = Named
if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._lines import Named
