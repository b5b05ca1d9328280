"""Learns from the kernel (rtnetlink) that an address or a link of this network namespace has changed.

One rule: it tells that something changed, never what: whoever is woken looks for itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from director.kit.errors import HostError

# linux/rtnetlink.h
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
_AT_ONCE = 1000
GATHER_S = 0.1


class Changes(Protocol):
    """Readable when something has changed; `drain` takes that in and never waits."""

    def fileno(self) -> int: ...
    def drain(self) -> None: ...


@contextmanager
def woken_by(changes: Changes, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in the running loop after each of `changes`, for those of `GATHER_S` once."""
    loop = asyncio.get_running_loop()
    pending: asyncio.TimerHandle | None = None

    def ring() -> None:
        nonlocal pending
        pending = None
        wake()

    def changed() -> None:
        nonlocal pending
        changes.drain()
        pending = pending or loop.call_later(GATHER_S, ring)

    loop.add_reader(changes.fileno(), changed)
    try:
        yield
    finally:
        loop.remove_reader(changes.fileno())
        if pending is not None:
            pending.cancel()


class HostChanges:
    """A socket that becomes readable when an address or a link changes. Raises: HostError when there is none."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
        except OSError as error:
            raise HostError(f"no rtnetlink socket to watch addresses with: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Take in what has been told, so that the next change makes the socket readable again. Never waits."""
        for _ in range(_AT_ONCE):
            try:
                self._socket.recv(1)  # the rest of each message is dropped (netlink_recvmsg, MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost, and to look anew is all that is done anyway
                continue
