"""Pipes, through which the kernel moves bytes from one socket to another (splice(2)).

One rule: a pipe that is given back is empty. There are at most so many as the process has descriptors for, and whoever
gets none copies.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

PIPE_BYTES = 512 * 1024
"""What one holds, where the system lets it (/proc/sys/fs/pipe-max-size, pipe-user-pages-soft)."""
_LEAST_BYTES = 64 * 1024
"""A smaller one, which is what users get beyond their share, is worse than to copy."""
MOST_SPARE = 16
"""Empty ones that are kept: to make one and to size it takes 10 us."""


@dataclass(frozen=True, slots=True, eq=False)
class Pipe:
    """Its two ends, and how much it holds."""

    outlet: int
    inlet: int
    size_bytes: int


class PipePool:
    """All pipes of this process."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.made = 0
        """How many there are."""
        self._spare: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe, if there is one to be had."""
        if self._spare:
            return self._spare.pop()
        if self.made >= self.most:
            return None
        try:
            outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no descriptor left
            return None
        self.made += 1
        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        made = Pipe(outlet, inlet, fcntl.fcntl(inlet, fcntl.F_GETPIPE_SZ))
        if made.size_bytes < _LEAST_BYTES:
            self._close(made)
            return None
        return made

    def give_back(self, pipe: Pipe, is_empty: bool) -> None:
        """Take a pipe back; one that is not empty is closed."""
        if is_empty and len(self._spare) < MOST_SPARE:
            self._spare.append(pipe)
        else:
            self._close(pipe)

    def clear(self) -> None:
        """Close all that nobody has."""
        while self._spare:
            self._close(self._spare.pop())

    def _close(self, pipe: Pipe) -> None:
        os.close(pipe.outlet)
        os.close(pipe.inlet)
        self.made -= 1
