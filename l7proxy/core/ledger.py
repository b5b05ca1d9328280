"""Who has which place on the board: rows for names of the configuration, slots for processes.

One rule: a place is given again only when nobody can still write to it for the former one: a slot when its process
has ended, a row when all processes have ended that knew its name, or have had long enough to forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

FORGOTTEN_AFTER_S = 600.0
"""A row that no configuration names is used again after this time at the soonest, while workers stay that knew it."""


class NoPlaceError(Exception):
    """All places are taken."""


class Ledger:
    """Kept by the one process that looks after all others, or is the only one."""

    def __init__(self, rows: int, slots: int, known: dict[str, int] | None = None) -> None:
        self._most_rows = rows
        self._most_slots = slots
        self.rows: dict[str, int] = dict(known or {})
        self._next_row = max(self.rows.values(), default=-1) + 1
        self._left: dict[str, tuple[float, int]] = {}
        """Names that no configuration has: since when, and who was the youngest process then."""
        self._born: dict[int, int] = {}
        self._last_born = 0

    @property
    def slots(self) -> list[int]:
        """Those that are taken."""
        return sorted(self._born)

    def seat(self, slot: int | None = None) -> int:
        """A slot for a new process, or for one that has `slot` already.

        Raises: NoPlaceError.
        """
        if slot is None:
            slot = next((each for each in range(self._most_slots) if each not in self._born), None)
        if slot is None or not 0 <= slot < self._most_slots:
            raise NoPlaceError(f"{self._most_slots} workers are there already")
        self._last_born += 1
        self._born[slot] = self._last_born
        return slot

    def leave(self, slot: int) -> None:
        """The process of `slot` has ended."""
        self._born.pop(slot, None)

    def give(self, names: Iterable[str], now: float, is_quiet: Callable[[int], bool]) -> dict[str, int]:
        """The rows of `names`. One that another name has had is `is_quiet` before: nothing is counted there.

        Raises: NoPlaceError.
        """
        return {name: self._row(name, now, is_quiet) for name in names}

    def keep(self, names: Iterable[str], now: float) -> None:
        """From now on no configuration has other names than these."""
        wanted = set(names)
        for name in self.rows:
            if name in wanted:
                self._left.pop(name, None)
            else:
                self._left.setdefault(name, (now, self._last_born))

    def _row(self, name: str, now: float, is_quiet: Callable[[int], bool]) -> int:
        row = self.rows.get(name)
        if row is None:
            if self._next_row < self._most_rows:
                row, self._next_row = self._next_row, self._next_row + 1
            else:
                row = self._again(now, is_quiet)
            self.rows[name] = row
        self._left.pop(name, None)
        return row

    def _again(self, now: float, is_quiet: Callable[[int], bool]) -> int:
        oldest = min(self._born.values(), default=self._last_born + 1)
        for name, (since, youngest) in self._left.items():
            if (oldest > youngest or now - since >= FORGOTTEN_AFTER_S) and is_quiet(self.rows[name]):
                del self._left[name]
                return self.rows.pop(name)
        raise NoPlaceError(
            f"there is room for {self._most_rows} limits of backends, routes and upstreams: remove some, or restart"
        )
