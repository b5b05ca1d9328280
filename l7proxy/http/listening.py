"""Sockets to listen at.

One rule: an address that cannot be bound says which, why, and what to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Mapping

from director.kit.errors import HostError
from director.kit.net import Endpoint
from l7proxy.core.model import overlap
from l7proxy.holders import orphaned_workers

BACKLOG = 4096
KEEPALIVE_IDLE_S = 600
"""Clients' connections that are quiet are probed before IPVS forgets them, which is after 900 s by default."""
KEEPALIVE_EVERY_S = 30
KEEPALIVE_TRIES = 4
LATE_S = 0.1
"""How long the last packet of a handshake may take, when a socket is about to be closed."""
_SO_ATTACH_FILTER = 26
_NO_MORE_SYN = (
    (0x30, 0, 0, 13),  # the flags of a TCP header
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),
)
"""A filter for SO_ATTACH_FILTER (socket(7)), as quadruples of struct sock_filter (linux/filter.h)."""


def listen(endpoint: Endpoint, served: Mapping[Endpoint, socket.socket] | None = None) -> socket.socket:
    """A bound, listening socket. Another process's socket at the address refuses it, also another l7proxy's.

    `served` are this process's own sockets: one that overlaps (0.0.0.0:80 and 10.0.0.1:80) does not stand in the way,
    so that a reload can go from one to the other.

    Raises: HostError.
    """
    family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    beside = [mine for other, mine in (served or {}).items() if overlap(other, endpoint)]
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        look_after_quiet_clients(bound)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Only for the moment: a lasting SO_REUSEPORT would let a second l7proxy take half of the connections unnoticed.
        _share_port([bound, *beside], bool(beside))
        try:
            bound.bind((str(endpoint.address), endpoint.port))
            bound.listen(BACKLOG)
        finally:
            _share_port([bound, *beside], False)
    except OSError as error:
        bound.close()
        raise HostError(f"{endpoint} {_advice(error, endpoint)}") from error
    return bound


def look_after_quiet_clients(bound: socket.socket) -> None:
    """Have the kernel probe connections that are quiet. Accepted sockets inherit it (tcp(7)).

    Raises: OSError.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_TRIES)


def turn_away(bound: socket.socket) -> None:
    """Let nobody queue any more, in whatever process the socket is. Who tries is refused once it is closed: their first
    packet is dropped, and comes again after a second. Without that, who came in the moment before would be reset."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _NO_MORE_SYN))
    with contextlib.suppress(OSError):  # a kernel that has no filters: that moment is short
        said = struct.pack("HP", len(_NO_MORE_SYN), ctypes.addressof(program))
        bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, said)


def _share_port(sockets: Iterable[socket.socket], may: bool) -> None:
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, may)


def _advice(error: OSError, endpoint: Endpoint) -> str:
    match error.errno:
        case errno.EADDRINUSE if orphans := orphaned_workers(endpoint):
            pids = " ".join(map(str, orphans))
            return (
                f"is served by workers of an l7proxy that is gone, pid {pids}: they go on until `kill {pids}`, which "
                f"lets them finish what they answer; `kill -9 {pids}` is the last resort"
            )
        case errno.EADDRINUSE:
            return (
                "is in use by another process: stop it, or bind another port; a running l7proxy takes a new "
                "configuration by SIGHUP "
                f"(`ss -ltnp 'sport = :{endpoint.port}'` names it)"
            )
        case errno.EACCES:
            return (
                "may not be bound by this user: have systemd bind it, by the line "
                f"`ListenStream={endpoint}` in l7proxy.socket (`l7proxy socket-unit FILE` writes that unit; `systemctl "
                "status l7proxy.socket` says whether it listens), or give l7proxy CAP_NET_BIND_SERVICE"
            )
        case errno.EADDRNOTAVAIL:
            return "is no address of this host: add it (`ip addr`), or bind 0.0.0.0 or [::]"
        case _:
            return f"cannot be bound: {error.strerror}"
