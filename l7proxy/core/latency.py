"""How long a backend takes to its answer's first byte, as far as that is known.

One rule: what was seen counts less the longer ago it was; who has not been seen is taken for an average one.
"""

from __future__ import annotations

from math import exp

DECAY_S = 10.0
"""After so long without being seen again, a time counts for 1/e."""


class Latency:
    """One backend's. Times are in seconds, `now` of any clock that does not go back."""

    __slots__ = ("_at", "_value_s")

    def __init__(self) -> None:
        self._value_s: float | None = None
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """An answer's first byte has come after `seconds`.

        >>> latency = Latency()
        >>> latency.observe(0.1, 0.0); latency.observe(0.3, DECAY_S); round(latency.estimate(DECAY_S, 0.0), 3)
        0.226
        """
        if self._value_s is None:
            self._value_s = seconds
        else:
            old = exp((self._at - now) / DECAY_S) if now > self._at else 1.0
            # Many answers at one time would hardly count: each is given a little.
            self._value_s += (seconds - self._value_s) * max(1.0 - old, 0.01)
        self._at = now

    @property
    def known_s(self) -> float | None:
        """What was seen, without decay; None where nothing was."""
        return self._value_s

    def estimate(self, now: float, average_s: float) -> float:
        """What it will take: what was seen, and with time more and more `average_s`, so that one that was slow once
        is tried again."""
        if self._value_s is None:
            return average_s
        return average_s + (self._value_s - average_s) * exp(min(self._at - now, 0.0) / DECAY_S)

    def forget(self) -> None:
        """It is another one now: it was away."""
        self._value_s = None
