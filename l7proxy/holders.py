"""Who listens at an address, as /proc tells.

One rule: it only helps a message: what cannot be read (another user's process) is left out.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from director.kit.net import Endpoint
from l7proxy import commands

_PROC = Path("/proc")
_LISTENS = "0A"


def orphaned_workers(endpoint: Endpoint) -> list[int]:
    """The pids of l7proxy's workers that listen at `endpoint`'s port and whose supervisor is gone."""
    inodes = _listening(endpoint.port)
    if not inodes:
        return []
    return sorted(pid for pid in _pids() if _is_orphan(pid) and inodes & _sockets(pid))


def _listening(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                part = line.split()
                if part[3] == _LISTENS and int(part[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{part[9]}]")
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _is_orphan(pid: int) -> bool:
    if not _is_l7proxy(pid, commands.WORKER):
        return False
    with suppress(OSError, ValueError, IndexError):
        parent = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        return not _is_l7proxy(parent, "run")
    return False


def _is_l7proxy(pid: int, word: str) -> bool:
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return word in words and any(each == "l7proxy" or each.endswith("/l7proxy") for each in words)
    return False


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found
