"""Asks the wire: who answers for an address (ARP, neighbour solicitation), and how far away it is (echo).

One rule: everything that is sent here is a question that any host of a network asks every day, and every wait ends
at `patience_s`.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from director.host.announce import ARP_REPLY, ARP_REQUEST, BROADCAST_MAC, ETH_P_ARP, internet_checksum
from director.kit.errors import HostError
from director.kit.net import IPAddress

TIMES = 3
"""How often each question is asked: as a host that looks for an address does (RFC 5227, 1.1)."""
AT_ONCE = 256
"""Questions for one interface at most: more would be a burst of broadcasts."""
SOLICITATION, ADVERTISEMENT = 135, 136  # ICMPv6 types, RFC 4861
_ICMP6_FILTER = 1  # linux/icmpv6.h
_MAC = struct.Struct("!6s")


@dataclass(frozen=True, slots=True)
class Question:
    """Who has `address`, asked on `interface` (which has `mac`) in the name of `sender`."""

    address: IPAddress
    interface: str
    mac: str
    sender: IPAddress | None = None


Answers = Mapping[tuple[str, IPAddress], frozenset[str]]
"""The link-layer addresses that answered, by interface and address; asked and unanswered is empty."""


def arp_request(address: IPv4Address, mac: bytes, sender: IPv4Address | None) -> bytes:
    """The Ethernet frame that asks who has `address`; without a sender it is a probe (RFC 5227, 1.1)."""
    return (
        struct.pack("!6s6sH", BROADCAST_MAC, mac, ETH_P_ARP)
        + struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST)
        + struct.pack("!6s4s6s4s", mac, sender.packed if sender else bytes(4), bytes(6), address.packed)
    )


def arp_answer(frame: bytes) -> tuple[IPv4Address, str] | None:
    """Who says in an ARP reply to have which address; None for any other frame."""
    if len(frame) < 42 or struct.unpack_from("!H", frame, 20)[0] != ARP_REPLY:
        return None
    return IPv4Address(frame[28:32]), frame[22:28].hex(":")


def solicitation(address: IPv6Address, mac: bytes) -> tuple[bytes, str]:
    """The ICMPv6 message that asks who has `address` (the kernel puts its checksum), and the group to send it to."""
    group = IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + address.packed[-3:])
    return struct.pack("!BBHI16sBB6s", SOLICITATION, 0, 0, 0, address.packed, 1, 1, mac), str(group)


def advertised(message: bytes) -> tuple[IPv6Address, str] | None:
    """Who says in an advertisement to have which address; None where it does not say at which link-layer address."""
    if len(message) < 32 or message[0] != ADVERTISEMENT or message[24:26] != b"\x02\x01":
        return None
    return IPv6Address(message[8:24]), message[26:32].hex(":")


def ask(questions: Iterable[Question], patience_s: float) -> Answers:
    """Who answers. Each question is asked three times in `patience_s`, and all answers are awaited to its end.

    Raises: HostError without CAP_NET_RAW.
    """
    asked = list(dict.fromkeys(questions))
    answers: dict[tuple[str, IPAddress], set[str]] = {(each.interface, each.address): set() for each in asked}
    if not asked:
        return {}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        rounds: list[Callable[[], None]] = []
        for interface in dict.fromkeys(each.interface for each in asked):
            here = [each for each in asked if each.interface == interface][:AT_ONCE]
            for make, kind in ((_arp, IPv4Address), (_discovery, IPv6Address)):
                fitting = [each for each in here if isinstance(each.address, kind)]
                if fitting:
                    opened, send, read = make(interface, fitting)
                    stack.enter_context(opened)
                    selector.register(opened, selectors.EVENT_READ, (interface, read))
                    rounds.append(send)
        for until in _deadlines(patience_s):
            for send in rounds:
                send()
            for interface, heard in _heard(selector, until):
                address, mac = heard
                if (interface, address) in answers:
                    answers[interface, address].add(mac)
    return {key: frozenset(macs - {q.mac for q in asked}) for key, macs in answers.items()}


def _deadlines(patience_s: float) -> Iterator[float]:
    begun_at = time.monotonic()
    for turn in range(1, TIMES + 1):
        yield begun_at + patience_s * turn / TIMES


_Read = Callable[[bytes], tuple[IPAddress, str] | None]
_Way = tuple[socket.socket, Callable[[], None], _Read]


def _heard(selector: selectors.BaseSelector, until: float) -> Iterator[tuple[str, tuple[IPAddress, str]]]:
    while (left_s := until - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            interface, read = key.data
            try:
                heard = read(key.fileobj.recv(2048))  # type: ignore[union-attr] # they are sockets
            except OSError:
                continue
            if heard is not None:
                yield interface, heard


def _open(*kind: int) -> socket.socket:
    try:
        return socket.socket(*kind)
    except OSError as error:
        raise HostError(f"no packet socket ({error.strerror}): run as root, or with CAP_NET_RAW") from error


def _quietly(send: Callable[[], object]) -> None:
    """A question that this host cannot send (the link went down, a full queue) is one that nobody answers."""
    try:
        send()
    except OSError:
        return


def _arp(interface: str, questions: list[Question]) -> _Way:
    opened = _open(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ARP))
    opened.bind((interface, ETH_P_ARP))
    frames = [
        arp_request(each.address, _bytes(each.mac), each.sender if isinstance(each.sender, IPv4Address) else None)
        for each in questions
        if isinstance(each.address, IPv4Address)
    ]

    def send() -> None:
        for frame in frames:
            _quietly(lambda frame=frame: opened.send(frame))  # type: ignore[misc]

    return opened, send, arp_answer


def _discovery(interface: str, questions: list[Question]) -> _Way:
    opened = _open(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    wanted = bytearray(b"\xff" * 32)  # a bit that is set keeps a type out (RFC 3542, 3.2)
    wanted[ADVERTISEMENT // 8] &= ~(1 << ADVERTISEMENT % 8)
    opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _swapped(bytes(wanted)))
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)  # receivers drop anything less
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    index = socket.if_nametoindex(interface)
    messages = [
        solicitation(each.address, _bytes(each.mac)) for each in questions if isinstance(each.address, IPv6Address)
    ]

    def send() -> None:
        for message, group in messages:
            _quietly(lambda m=message, g=group: opened.sendto(m, (g, 0, 0, index)))  # type: ignore[misc]

    return opened, send, advertised


def _swapped(mask: bytes) -> bytes:
    """The kernel keeps the filter as native 32-bit words (struct icmp6_filter)."""
    return struct.pack("=8I", *struct.unpack("<8I", mask))


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@dataclass(frozen=True, slots=True)
class Echo:
    """What came of an echo request that no router may pass on: `by` is who answered, None nobody."""

    arrived: bool
    by: IPAddress | None = None


def echo(address: IPAddress, patience_s: float) -> Echo:
    """Whether `address` is at most one hop away: an echo request with a hop limit of 1.

    Raises: HostError without CAP_NET_RAW, or when there is no way to `address`.
    """
    version = address.version
    mark = os.getpid() & 0xFFFF
    kind = (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    with _open(kind[0], socket.SOCK_RAW, kind[1]) as opened:
        if version == 4:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        for until in _deadlines(patience_s):
            try:
                opened.sendto(_echo_request(version, mark), (str(address), 0))
            except OSError as error:
                raise HostError(f"could not send to {address}: {error.strerror}") from error
            while (left_s := until - time.monotonic()) > 0:
                opened.settimeout(left_s)
                try:
                    message, source = opened.recvfrom(2048)
                except OSError as error:
                    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
                        break
                    continue
                found = echo_answer(message, version, mark, address)
                if found is not None:
                    return Echo(found, IPv4Address(source[0]) if version == 4 else IPv6Address(source[0].split("%")[0]))
    return Echo(False)


def _echo_request(version: int, mark: int) -> bytes:
    kind = 8 if version == 4 else 128
    data = b"director"
    checksum = internet_checksum(struct.pack("!BBHHH", kind, 0, 0, mark, 1) + data) if version == 4 else 0
    return struct.pack("!BBHHH", kind, 0, checksum, mark, 1) + data


def echo_answer(message: bytes, version: int, mark: int, address: IPAddress) -> bool | None:
    """True for the answer, False for a router's refusal to pass the request on, None for what is neither."""
    body = message[(message[0] & 0xF) * 4 :] if version == 4 and message else message
    reply, exceeded, request = (0, 11, 8) if version == 4 else (129, 3, 128)
    if len(body) < 8:
        return None
    if body[0] == reply and struct.unpack_from("!H", body, 4)[0] == mark:
        return True
    if body[0] != exceeded:
        return None
    inner = body[8:]
    header_bytes = (inner[0] & 0xF) * 4 if version == 4 and inner else 40
    destination = inner[16:20] if version == 4 else inner[24:40]
    asked = inner[header_bytes : header_bytes + 8]
    ours = destination == address.packed and len(asked) == 8 and asked[0] == request
    return False if ours and struct.unpack_from("!H", asked, 4)[0] == mark else None
