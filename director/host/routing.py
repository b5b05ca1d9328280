"""By which interface this host reaches an address: what `ip route get` says, for thousands of addresses.

One rule: this only looks; an address without a way has no interface.

The messages are packed here: pyroute2 takes half a millisecond for each.
Source: include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from director.host.rtnetlink import FAMILIES
from director.kit.errors import HostError
from director.kit.net import IPAddress

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NEWROUTE, _GETROUTE, _REQUEST = 24, 26, 1
_DST, _OIF = 1, 4
_LIMIT_S = 5.0


def interfaces(addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
    """The interface that a packet to each of `addresses` leaves by, `lo` where it does not leave; of several, one.

    Raises: HostError when the kernel does not say.
    """
    found: dict[IPAddress, str] = {}
    names = dict(socket.if_nameindex())
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
            asking.settimeout(_LIMIT_S)
            for address in dict.fromkeys(addresses):
                asking.send(_question(address))
                index = _index(asking.recv(65536))
                if index in names:
                    found[address] = names[index]
    except OSError as error:
        raise HostError(f"could not read the routing table: {error.strerror or error}") from error
    return found


def _question(address: IPAddress) -> bytes:
    value = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DST) + address.packed
    body = _ROUTE.pack(FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + value
    return _HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST, 0, 0) + body


def _index(answer: bytes) -> int:
    """The interface of a route; 0 for an error, which says that there is no way."""
    length, kind, *_ = _HEADER.unpack_from(answer)
    at = _HEADER.size + _ROUTE.size
    while kind == _NEWROUTE and at + _ATTRIBUTE.size <= length:
        size, what = _ATTRIBUTE.unpack_from(answer, at)
        if what == _OIF:
            return int(struct.unpack_from("=I", answer, at + _ATTRIBUTE.size)[0])
        at += max((size + 3) & ~3, _ATTRIBUTE.size)
    return 0
