"""A socket to serve metrics at.

One rule: an address that cannot be bound says which, why, and what to do.
"""

from __future__ import annotations

import errno
import socket

from director.kit.errors import HostError
from director.kit.net import Endpoint


def listen(endpoint: Endpoint, backlog: int, *mine: socket.socket) -> socket.socket:
    """A listening socket at `endpoint`; `mine`, which may overlap with it, do not stand in its way.

    Raises: HostError.
    """
    family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    beside = [bound, *mine] if mine else []
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for each in beside:  # for this moment only: nobody else's may share the port
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind((str(endpoint.address), endpoint.port))
            bound.listen(backlog)
        finally:
            for each in beside:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    except OSError as error:
        bound.close()
        raise HostError(f"metrics: {endpoint} {_advice(error, endpoint)}") from error
    return bound


def _advice(error: OSError, endpoint: Endpoint) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"is in use by another process: stop it, or bind another port (`ss -ltnp 'sport = :{endpoint.port}'` "
                "names it)"
            )
        case errno.EACCES:
            return "may not be bound by this user: use a port above 1023"
        case errno.EADDRNOTAVAIL:
            return "is no address of this host: use 127.0.0.1, or one that `ip addr` shows"
        case _:
            return f"cannot be bound: {error.strerror}"
