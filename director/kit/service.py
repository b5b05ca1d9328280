"""What a service manager is told, and what it hands over: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

One rule: without a service manager all of it does nothing, and nothing that fails here ends the program.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START of sd-daemon.h."""
LONGEST_STATUS = 500


@dataclass(frozen=True, slots=True)
class Handed:
    """A socket that the service manager has bound: its descriptor, and what `FileDescriptorName=` calls it."""

    descriptor: int
    name: str


class ServiceManager:
    """Who has started this process, as its environment says. The variables are taken: no child is to speak for it.

    `watchdog_s` is how often it wants to hear that all is well, at the latest; None for never.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        taken = _take(environment)
        self._address = taken.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(taken)
        self.handed = _handed(taken)
        self._taken = taken
        self._untold: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether anybody listens to what is told."""
        return bool(self._address)

    @property
    def variables(self) -> dict[str, str]:
        """What a program that follows in this very process (execve(2): the pid stays) is to find in its environment, so
        that it is told and handed the same. It must find the descriptors of `handed` open, too."""
        own = self._taken if self.handed else {each: self._taken[each] for each in self._taken if each[:7] != "LISTEN_"}
        return dict(own)

    def ready(self, status: str = "") -> bool:
        """It serves. Whether this was told, as for all below: where not, a state goes with whatever is told next."""
        return self._tell_state("READY=1", _status(status))

    def reloading(self, status: str = "") -> bool:
        """It reads its configuration again; `ready` must follow, however that ends."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._tell_state("RELOADING=1", f"MONOTONIC_USEC={now_us}", _status(status))

    def stopping(self, status: str = "") -> bool:
        """It ends."""
        return self._tell_state("STOPPING=1", _status(status))

    def status(self, status: str) -> bool:
        """What `systemctl status` shows: one line."""
        return self._tell(_status(status))

    def alive(self) -> bool:
        """It works: call this every half of `watchdog_s`, and only while that is so."""
        return self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> bool:
        """Starting or stopping takes so much longer."""
        return self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def main_pid(self, pid: int) -> bool:
        """The process to watch."""
        return self._tell(f"MAINPID={pid}")

    def _tell_state(self, *lines: str) -> bool:
        self._untold = lines  # of a state that changes nobody else reminds the manager
        return self._tell()

    def _tell(self, *lines: str) -> bool:
        """At once or not at all: the queue may be full. A manager ends a service whose READY=1 it never hears."""
        if not self._address:
            return False
        path = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        text = "\n".join(line for line in (*self._untold, *lines) if line)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            peer.setblocking(False)
            peer.connect(path)
            peer.send(text.encode())
            self._untold = ()
            return True
        return False


def _take(environment: dict[str, str] | None) -> dict[str, str]:
    source = os.environ if environment is None else environment
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    return {name: source.pop(name) for name in names if name in source}


def _watchdog_s(taken: dict[str, str]) -> float | None:
    if taken.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    said = taken.get("WATCHDOG_USEC", "")
    return int(said) / 1e6 if said.isdecimal() and int(said) else None


def _handed(taken: dict[str, str]) -> tuple[Handed, ...]:
    if taken.get("LISTEN_PID") != str(os.getpid()) or not taken.get("LISTEN_FDS", "").isdecimal():
        return ()
    names = taken.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(min(int(taken["LISTEN_FDS"]), 1024)):
        descriptor = FIRST_DESCRIPTOR + index
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
            found.append(Handed(descriptor, names[index] if index < len(names) else "unknown"))
    return tuple(found)


def _status(text: str) -> str:
    # A file's name may be no UTF-8; and a manager drops all of a message that has a NUL in it.
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split())[:LONGEST_STATUS])
    return f"STATUS={line}" if line else ""
