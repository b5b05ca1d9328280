"""Numbers that processes share, as the rules that use them see them.

One rule: whoever reads a cell may find it changed the next moment; what is decided from it must stand that.
"""

from __future__ import annotations

from typing import Protocol


class Cell(Protocol):
    """A whole number of 63 bits, and one with a fraction."""

    value: int
    number: float

    def add(self, change: int = 1) -> int:
        """Add to the whole number; what it is then."""
        ...

    def swap(self, before: int, after: int) -> bool:
        """Write `after` to the whole number if it is `before`; whether it was."""
        ...


class LocalCell:
    """One that nobody shares."""

    def __init__(self) -> None:
        self.value = 0
        self.number = 0.0

    def add(self, change: int = 1) -> int:
        self.value += change
        return self.value

    def swap(self, before: int, after: int) -> bool:
        if self.value != before:
            return False
        self.value = after
        return True
