"""Which backend a key belongs to: weighted rendezvous hashing, by slots.

One rule: a key moves only if it must. When a backend comes, the keys that it takes are all that move; when one goes,
only its own do; and every process that knows the same names and weights says the same.

Why not a ring, and not Maglev's table: a ring is uneven unless it has hundreds of points for each backend; Maglev's
table moves keys between backends that stay. Rendezvous hashing (Thaler and Ravishankar; with weights: -ln(u)/w, the
smallest wins) is exact in both, and so in weights. What it costs, a look at all backends, is paid once for each slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import ceil, log
from zlib import crc32

SLOT_BITS = 14
SLOTS = 1 << SLOT_BITS
"""Keys share them: with N backends each has SLOTS/N, within some percent of it."""
MOST_ORDERS = 1024
_ALL = (1 << 64) - 1

Busy = Callable[[str], int]
"""How many requests a backend is answering, by its name."""


def slot_of(key: bytes) -> int:
    """The slot of `key`: the same everywhere."""
    return ((crc32(key) * 0x9E3779B97F4A7C15) & _ALL) >> (64 - SLOT_BITS)


class HashRing:
    """The backends of `weights` (name to weight; 0 takes no part), in an order for each slot."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._seeds = [
            (name, int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big"), weight)
            for name, weight in weights.items()
            if weight > 0
        ]
        self._total = sum(weight for _, _, weight in self._seeds)
        self._owners: list[str | None] = [None] * SLOTS
        self._orders: dict[int, tuple[str, ...]] = {}

    def pick(self, key: bytes, among: Mapping[str, int], busy: Busy | None = None, bounded: float = 0.0) -> str | None:
        """Whose `key` is, of those in `among`; None where that is nobody.

        With `busy`, one that is at work on `bounded` times its share of all that is in flight, this request counted,
        passes it on to the next in the slot's order (Mirrokni, Thorup, Zadimoghaddam; HAProxy's hash-balance-factor).

        >>> ring = HashRing({"a": 1, "b": 1, "c": 1})
        >>> ring.pick(b"ann", {"a": 1, "b": 1, "c": 1}) == ring.pick(b"ann", {"a": 1, "b": 1, "c": 1})
        True
        """
        slot = slot_of(key)
        owner = self._owners[slot]
        if owner is None:
            if not self._seeds:
                return None
            owner = self._owners[slot] = min(self._seeds, key=lambda each: _distance(each[1], slot) / each[2])[0]
        if busy is None:
            if owner in among:
                return owner
            return next((name for name in self._order(slot) if name in among), None)
        share = bounded * (sum(busy(name) for name, _, _ in self._seeds) + 1) / self._total
        first: str | None = None
        for name in (owner, *self._order(slot)) if owner in among else self._order(slot):
            if name in among:
                if busy(name) < ceil(share * among[name]):
                    return name
                first = first or name
        return first

    def _order(self, slot: int) -> tuple[str, ...]:
        """All of them, the slot's owner first."""
        found = self._orders.get(slot)
        if found is None:
            if len(self._orders) >= MOST_ORDERS:
                self._orders.clear()
            order = sorted(self._seeds, key=lambda each: _distance(each[1], slot) / each[2])
            found = self._orders[slot] = tuple(name for name, _, _ in order)
        return found


def _distance(seed: int, slot: int) -> float:
    """How far a backend is from a slot: exponentially distributed (splitmix64 for the uniform part)."""
    x = (seed + (slot + 1) * 0x9E3779B97F4A7C15) & _ALL
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _ALL
    x ^= x >> 31
    return -log(((x >> 11) + 0.5) / (1 << 53))
