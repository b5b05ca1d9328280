"""Log lines for people and for journald: a constant message, then key=value fields.

One rule: fields are passed as `extra=`; a value with spaces or quotes is quoted, so that lines stay parseable.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO director.monitor server is down vs=web rs=a reason="connection refused"`"""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{when}.{int(record.msecs):03d}Z", record.levelname, record.name, record.getMessage()]
        parts += [f"{key}={quote(value)}" for key, value in record.__dict__.items() if key not in _STANDARD]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def quote(value: object) -> str:
    """A field's value: bare where that is unambiguous, else as a JSON string.

    >>> quote("up"), quote("no route"), quote(3)
    ('up', '"no route"', '3')
    """
    text = str(value)
    plain = text.isascii() and text.isprintable() and not any(c in ' "=' for c in text)
    return text if plain and text else json.dumps(text)


def configure(level: str = "INFO") -> None:
    """Send all logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
