"""The icmp probe: one echo request, and its reply or an error message about it.

One rule: a reply counts when its sequence number and its data are ours, and on a raw socket its identifier; nobody can
guess the data, which begin with random bytes.

A ping socket (`net.ipv4.ping_group_range`, Linux 3.0) is tried first: it needs no right, and sees only what is for it.
A raw socket sees all ICMP of the host; connected and with the kernel's filter (linux/icmp.h) it is woken by echo
replies of its peer alone. Error messages come by the socket's error queue (icmperrors.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

from director.kit.checks.check import Check
from director.kit.checks.icmp import IcmpProbe
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.datagrams import Asked, open_datagram
from director.kit.rights import with_capability

_ECHO4, _REPLY4, _ECHO6, _REPLY6 = 8, 0, 128, 129
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_SOL_RAW, _ICMP_FILTER, _ICMPV6_FILTER = 255, 1, 1
_TOKEN_BYTES = 8


@dataclass(frozen=True, slots=True)
class Echo:
    """One echo request; `identifier` 0 on a ping socket, whose kernel has its own."""

    version: int
    data: bytes
    identifier: int = 0
    sequence: int = 1

    def packet(self) -> bytes:
        """The request, with its checksum where the kernel does not fill it in (a raw socket of IPv4)."""
        kind = _ECHO4 if self.version == 4 else _ECHO6
        plain = _HEADER.pack(kind, 0, 0, self.identifier, self.sequence) + self.data
        if self.version == 6:
            return plain
        return _HEADER.pack(kind, 0, checksum(plain), self.identifier, self.sequence) + self.data

    def judge(self, packet: bytes) -> ProbeResult | str:
        """Whether `packet`, an ICMP message, is the reply."""
        if len(packet) < _HEADER.size:
            return "a message that is too short"
        kind, code, _, identifier, sequence = _HEADER.unpack_from(packet)
        if (kind, code) != (_REPLY4 if self.version == 4 else _REPLY6, 0):
            return f"ICMP type {kind} code {code}"
        if sequence != self.sequence or (self.identifier and identifier != self.identifier):
            return "a reply to another request"
        if packet[_HEADER.size :] != self.data:
            return "a reply with other data than were sent"
        return ProbeResult(True, f"echo of {len(self.data)} bytes")

    def is_in(self, quoted: bytes) -> bool:
        """Whether an error message quotes this request."""
        if len(quoted) < _HEADER.size:
            return True  # nothing to tell by: it came to our socket
        _, _, _, identifier, sequence = _HEADER.unpack_from(quoted)
        return sequence == self.sequence and (not self.identifier or identifier == self.identifier)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071).

    >>> hex(checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def probe_icmp(check: Check, probe: IcmpProbe) -> ProbeResult:
    """Send one echo request and wait for its reply.

    Raises: OSError; ProbeError when this process may not send it.
    """
    version = check.target.address.version
    peer, is_raw = _open(check)
    with peer:
        data = os.urandom(_TOKEN_BYTES).ljust(probe.size, b"\xa5")
        identifier = int.from_bytes(os.urandom(2)) | 1 if is_raw else 0  # 0 is a ping socket's
        echo = Echo(version, data, identifier)

        def judge(packet: bytes) -> ProbeResult | str:
            return echo.judge(without_header(packet) if is_raw and version == 4 else packet)

        asked = Asked(peer, echo.packet(), judge, check.timing.timeout_s, echo.is_in)
        answer = await asked.answer(times=1)
    return answer or ProbeResult(False, asked.silence(), errno=errno.ETIMEDOUT)


def _open(check: Check) -> tuple[socket.socket, bool]:
    """A socket for echoes, and whether it is a raw one."""
    version = check.target.address.version
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    is_raw = False
    try:
        peer = open_datagram(check, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        is_raw = True
        try:
            peer = open_datagram(check, socket.SOCK_RAW, protocol)
        except PermissionError as error:
            raise ProbeError(
                f"this process may not send ICMP echoes: {with_capability('CAP_NET_RAW')}, or put its group into "
                "the sysctl net.ipv4.ping_group_range"
            ) from error
    if is_raw and version == 4:
        peer.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << _REPLY4)))
    elif is_raw:
        blocked = [0xFFFFFFFF] * 8
        blocked[_REPLY6 // 32] &= ~(1 << _REPLY6 % 32)
        peer.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *blocked))
    return peer, is_raw


def without_header(packet: bytes) -> bytes:
    """What follows the IPv4 header, with which a raw socket gives its packets."""
    return packet[(packet[0] & 0xF) * 4 :] if packet else b""
