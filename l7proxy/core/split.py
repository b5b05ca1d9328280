"""Whose turn it is between the upstreams of one route.

One rule: over any whole cycle of turns each upstream gets exactly its share, spread out; what one of them cannot take
goes to the others by their own shares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from l7proxy.core.balance import RoundRobin, cycle
from l7proxy.core.hashring import HashRing


class Split:
    """Turns by share."""

    def __init__(self, shares: Mapping[str, int]) -> None:
        self.shares = dict(shares)
        self._order = cycle(shares)
        self._turn = -1
        self._long = RoundRobin()
        """Turns where a cycle is too long to be kept."""
        self._instead = RoundRobin()
        """Who takes the turns of those that cannot."""
        self._ring: HashRing | None = None

    def next(self, unusable: Collection[str] = ()) -> str:
        """The upstream whose turn it is; where none is usable, the one whose turn it would be.

        >>> split = Split({"shop": 3, "canary": 1})
        >>> [split.next() for _ in range(4)], [split.next({"canary"}) for _ in range(4)]
        (['shop', 'shop', 'canary', 'shop'], ['shop', 'shop', 'shop', 'shop'])
        """
        name = self._next()
        if name in unusable:
            left = {other: weight for other, weight in self.shares.items() if other not in unusable}
            return self._instead.pick(left) or name
        return name

    def of_key(self, key: bytes, unusable: Collection[str] = ()) -> str:
        """The upstream that `key` belongs to, the same in every process: where backends are chosen by key too, a
        session must not go to and fro."""
        if self._ring is None:
            self._ring = HashRing(self.shares)
        # With a prefix: who has a backend by the same key is not all in one corner of it.
        found = self._ring.pick(b"split " + key, {name: 1 for name in self.shares if name not in unusable})
        return found or self.next(unusable)

    def _next(self) -> str:
        order = self._order
        if order is None:
            return self._long.pick(self.shares) or ""
        self._turn = self._turn + 1 if self._turn + 1 < len(order) else 0
        return order[self._turn]

    def go_on_from(self, before: Split) -> None:
        """Take the turns where `before`, of the same shares, has left them: a reload gives nobody more."""
        if before.shares == self.shares:
            self._turn, self._long, self._instead = before._turn, before._long, before._instead

    def percent(self, unusable: Collection[str] = ()) -> dict[str, float]:
        """What each gets now, in percent.

        >>> Split({"a": 50, "b": 30, "c": 20}).percent({"c"})
        {'a': 62.5, 'b': 37.5, 'c': 0.0}
        """
        return _percent(self.shares, unusable)


def _percent(shares: Mapping[str, int], unusable: Iterable[str]) -> dict[str, float]:
    out = set(unusable)
    whole = sum(weight for name, weight in shares.items() if name not in out)
    if not whole:
        out, whole = set(), sum(shares.values())
    return {name: 0.0 if name in out else round(100 * weight / whole, 2) for name, weight in shares.items()}
