"""System calls on descriptors that do not block; `_wire.pyx` has them once more, for a C compiler.

One rule: what a peer can cause is a value, a negative errno, and no exception.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, TypeAlias

from director.kit.net import Endpoint

Address: TypeAlias = tuple[int, tuple[str, int]]
"""A family, and an address in it; the compiled `address_of` has its own."""
_CUT = struct.pack("ii", 1, 0)


def receive(fd: int, buffer: bytearray) -> int:
    """Read into a buffer; how many bytes, 0 at the end of the stream."""
    try:
        return os.readv(fd, [buffer])
    except OSError as error:
        return -(error.errno or errno.EIO)


def send(fd: int, buffer: bytes | bytearray, start: int, end: int) -> int:
    """Send a part of a buffer; how much of it was."""
    try:
        return os.write(fd, memoryview(buffer)[start:end])
    except OSError as error:
        return -(error.errno or errno.EIO)


def move(source: int, target: int, count: int) -> int:
    """Move bytes within the kernel; one of both is a pipe (splice(2))."""
    try:
        return os.splice(source, target, count, flags=_MOVE_NOW)
    except OSError as error:
        return -(error.errno or errno.EIO)


_MOVE_NOW = 0x01 | 0x02  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK


def take_client(fd: int) -> tuple[int, str, int]:
    """Accept: a descriptor, the peer's address and port; the descriptor is a negative errno where there is none."""
    try:
        with socket.socket(fileno=os.dup(fd)) as bound:
            client, peer = bound.accept()
    except OSError as error:
        return -(error.errno or errno.EIO), "", 0
    client.setblocking(False)
    return client.detach(), str(peer[0]).partition("%")[0], int(peer[1])


def address_of(endpoint: Endpoint) -> Address:
    """What `dial` takes."""
    family = socket.AF_INET6 if isinstance(endpoint.address, IPv6Address) else socket.AF_INET
    return family, (str(endpoint.address), endpoint.port)


def dial(to: Address, dscp: int = -1) -> int:
    """Begin to connect: a descriptor, or a negative errno. `dscp` marks its packets, unless it is negative."""
    family, address = to
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if dscp >= 0:
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
                else:
                    made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
            number = made.connect_ex(address)
            return made.detach() if number in {0, errno.EINPROGRESS} else -number
    except OSError as error:
        return -(error.errno or errno.EIO)


def fault_of(fd: int) -> int:
    """What has gone wrong with a connection: an errno, or 0 (SO_ERROR, socket(7))."""
    with socket.socket(fileno=os.dup(fd)) as looked_at:
        return looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def say_end(fd: int) -> None:
    """Say that no more will be sent."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as half:
        half.shutdown(socket.SHUT_WR)


def close(fd: int) -> None:
    """Close; what waits is sent."""
    with suppress(OSError):
        os.close(fd)


def cut(fd: int) -> None:
    """Close with a reset."""
    with suppress(OSError), socket.socket(fileno=fd) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)


if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.tcp._wire import (  # noqa: F401 -- for who imports them
            address_of,
            close,
            cut,
            dial,
            fault_of,
            move,
            receive,
            say_end,
            send,
            take_client,
        )
