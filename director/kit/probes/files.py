"""Checks that a file decides, probed again as soon as their file changes.

One rule: a probe that began before the change says nothing of it, so another one follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from director.kit.checks.check import Check
from director.kit.filewatch import FileWatch
from director.kit.probes.file import path_of


class CheckedFiles:
    """Calls `probe(check)` when the check's file may have changed, and again soon if that answers False.

    Made and used within a running loop; `close` ends it. Costs nothing where no check has a file.
    """

    def __init__(self, probe: Callable[[Check], bool]) -> None:
        self._probe = probe
        self._checks: dict[str, list[Check]] = {}
        self._watch: FileWatch | None = None

    def watch(self, checks: Iterable[Check]) -> None:
        """Watch the files of exactly these checks from now on."""
        found: dict[str, list[Check]] = {}
        for check in checks:
            path = path_of(check)
            if path is not None:
                found.setdefault(path, []).append(check)
        self._checks = found
        if self._watch is None and found:
            self._watch = FileWatch(self._changed)
        if self._watch is not None:
            self._watch.watch(found)

    def close(self) -> None:
        """Watch nothing more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _changed(self, path: str) -> bool:
        taken = [self._probe(check) for check in self._checks.get(path, ())]
        return all(taken)
