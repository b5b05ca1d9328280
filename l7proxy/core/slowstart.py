"""A backend that comes back gets its share little by little: its caches are cold.

One rule: what was never away is not slowed down, or a start would be a crawl for all.
"""

from __future__ import annotations

from collections.abc import Mapping

LEAST = 0.1
"""The share of its weight that a backend begins with."""
SCALE = 20
"""Weights are multiplied by this while one of them is less than whole, so that 1 has steps below it."""


def scaled(weights: Mapping[str, int], back_at: Mapping[str, float], slow_s: float, now: float) -> dict[str, int]:
    """Weights as they count now; `back_at` is when each backend that was away came back.

    Where all that are left are on their way back, each has its whole weight: there is nobody to spare them.

    >>> scaled({"a": 1, "b": 2}, {"a": 95.0}, 10.0, 100.0)
    {'a': 10, 'b': 40}
    >>> scaled({"a": 1, "b": 2}, {"a": 80.0}, 10.0, 100.0)
    {'a': 1, 'b': 2}
    """
    shares = {
        name: max(LEAST, (now - back_at[name]) / slow_s) if name in back_at and slow_s > 0 else 1.0 for name in weights
    }
    if all(share >= 1 for share in shares.values()) or all(share < 1 for share in shares.values()):
        return dict(weights)
    return {name: max(1, round(SCALE * weight * min(1.0, shares[name]))) for name, weight in weights.items()}
