"""Sockets to listen at.

One rule: an address that cannot be bound says which, why, and what to do.
"""

from __future__ import annotations

import errno
import socket

from director.kit.errors import HostError
from director.kit.net import Endpoint

BACKLOG = 4096


def listen(endpoint: Endpoint) -> socket.socket:
    """A bound, listening socket. SO_REUSEPORT lets a second l7proxy of the same user take over without a gap.

    Raises: HostError.
    """
    family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((str(endpoint.address), endpoint.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise HostError(f"{endpoint} {_advice(error, endpoint)}") from error
    return bound


def _advice(error: OSError, endpoint: Endpoint) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "is in use by another process: stop it, or bind another port "
                f"(`ss -ltnp 'sport = :{endpoint.port}'` names it)"
            )
        case errno.EACCES:
            return "may not be bound by this user: run as root, or give it CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "is no address of this host: add it (`ip addr`), or bind 0.0.0.0 or [::]"
        case _:
            return f"cannot be bound: {error.strerror}"
