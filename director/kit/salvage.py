"""What is left of a document when its wrong parts are cut out, so that the rest can still be looked at.

One rule: nothing is invented. A list that lost entries remembers which, so that places and texts name the
entries of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from director.kit.yamltree import Path, dotted

_GONE = object()


class Remains:
    """A copy of a document that parts are cut out of; paths are always those of the whole document."""

    def __init__(self, data: object) -> None:
        self._data = _copied(data)
        self._kept: dict[Path, list[int]] = {}
        self.lost: set[Path] = set()
        """What was cut out of mappings."""

    def cut(self, path: Path) -> bool:
        """Remove what is at `path`; False when that is the whole document."""
        if not path:
            return False
        data = self._data
        for part in path[:-1]:
            data = _child(data, part)
        last = path[-1]
        if isinstance(data, dict):
            if data.pop(last, _GONE) is not _GONE:
                self.lost.add(path)
        elif isinstance(data, list) and isinstance(last, int) and last < len(data):
            data[last] = _GONE
        return True

    def rename(self, path: Path, right: Path) -> bool:
        """Let the last key of `path` be that of `right`; False when there is one already."""
        data = self._data
        for part in path[:-1]:
            data = _child(data, part)
        if not isinstance(data, dict) or path[-1] not in data or right[-1] in data:
            return False
        data[right[-1]] = data.pop(path[-1])
        return True

    def data(self) -> object:
        """What is left, without gaps."""
        self._kept = {}
        return self._closed_up(self._data, ())

    def path(self, path: Path) -> Path:
        """The path in the whole document of a path in what `data` gave last."""
        whole: list[str | int] = []
        for part in path:
            kept = self._kept.get(tuple(whole))
            whole.append(kept[part] if kept is not None and isinstance(part, int) and part < len(kept) else part)
        return tuple(whole)

    def text(self, text: str) -> str:
        """The same for paths that a message names."""
        for path in self._kept:
            text = re.sub(rf"(?<![\w.-]){re.escape(dotted(path))}\.(\d+)", partial(self._whole_entry, path), text)
        return text

    def _whole_entry(self, path: Path, match: re.Match[str]) -> str:
        return dotted(self.path((*path, int(match[1]))))

    def _closed_up(self, data: object, path: Path) -> object:
        if isinstance(data, dict):
            return {key: self._closed_up(value, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            kept = [index for index, value in enumerate(data) if value is not _GONE]
            if len(kept) < len(data):
                self._kept[path] = kept
            return [self._closed_up(data[index], (*path, index)) for index in kept]
        return data


def _child(data: object, part: str | int) -> object:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None  # gone already


def _copied(data: object) -> object:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data


def is_below(path: Path, ancestors: Iterable[Path]) -> bool:
    """Whether `path` is one of `ancestors`, or below one.

    >>> is_below(("a", 0, "b"), [("a", 0)]), is_below(("a", 1), [("a", 0)])
    (True, False)
    """
    return any(path[: len(ancestor)] == ancestor for ancestor in ancestors)
