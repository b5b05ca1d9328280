"""The access log: one line for each request, on standard output.

One rule: nobody waits for its reader. Records are collected and made to lines `RECORDS_AT_ONCE` at a time, on the
loop (45 us): a thread that did it would hold the interpreter's lock against the loop for 5 ms at a time. A thread
writes; when `MOST_PENDING_BYTES` wait, further lines are counted and dropped, and a stop gives the last ones
`FLUSH_WITHIN_S`. Nothing of a request can break a line or forge a field (`core/logline.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import time

from l7proxy.core.logline import Formatter, Record, combined, json_lines
from l7proxy.core.model import AccessLogFormat
from l7proxy.core.tcplogline import TcpFormatter, TcpRecord, tcp_combined, tcp_json

log = logging.getLogger("l7proxy")

RECORDS_AT_ONCE = 32
WRITE_EVERY_S = 0.2
REPORT_EVERY_S = 1.0
FLUSH_WITHIN_S = 1.0
MOST_PENDING_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_WHOLE_BYTES = select.PIPE_BUF
_FORMATTERS: dict[AccessLogFormat, Formatter] = {
    AccessLogFormat.COMBINED: combined,
    AccessLogFormat.JSON: json_lines,
    AccessLogFormat.NONE: lambda _records, _wall_s: b"",
}
_TCP_FORMATTERS: dict[AccessLogFormat, TcpFormatter] = {
    AccessLogFormat.COMBINED: tcp_combined,
    AccessLogFormat.JSON: tcp_json,
    AccessLogFormat.NONE: lambda _records, _wall_s: b"",
}


class AccessLog:
    """Collects records; a thread writes their lines in batches.

    With `shared`, other processes write to the same descriptor: what goes out at once is whole lines of at most
    PIPE_BUF bytes, which a pipe keeps together (pipe(7)). A longer line goes out by itself.
    """

    def __init__(
        self, descriptor: int = 1, form: AccessLogFormat = AccessLogFormat.COMBINED, shared: bool = False
    ) -> None:
        self._descriptor = descriptor
        self._shared = shared
        self._records: list[Record] = []
        self._format = _FORMATTERS[form]
        self._forwarded: list[TcpRecord] = []
        self._tcp_format = _TCP_FORMATTERS[form]
        self._lock = threading.Lock()  # held for a few instructions only, never while writing
        self._lines: list[bytes] = []
        self._pending_bytes = 0  # in `_lines`, and in what is being written
        self.dropped = 0
        """Lines that nobody got, since the start."""
        self._told = 0
        self._trouble = ""
        self._said = ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def use(self, form: AccessLogFormat) -> None:
        """Write further records in this form. Where it is NONE, better make none."""
        self.flush()
        self._format = _FORMATTERS[form]
        self._tcp_format = _TCP_FORMATTERS[form]

    def add(self, record: Record) -> None:
        """Take in one record: a list's append, and for one in RECORDS_AT_ONCE the making of lines."""
        records = self._records
        records.append(record)
        if len(records) >= RECORDS_AT_ONCE:
            self.flush()

    def add_tcp(self, record: TcpRecord) -> None:
        """The same of a forwarded connection."""
        records = self._forwarded
        records.append(record)
        if len(records) >= RECORDS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Make lines of what was added."""
        forwarded = self._forwarded
        if forwarded:
            self._forwarded = []
            if self._pending_bytes < MOST_PENDING_BYTES:
                self._hand_over(self._tcp_format(forwarded, time.time() - time.monotonic()), len(forwarded))
            else:
                with self._lock:
                    self.dropped += len(forwarded)
        records = self._records
        if not records:
            return
        self._records = []
        if self._pending_bytes >= MOST_PENDING_BYTES:
            with self._lock:
                self.dropped += len(records)
            return
        self._hand_over(self._format(records, time.time() - time.monotonic()), len(records))

    def _hand_over(self, text: bytes, count: int) -> None:
        with self._lock:
            if self._pending_bytes + len(text) > MOST_PENDING_BYTES:
                self.dropped += count
                return
            self._pending_bytes += len(text)
            self._lines.append(text)
        if self._thread is None:
            # A daemon: the interpreter does not wait for one that a full pipe holds.
            self._thread = threading.Thread(target=self._write_out, name="access log", daemon=True)
            self._thread.start()

    async def run(self) -> None:
        """Let no record wait for others for long, and say what became of lines, until cancelled."""
        reported_at = time.monotonic()
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            self.flush()
            if time.monotonic() - reported_at >= REPORT_EVERY_S:
                reported_at = time.monotonic()
                self._report()

    def close(self) -> None:
        """Write what waits, for at most FLUSH_WITHIN_S, and say what was lost."""
        self.flush()
        self._closing.set()
        if self._thread is not None:
            self._thread.join(FLUSH_WITHIN_S)
        self._report()
        if self._pending_bytes:
            log.warning("access log not written to its end", extra={"bytes_lost": self._pending_bytes})

    def _report(self) -> None:
        with self._lock:
            dropped = self.dropped - self._told
            self._told += dropped
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
        view = memoryview(text)
        done = 0
        while done < len(text):
            try:
                written = os.write(self._descriptor, view[done : self._end_of_piece(text, done)])
                self._trouble = ""
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(1000 * WRITE_EVERY_S)
                continue
            except OSError as error:
                self._trouble = error.strerror or str(error)
                written = len(text) - done
            done += written
            with self._lock:
                self._pending_bytes -= written

    def _end_of_piece(self, text: bytes, start: int) -> int:
        """Where what is written at once ends."""
        if not self._shared:
            return min(start + _PIECE_BYTES, len(text))
        if len(text) - start <= _WHOLE_BYTES:
            return len(text)
        return (text.rfind(b"\n", start, start + _WHOLE_BYTES) + 1) or (text.find(b"\n", start) + 1) or len(text)
