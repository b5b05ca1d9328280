"""Netlink's framing: messages in a datagram, attributes in a message.

One rule: no length is trusted. Each is checked against what is left before it is used, and every step
moves forward, so malformed input ends in a `KernelError` and never in a loop.

Source: include/uapi/linux/netlink.h (struct nlmsghdr, struct nlattr; both align to 4 bytes).
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from director.ipvs import attributes as a
from director.kit.errors import KernelError

MESSAGE = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length, type
_GENERIC = Struct("=BBxx")  # command, version
_ERROR = Struct("=i")

Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The kernel's answer to one request: `errno` 0 is success; `message` is its own words, often none."""

    errno: int
    message: str = ""


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One netlink message around `body`, whose length must be a multiple of 4."""
    return MESSAGE.pack(a.NLMSG_HEADER_BYTES + len(body), kind, flags, sequence, 0) + body


def generic(command: int, version: int, attributes: bytes = b"") -> bytes:
    """The body of one generic netlink message."""
    return _GENERIC.pack(command, version) + attributes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded.

    >>> attribute(6, b"rr\\0").hex()
    '0700060072720000'
    """
    return _ATTRIBUTE.pack(a.NLA_HEADER_BYTES + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, attributes: bytes) -> bytes:
    """One attribute that holds attributes."""
    return _ATTRIBUTE.pack(a.NLA_HEADER_BYTES + len(attributes), kind | a.NLA_F_NESTED) + attributes


def messages(datagram: bytes, position: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram from `position` on.

    Raises: KernelError when a length does not fit.
    """
    end = len(datagram)
    while position < end:
        if end - position < a.NLMSG_HEADER_BYTES:
            raise _malformed(f"{end - position} bytes where a message header belongs")
        length, kind, flags, sequence, _ = MESSAGE.unpack_from(datagram, position)
        if length < a.NLMSG_HEADER_BYTES or position + length > end:
            raise _malformed(f"a message of {length} bytes where {end - position} are left")
        yield kind, flags, sequence, datagram[position + a.NLMSG_HEADER_BYTES : position + length]
        position += (length + 3) & ~3


def alike(datagram: bytes, kind: int, sequence: int) -> tuple[list[bytes], int]:
    """The bodies of the messages at the front of a datagram that have one and the same header, of this type and
    sequence, and where they end: a dump has little else. What follows is for `messages`.
    """
    bodies: list[bytes] = []
    if len(datagram) < a.NLMSG_HEADER_BYTES:
        return bodies, 0
    length, found, _, answered, _ = MESSAGE.unpack_from(datagram)
    if (found, answered) != (kind, sequence) or length < a.NLMSG_HEADER_BYTES:
        return bodies, 0
    head, step, position = datagram[: a.NLMSG_HEADER_BYTES], (length + 3) & ~3, 0
    last = len(datagram) - length
    while position <= last and datagram.startswith(head, position):
        bodies.append(datagram[position + a.NLMSG_HEADER_BYTES : position + length])
        position += step
    return bodies, position


def attributes(data: bytes, position: int = 0) -> Attributes:
    """The attributes of `data` from `position` on, by type; of two with one type the last holds.

    Raises: KernelError when a length does not fit.
    """
    found: Attributes = {}
    end = len(data)
    unpack = _ATTRIBUTE.unpack_from
    while position < end:
        if end - position < a.NLA_HEADER_BYTES:
            raise _malformed(f"{end - position} bytes where an attribute header belongs")
        length, kind = unpack(data, position)
        if length < a.NLA_HEADER_BYTES or position + length > end:
            raise _malformed(f"an attribute of {length} bytes where {end - position} are left")
        found[kind & a.NLA_TYPE_MASK] = data[position + a.NLA_HEADER_BYTES : position + length]
        position += (length + 3) & ~3
    return found


def generic_body(body: bytes) -> tuple[int, Attributes]:
    """Command and attributes of a generic netlink message's body.

    Raises: KernelError.
    """
    if len(body) < a.GENL_HEADER_BYTES:
        raise _malformed(f"a generic netlink message of {len(body)} bytes")
    return body[0], attributes(body, a.GENL_HEADER_BYTES)


def number(found: Attributes, kind: int, size: int, *, big_endian: bool = False, default: int | None = None) -> int:
    """The unsigned number of exactly `size` bytes under `kind`; `default` where it is missing.

    Raises: KernelError when it is missing and has no default, or has another size.
    """
    if default is not None and kind not in found:
        return default
    value = required(found, kind)
    if len(value) != size:
        raise _malformed(f"attribute {kind} has {len(value)} bytes, not {size}")
    return int.from_bytes(value, "big" if big_endian else sys.byteorder)


def required(found: Attributes, kind: int) -> bytes:
    """The value under `kind`.

    Raises: KernelError when it is missing.
    """
    value = found.get(kind)
    if value is None:
        raise _malformed(f"attribute {kind} is missing")
    return value


def acknowledgement(flags: int, body: bytes) -> Acknowledgement:
    """Read the body of NLMSG_ERROR (struct nlmsgerr) or of NLMSG_DONE.

    Raises: KernelError.
    """
    if len(body) < _ERROR.size:
        raise _malformed(f"an acknowledgement of {len(body)} bytes")
    (negative,) = _ERROR.unpack_from(body)
    if negative > 0 or negative < -4095:  # include/linux/err.h: MAX_ERRNO
        raise _malformed(f"an acknowledgement with error {negative}")
    return Acknowledgement(-negative, _words(flags, body) if flags & a.NLM_F_ACK_TLVS else "")


def _words(flags: int, body: bytes) -> str:
    """NLMSGERR_ATTR_MSG of an acknowledgement: it follows the request, of which the header is always there."""
    start = _ERROR.size + a.NLMSG_HEADER_BYTES
    if len(body) < start:
        return ""
    if not flags & a.NLM_F_CAPPED:
        length = int.from_bytes(body[_ERROR.size : _ERROR.size + 4], sys.byteorder)
        start = _ERROR.size + max(a.NLMSG_HEADER_BYTES, (length + 3) & ~3)
    text = attributes(body, start).get(a.NLMSGERR_ATTR_MSG, b"")
    return text.split(b"\0", 1)[0].decode("ascii", "replace")


def _malformed(found: str) -> KernelError:
    return KernelError(f"the kernel's netlink answer is malformed: {found}; read again, and report it if it lasts")


def error_name(code: int) -> str:
    """The symbol of an errno, or its number where it has none.

    >>> error_name(3)
    'ESRCH'
    """
    return errno.errorcode.get(code, str(code))
