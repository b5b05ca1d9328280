"""From one netlink answer to a value, attribute by attribute, whatever kernel sent it.

Two rules. What is malformed is a `KernelError`. What is well-formed but has no place in the model (another
protocol, a tunnel of another kind) is `Foreign`: named, and kept out of the table.

Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_service, ip_vs_genl_fill_dest, ip_vs_genl_fill_daemon.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from director.core.table import (
    IPIP,
    Counters,
    Foreign,
    RealCounters,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelFlags,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import tlv
from director.ipvs.encode import (
    AF_BY_FAMILY,
    FULL_PREFIX,
    NUMBER_BY_FORWARD,
    NUMBER_BY_PROTOCOL,
    NUMBER_BY_ROLE,
    NUMBER_BY_TUNNEL,
)
from director.kit.errors import KernelError
from director.kit.net import Endpoint, IPAddress

FAMILY_BY_AF = {number: family for family, number in AF_BY_FAMILY.items()}
PROTOCOL_BY_NUMBER = {number: protocol for protocol, number in NUMBER_BY_PROTOCOL.items()}
_FORWARD_BY_NUMBER = {number: forward for forward, number in NUMBER_BY_FORWARD.items()}
_TUNNEL_BY_NUMBER = {number: kind for kind, number in NUMBER_BY_TUNNEL.items()}
_ROLE_BY_NUMBER = {number: role for role, number in NUMBER_BY_ROLE.items()}
_PROTOCOL_NAMES = {50: "esp", 51: "ah"}
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


def decode_service(body: bytes) -> Service | Foreign:
    """Read one message of a dump of virtual servers.

    Raises: KernelError.
    """
    found = tlv.attributes(tlv.required(_expect(body, a.NEW_SERVICE), a.CMD_SERVICE))
    key = _key(found)
    if isinstance(key, Foreign):
        return key
    flags = tlv.required(found, a.SVC_FLAGS)
    if len(flags) != 8:
        raise KernelError(f"the flags of {key} have {len(flags)} bytes, not 8; read again")
    row = virtual_row(
        key,
        tlv.required(found, a.SVC_SCHED_NAME),
        int.from_bytes(flags[:4], sys.byteorder),  # struct ip_vs_flags: flags, mask
        tlv.number(found, a.SVC_TIMEOUT, 4),
        tlv.required(found, a.SVC_NETMASK),
        found.get(a.SVC_PE_NAME, b""),
    )
    if isinstance(row, Foreign):
        return row
    return Service(key, row, _counters(found, a.SVC_STATS64, a.SVC_STATS))


def decode_destination(body: bytes, key: VirtualKey) -> Destination | Foreign:
    """Read one message of a dump of the real servers of `key`.

    Raises: KernelError.
    """
    found = tlv.attributes(tlv.required(_expect(body, a.NEW_DEST), a.CMD_DEST))
    # From 3.18 on; before, a real server had its virtual server's family.
    af = tlv.number(found, a.DEST_ADDR_FAMILY, 2, default=AF_BY_FAMILY[key.family])
    family = FAMILY_BY_AF.get(af)
    if family is None:
        return Foreign(f"a real server of {key}", f"its address family is {af}", key)
    real = Endpoint(_address(found, a.DEST_ADDR, family), tlv.number(found, a.DEST_PORT, 2, big_endian=True))
    row = real_row(
        tlv.number(found, a.DEST_FWD_METHOD, 4),
        tlv.number(found, a.DEST_WEIGHT, 4),
        tlv.number(found, a.DEST_TUN_TYPE, 1, default=0),  # tunnels of a kind: from 5.3 on
        tlv.number(found, a.DEST_TUN_PORT, 2, big_endian=True, default=0),
        tlv.number(found, a.DEST_TUN_FLAGS, 2, default=0),
        tlv.number(found, a.DEST_U_THRESH, 4),
        tlv.number(found, a.DEST_L_THRESH, 4),
    )
    if isinstance(row, str):
        return Foreign(f"{key} -> {real}", row, key, real)
    counters = RealCounters(
        tlv.number(found, a.DEST_ACTIVE_CONNS, 4),
        tlv.number(found, a.DEST_INACT_CONNS, 4),
        tlv.number(found, a.DEST_PERSIST_CONNS, 4),
        _counters(found, a.DEST_STATS64, a.DEST_STATS),
    )
    return Destination(real, row, counters)


def decode_timeouts(body: bytes) -> Timeouts:
    """Read the answer to GET_CONFIG; 0 where this kernel has no such protocol.

    Raises: KernelError.
    """
    found = _expect(body, a.SET_CONFIG)
    return Timeouts(
        tlv.number(found, a.CMD_TIMEOUT_TCP, 4, default=0),
        tlv.number(found, a.CMD_TIMEOUT_TCP_FIN, 4, default=0),
        tlv.number(found, a.CMD_TIMEOUT_UDP, 4, default=0),
    )


def decode_daemon(body: bytes) -> SyncDaemon | Foreign:
    """Read one message of a dump of sync daemons.

    Raises: KernelError.
    """
    found = tlv.attributes(tlv.required(_expect(body, a.NEW_DAEMON), a.CMD_DAEMON))
    state = tlv.number(found, a.DAEMON_STATE, 4)
    role = _ROLE_BY_NUMBER.get(state)
    if role is None:
        return Foreign("a sync daemon", f"its state is {state}")
    interface = os.fsdecode(tlv.required(found, a.DAEMON_MCAST_IFN).split(b"\0", 1)[0])  # any bytes, but for a few
    plain = SyncDaemon(role, interface, tlv.number(found, a.DAEMON_SYNC_ID, 4))
    if a.DAEMON_MCAST_PORT not in found:  # from 4.3 on; before, group, port and time to live could not be chosen
        return plain
    family = 6 if a.DAEMON_MCAST_GROUP6 in found else 4
    return replace(
        plain,
        group=_address(found, a.DAEMON_MCAST_GROUP6 if family == 6 else a.DAEMON_MCAST_GROUP, family),
        port=tlv.number(found, a.DAEMON_MCAST_PORT, 2),
        ttl=tlv.number(found, a.DAEMON_MCAST_TTL, 1),
        maxlen=tlv.number(found, a.DAEMON_SYNC_MAXLEN, 2),
    )


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
    family = FAMILY_BY_AF.get(af)
    if family is None:
        return Foreign("a virtual server", f"its address family is {af}")
    if a.SVC_FWMARK in found:
        mark = tlv.number(found, a.SVC_FWMARK, 4)
        if mark:  # a dump leaves 0 out; ipvsadm's own rule is the same: without a mark, the endpoint holds
            return VirtualKey(family, mark=mark)
    number = tlv.number(found, a.SVC_PROTOCOL, 2)
    endpoint = Endpoint(_address(found, a.SVC_ADDR, family), tlv.number(found, a.SVC_PORT, 2, big_endian=True))
    protocol = PROTOCOL_BY_NUMBER.get(number)
    if protocol is None:
        name = _PROTOCOL_NAMES.get(number, f"protocol {number}")
        return Foreign(f"{name} {endpoint}", f"{name} cannot be managed")
    return VirtualKey(family, protocol, endpoint)


def virtual_row(
    key: VirtualKey, name: bytes, flags: int, timeout_s: int, netmask: bytes, engine: bytes = b""
) -> VirtualRow | Foreign:
    """A virtual server's row of what the kernel says of it.

    Raises: KernelError.
    """
    unknown = flags & ~(a.SVC_F_PERSISTENT | a.SVC_F_HASHED | a.SVC_F_ONEPACKET | a.SVC_F_SCHED_MASK)
    if unknown:
        return Foreign(str(key), f"it has unknown flags {unknown:#x}", key)
    if not flags & a.SVC_F_PERSISTENT:  # the mask and the timeout are there all the same, and mean nothing
        timeout_s, prefix = 0, None
    elif timeout_s == 0:
        return Foreign(str(key), "it has persistence with a timeout of 0", key)
    else:
        prefix = _prefix(key.family, netmask)
        if prefix is None:
            return Foreign(str(key), "its persistence mask has holes", key)
        if prefix == FULL_PREFIX[key.family]:
            prefix = None
    return VirtualRow(
        _text(name),
        SchedulerFlags(flags & a.SVC_F_SCHED_MASK),
        timeout_s,
        prefix,
        bool(flags & a.SVC_F_ONEPACKET),
        _text(engine),
    )


def real_row(
    forward_number: int, weight: int, tunnel_number: int, tunnel_port: int, tunnel_flags: int, upper: int, lower: int
) -> RealRow | str:
    """A real server's row of what the kernel says of it, or why there is none."""
    forward = _FORWARD_BY_NUMBER.get(forward_number)
    if forward is None:
        return f"its forwarding method is {forward_number}"
    tunnel = IPIP
    if forward_number == a.FWD_TUNNEL and (tunnel_number or tunnel_port or tunnel_flags):
        kind = _TUNNEL_BY_NUMBER.get(tunnel_number)
        if kind is None:
            return f"its tunnel is of type {tunnel_number}"
        if tunnel_flags & ~a.TUNNEL_FLAGS:
            return f"its tunnel has unknown flags {tunnel_flags:#x}"
        tunnel = Tunnel(kind, tunnel_port, TunnelFlags(tunnel_flags))
    return RealRow(forward, weight, upper, lower, tunnel)


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
