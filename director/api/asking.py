"""Who asks for what is being done: told beside what was done, in logs and events."""

from __future__ import annotations

import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who has no server need not import it
    from aiohttp import web

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)
_ASKED_BY: ContextVar[str] = ContextVar("asked_by", default="")


def asked_by() -> str:
    """Who asked for what this task does, such as `uid 0, pid 4711`; empty where it was nobody's request.

    >>> asked_by()
    ''
    """
    return _ASKED_BY.get()


def ask_as(who: str) -> None:
    """Name `who` as the one that this task, and those it starts from now on, work for."""
    _ASKED_BY.set(who)


def ask_as_peer(request: web.Request) -> None:
    """Name the process that is at the other end of a Unix socket."""
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is not None and peer.family == socket.AF_UNIX:
        pid, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        ask_as(f"uid {uid}, pid {pid}")
