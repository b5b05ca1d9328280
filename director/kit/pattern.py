"""Regular expressions that operators write and outsiders feed.

One rule: matching takes time linear in the text, whatever the pattern and the text are (RE2), so that no
client and no backend can hold the event loop. The price: no look-around and no back-references.

Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Match(Protocol):
    """What a search found."""

    def groupdict(self) -> dict[bytes, bytes | None]: ...


class Pattern(Protocol):
    """A compiled pattern over bytes."""

    @property
    def groupindex(self) -> Mapping[bytes, int]:
        """The numbers of its named groups."""
        ...

    def search(self, text: bytes) -> Match | None: ...


def compile_pattern(text: str) -> Pattern:
    """`text` as a pattern over UTF-8 bytes.

    Raises: ValueError, with what to do.

    >>> bool(compile_pattern("^/v[12]/").search(b"/v2/x"))
    True
    """
    import re2  # most files have no pattern, and it is a large library

    options = re2.Options()
    options.log_errors = False  # the library would write to standard error by itself
    options.max_mem = 8 << 20
    try:
        pattern: Pattern = re2.compile(text.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else error
        why = said.decode(errors="replace") if isinstance(said, bytes) else str(error)
        raise ValueError(
            f"{text!r} is not a regular expression that can be used here: {why} "
            "(RE2 syntax: no look-around, no back-references)"
        ) from None
    return pattern
