"""The access log: one line for each request, on standard output.

One rule: nobody waits for its reader. A thread writes; when `MOST_PENDING_BYTES` wait, further lines are counted and
dropped, and a stop gives the last ones `FLUSH_WITHIN_S`. Nothing of a request can break a line or forge a field
(`kit.logs.quote`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import threading
import time
from collections.abc import Mapping

from director.kit.logs import quote

log = logging.getLogger("l7proxy")

WRITE_EVERY_S = 0.2
REPORT_EVERY_S = 1.0
FLUSH_WITHIN_S = 1.0
MOST_PENDING_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")


class AccessLog:
    """Collects lines; a thread writes them in batches."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()  # held for a few instructions only, never while writing
        self._lines: list[bytes] = []
        self._pending_bytes = 0  # in `_lines`, and in what is being written
        self._dropped = 0
        self._trouble = ""
        self._said = ""
        self._second = (0, "")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, fields: Mapping[str, object]) -> None:
        """Add a line; a field without a value shows as `-`."""
        now = time.time()
        second = int(now)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        parts = [f"{name}={_shown(value)}" for name, value in fields.items()]
        line = f"{self._second[1]}.{int((now - second) * 1000):03d}Z {' '.join(parts)}\n".encode(
            errors="backslashreplace"
        )
        with self._lock:
            if self._pending_bytes + len(line) > MOST_PENDING_BYTES:
                self._dropped += 1
                return
            self._pending_bytes += len(line)
            self._lines.append(line)
        if self._thread is None:
            # A daemon: the interpreter does not wait for one that a full pipe holds.
            self._thread = threading.Thread(target=self._write_out, name="access log", daemon=True)
            self._thread.start()

    async def run(self) -> None:
        """Say what became of lines, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report()

    def close(self) -> None:
        """Write what waits, for at most FLUSH_WITHIN_S, and say what was lost."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(FLUSH_WITHIN_S)
        self._report()
        if self._pending_bytes:
            log.warning("access log not written to its end", extra={"bytes_lost": self._pending_bytes})

    def _report(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("access log lines dropped: its reader is too slow", extra={"count": dropped})
        if self._trouble != self._said:
            self._said = self._trouble
            if self._said:
                log.error("access log cannot be written", extra={"reason": self._said})
            else:
                log.info("access log is written again")

    def _write_out(self) -> None:
        """What the thread does."""
        closing = False
        while not closing:
            closing = self._closing.wait(WRITE_EVERY_S)
            with self._lock:
                lines, self._lines = self._lines, []
            if lines:
                self._put(b"".join(lines))

    def _put(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            try:
                written = os.write(self._descriptor, left[:_PIECE_BYTES])
                self._trouble = ""
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(1000 * WRITE_EVERY_S)
                continue
            except OSError as error:
                self._trouble = error.strerror or str(error)
                written = len(left)
            left = left[written:]
            with self._lock:
                self._pending_bytes -= written


def _shown(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else quote(text)
