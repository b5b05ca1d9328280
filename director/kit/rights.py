"""Who may do what on this host: what a process lacks, said the same everywhere, and whose a new file is.

One rule: a file that root makes in another user's directory is that user's: a program that runs as that user must be
able to go on with what root has left behind.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

IN_UNIT = "in a systemd unit AmbientCapabilities= and CapabilityBoundingSet="


def with_capability(name: str) -> str:
    """What helps a process that lacks capability `name`.

    >>> with_capability("CAP_NET_RAW")
    'run as root, or with CAP_NET_RAW (in a systemd unit AmbientCapabilities= and CapabilityBoundingSet=)'
    """
    return f"run as root, or with {name} ({IN_UNIT})"


def in_group(path: Path) -> str:
    """What helps a process that may not open `path` or one in the same directory: root, or the group that has it."""
    for each in (path, path.parent):
        with suppress(OSError, KeyError):
            group = each.group()
            return "run as root" if group == "root" else f"run as root, or as a member of group {group}"
    return "run as root"


def give_to_owner(descriptor: int, directory: Path) -> None:
    """Have the file open at `descriptor` belong to whom `directory` belongs to, where this process may say so.

    One with another name stays: it may be a link that they have put there, to a file that is not theirs.
    """
    if os.geteuid() != 0:
        return
    owner, now = directory.stat(), os.fstat(descriptor)
    if now.st_nlink == 1 and (owner.st_uid, owner.st_gid) != (now.st_uid, now.st_gid):
        with suppress(PermissionError):  # root of a container, or of a network file system
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
