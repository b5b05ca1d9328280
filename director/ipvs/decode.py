"""From netlink answers to values.

Two rules. What is malformed is a `KernelError`. What is well-formed but has no place in the model (another
protocol, a tunnel with a port of its own) is `Foreign`: named, and kept out of the table.

Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_service and ip_vs_genl_fill_dest.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from director.core.table import Counters, RealCounters, RealRow, SchedulerFlags, VirtualKey, VirtualRow
from director.ipvs import attributes as a
from director.ipvs import tlv
from director.ipvs.encode import AF_BY_FAMILY, FULL_PREFIX, NUMBER_BY_FORWARD, NUMBER_BY_PROTOCOL
from director.kit.errors import KernelError
from director.kit.net import Endpoint, IPAddress

_FAMILY_BY_AF = {number: family for family, number in AF_BY_FAMILY.items()}
_PROTOCOL_BY_NUMBER = {number: protocol for protocol, number in NUMBER_BY_PROTOCOL.items()}
_FORWARD_BY_NUMBER = {number: forward for forward, number in NUMBER_BY_FORWARD.items()}
_PROTOCOL_NAMES = {132: "sctp", 50: "esp", 51: "ah"}
_NO_COUNTERS = Counters()


@dataclass(frozen=True, slots=True)
class Service:
    """One virtual server of a dump."""

    key: VirtualKey
    row: VirtualRow
    counters: Counters


@dataclass(frozen=True, slots=True)
class Destination:
    """One real server of a dump."""

    real: Endpoint
    row: RealRow
    counters: RealCounters


@dataclass(frozen=True, slots=True)
class Foreign:
    """What the kernel holds and the model does not: `what` names it, `reason` says why.

    `key` is None where even the key has no place in the model; `real` is set for a real server. With a key,
    the place is taken: to create the same key (and real) would be EEXIST.
    """

    what: str
    reason: str
    key: VirtualKey | None = None
    real: Endpoint | None = None


def decode_service(body: bytes) -> Service | Foreign:
    """Read one message of a dump of virtual servers.

    Raises: KernelError.
    """
    found = tlv.attributes(tlv.required(_expect(body, a.NEW_SERVICE), a.CMD_SERVICE))
    key = _key(found)
    if isinstance(key, Foreign):
        return key
    pe_name = found.get(a.SVC_PE_NAME)
    if pe_name:
        return Foreign(str(key), f"it uses the persistence engine {_text(pe_name)}", key)
    row = _row(key, found)
    if isinstance(row, Foreign):
        return row
    return Service(key, row, _counters(found, a.SVC_STATS64, a.SVC_STATS))


def decode_destination(body: bytes, key: VirtualKey) -> Destination | Foreign:
    """Read one message of a dump of the real servers of `key`.

    Raises: KernelError.
    """
    found = tlv.attributes(tlv.required(_expect(body, a.NEW_DEST), a.CMD_DEST))
    family = key.family
    if a.DEST_ADDR_FAMILY in found:  # from 3.18 on; before, a real server had its virtual server's family
        af = tlv.number(found, a.DEST_ADDR_FAMILY, 2)
        if af not in _FAMILY_BY_AF:
            return Foreign(f"a real server of {key}", f"its address family is {af}", key)
        family = _FAMILY_BY_AF[af]
    real = Endpoint(_address(found, a.DEST_ADDR, family), tlv.number(found, a.DEST_PORT, 2, big_endian=True))
    number = tlv.number(found, a.DEST_FWD_METHOD, 4)
    forward = _FORWARD_BY_NUMBER.get(number)
    if forward is None:
        return Foreign(f"{key} -> {real}", f"its forwarding method is {number}", key, real)
    if number == a.FWD_TUNNEL:
        tunnel = _tunnel(found)
        if tunnel:
            return Foreign(f"{key} -> {real}", f"its tunnel is {tunnel}", key, real)
    row = RealRow(
        forward,
        tlv.number(found, a.DEST_WEIGHT, 4),
        tlv.number(found, a.DEST_U_THRESH, 4),
        tlv.number(found, a.DEST_L_THRESH, 4),
    )
    counters = RealCounters(
        tlv.number(found, a.DEST_ACTIVE_CONNS, 4),
        tlv.number(found, a.DEST_INACT_CONNS, 4),
        tlv.number(found, a.DEST_PERSIST_CONNS, 4),
        _counters(found, a.DEST_STATS64, a.DEST_STATS),
    )
    return Destination(real, row, counters)


def decode_version(body: bytes) -> str:
    """Read the answer to GET_INFO: the version of IPVS, such as `1.2.1`.

    Raises: KernelError.
    """
    code = tlv.number(_expect(body, a.SET_INFO), a.INFO_VERSION, 4)
    return f"{code >> 16 & 0xFF}.{code >> 8 & 0xFF}.{code & 0xFF}"


def decode_family(body: bytes) -> int:
    """Read the answer to CTRL_CMD_GETFAMILY: the family's number.

    Raises: KernelError.
    """
    _, found = tlv.generic_body(body)
    return tlv.number(found, a.CTRL_ATTR_FAMILY_ID, 2)


def _expect(body: bytes, command: int) -> tlv.Attributes:
    found, attributes = tlv.generic_body(body)
    if found != command:
        raise KernelError(f"the kernel answered with IPVS command {found} where {command} was due; read again")
    return attributes


def _key(found: tlv.Attributes) -> VirtualKey | Foreign:
    af = tlv.number(found, a.SVC_AF, 2)
    family = _FAMILY_BY_AF.get(af)
    if family is None:
        return Foreign("a virtual server", f"its address family is {af}")
    if a.SVC_FWMARK in found:
        mark = tlv.number(found, a.SVC_FWMARK, 4)
        if mark:  # a dump leaves 0 out; ipvsadm's own rule is the same: without a mark, the endpoint holds
            return VirtualKey(family, mark=mark)
    number = tlv.number(found, a.SVC_PROTOCOL, 2)
    endpoint = Endpoint(_address(found, a.SVC_ADDR, family), tlv.number(found, a.SVC_PORT, 2, big_endian=True))
    protocol = _PROTOCOL_BY_NUMBER.get(number)
    if protocol is None:
        name = _PROTOCOL_NAMES.get(number, f"protocol {number}")
        return Foreign(f"{name} {endpoint}", f"{name} is not supported yet")
    return VirtualKey(family, protocol, endpoint)


def _row(key: VirtualKey, found: tlv.Attributes) -> VirtualRow | Foreign:
    value = tlv.required(found, a.SVC_FLAGS)
    if len(value) != 8:
        raise KernelError(f"the flags of {key} have {len(value)} bytes, not 8; read again")
    flags = int.from_bytes(value[:4], sys.byteorder)  # struct ip_vs_flags: flags, mask
    timeout_s = tlv.number(found, a.SVC_TIMEOUT, 4)
    unknown = flags & ~(a.SVC_F_PERSISTENT | a.SVC_F_HASHED | a.SVC_F_ONEPACKET | a.SVC_F_SCHED_MASK)
    if unknown:
        return Foreign(str(key), f"it has unknown flags {unknown:#x}", key)
    scheduler = _text(tlv.required(found, a.SVC_SCHED_NAME))
    scheduler_flags = SchedulerFlags(flags & a.SVC_F_SCHED_MASK)
    one_packet = bool(flags & a.SVC_F_ONEPACKET)
    if not flags & a.SVC_F_PERSISTENT:  # the mask and the timeout are there all the same, and mean nothing
        return VirtualRow(scheduler, scheduler_flags, 0, FULL_PREFIX[key.family], one_packet)
    if timeout_s == 0:
        return Foreign(str(key), "it has persistence with a timeout of 0", key)
    prefix = _prefix(key.family, tlv.required(found, a.SVC_NETMASK))
    if prefix is None:
        return Foreign(str(key), "its persistence mask has holes", key)
    return VirtualRow(scheduler, scheduler_flags, timeout_s, prefix, one_packet)


def _prefix(family: int, value: bytes) -> int | None:
    """The prefix length of a mask; None where its ones are not all in front.

    >>> _prefix(4, bytes([255, 255, 255, 0])), _prefix(4, bytes([255, 0, 255, 0]))
    (24, None)
    """
    if len(value) != 4:
        raise KernelError(f"a persistence mask has {len(value)} bytes, not 4; read again")
    if family == 6:
        prefix = int.from_bytes(value, sys.byteorder)
        return prefix if prefix <= 128 else None
    mask = int.from_bytes(value, "big")
    zeros = ~mask & 0xFFFFFFFF
    return None if zeros & (zeros + 1) else mask.bit_count()


def _tunnel(found: tlv.Attributes) -> str:
    """What sets a tunnel apart from plain IPIP; empty for that."""
    kind = found.get(a.DEST_TUN_TYPE, b"\0")
    if kind != b"\0":
        return {b"\1": "gue", b"\2": "gre"}.get(kind, f"type {kind.hex()}")
    if any(found.get(a.DEST_TUN_FLAGS, b"")):
        return f"ipip with flags {found[a.DEST_TUN_FLAGS].hex()}"
    return ""


def _address(found: tlv.Attributes, kind: int, family: int) -> IPAddress:
    value = tlv.required(found, kind)
    size = 4 if family == 4 else 16
    if len(value) < size:
        raise KernelError(f"an IPv{family} address has {len(value)} bytes; read again")
    packed = int.from_bytes(value[:size], "big")
    return IPv4Address(packed) if family == 4 else IPv6Address(packed)


def _counters(found: tlv.Attributes, kind: int, narrow_kind: int) -> Counters:
    """Counters of STATS64, or of STATS on a kernel before 4.1."""
    value = found.get(kind)
    if value is None:
        value = found.get(narrow_kind)
        if value is None:
            return _NO_COUNTERS
    stats = tlv.attributes(value)
    return Counters(
        _count(stats, a.STATS_CONNS),
        _count(stats, a.STATS_INPKTS),
        _count(stats, a.STATS_OUTPKTS),
        _count(stats, a.STATS_INBYTES),
        _count(stats, a.STATS_OUTBYTES),
    )


def _count(stats: tlv.Attributes, kind: int) -> int:
    value = tlv.required(stats, kind)
    if len(value) not in (4, 8):
        raise KernelError(f"a counter has {len(value)} bytes; read again")
    return int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("ascii", "replace")
