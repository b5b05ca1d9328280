"""The journal of events on disk: JSON lines in `events.jsonl`, and in `events.jsonl.1` and so on the older ones.

One rule: whatever a crash or a full disk left in it, the lines that are whole can be read, and the next ones are whole.
It is not synced to the disk: after a power cut the last seconds may be missing.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from director.core.event import Event, event_from_plain
from director.kit.rights import give_to_owner

NAME = "events.jsonl"
MODE = 0o640
LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for; an empty filter takes all. `since` is a unix time."""

    since: float | None = None
    virtual_server: str = ""
    real_server: str = ""

    def takes(self, event: Event) -> bool:
        """Whether `event` is one of them."""
        return (
            (self.since is None or event.at >= self.since)
            and (not self.virtual_server or event.virtual_server == self.virtual_server)
            and (not self.real_server or event.real_server == self.real_server)
        )


ALL = Filter()


class EventFile:
    """The files, `files` of them with at most `most_bytes` each. Blocks for the disk; one thread at a time writes."""

    def __init__(self, directory: Path, most_bytes: int = 4 * 1024 * 1024, files: int = 4) -> None:
        self.path = directory / NAME
        self._most_bytes = most_bytes
        self._paths = [self.path, *(directory / f"{NAME}.{number}" for number in range(1, files))]

    def append(self, events: Iterable[Event]) -> None:
        """Write `events` down. Raises: OSError, and then some of them may have been written."""
        lines = "".join(f"{json.dumps(event.plain(), separators=(',', ':'))}\n" for event in events).encode()
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if self.path.stat().st_size + len(lines) > self._most_bytes:
                self._rotate()
        # Opened each time: it may have been moved away or deleted meanwhile.
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            give_to_owner(fd, self.path.parent)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":  # torn: what follows has a line of its own
                lines = b"\n" + lines
            left = memoryview(lines)
            while left:
                left = left[os.write(fd, left) :]
        finally:
            os.close(fd)

    def _rotate(self) -> None:
        for older, newer in zip(self._paths[:0:-1], self._paths[-2::-1], strict=True):
            with suppress(FileNotFoundError):
                newer.rename(older)

    def open(self) -> Reading:
        """What is written now, to be read once. Raises: OSError when it may not be read."""
        with ExitStack() as stack:
            found: dict[tuple[int, int], tuple[BinaryIO, int, float]] = {}
            # The newest first: what is rotated meanwhile is met twice rather than missed.
            for path in self._paths:
                with suppress(FileNotFoundError):
                    file = stack.enter_context(path.open("rb"))
                    seen = os.fstat(file.fileno())
                    found.setdefault((seen.st_dev, seen.st_ino), (file, seen.st_size, seen.st_mtime))
            return Reading(list(found.values())[::-1], stack.pop_all())


class Reading:
    """Events as they were written at one moment, oldest first. Blocks for the disk. To be closed."""

    def __init__(self, files: list[tuple[BinaryIO, int, float]], stack: ExitStack) -> None:
        self._files = files
        self.close = stack.close

    def events(self, wanted: Filter = ALL) -> Iterator[Event]:
        """Those that are `wanted`, read as they are asked for; a line that is no event is left out."""
        for file, size, changed_at in self._files:
            if wanted.since is not None and changed_at < wanted.since - 60:  # all of it is older
                continue
            # A name is quoted in a line as in any JSON: lines without it need no parsing.
            marks = [json.dumps(name).encode() for name in (wanted.virtual_server, wanted.real_server) if name]
            left = size
            while left > 0 and (line := file.readline(min(left, LONGEST_LINE))):
                left -= len(line)
                if all(mark in line for mark in marks):
                    event = _event(line)
                    if event is not None and wanted.takes(event):
                        yield event


def read(directory: Path, wanted: Filter = ALL, limit: int | None = None) -> Iterator[Event]:
    """The journal in `directory`, oldest first; with `limit` the last so many. Raises: OSError."""
    with closing(EventFile(directory).open()) as reading:
        events = reading.events(wanted)
        yield from events if limit is None else deque(events, maxlen=limit)


def _event(line: bytes) -> Event | None:
    try:
        plain = json.loads(line)
        return event_from_plain(plain) if isinstance(plain, dict) else None
    except (ValueError, RecursionError):
        return None
