"""The one thread that touches the kernel and the disk for the event loop.

One rule: one act at a time, and anybody can see how long the present one has lasted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

Answer = TypeVar("Answer")


class Worker:
    """One thread: what a cancelled task began goes on in it, and must not meet the next."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._thread = ThreadPoolExecutor(1, "kernel")
        self._began_at: float | None = None  # written by the thread, read by the loop

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """Wait for what was begun, and take nothing more."""
        self._thread.shutdown()

    @property
    def busy_s(self) -> float:
        """How long the present act has lasted; 0 when there is none."""
        began_at = self._began_at
        return 0.0 if began_at is None else self._now() - began_at

    async def run(self, act: Callable[[], Answer]) -> Answer:
        """`act` in the thread, after those that came before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._act, act)

    def _act(self, act: Callable[[], Answer]) -> Answer:
        self._began_at = self._now()
        try:
            return act()
        finally:
            self._began_at = None
