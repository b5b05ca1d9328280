"""A good document's values in one pass, without their places.

One rule: it gives exactly the values that `yamltree` gives, or nothing at all. Whatever is wrong, unusual or ambiguous
is nothing: `yamltree` reads the text again then, with the place of every key and value, which costs five times as much.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from director.kit import collector, yamlnodes
from director.kit.yamlnodes import MERGE, SCALARS
from director.kit.yamltree import MOST_VALUES, NOT_TEXT, number_of

DEEPEST = 32
"""Half of what `yamltree` takes."""


class _UnusualError(Exception):
    """Something that `yamltree` must see."""


def values(text: str) -> dict[str, object] | None:
    """The document, a mapping; None when it is none, or has anything that `yamltree` should look at."""
    if not yamlnodes.FAST or yamlnodes.READ_DIFFERENTLY.search(text):
        return None
    from yaml._yaml import CParser

    try:
        with collector.paused():
            return _Reader(CParser(text)).document()
    except (yaml.YAMLError, ValueError, _UnusualError):
        return None


class _Reader:
    """Reads a parser's events, one after the other."""

    def __init__(self, parser: Any) -> None:
        self._next = parser.get_event
        self._count = 0
        self._plain: dict[str, object] = {}

    def document(self) -> dict[str, object]:
        for due in (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.MappingStartEvent):
            event = self._next()
            if type(event) is not due:
                raise _UnusualError
        found = self._mapping(event, 0)
        if type(self._next()) is not yaml.DocumentEndEvent or type(self._next()) is not yaml.StreamEndEvent:
            raise _UnusualError
        return found

    def _mapping(self, start: Any, depth: int) -> dict[str, object]:
        self._enter(start, depth)
        found: dict[str, object] = {}
        while True:
            event = self._next()
            if type(event) is yaml.MappingEndEvent:
                return found
            key = self._key(event)
            if key in found:
                raise _UnusualError
            found[key] = self._value(self._next(), depth)

    def _sequence(self, start: Any, depth: int) -> list[object]:
        self._enter(start, depth)
        found: list[object] = []
        while True:
            event = self._next()
            if type(event) is yaml.SequenceEndEvent:
                return found
            found.append(self._value(event, depth))

    def _enter(self, start: Any, depth: int) -> None:
        if start.anchor is not None or start.tag is not None or depth > DEEPEST:
            raise _UnusualError
        self._add()

    def _add(self) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _UnusualError

    def _value(self, event: Any, depth: int) -> object:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            return self._scalar(event)
        if kind is yaml.MappingStartEvent:
            return self._mapping(event, depth + 1)
        if kind is yaml.SequenceStartEvent:
            return self._sequence(event, depth + 1)
        raise _UnusualError

    def _key(self, event: Any) -> str:
        if type(event) is not yaml.ScalarEvent or event.anchor is not None or event.tag is not None:
            raise _UnusualError
        self._add()
        key: str = event.value
        if event.style is None or event.style == "":
            if key == "<<" or "\n" in key:
                raise _UnusualError
        elif NOT_TEXT.search(key) or "\t" in key or "\n" in key:
            raise _UnusualError
        return key

    def _scalar(self, event: Any) -> object:
        if event.anchor is not None or event.tag is not None:
            raise _UnusualError
        self._add()
        text: str = event.value
        if event.style:  # in quotes, or a block
            if NOT_TEXT.search(text):
                raise _UnusualError
            return text
        if text in self._plain:
            return self._plain[text]
        value = _resolved(text)
        if len(self._plain) < MOST_KEPT:
            self._plain[text] = value
        return value


MOST_KEPT = 1000
"""Plain scalars whose values are looked up when they come again, such as `dr` and `100`."""
_BY_FIRST: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
"""What a plain scalar may be besides text, by its first character."""
for _tag, (_pattern, _first) in SCALARS.items():
    for _character in _first if _tag != MERGE else ():
        _BY_FIRST.setdefault(_character, []).append((_tag.rpartition(":")[2], _pattern))


def _resolved(text: str) -> object:
    """A plain scalar's value (yamltree's `_scalar`)."""
    for kind, pattern in _BY_FIRST.get(text[:1], ()):
        if pattern.fullmatch(text):
            if kind == "null":
                return None
            if kind == "bool":
                return text.lower() == "true"
            number = number_of(text)
            if number is None:
                raise _UnusualError
            return number
    return text
