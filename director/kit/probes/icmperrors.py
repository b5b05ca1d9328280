"""What ICMP says of a packet that was sent: it waits in the socket's error queue (ip(7), IP_RECVERR).

One rule: an error message decides at once, also one that the kernel would keep to itself (host unreachable), and the
reason says which host sent it.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from director.kit.health import ProbeResult

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_RECVERR = {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}
_MSG_ERRQUEUE = 0x2000
_EXTENDED = struct.Struct("=IBBBxII")  # struct sock_extended_err, linux/errqueue.h
# SO_EE_ORIGIN_ICMP and _ICMP6: unreachable, time exceeded, parameter problem; a redirect or quench is no error.
_ERRORS = {2: {3, 11, 12}, 3: {1, 2, 3, 4}}

_WORDS4 = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "too large for the way there",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 13): "administratively prohibited",
    (11, 0): "TTL exceeded in transit",
}
_WORDS6 = {
    (1, 0): "no route",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address refused",
    (1, 6): "route rejected",
    (2, 0): "too large for the way there",
    (3, 0): "hop limit exceeded in transit",
}


def hear_errors(peer: socket.socket) -> None:
    """Have error messages about `peer`'s packets kept, whole."""
    if peer.family == socket.AF_INET:
        peer.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def told(peer: socket.socket, error: OSError, is_ours: Callable[[bytes], bool]) -> ProbeResult | str:
    """What the error queue says about `error`; a string if it is about a packet that is not `is_ours`.

    Raises: OSError, `error` itself, when it is none of ICMP's.
    """
    try:
        quoted, extras, _, _ = peer.recvmsg(512, 512, _MSG_ERRQUEUE)
    except OSError:
        raise error from None
    for level, kind, data in extras:
        if (level, kind) in _RECVERR and len(data) >= _EXTENDED.size:
            number, origin, icmp_type, code, _, _ = _EXTENDED.unpack_from(data)
            if origin not in _ERRORS:
                break
            if icmp_type not in _ERRORS[origin]:
                return f"an ICMP message of type {icmp_type}"
            if not is_ours(quoted):
                return "an error message about another request"
            return ProbeResult(False, describe_message(origin, icmp_type, code, data[_EXTENDED.size :]), errno=number)
    raise error


def describe_message(origin: int, kind: int, code: int, offender: bytes) -> str:
    """An ICMP error message in words; `offender` is the sockaddr of who sent it.

    >>> describe_message(2, 3, 1, bytes.fromhex("020000000a000001"))
    'host unreachable, says 10.0.0.1'
    """
    words = (_WORDS4 if origin == 2 else _WORDS6).get((kind, code), f"ICMP type {kind} code {code}")
    family = int.from_bytes(offender[:2], sys.byteorder)
    if family == socket.AF_INET and len(offender) >= 8:
        return f"{words}, says {IPv4Address(offender[4:8])}"
    if family == socket.AF_INET6 and len(offender) >= 24:
        return f"{words}, says {IPv6Address(offender[8:24])}"
    return words
