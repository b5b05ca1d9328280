"""Tells at once when one of a set of files may have changed (inotify(7)).

One rule: it only hastens. Whoever asks it looks at the files at an interval as well: it is silent about network file
systems, and about what it could not watch.

It watches directories, so that a file that is made, renamed over or removed is noticed, too; and every symbolic link on
the way to it, which may be exchanged.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

log = logging.getLogger(__name__)

GAP_S = 0.05
"""A file that changes all the time is told once in so long a time, at its end."""
RETRY_S = 5.0
"""What could not be watched (no such directory) is tried again after this time."""

_EVENT = struct.Struct("=iIII")
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR = 0x01000000
# Not _MODIFY: a file that is rewritten in place is told when it is closed, and not while it is empty.
_MASK = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)

_Places = dict[str, set[str]]
"""For a path: the directories on the way to it, and the names there that decide which file it is."""
_MOST_LINKS = 40  # MAXSYMLINKS in include/linux/namei.h


class FileWatch:
    """Calls `changed(path)` in the loop's thread, soon after the file at one of `watch`'s paths may have changed.

    `changed` answers whether it has taken it in; if it has not, it is asked again after `GAP_S`. Made and used within a
    running loop; `close` ends it. Bounded by the paths; nothing here blocks the loop.
    """

    def __init__(self, changed: Callable[[str], bool]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._paths: frozenset[str] = frozenset()
        self._places: dict[str, _Places] = {}
        self._numbers: dict[int, set[str]] = {}
        self._held: dict[str, asyncio.TimerHandle] = {}
        self._again: set[str] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._arming = False
        self._arm_again = False
        self._is_closed = False
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            self._lacks(ctypes.get_errno())
        else:
            self._loop.add_reader(self._fd, self._ready)

    def watch(self, paths: Iterable[str]) -> None:
        """Tell of exactly these from now on."""
        wanted = frozenset(paths)
        if wanted != self._paths:
            self._paths = wanted
            for path in self._held.keys() - wanted:
                self._held.pop(path).cancel()
            self._again &= wanted
            self._arm()

    def close(self) -> None:
        """Tell nothing more."""
        if self._is_closed:
            return
        self._is_closed = True
        for handle in (*self._held.values(), *filter(None, [self._retry])):
            handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            if not self._arming:  # otherwise the thread's end closes it: its number must not be another's before
                os.close(self._fd)

    def _arm(self) -> None:
        """Put watches where they belong, in a thread: directories of a file system that is gone hold it up."""
        if self._fd < 0 or self._is_closed:
            return
        if self._arming:
            self._arm_again = True
            return
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._arming, self._arm_again = True, False
        threading.Thread(target=self._work, args=(self._paths,), name="file watches", daemon=True).start()

    def _work(self, paths: frozenset[str]) -> None:
        places = {path: _places_of(path) for path in paths}
        numbers: dict[int, set[str]] = {}
        lacking = 0
        for directory in {directory for each in places.values() for directory in each}:
            number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
            if number >= 0:
                numbers.setdefault(number, set()).add(directory)
            else:
                lacking = ctypes.get_errno()
        try:
            self._loop.call_soon_threadsafe(self._armed, places, numbers, lacking)
        except RuntimeError:  # the loop is closed
            with suppress(OSError):
                os.close(self._fd)

    def _armed(self, places: dict[str, _Places], numbers: dict[int, set[str]], lacking: int) -> None:
        self._arming = False
        if self._is_closed:
            os.close(self._fd)
            return
        for number in self._numbers.keys() - numbers.keys():
            _libc.inotify_rm_watch(self._fd, number)
        before = self._numbers
        new = {each for number, directories in numbers.items() if number not in before for each in directories}
        changed = {path for path, each in places.items() if each != self._places.get(path) or each.keys() & new}
        self._places, self._numbers = places, numbers
        for path in changed & self._paths:
            self._tell(path)  # it may have changed before its watch stood
        if lacking in {errno.ENOSPC, errno.ENOMEM}:
            self._lacks(lacking)
        if self._arm_again:
            self._arm()
        elif lacking and self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._arm)

    def _lacks(self, number: int) -> None:
        log.warning(
            "changes of files are noticed only at their checks' interval",
            extra={
                "reason": os.strerror(number),
                "advice": "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances",
            },
        )

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        changed: set[str] = set()
        stale = False
        position = 0
        while position < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            name = os.fsdecode(data[position - length : position].split(b"\0", 1)[0])
            if mask & _OVERFLOW:
                changed |= self._paths
                continue
            directories = self._numbers.get(number, set())
            stale = stale or bool(mask & _GONE)
            for path, places in self._places.items():
                if any(mask & _GONE or name in places[each] for each in directories & places.keys()):
                    changed.add(path)
                    stale = stale or len(places) > 1 or any(len(names) > 1 for names in places.values())
        for path in changed & self._paths:
            self._tell(path)
        if stale:
            self._arm()

    def _tell(self, path: str) -> None:
        if path in self._held:
            self._again.add(path)
            return
        self._held[path] = self._loop.call_later(GAP_S, self._release, path)
        try:
            if not self._changed(path):
                self._again.add(path)
        except Exception:
            log.exception("a change of a file was not taken in", extra={"path": path})

    def _release(self, path: str) -> None:
        del self._held[path]
        if path in self._again:
            self._again.discard(path)
            self._tell(path)


def _places_of(path: str) -> _Places:
    """Where to look for changes of `path`. Blocks as its file systems do."""
    places: _Places = {}
    left = [part for part in reversed(path.split("/")) if part]
    here, links = "", 0
    while left and links <= _MOST_LINKS:
        part = left.pop()
        if part in {".", ".."}:
            here = here.rpartition("/")[0] if part == ".." else here
            continue
        try:
            target = os.readlink(f"{here}/{part}")  # noqa: PTH115 -- a Path would lose what a link says of itself
        except OSError:  # no link, or nothing there
            target = None
        if target is not None or not left:
            places.setdefault(here or "/", set()).add(part)
        if target is None:
            here = f"{here}/{part}"
            continue
        links += 1
        left += [each for each in reversed(target.split("/")) if each]
        here = "" if target.startswith("/") else here
    return places
