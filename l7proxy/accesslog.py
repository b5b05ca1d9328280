"""The access log: one line for each request, on standard output.

One rule: nothing of a request can break a line or forge a field (`kit.logs.quote`), and a slow reader costs lines,
not requests: when `MOST_PENDING` wait, further ones are counted and dropped.
"""

from __future__ import annotations

import asyncio
import os
import time

from director.kit.logs import quote
from l7proxy.failurelog import FailureLog

FLUSH_EVERY_S = 0.2
MOST_PENDING = 20_000


class AccessLog:
    """Collects lines and writes them in batches."""

    def __init__(self, failures: FailureLog, descriptor: int = 1) -> None:
        self._failures = failures
        self._descriptor = descriptor
        self._pending: list[str] = []
        self._dropped = 0

    def write(
        self,
        client: str,
        method: str,
        host: str,
        target: str,
        status: int,
        sent_bytes: int,
        duration_s: float,
        route: str,
        upstream: str,
        backend: str,
    ) -> None:
        """Add a line."""
        if len(self._pending) >= MOST_PENDING:
            self._dropped += 1
            return
        now = time.time()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        self._pending.append(
            f"{when}.{int(now % 1 * 1000):03d}Z client={client} method={quote(method)} host={quote(host)} "
            f"target={quote(target)} status={status} bytes={sent_bytes} ms={duration_s * 1000:.1f} "
            f"route={quote(route)} upstream={upstream or '-'} backend={backend or '-'}\n"
        )

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
