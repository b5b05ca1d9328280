"""Whose turn it is.

One rule: over any run of picks each backend gets its weight's share, and a heavy one is spread out rather than
served in a burst (nginx's smooth weighted round robin). Where what backends are doing decides, that share is of what
is in flight, and those that are alike take turns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
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


def least(weights: Mapping[str, int], cost: Callable[[str], float], turns: RoundRobin) -> str | None:
    """The one of `weights` whose `cost` is the least for its weight; those that are alike take turns by weight.

    >>> least({"a": 1, "b": 2, "c": 0}, {"a": 2, "b": 3, "c": 0}.__getitem__, RoundRobin())
    'b'
    """
    lowest = -1.0
    alike: dict[str, int] = {}
    for name, weight in weights.items():
        if weight <= 0:
            continue
        value = cost(name) / weight
        if lowest < 0 or value < lowest:
            lowest = value
            alike = {name: weight}
        elif value == lowest:
            alike[name] = weight
    if len(alike) == 1:
        return next(iter(alike))
    return turns.pick(alike)


class Lots:
    """Drawn at random, by weight (name to weight; 0 takes no part)."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._names = [name for name, weight in weights.items() if weight > 0]
        self._bounds = list(accumulate(weight for weight in weights.values() if weight > 0))

    def draw(self, random: Callable[[], float]) -> str | None:
        """One of them; `random` is from 0 up to 1.

        >>> lots = Lots({"a": 3, "b": 1})
        >>> lots.draw(lambda: 0.74), lots.draw(lambda: 0.75)
        ('a', 'b')
        """
        if len(self._names) < 2:
            return self._names[0] if self._names else None
        return self._names[bisect_right(self._bounds, random() * self._bounds[-1], hi=len(self._names) - 1)]

    def draw_two(self, random: Callable[[], float]) -> tuple[str, str] | None:
        """Two different ones; None where there are not two."""
        names, bounds = self._names, self._bounds
        if len(names) < 2:
            return None
        at = bisect_right(bounds, random() * bounds[-1], hi=len(names) - 1)
        start = bounds[at - 1] if at else 0
        weight = bounds[at] - start
        # The second one is drawn as if the first one were not there.
        mark = random() * (bounds[-1] - weight)
        if mark >= start:
            mark += weight
        other = bisect_right(bounds, mark, hi=len(names) - 1)
        if other == at:  # floats round
            other = at - 1 if at else 1
        return names[at], names[other]


def better(one: str, other: str, weights: Mapping[str, int], cost: Callable[[str], float]) -> str:
    """Of two, the one that has less for its weight; the first one where they are alike."""
    return other if cost(other) * weights[one] < cost(one) * weights[other] else one
