"""Log lines that an outsider can cause.

One rule: at most `most` lines a second, and a count of those left out: nobody outside can fill the disk. What clients
do wrong and what fails behind us have a log each, so that a client's garbage never hides why an answer was a 502.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

log = logging.getLogger("l7proxy")


class FailureLog:
    """Writes lines until the second is full, then counts. `kind` names what is counted."""

    def __init__(self, kind: str = "failures", most: int = 20, now: Callable[[], float] = time.monotonic) -> None:
        self._kind = kind
        self._most = most
        self._now = now
        self._second = 0
        self._written = 0
        self._suppressed = 0

    def write(
        self,
        message: str,
        level: int = logging.WARNING,
        fields: Mapping[str, object] | None = None,
        error: Exception | None = None,
    ) -> None:
        """One line: a constant message and its fields; `error` adds a traceback."""
        self.flush()
        if self._written >= self._most:
            self._suppressed += 1
            return
        self._written += 1
        log.log(level, message, extra=dict(fields or {}), exc_info=error)

    def flush(self) -> None:
        """Begin a new second where one has begun, and say how many lines the last one left out."""
        second = int(self._now())
        if second == self._second:
            return
        self._second, self._written = second, 0
        if self._suppressed:
            log.warning("log lines suppressed", extra={"kind": self._kind, "count": self._suppressed})
            self._suppressed = 0
