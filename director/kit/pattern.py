"""Regular expressions that operators write and outsiders feed.

One rule: matching takes time linear in the text, whatever the pattern and the text are (RE2), so that no
client and no backend can hold the event loop. The price: no look-around and no back-references.

Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

_MEM_BYTES = 8 << 20
"""What one pattern, or one set of them, may use to remember states in."""
_MEM_BYTES_EACH = 64 << 10
"""And so much more for each pattern of a set."""
_SENTINEL = b"\0"


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

    options = _options(_MEM_BYTES)
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


def _options(mem_bytes: int) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False  # the library would write to standard error by itself
    options.max_mem = mem_bytes
    return options


def can_match_path(text: str) -> bool:
    """Whether `text`, a pattern that compiles, matches anything that begins with `/`, as far as its beginning tells.

    >>> can_match_path("^v1/"), can_match_path("^/v1"), can_match_path("v1/")
    (False, True, True)
    """
    if not text.startswith("^") or "|" in text:
        return True
    pattern: Any = compile_pattern(text)
    try:
        least, most = pattern.possiblematchrange(8)
    except Exception:  # noqa: BLE001 -- its own error: nothing is known of the beginning
        return True
    return bool(least < b"0" and most >= b"/")


class PatternSet:
    """Patterns that are looked for all at once: that takes as long as one does."""

    __slots__ = ("_parts",)

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts` compile, each by itself."""
        self._parts = _compiled(texts, 0)

    def matches(self, text: bytes) -> list[int]:
        """Which of the patterns are found in `text`, by their numbers, the lowest first.

        >>> PatternSet(["a", "b$", "^c"]).matches(b"cab")
        [0, 1, 2]
        """
        found: list[int] = []
        for first, match in self._parts:
            found += [first + number for number in match(text)]
        found.sort()
        return found


_Match = Callable[[bytes], list[int]]


def _compiled(texts: Sequence[str], first: int) -> list[tuple[int, _Match]]:
    """Sets of `texts`, which have the numbers from `first` on; more than one where one is too large for its memory.

    A set that has not enough memory to begin finds nothing and does not say so. It is asked for a sentinel: one that
    finds that has enough, as later it only forgets states and makes them again.
    """
    import re2

    made = re2.Set.SearchSet(_options(_MEM_BYTES + _MEM_BYTES_EACH * len(texts)))
    for text in texts:
        made.Add(text.encode())
    sentinel = made.Add(rb"^\x00$")
    match: _Match = made._set.Match  # without a layer that only tells str from bytes
    try:
        made.Compile()
        if sentinel in match(_SENTINEL):
            return [(first, match)]
    except re2.error:
        pass
    if len(texts) == 1:
        pattern = compile_pattern(texts[0])
        return [(first, lambda text: [0] if pattern.search(text) else [])]
    half = len(texts) // 2
    return [*_compiled(texts[:half], first), *_compiled(texts[half:], first + half)]
