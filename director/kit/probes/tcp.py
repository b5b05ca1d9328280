"""The tcp probe: a connection that the peer accepts."""

from __future__ import annotations

import asyncio
import socket
import struct

from director.kit.net import Endpoint


async def probe_tcp(target: Endpoint) -> tuple[bool, str]:
    """Connect and close at once, with a reset so that neither side keeps a TIME_WAIT.

    Raises: OSError when the connection is refused or unreachable.
    """
    family = socket.AF_INET6 if target.address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.get_running_loop().sock_connect(peer, (str(target.address), target.port))
        # Without a listener, a port of this host's own range can be given to the probe's end, and then TCP's
        # simultaneous open (RFC 9293 3.5) connects the socket with itself.
        if peer.getsockname()[:2] == (str(target.address), target.port):
            return False, "connection refused"
    return True, "connected"
