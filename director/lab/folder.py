"""The folder that a lab shares with its kernel, and the search for folders whose owners are gone.

One rule: a folder whose lock can be taken has no owner; its processes are ended and it is removed.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "lvs-lab-"
LOCK = "lock"
SESSION = "session"
UML = "linux.uml"

_ROOM_BYTES = 256 << 20


def make_folder() -> tuple[Path, int]:
    """A new folder, on a memory file system where one has room, and the open file that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_roots()[0]))
        with contextlib.suppress(FileNotFoundError):  # another's sweep may take it before it is locked: make a new one
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / LOCK).exists():
                return folder, lock
            os.close(lock)


def sweep() -> list[Path]:
    """Remove what dead owners of this user left behind; the folders removed."""
    removed = []
    for root in _roots():
        for folder in Path(root).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                found = folder.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and _sweep_one(folder):
                    removed.append(folder)
    return removed


def _sweep_one(folder: Path) -> bool:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _end_recorded_session(folder)
        shutil.rmtree(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def end_session(session: int, grace_s: float = 0.0) -> None:
    """End all processes of a session: SIGTERM and up to `grace_s`, then SIGKILL until none is left, 5 s at most."""
    if grace_s and processes_of(session):
        _signal_all(session, signal.SIGTERM)
        _wait_until_gone(session, grace_s)
    until = time.monotonic() + 5.0
    while processes_of(session) and time.monotonic() < until:
        _signal_all(session, signal.SIGKILL)
        _wait_until_gone(session, 0.2)


def processes_of(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def _roots() -> list[str]:
    roots = [tempfile.gettempdir()]
    with contextlib.suppress(OSError):
        found = os.statvfs("/dev/shm")  # noqa: S108 - mkdtemp makes the name
        if found.f_bavail * found.f_frsize >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC:
            roots.insert(0, "/dev/shm")  # noqa: S108
    return roots


def _end_recorded_session(folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        session = int((folder / SESSION).read_text())
        if any(_is_of_lab(pid, folder) for pid in processes_of(session)):  # numbers are used again
            end_session(session)


def _is_of_lab(pid: int, folder: Path) -> bool:
    """Whether a process belongs to a lab's kernel; the user-mode kernel's helpers have lost their command line."""
    process = Path(f"/proc/{pid}")
    try:
        return os.fsencode(folder) in (process / "cmdline").read_bytes() or (process / "exe").readlink().name == UML
    except OSError:
        return False


def _signal_all(session: int, number: signal.Signals) -> None:
    for pid in processes_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_until_gone(session: int, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while processes_of(session) and time.monotonic() < until:
        time.sleep(0.02)
