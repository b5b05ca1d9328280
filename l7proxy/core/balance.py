"""Whose turn it is.

One rule: over any run of picks each backend gets its weight's share, and a heavy one is spread out rather than
served in a burst (nginx's smooth weighted round robin).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd

LONGEST_CYCLE = 4096


def cycle(weights: Mapping[str, int]) -> list[str] | None:
    """The picks of a `RoundRobin` until they begin anew; None where that takes more than LONGEST_CYCLE.

    >>> cycle({"a": 3, "b": 1, "c": 0}), cycle({"a": 4, "b": 2})
    (['a', 'a', 'b', 'a'], ['a', 'b', 'a'])
    """
    shares = [weight for weight in weights.values() if weight > 0]
    picks = sum(shares) // gcd(*shares) if shares else 0
    if picks > LONGEST_CYCLE:
        return None
    turns = RoundRobin()
    return [name for _ in range(picks) if (name := turns.pick(weights)) is not None]


class RoundRobin:
    """Turns by weight. The memory is by name, so that it survives a reload and a backend's absence."""

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def pick(self, weights: Mapping[str, int]) -> str | None:
        """The next of `weights` (name to weight); weight 0 takes no part, None when nobody does.

        >>> turns = RoundRobin()
        >>> "".join(turns.pick({"a": 3, "b": 1}) for _ in range(8))
        'aabaaaba'
        """
        total = 0
        best: str | None = None
        best_credit = 0
        credits_ = self._credit
        for name, weight in weights.items():
            if weight <= 0:
                continue
            total += weight
            credit = credits_.get(name, 0) + weight
            credits_[name] = credit
            if best is None or credit > best_credit:
                best, best_credit = name, credit
        if best is not None:
            credits_[best] = best_credit - total
        return best

    def keep(self, names: Iterable[str]) -> None:
        """Forget everyone but `names`."""
        self._credit = {name: self._credit[name] for name in names if name in self._credit}
