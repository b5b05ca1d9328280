"""The text of a file that an operator named.

One rule: whatever the path leads to, the answer comes soon, costs bounded memory, and says what to do.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path

from director.kit.problem import InvalidConfigError, Mark, Problem

LARGEST_BYTES = 8 * 1024 * 1024

_PATIENCE_S = 5.0
"""How long the writer of a pipe may take (`director check <(generate)`)."""


def read_text(path: str | Path) -> str:
    """The text of a configuration file, or of standard input for `-`.

    Blocks for the disk, and for a pipe at most five seconds.

    Raises: InvalidConfigError for a file that is missing, unreadable, too large, or no text.
    """
    place = "/proc/self/fd/0" if str(path) == "-" else path  # not every container has /dev/stdin
    try:
        # Opening a device can do something; a path that changes in between is caught by the second look.
        _refuse_device(path, Path(place).stat())
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb", buffering=0):
            status = os.fstat(descriptor)
            _refuse_device(path, status)
            raw = _read_pipe(path, descriptor) if stat.S_ISFIFO(status.st_mode) else _read_file(descriptor)
    except OSError as error:
        raise _unreadable(path, _ADVICE.get(error.errno or 0, f"cannot be read: {error.strerror}")) from error
    except ValueError as error:
        raise _unreadable(path, "this is not a path: it has a NUL in it") from error
    if len(raw) > LARGEST_BYTES:
        raise _unreadable(path, f"larger than {LARGEST_BYTES >> 20} MiB: this is no configuration")
    return _decode(path, raw)


def _decode(path: str | Path, raw: bytes) -> str:
    text = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start].decode()
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        what = f"byte 0x{text[error.start]:02x} is not UTF-8: this is not a text file; save it as UTF-8 YAML"
        raise InvalidConfigError(str(path), [Problem(mark, what)]) from error


def _refuse_device(path: str | Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _unreadable(path, _ADVICE[errno.EISDIR])
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
        raise _unreadable(path, "this is not a file: give the path of a YAML file")


def _read_file(descriptor: int) -> bytes:
    raw = b""
    while len(raw) <= LARGEST_BYTES and (piece := os.read(descriptor, LARGEST_BYTES + 1 - len(raw))):
        raw += piece
    return raw


def _read_pipe(path: str | Path, descriptor: int) -> bytes:
    """What the writer of a pipe sends until it closes; nothing when there is no writer."""
    raw = b""
    deadline_at = time.monotonic() + _PATIENCE_S
    while len(raw) <= LARGEST_BYTES:
        try:
            piece = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            wait_s = deadline_at - time.monotonic()
            if wait_s <= 0 or not _comes(descriptor, wait_s):
                what = f"this pipe did not end within {_PATIENCE_S:g}s: give the path of a YAML file"
                raise _unreadable(path, what) from None
            continue
        if not piece:
            break
        raw += piece
    return raw


def _comes(descriptor: int, within_s: float) -> bool:
    poll = select.poll()  # a director of many real servers has descriptors that select() does not take
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * within_s))


_ADVICE = {
    errno.ENOENT: "no such file: check the path",
    errno.ENOTDIR: "no such file, a part of its path is no directory: check the path",
    errno.EACCES: "permission denied: run as root, or make the file readable for this user",
    errno.EISDIR: "this is a directory: give the path of a YAML file",
}


def _unreadable(path: str | Path, what: str) -> InvalidConfigError:
    return InvalidConfigError(str(path), [Problem(Mark(1, 1), what)])
