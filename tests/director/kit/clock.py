"""Virtual time for what runs by timers."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """One call that is to come."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring: Callable[[], None] | None = ring

    def cancel(self) -> None:
        self.ring = None


class Clock:
    """A clock that moves only when told. `call_at` is a loop's, `sleep` is asyncio's."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = count()

    def now(self) -> float:
        return self.now_s

    def call_at(self, at: float, ring: Callable[[], None]) -> Timer:
        timer = Timer(ring)
        heapq.heappush(self._timers, (at, next(self._count), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.call_at(self.now_s + seconds, woken.set)
        await woken.wait()

    async def go(self, seconds: float) -> None:
        """Let `seconds` pass, and everybody do what is due then."""
        until = self.now_s + seconds
        await settle()
        while self._timers and self._timers[0][0] <= until:
            at, _, timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, at)
            if timer.ring is not None:
                timer.ring()
                await settle()
        self.now_s = until
        await settle()

    def jump(self, seconds: float) -> None:
        """Time passes while nothing can run, as when a machine sleeps."""
        self.now_s += seconds


async def settle() -> None:
    """Let every task do what it can do without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
