"""Whether a program that the operator names may be run: it is there, it can be executed, and nobody can exchange it.

One rule: what root starts is root's alone to write, the file and every directory and link on the way to it
(keepalived: `enable_script_security`).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

NOBODY = "nobody"
_MOST_LINKS = 40  # MAXSYMLINKS in include/linux/namei.h
_ACL = "system.posix_acl_access"


def command_problems(command: Sequence[str], user: str | None = None) -> str | None:
    """Why `command` cannot be run as `user` (None: nobody; if this process is not root: as itself), in a sentence.

    Looks at the file system and at the users of this host, and may block as these do.
    """
    if not command:
        return "the command is empty: write a list, the program's absolute path first"
    program = command[0]
    if not program.startswith("/"):
        return f"{program!r} is not an absolute path: write the program's whole path, such as /usr/local/bin/notify"
    if any("\0" in word for word in command):
        return f"{program!r} or one of its arguments has a zero byte: remove it"
    is_root = os.geteuid() == 0
    who: pwd.struct_passwd | None = None
    if is_root:
        try:
            who = pwd.getpwnam(user or NOBODY)
        except KeyError:
            return f"there is no user {user or NOBODY!r} on this host: create it, or name another as `user`"
    try:
        found = Path(program).stat()
        steps = list(_way(program))
    except OSError as error:
        return f"{program} cannot be run: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{program} is not a file: name a program"
    if who is None:
        return None if os.access(program, os.X_OK) else f"{program} is not executable: chmod +x it"
    if not found.st_mode & 0o111:
        return f"{program} is not executable: chmod +x it"
    for path, seen in steps:
        if reason := _writable(seen):
            return f"{path} {reason}, and {program} is started by root: make it root's (chown root, chmod go-w)"
    for path, seen in steps:
        if not stat.S_ISLNK(seen.st_mode) and not _may_execute(path, seen, who):
            what = "enter" if stat.S_ISDIR(seen.st_mode) else "execute"
            return f"user {who.pw_name} may not {what} {path}: chmod it, or name another as `user`"
    return None


def _way(program: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every directory, link and file that the kernel looks at on its way to `program`."""
    yield "/", Path("/").stat()
    left = [part for part in reversed(program.split("/")) if part]
    here, links = "", 0
    while left:
        part = left.pop()
        if part == ".":
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        path = f"{here}/{part}"
        seen = Path(path).lstat()
        yield path, seen
        if not stat.S_ISLNK(seen.st_mode):
            here = path
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        target = str(Path(path).readlink())
        left += [each for each in reversed(target.split("/")) if each]
        if target.startswith("/"):
            here = ""


def _writable(seen: os.stat_result) -> str:
    """How somebody other than root can change this; empty if nobody can."""
    if seen.st_uid != 0:
        return f"belongs to {_name(seen.st_uid)}"
    if stat.S_ISLNK(seen.st_mode):  # a link has no mode of its own
        return ""
    if stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX:  # nobody can rename what is another's
        return ""
    if seen.st_mode & stat.S_IWOTH:
        return "is writable by everybody"
    if seen.st_mode & stat.S_IWGRP and seen.st_gid != 0:
        return "is writable by its group"
    return ""


def _may_execute(path: str, seen: os.stat_result, who: pwd.struct_passwd) -> bool:
    if who.pw_uid == 0:
        return True
    if seen.st_uid == who.pw_uid:
        bit = stat.S_IXUSR
    elif seen.st_gid == who.pw_gid:
        bit = stat.S_IXGRP
    else:
        bit = stat.S_IXOTH
    return bool(seen.st_mode & bit) or _has_acl(path)


def _has_acl(path: str) -> bool:
    """Whether more than the mode decides."""
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:
        return False


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
