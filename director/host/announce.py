"""Telling the neighbours that an address lives here now: gratuitous ARP and unsolicited advertisements.

One rule: frames are built by pure functions; an `Announcer` only looks up the interface and sends.

The kernel does not announce an added address, not even with arp_notify=1, so whoever adds one does.
"""

from __future__ import annotations

import errno
import socket
import struct
from fcntl import ioctl
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType

from director.core.vip import Vip
from director.host.sysctl import conf, read
from director.kit.errors import HostError
from director.kit.rights import with_capability

BROADCAST_MAC = b"\xff" * 6
ALL_NODES = IPv6Address("ff02::1")
ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464, 7
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
ARPHRD_ETHER = 1
ARP_REQUEST = 1
ARP_REPLY = 2
ICMPV6 = 58
SIOCGIFHWADDR = 0x8927


def gratuitous_arp(address: IPv4Address, mac: bytes, operation: int) -> bytes:
    """The broadcast Ethernet frame (42 bytes) that says `address` is at `mac`.

    Both forms name the address as sender and target (RFC 5944, 4.6). ARP_REQUEST leaves the target's
    hardware address zero (RFC 5227, 3); ARP_REPLY repeats `mac` there. Some hosts heed only one form.
    """
    target_mac = mac if operation == ARP_REPLY else bytes(6)
    return (
        struct.pack("!6s6sH", BROADCAST_MAC, mac, ETH_P_ARP)
        + struct.pack("!HHBBH", ARPHRD_ETHER, 0x0800, 6, 4, operation)
        + struct.pack("!6s4s6s4s", mac, address.packed, target_mac, address.packed)
    )


def neighbour_advertisement(address: IPv6Address, mac: bytes, *, router: bool = False) -> bytes:
    """The Ethernet frame (86 bytes) of an unsolicited advertisement that `address` is at `mac`.

    Sent to all nodes with the override flag (RFC 4861, 4.4 and 7.2.6). `router` must tell whether this
    host forwards: neighbours drop a default route through an address that stops saying so (7.2.5).
    """
    flags = 0x20 | (0x80 if router else 0)
    target_link_layer = struct.pack("!BB6s", 2, 1, mac)
    body = struct.pack("!B3x16s", flags, address.packed) + target_link_layer
    length = 4 + len(body)
    pseudo = address.packed + ALL_NODES.packed + struct.pack("!I3xB", length, ICMPV6)
    checksum = internet_checksum(pseudo + struct.pack("!BBH", 136, 0, 0) + body)
    return (
        struct.pack("!6s6sH", ALL_NODES_MAC, mac, ETH_P_IPV6)
        # Hop limit 255 proves that no router passed it on: receivers drop anything less (RFC 4861, 7.1.2).
        + struct.pack("!IHBB16s16s", 6 << 28, length, ICMPV6, 255, address.packed, ALL_NODES.packed)
        + struct.pack("!BBH", 136, 0, checksum)
        + body
    )


def internet_checksum(data: bytes) -> int:
    """The complement of the one's complement sum of 16-bit words (RFC 1071); odd data is padded with 0.

    >>> hex(internet_checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Announcer:
    """A packet socket that announces VIPs of the network namespace it was opened in.

    Keep one: the kernel's close of a packet socket waits 8 to 24 ms for every CPU (synchronize_net in
    packet_release), while sending takes microseconds and never waits.
    Raises: HostError without CAP_NET_RAW.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            what = f"no packet socket to announce addresses with: {error.strerror}"
            if error.errno == errno.EAFNOSUPPORT:
                raise HostError(f"{what}: in a systemd unit RestrictAddressFamilies= must have AF_PACKET") from error
            raise HostError(f"{what}: {with_capability('CAP_NET_RAW')}") from error

    def __enter__(self) -> Announcer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket; blocks for 8 to 24 ms."""
        self._socket.close()

    def send_once(self, vip: Vip) -> int:
        """Announce `vip` once and return the number of frames; 0 where nobody listens (not Ethernet: lo, tun).

        A full transmit queue loses the frame, as the wire may: hence repeats.
        Raises: HostError when the interface is missing or down.
        """
        mac = self._ethernet_address(vip)
        if mac is None:
            return 0
        frames = self._frames(vip, mac)
        for frame in frames:
            try:
                self._socket.sendto(frame, (vip.interface, 0))
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise _refused(vip, error) from error
        return len(frames)

    def _frames(self, vip: Vip, mac: bytes) -> list[bytes]:
        if isinstance(vip.address, IPv4Address):
            return [gratuitous_arp(vip.address, mac, operation) for operation in (ARP_REQUEST, ARP_REPLY)]
        router = read(conf(6, vip.interface, "forwarding")) not in (None, "0")
        return [neighbour_advertisement(vip.address, mac, router=router)]

    def _ethernet_address(self, vip: Vip) -> bytes | None:
        request = struct.pack("16sH22x", vip.interface.encode(), 0)
        try:
            answer = ioctl(self._socket, SIOCGIFHWADDR, request)
        except OSError as error:
            raise _refused(vip, error) from error
        _, kind, mac = struct.unpack("16sH6s16x", answer)
        return mac if kind == ARPHRD_ETHER else None


def _refused(vip: Vip, error: OSError) -> HostError:
    if error.errno in {errno.ENODEV, errno.ENXIO}:
        names = ", ".join(name for _, name in socket.if_nameindex())
        return HostError(
            f"interface {vip.interface} does not exist, so {vip.address} was not announced: use one of {names}"
        )
    if error.errno == errno.ENETDOWN:
        return HostError(f"{vip.interface} is down, so {vip.address} was not announced: ip link set {vip.interface} up")
    return HostError(f"could not announce {vip}: {error.strerror}")
