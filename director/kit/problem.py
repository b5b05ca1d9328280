"""What is wrong in a file, and where.

One rule: a problem has a place that an editor can jump to, and its line cannot steer a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from director.kit.errors import ConfigError


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    mark: Mark
    message: str


class InvalidConfigError(ConfigError):
    """A configuration that must not be used. `problems` is never empty; the text has one line for each."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """`file:line:column: what, where, what to do`, in the file's order."""
        return [_printable(f"{self.source}:{p.mark.line}:{p.mark.column}: {p.message}") for p in self.problems]


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
