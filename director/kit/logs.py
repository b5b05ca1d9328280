"""Log lines for people and for journald: a constant message, then key=value fields.

One rule: fields are passed as `extra=`; a value with spaces or quotes is quoted, so that lines stay parseable.
Nothing that is logged can begin a line of its own or steer a terminal: what follows a line is indented.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import suppress

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO director.monitor server is down vs=web rs=a reason="connection refused"`"""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{when}.{int(record.msecs):03d}Z", record.levelname, record.name, _printable(record.getMessage())]
        parts += [f"{key}={quote(value)}" for key, value in record.__dict__.items() if key not in _STANDARD]
        line = " ".join(parts)
        below = [self.formatException(record.exc_info)] if record.exc_info else []
        below += [self.formatStack(record.stack_info)] if record.stack_info else []
        return "\n  ".join([line, *(_printable(each) for text in below for each in text.split("\n"))])


def quote(value: object) -> str:
    """A field's value: bare where that is unambiguous, else as a JSON string.

    >>> quote("up"), quote("no route"), quote(3)
    ('up', '"no route"', '3')
    """
    text = str(value)
    plain = text.isascii() and text.isprintable() and not any(c in ' "=' for c in text)
    return text if plain and text else json.dumps(text).replace("\x7f", "\\u007f")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class JournalFormatter(FieldFormatter):
    """The same, each line with its level in front, which journald takes off (sd-daemon(3)): for `journalctl -p`."""

    def format(self, record: logging.LogRecord) -> str:
        level = next(number for least, number in _SYSLOG if record.levelno >= least)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).split("\n"))


_SYSLOG = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def is_journal(descriptor: int) -> bool:
    """Whether what is written there goes to journald: $JOURNAL_STREAM of systemd.exec(5)."""
    with suppress(OSError):
        seen = os.fstat(descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{seen.st_dev}:{seen.st_ino}"
    return False


def configure(level: str = "INFO") -> None:
    """Send all logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if is_journal(2) else FieldFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # aiohttp logs what it cannot parse with a traceback that quotes it: outsiders would write our log.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
