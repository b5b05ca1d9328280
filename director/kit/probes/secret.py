"""Passwords for probes, from files that the operator keeps.

One rule: a password goes from its file into what is sent, and nowhere else: into no value, message or log.
"""

from __future__ import annotations

import stat
from functools import lru_cache
from pathlib import Path

from director.kit.errors import ProbeError

_LONGEST_BYTES = 4096


def secret_of(path: str) -> bytes:
    """The first line of a file, without its end; read again when the file has changed.

    Raises: ProbeError when there is none to be had.
    """
    try:
        known = Path(path).stat()
        if not stat.S_ISREG(known.st_mode):
            raise ProbeError(f"password file {path} is no file: write the password on the first line of one")
        return _read(path, known.st_mtime_ns, known.st_size, known.st_ino)
    except OSError as error:
        raise ProbeError(
            f"password file {path} cannot be read: {error.strerror}: put it there, or write its right path"
        ) from error


@lru_cache(maxsize=64)
def _read(path: str, *_changed: int) -> bytes:
    with Path(path).open("rb") as file:
        line = file.readline(_LONGEST_BYTES).rstrip(b"\r\n")
    if not line or len(line) == _LONGEST_BYTES:
        raise ProbeError(f"password file {path} has no password: write it on the first line")
    return line
