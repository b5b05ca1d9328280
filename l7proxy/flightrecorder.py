"""The last exchanges that went wrong.

One rule: it is bounded, in number and in bytes. What is our or our backends' failure and what clients did wrong have a
ring each, so that a client's garbage never pushes out why an answer was a 502.
"""

from __future__ import annotations

import os
import time
from collections import deque

from l7proxy.core.flight import Flight, Told, told

MOST = 200
MOST_BYTES = 512 * 1024
_THEIRS = {501, 505}
"""What clients do wrong, of all that is 500 and above."""


class Ring:
    """The last flights of one kind, each with its number."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.flights: deque[tuple[int, Flight]] = deque()

    def add(self, number: int, flight: Flight) -> None:
        """Keep it, and let go of the oldest as far as there is no room."""
        self._bytes += flight.size_bytes
        self.flights.append((number, flight))
        while len(self.flights) > self._most or (self._bytes > self._most_bytes and len(self.flights) > 1):
            self._bytes -= self.flights.popleft()[1].size_bytes


class FlightRecorder:
    """What one process remembers."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._ours = Ring(most, most_bytes)
        self._theirs = Ring(most // 2, most_bytes // 2)
        self._last = 0
        self._told: dict[int, Told] = {}
        """What was made to be told last: who asks again and again pays for what is new."""

    def add(self, flight: Flight) -> None:
        """Keep it."""
        self._last += 1
        (self._ours if flight.status >= 500 and flight.status not in _THEIRS else self._theirs).add(self._last, flight)

    def told(self, most: int) -> list[Told]:
        """The last `most`, oldest first, without secrets."""
        both = sorted([*self._ours.flights, *self._theirs.flights], key=lambda each: each[0])
        wall_s = time.time() - time.monotonic()
        pid = os.getpid()
        asked = both[-most:] if most > 0 else []
        before = self._told
        self._told = {
            number: before[number] if number in before else told(flight, number, pid, wall_s)
            for number, flight in asked
        }
        return list(self._told.values())
