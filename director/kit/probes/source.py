"""Which of this host's addresses a probe through the forwarding path is sent from.

One rule: never the VIP itself. A socket that nobody binds would take it, since the VIP is an address of this host, too,
and the real server would answer itself.
"""

from __future__ import annotations

import socket

from director.kit.net import IPAddress

_DISCARD = 9  # any port will do: nothing is sent


def source_towards(real: IPAddress, vip: IPAddress) -> IPAddress | None:
    """The address that this host uses towards `real`; None when that is no address to probe `vip` from.

    That is so where there is no way to `real`, where `real` is of the other IP version, or this host itself, or where
    the VIP is all that the host has. Sends nothing, and does not block.
    """
    family = socket.AF_INET6 if real.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            asking.connect((str(real), _DISCARD))
            found = type(real)(asking.getsockname()[0])
    except OSError:
        return None
    return found if found.version == vip.version and found not in (vip, real) else None
