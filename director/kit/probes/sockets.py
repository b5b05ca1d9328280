"""The sockets that probes connect with. They are used again: a probe costs two system calls, not six.

One rule: a socket that comes back is disconnected with a reset (connect to AF_UNSPEC, RFC 9293 3.10.7 ABORT), so that
nothing of one conversation reaches the next, and neither side keeps a TIME_WAIT.

It stays registered with its epoll, edge-triggered, all the time. Disconnecting gives back port, route, timers and
errors (net/ipv4/tcp.c, tcp_disconnect); the source address and the mark stay, so sockets are kept apart by those.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
from functools import cache
from pathlib import Path

from director.kit.checks.base import Route
from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.net import IPAddress
from director.kit.probes.source import source_towards
from director.kit.rights import with_capability

MOST_IDLE = 256
"""Sockets kept for the next probes. Beyond them they are closed; each takes some 2 KiB of the kernel's memory."""

EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

_UNDER_WAY = (errno.EINPROGRESS, 0)
_Kind = tuple[int, IPAddress | None, int]
_UNSPECIFIED = bytes(16)  # struct sockaddr with AF_UNSPEC, which is 0
_connect = ctypes.CDLL(None).connect
_connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


class Sockets:
    """Sockets registered with `epoll`; bounded by `MOST_IDLE` and by the conversations that run."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._idle: dict[_Kind, list[socket.SocketType]] = {}
        self._idle_count = 0
        self._resting: list[tuple[_Kind, socket.SocketType]] = []
        self._closing: list[socket.SocketType] = []

    def connect(self, check: Check) -> socket.SocketType:
        """A socket on its way to `check.target`, or there already: its first event says which.

        Raises: OSError, or ProbeError when the source address or the mark cannot be had here.
        """
        address = check.target.address
        kind = (address.version, source_of(check), check.route.mark)
        where = (str(address), check.target.port)
        idle = self._idle.get(kind)
        if idle:
            peer = idle.pop()
            self._idle_count -= 1
            if peer.connect_ex(where) in _UNDER_WAY:
                return peer
            self.discard(peer)  # whatever it is, a new one meets it too or does better
        peer = _made(kind)
        try:
            error = peer.connect_ex(where)
            if error not in _UNDER_WAY:
                raise OSError(error, "connect")
            self._epoll.register(peer.fileno(), EVENTS)
        except BaseException:
            peer.close()
            raise
        return peer

    def give_back(self, peer: socket.SocketType, route: Route) -> None:
        """Disconnect `peer`; another conversation can have it after `turn_over`."""
        if route.real is not None and route.source is None:  # the source that it has may be another's tomorrow
            self.discard(peer)
        elif self._idle_count + len(self._resting) < MOST_IDLE and _disconnect(peer):
            self._resting.append(((4 if peer.family == socket.AF_INET else 6, route.source, route.mark), peer))
        else:
            self.discard(peer)

    def discard(self, peer: socket.SocketType) -> None:
        """Close `peer` at the next `turn_over`: until then its number must not be another's."""
        _disconnect(peer)
        self._closing.append(peer)

    @property
    def has_resting(self) -> bool:
        """Whether sockets were given back since the last `turn_over`. The kernel reports each as an event."""
        return bool(self._resting or self._closing)

    def turn_over(self) -> None:
        """No event of before this call will be looked at any more."""
        for kind, peer in self._resting:
            self._idle.setdefault(kind, []).append(peer)
        self._idle_count += len(self._resting)
        self._resting.clear()
        for peer in self._closing:
            peer.close()
        self._closing.clear()

    def close(self) -> None:
        """Close every socket that is not in a conversation."""
        self.turn_over()
        for peers in self._idle.values():
            for peer in peers:
                peer.close()
        self._idle.clear()
        self._idle_count = 0


def _disconnect(peer: socket.SocketType) -> bool:
    return bool(_connect(peer.fileno(), _UNSPECIFIED, 16) == 0)


def _made(kind: _Kind) -> socket.SocketType:
    version, source, mark = kind
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    peer = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if mark:
            set_mark(peer, mark)
        if source is not None:
            bind_source(peer, source)
    except BaseException:
        peer.close()
        raise
    return peer


def source_of(check: Check) -> IPAddress | None:
    """What to bind to; None leaves it to the kernel, which would take the VIP for a probe through it."""
    route, vip = check.route, check.target.address
    if route.source is not None or route.real is None:
        return route.source
    source = source_towards(route.real, vip)
    if source is None:
        raise ProbeError(
            f"this host has no address of its own to probe {route.real} through {vip} from: write `source:`, one of "
            f"its IPv{vip.version} addresses that {route.real} has a way back to"
        )
    return source


def set_mark(peer: socket.SocketType, mark: int) -> None:
    """Send with this firewall mark. Raises: ProbeError, OSError."""
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError as error:
        raise ProbeError(f"firewall mark {mark} cannot be set on probes: {with_capability('CAP_NET_ADMIN')}") from error


def bind_source(peer: socket.SocketType, source: IPAddress) -> None:
    """Send from this address. Raises: ProbeError, OSError."""
    # The port is chosen at the connect, where the same one can serve several targets (Linux 4.2).
    peer.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        peer.bind((str(source), 0))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        raise ProbeError(
            f"source address {source} of probes is not on this host: add it to an interface, or write another source"
        ) from error


@cache
def local_ports() -> range:
    """Ports that this kernel gives to connecting sockets."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return range(1, 65536)
    return range(low, high + 1)
