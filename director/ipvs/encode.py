"""From values to netlink requests.

One rule: every SET carries the whole row. The kernel takes what a SET_DEST leaves out for 0, and a
SET_SERVICE without scheduler, flags, timeout and netmask is EINVAL (net/netfilter/ipvs/ip_vs_ctl.c,
ip_vs_genl_parse_service and ip_vs_genl_parse_dest).
"""

from __future__ import annotations

import os
import struct
import sys
from functools import lru_cache
from ipaddress import IPv4Address
from typing import assert_never

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
)
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SyncDaemon,
    SyncRole,
    Timeouts,
    TunnelKind,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import tlv
from director.ipvs.failure import subject
from director.kit.errors import KernelError
from director.kit.net import Endpoint, IPAddress

AF_BY_FAMILY = {4: a.AF_INET, 6: a.AF_INET6}
NUMBER_BY_PROTOCOL = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
NUMBER_BY_TUNNEL = {
    TunnelKind.IPIP: a.TUNNEL_IPIP,
    TunnelKind.GUE: a.TUNNEL_GUE,
    TunnelKind.GRE: a.TUNNEL_GRE,
}
NUMBER_BY_ROLE = {SyncRole.MASTER: a.STATE_MASTER, SyncRole.BACKUP: a.STATE_BACKUP}
NUMBER_BY_FORWARD = {
    Forward.NAT: a.FWD_MASQ,
    Forward.LOCAL: a.FWD_LOCALNODE,
    Forward.TUN: a.FWD_TUNNEL,
    Forward.DR: a.FWD_DROUTE,
    Forward.BYPASS: a.FWD_BYPASS,
}
FULL_PREFIX = {4: 32, 6: 128}
# A length and a type stand before every value; `x` is padding to 4 bytes.
_MARK = struct.Struct("=HHHxxHHI")
_ENDPOINT = struct.Struct("=HHHxxHHHxxHH16sHH2sxx")
_ROW = struct.Struct("=HHIIHHIHH4s")
_REAL = struct.Struct("=HHHH16sHH2sxxHHHxx")
_NOTHING = bytes(12)
_REAL_BYTES = _REAL.size - a.NLA_HEADER_BYTES
_REAL_ROW = struct.Struct("=HHIHHIHHIHHI")
_TUNNEL = struct.Struct("=HHBxxxHH2sxxHHHxx")
_TIMEOUTS = struct.Struct("=HHIHHIHHI")
_DAEMON = struct.Struct("=HHIHHIHHHxxHHBxxx")


class Encoder:
    """Makes requests of changes. Of those that follow each other most are about one virtual server, and have one row:
    the last one's parts are kept for the next."""

    def __init__(self) -> None:
        self._key: VirtualKey | None = None
        self._service = b""
        self._row: RealRow | None = None
        self._real_row = b""

    def encode(self, change: Change) -> bytes:
        """The body of the one request that makes `change`.

        Raises: KernelError when a value does not fit the kernel's field.
        """
        try:
            if not isinstance(change, (AddReal, EditReal)):  # a tuple of classes: a union takes five times as long
                return _encode(change)
            if change.key is not self._key:
                self._service, self._key = service(change.key), change.key
            if change.row is not self._row:
                self._real_row, self._row = _real_row(change.row), change.row
            return _REAL_COMMANDS[type(change)] + self._service + _destination(change.real, self._real_row)
        except (struct.error, UnicodeEncodeError, OverflowError) as error:
            raise KernelError(f"{subject(change)}: a value does not fit the kernel's field: {error}") from error


def encode(change: Change) -> bytes:
    """The body of the one request that makes `change`. Raises: as `Encoder.encode`."""
    return Encoder().encode(change)


def _encode(change: Change) -> bytes:
    match change:
        case AddVirtual(key, row):
            return _request(a.NEW_SERVICE, service(key, row))
        case EditVirtual(key, _, row):
            return _request(a.SET_SERVICE, service(key, row))
        case RemoveVirtual(key, _):
            return _request(a.DEL_SERVICE, service(key))
        case AddReal(key, real, real_row):
            return _request(a.NEW_DEST, service(key), destination(real, real_row))
        case EditReal(key, real, _, real_row):
            return _request(a.SET_DEST, service(key), destination(real, real_row))
        case RemoveReal(key, real, _):
            return _request(a.DEL_DEST, service(key), destination(real))
        case SetTimeouts(_, timeouts):
            return _request(a.SET_CONFIG, _timeouts(timeouts))
        case StartSync(sync):
            return _request(a.NEW_DAEMON, daemon(sync))
        case StopSync(sync):
            return _request(a.DEL_DAEMON, daemon(sync))
        case _:
            assert_never(change)


def list_services() -> bytes:
    """The body of a dump of all virtual servers."""
    return _request(a.GET_SERVICE)


def list_destinations(key: VirtualKey) -> bytes:
    """The body of a dump of one virtual server's real servers."""
    return _request(a.GET_DEST, service(key))


def list_daemons() -> bytes:
    """The body of a dump of all sync daemons."""
    return _request(a.GET_DAEMON)


def get_timeouts() -> bytes:
    """The body of a request for the timeouts."""
    return _request(a.GET_CONFIG)


def get_info() -> bytes:
    """The body of a request for the kernel's IPVS version."""
    return _request(a.GET_INFO)


def get_family(name: str) -> bytes:
    """The body of a request, to GENL_ID_CTRL, for a family's number."""
    text = tlv.attribute(a.CTRL_ATTR_FAMILY_NAME, name.encode("ascii") + b"\0")
    return tlv.generic(a.CTRL_CMD_GETFAMILY, a.CTRL_VERSION, text)


def service(key: VirtualKey, row: VirtualRow | None = None) -> bytes:
    """IPVS_CMD_ATTR_SERVICE: the key alone, or all of a virtual server.

    Raises: struct.error or UnicodeEncodeError when a value does not fit.
    """
    if row is None:
        return _service_key(key)
    flags = int(row.flags) & a.SVC_F_SCHED_MASK
    if row.persistence_s:
        flags |= a.SVC_F_PERSISTENT
    if row.one_packet:
        flags |= a.SVC_F_ONEPACKET
    prefix = row.persistence_prefix if row.persistence_s else None
    fields = _ROW.pack(
        *(12, a.SVC_FLAGS, flags, 0xFFFFFFFF),
        *(8, a.SVC_TIMEOUT, row.persistence_s),
        *(8, a.SVC_NETMASK, _netmask(key.family, FULL_PREFIX[key.family] if prefix is None else prefix)),
    )
    names = _name(a.SVC_SCHED_NAME, row.scheduler)
    if row.engine:  # left out, it is taken away (ip_vs_ctl.c, ip_vs_edit_service)
        names += _name(a.SVC_PE_NAME, row.engine)
    return tlv.nested(a.CMD_SERVICE, _key_attributes(key) + names + fields)


def destination(real: Endpoint, row: RealRow | None = None) -> bytes:
    """IPVS_CMD_ATTR_DEST: the key alone, or all of a real server.

    Raises: struct.error when a value does not fit.
    """
    return _destination(real, b"" if row is None else _real_row(row))


def _destination(real: Endpoint, row: bytes) -> bytes:
    packed, af = pack_address(real.address)
    return (
        _REAL.pack(
            *(a.NLA_HEADER_BYTES + _REAL_BYTES + len(row), a.CMD_DEST | a.NLA_F_NESTED),
            *(20, a.DEST_ADDR, packed),
            *(6, a.DEST_PORT, real.port.to_bytes(2, "big")),
            *(6, a.DEST_ADDR_FAMILY, af),
        )
        + row
    )


def pack_address(address: IPAddress) -> tuple[bytes, int]:
    """union nf_inet_addr, and the address family (`IPv4Address.packed` takes twice the time)."""
    if isinstance(address, IPv4Address):
        return int(address).to_bytes(4, "big") + _NOTHING, a.AF_INET
    return int(address).to_bytes(16, "big"), a.AF_INET6


def _real_row(row: RealRow) -> bytes:
    attributes = _REAL_ROW.pack(
        *(8, a.DEST_FWD_METHOD, NUMBER_BY_FORWARD[row.forward]),
        *(8, a.DEST_WEIGHT, row.weight),
        *(8, a.DEST_U_THRESH, row.upper_threshold),
        *(8, a.DEST_L_THRESH, row.lower_threshold),
    )
    if row.forward is not Forward.TUN:
        return attributes
    return attributes + _TUNNEL.pack(
        *(5, a.DEST_TUN_TYPE, NUMBER_BY_TUNNEL[row.tunnel.kind]),
        *(6, a.DEST_TUN_PORT, row.tunnel.port.to_bytes(2, "big")),
        *(6, a.DEST_TUN_FLAGS, int(row.tunnel.flags)),
    )


def daemon(sync: SyncDaemon) -> bytes:
    """IPVS_CMD_ATTR_DAEMON: all of a sync daemon; to stop one, the kernel heeds its role alone.

    Raises: struct.error or UnicodeEncodeError when a value does not fit.
    """
    six = sync.group.version == 6
    attributes = _DAEMON.pack(
        *(8, a.DAEMON_STATE, NUMBER_BY_ROLE[sync.role]),
        *(8, a.DAEMON_SYNC_ID, sync.id),
        *(6, a.DAEMON_MCAST_PORT, sync.port),
        *(5, a.DAEMON_MCAST_TTL, sync.ttl),
    )
    attributes += tlv.attribute(a.DAEMON_MCAST_IFN, os.fsencode(sync.interface) + b"\0")
    attributes += tlv.attribute(a.DAEMON_MCAST_GROUP6 if six else a.DAEMON_MCAST_GROUP, sync.group.packed)
    if sync.maxlen is not None:
        attributes += tlv.attribute(a.DAEMON_SYNC_MAXLEN, struct.pack("=H", sync.maxlen))
    return tlv.nested(a.CMD_DAEMON, attributes)


def _timeouts(timeouts: Timeouts) -> bytes:
    """What is 0 is left as it is (ip_vs_ctl.c, ip_vs_set_timeout)."""
    return _TIMEOUTS.pack(
        *(8, a.CMD_TIMEOUT_TCP, timeouts.tcp_s),
        *(8, a.CMD_TIMEOUT_TCP_FIN, timeouts.tcpfin_s),
        *(8, a.CMD_TIMEOUT_UDP, timeouts.udp_s),
    )


def _name(kind: int, text: str) -> bytes:
    return tlv.attribute(kind, text.encode("ascii") + b"\0")


def _request(command: int, *parts: bytes) -> bytes:
    return tlv.generic(command, a.IPVS_GENL_VERSION, b"".join(parts))


_REAL_COMMANDS = {
    AddReal: tlv.generic(a.NEW_DEST, a.IPVS_GENL_VERSION),
    EditReal: tlv.generic(a.SET_DEST, a.IPVS_GENL_VERSION),
}


def _netmask(family: int, prefix: int) -> bytes:
    """IPv4: the mask in network order; IPv6: the prefix length in the host's (ip_vs_ctl.c, ip_vs_add_service)."""
    if family == 6:
        return prefix.to_bytes(4, sys.byteorder)
    if not 0 <= prefix <= 32:
        raise struct.error(f"an IPv4 persistence prefix is 0 to 32, not {prefix}")
    return (((1 << prefix) - 1) << (32 - prefix)).to_bytes(4, "big")


@lru_cache(maxsize=4096)
def _service_key(key: VirtualKey) -> bytes:
    return tlv.nested(a.CMD_SERVICE, _key_attributes(key))


def _key_attributes(key: VirtualKey) -> bytes:
    af = AF_BY_FAMILY[key.family]
    if key.protocol is None or key.endpoint is None:
        return _MARK.pack(*(6, a.SVC_AF, af), *(8, a.SVC_FWMARK, key.mark))
    return _ENDPOINT.pack(
        *(6, a.SVC_AF, af),
        *(6, a.SVC_PROTOCOL, NUMBER_BY_PROTOCOL[key.protocol]),
        *(20, a.SVC_ADDR, key.endpoint.address.packed),
        *(6, a.SVC_PORT, key.endpoint.port.to_bytes(2, "big")),
    )
