"""The groups of a route's path, by name.

One rule: they are taken from the path in normal form, which is what the route has matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from director.kit.pattern import Match, Pattern, compile_pattern

if TYPE_CHECKING:  # the model is made of what takes groups from here
    from l7proxy.core.model import PathPattern

_NONE: Mapping[str, bytes | None] = {}


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Pattern:
    return compile_pattern(text)


def captures_of(path: PathPattern, text: str) -> Mapping[str, bytes | None]:
    """What the groups of `path` are in `text`, which it matches; None for one that took no part.

    >>> from l7proxy.core.model import PathKind, PathPattern
    >>> captures_of(PathPattern(PathKind.REGEX, "^/v1/(?P<rest>.*)$"), "/v1/x")
    {'rest': b'x'}
    """
    if path.kind.value != "regex":
        return _NONE
    match = _compiled(path.text).search(text.encode())
    return named(match) if match is not None else _NONE


def named(match: Match) -> dict[str, bytes | None]:
    """The groups of a match, by name."""
    return {name.decode(): value for name, value in match.groupdict().items()}


def path_groups(text: str) -> tuple[str, ...] | None:
    """The groups of `match.path` as it is written; None where it is a regular expression that cannot be read.

    >>> path_groups("~ ^/(?P<a>x)"), path_groups("/a"), path_groups("~ (")
    (('a',), (), None)
    """
    if not text.startswith("~"):
        return ()
    try:
        return groups_of(text[1:].strip())
    except ValueError:
        return None


def groups_of(pattern: str) -> tuple[str, ...]:
    """The names of the groups of a regular expression. Raises: ValueError.

    >>> groups_of("^/(?P<a>x)(y)(?P<b>z)")
    ('a', 'b')
    """
    return tuple(name.decode() for name in compile_pattern(pattern).groupindex)
