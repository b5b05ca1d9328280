"""The access log: one line for each request, on standard output.

One rule: nothing of a request can break a line or forge a field (`kit.logs.quote`), and a slow reader costs lines,
not requests: when `MOST_PENDING` wait, further ones are counted and dropped.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping

from director.kit.logs import quote
from l7proxy.failurelog import FailureLog

FLUSH_EVERY_S = 0.2
MOST_PENDING = 20_000
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")


class AccessLog:
    """Collects lines and writes them in batches."""

    def __init__(self, failures: FailureLog, descriptor: int = 1) -> None:
        self._failures = failures
        self._descriptor = descriptor
        self._pending: list[str] = []
        self._dropped = 0
        self._second = (0, "")

    def write(self, fields: Mapping[str, object]) -> None:
        """Add a line; a field without a value shows as `-`."""
        if len(self._pending) >= MOST_PENDING:
            self._dropped += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        parts = [f"{name}={_shown(value)}" for name, value in fields.items()]
        self._pending.append(f"{self._second[1]}.{int((now - second) * 1000):03d}Z {' '.join(parts)}\n")

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            if self._pending:
                lines, self._pending = self._pending, []
                await asyncio.to_thread(self._put, lines)  # a full pipe blocks
            if self._dropped:
                self._failures.write("access log lines dropped", fields={"count": self._dropped})
                self._dropped = 0

    def flush(self) -> None:
        """Write what waits, at the end."""
        lines, self._pending = self._pending, []
        self._put(lines)

    def _put(self, lines: list[str]) -> None:
        left = memoryview("".join(lines).encode("utf-8", "backslashreplace"))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self._failures.write("access log cannot be written", fields={"reason": error.strerror or str(error)})


def _shown(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else quote(text)
