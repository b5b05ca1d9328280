"""One writer per network namespace: a lock that a process holds while it lives.

One rule: the kernel's flock decides who holds it; what the file says about the holder is only for people.
The lock goes with its process, however that ends; the file stays, since removing it would race.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from director.kit.errors import HostError
from director.kit.rights import give_to_owner

DIRECTORY = Path("/run/director")
# `holder()` takes a shared lock for an instant; whoever acquires just then tries again.
ATTEMPTS = 5
ATTEMPT_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has the lock; `pid` is 0 and `purpose` empty while it is still writing them."""

    pid: int
    purpose: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.purpose})" if self.pid else "a process that just started"


class NamespaceLock:
    """The right to change this network namespace's `name` (its IPVS table, its real-server set-up).

    `purpose` is what others are told: the command line. Use it as a context manager, or call
    `acquire` and `release`. A forked child that keeps the descriptor keeps the lock; an exec drops it.
    """

    directory_mode = 0o755

    def __init__(self, purpose: str, *, name: str = "ipvs", directory: Path = DIRECTORY) -> None:
        self.purpose = purpose
        self.path = directory / f"{name}-{namespace_inode()}.lock"
        self._fd: int | None = None

    def __enter__(self) -> NamespaceLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock or fail within 50 ms; taking it twice is a mistake of the caller's.

        Raises: HostError naming the holder, or saying why the file cannot be had.
        """
        if self._fd is not None:
            raise HostError(f"{self.path} is already held by this very process")
        fd = self._open(os.O_RDWR | os.O_CREAT)
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(ATTEMPT_EVERY_S)
            if _flock(fd, fcntl.LOCK_EX):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()} {self.purpose}\n".encode(), 0)
                self._fd = fd
                return
        holder = _parse(os.pread(fd, 4096, 0))
        os.close(fd)
        raise HostError(self._taken(holder, f"stop it (kill {holder.pid})" if holder.pid else "try again"))

    def _taken(self, holder: Holder, stop: str) -> str:
        return (
            f"{holder} already manages this network namespace, and two would undo each other's work: "
            f"{stop}, or ask it through its own commands (lock {self.path})"
        )

    def release(self) -> None:
        """Let go; nothing happens when it is not held."""
        if self._fd is None:
            return
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = None

    def holder(self) -> Holder | None:
        """Who has the lock, without taking it; None when nobody has.

        Raises: HostError when the file exists and cannot be read.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return None if _flock(fd, fcntl.LOCK_SH) else _parse(os.pread(fd, 4096, 0))
        finally:
            os.close(fd)

    def _open(self, flags: int) -> int:
        try:
            self.path.parent.mkdir(mode=self.directory_mode, parents=True, exist_ok=True)
            fd = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            give_to_owner(fd, self.path.parent)
            return fd
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> HostError:
        advice = ": run as root" if error.errno in {errno.EACCES, errno.EPERM} else ""
        return HostError(f"could not open the lock {self.path}: {error.strerror}{advice}")


class StateLock(NamespaceLock):
    """The right to write the state files in `directory`, in whatever network namespace.

    Network namespaces share a file system: without it, the directors of two would write over each other's memory.
    """

    directory_mode = 0o700

    def __init__(self, purpose: str, directory: Path) -> None:
        super().__init__(purpose, directory=directory)
        self.path = directory / "lock"

    def _taken(self, holder: Holder, stop: str) -> str:
        return (
            f"{holder} keeps its state in {self.path.parent}, for another network namespace it seems: "
            f"{stop}, or give this one its own --state-dir (and --socket)"
        )


def namespace_inode() -> int:
    """The inode that names the calling thread's network namespace while it exists."""
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 (no Path: one system call)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(content: bytes) -> Holder:
    pid, _, purpose = content.decode(errors="replace").strip().partition(" ")
    return Holder(int(pid), purpose) if pid.isascii() and pid.isdigit() else Holder(0, "")
