"""Backends that fail requests are left out for a while, whatever their checks say.

One rule: a backend is left out by the requests of all processes together, for a time that is written down where all of
them see it; and never more of an upstream's backends at one time than its share allows.
"""

from __future__ import annotations

from collections.abc import Iterable

from l7proxy.core.cells import Cell
from l7proxy.core.settings.resilience import Outlier

MOST_TIMES = 10
"""The longest ejection, in times of the first."""


class Ejection:
    """What requests say of one backend. `trouble` holds the failures in a row, and until when it is left out; `history`
    how often it was, and until when that counts."""

    __slots__ = ("_history", "_rule", "_trouble")

    def __init__(self, rule: Outlier, trouble: Cell, history: Cell) -> None:
        self._rule = rule
        self._trouble = trouble
        self._history = history

    def is_out(self, now: float) -> bool:
        """Whether it is left out."""
        return self._trouble.number > now

    @property
    def until(self) -> float:
        """When it was, or is, let in again; 0 if it never was out."""
        return self._trouble.number

    @property
    def failures(self) -> int:
        """How many requests in a row have failed."""
        return self._trouble.value

    def is_failure(self, status: int) -> bool:
        """Whether an answer of the backend is one; 0 is none at all."""
        return status == 0 or status in self._rule.statuses

    def saw(self, failed: bool, now: float, others: Iterable[Ejection]) -> bool:
        """Learn how a request ended; True where the backend is left out from now on. `others` are all backends of its
        upstream, itself among them."""
        trouble = self._trouble
        if not failed:
            if trouble.value:
                trouble.value = 0
            return False
        if trouble.add() < self._rule.failures or trouble.number > now:
            return False
        everyone = list(others)
        most = int(len(everyone) * self._rule.at_most + 1e-9)
        if sum(each.is_out(now) for each in everyone) >= most:
            return False
        history = self._history
        if now > history.number:  # long enough in order: its past is forgotten
            history.value = 0
        times = min(history.add(), MOST_TIMES)
        until = now + times * self._rule.ejection_s
        trouble.value = 0
        trouble.number = until
        history.number = until + MOST_TIMES * self._rule.ejection_s
        return True
