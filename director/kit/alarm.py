"""One timer for many points in time.

One rule: it rings at the earliest time that was asked for, or before, and whoever it wakes asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """It does not go off."""


CallAt = Callable[[float, Callable[[], None]], Handle]
"""A loop's `call_at`, on the clock of `time.monotonic`."""


class Alarm:
    """Calls `ring` by way of `call_at`."""

    def __init__(self, call_at: CallAt, ring: Callable[[], None]) -> None:
        self._call_at = call_at
        self._ring = ring
        self._handle: Handle | None = None
        self._at = 0.0

    def by(self, at: float) -> None:
        """Ring at `at` at the latest."""
        if self._handle is not None:
            if self._at <= at:
                return
            self._handle.cancel()
        self._at = at
        self._handle = self._call_at(at, self._go_off)

    def off(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _go_off(self) -> None:
        self._handle = None
        self._ring()
