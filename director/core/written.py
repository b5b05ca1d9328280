"""How director.yaml writes what the table holds: plain values under the names of `schema.py`.

One rule: this only translates; whether the file takes it is for the file's own checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from director.core.aroundread import Marked
from director.core.ports import describe_ports
from director.core.table import (
    IPIP,
    SYNC_GROUP,
    Forward,
    Protocol,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    Table,
    Timeouts,
    Tunnel,
    TunnelFlags,
    VirtualKey,
    VirtualRow,
)
from director.kit.duration import format_duration
from director.kit.net import Endpoint, IPAddress
from director.kit.yamltext import Inline, Value

_KERNELS_TIMEOUTS = Timeouts(900, 120, 300)  # ip_vs_proto_tcp.c, ip_vs_proto_udp.c
_CHECKSUMS = {TunnelFlags.CHECKSUM: "full", TunnelFlags.REMOTE_CHECKSUM: "remote"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Member:
    """A real server as the file has it; `port` None is the virtual server's own."""

    address: IPAddress
    port: int | None
    row: RealRow

    def __str__(self) -> str:
        return str(self.address if self.port is None else Endpoint(self.address, self.port))

    def sort_key(self) -> tuple[int, int, int]:
        return (self.address.version, int(self.address), -1 if self.port is None else self.port)


@dataclass(frozen=True, slots=True)
class Group:
    """Entries of the table that one virtual server of the file stands for."""

    keys: tuple[VirtualKey, ...]
    row: VirtualRow
    members: frozenset[Member]
    full_nat: bool = False
    source: IPAddress | None = None
    traffic: tuple[Marked, ...] = ()

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The VIPs, those of a mark's traffic, too."""
        if self.address is not None:
            return (self.address,)
        return tuple(dict.fromkeys(each.address for each in self.traffic))

    @property
    def address(self) -> IPAddress | None:
        endpoint = self.keys[0].endpoint
        return endpoint.address if endpoint else None

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(key.endpoint.port for key in self.keys if key.endpoint)

    def named(self) -> dict[str, Member]:
        """Its real servers by name: `a`, `b` and so on, by address."""
        members = sorted(self.members, key=Member.sort_key)
        names = _LETTERS if len(members) <= len(_LETTERS) else [f"rs{n}" for n in range(1, len(members) + 1)]
        return dict(zip(names, members, strict=False))

    def __str__(self) -> str:
        key = self.keys[0]
        if len(self.keys) == 1 or key.protocol is None:
            return str(key)
        return f"{key.protocol.value} {self.address} ports {describe_ports(self.ports)}"


def virtual_server(group: Group, interface: str | None = None) -> dict[str, Value]:
    """The section of `group`; `forward` is the one that most of its real servers have."""
    key, row = group.keys[0], group.row
    data: dict[str, Value] = {}
    if key.mark is not None:
        data["fwmark"] = key.mark
        if key.family == 6:
            data["family"] = "ipv6"
    else:
        data["address"] = str(group.address)
        data["port"] = _ports(group.ports)
        if key.protocol is not None and key.protocol is not Protocol.TCP:
            data["protocol"] = key.protocol.value
    if group.traffic:
        data["traffic"] = [_traffic(each) for each in group.traffic]
    if interface is not None:
        data["interface"] = interface
    forwards = Counter(member.row.forward.value for member in group.members)
    forward = min(forwards, key=lambda each: (-forwards[each], each), default=Forward.NAT.value)
    if group.full_nat and Forward.NAT.value in forwards:
        forward = Forward.NAT.value  # what is NAT in the kernel has another source as well
    data["forward"] = forward
    if group.full_nat and forward == Forward.NAT.value:
        data["forward"] = "fullnat"
        if group.source is not None:
            data["source"] = str(group.source)
    tunnels = {member.row.tunnel for member in group.members}
    tunnel = tunnels.pop() if len(tunnels) == 1 else None
    if tunnel is not None and tunnel != IPIP:
        data["tunnel"] = _tunnel(tunnel)
    data |= _scheduling(row)
    data["real_servers"] = {name: _real_server(member, forward, tunnel) for name, member in group.named().items()}
    return data


def _scheduling(row: VirtualRow) -> dict[str, Value]:
    data: dict[str, Value] = {"scheduler": row.scheduler}
    default = SchedulerFlags.FALLBACK if row.scheduler in {"sh", "mh"} else SchedulerFlags.NONE
    if row.flags != default:
        words = {SchedulerFlags.FALLBACK: "fallback", SchedulerFlags.PORT: "port"}
        data["scheduler_flags"] = [f"{row.scheduler}-{words[flag]}" for flag in words if flag in row.flags]
    if row.persistence_s:
        persistence = Inline(timeout=format_duration(row.persistence_s))
        if row.persistence_prefix is not None:
            persistence["prefix"] = row.persistence_prefix
        if row.engine:
            persistence["engine"] = row.engine
        data["persistence"] = persistence
    if row.one_packet:
        data["one_packet"] = True
    return data


def _real_server(member: Member, forward: str, tunnel: Tunnel | None) -> Inline:
    """`forward` and `tunnel` are what the virtual server says already."""
    row = member.row
    data = Inline(address=str(member.address))
    if member.port is not None:
        data["port"] = member.port
    if row.weight != 100:
        data["weight"] = row.weight
    if row.upper_threshold:
        data["upper_threshold"] = row.upper_threshold
    if row.lower_threshold:
        data["lower_threshold"] = row.lower_threshold
    if row.forward.value != forward:
        data["forward"] = row.forward.value
    if tunnel is None and row.tunnel != IPIP:
        data["tunnel"] = _tunnel(row.tunnel)
    return data


def _ports(ports: tuple[int, ...]) -> Value:
    parts: list[Value] = [int(part) if part.isdecimal() else part for part in describe_ports(ports).split(",")]
    return parts[0] if len(parts) == 1 else parts


def _traffic(marked: Marked) -> Inline:
    data = Inline(address=str(marked.address))
    if marked.ports:
        ports = sorted({port for first, last in marked.ports for port in range(first, last + 1)})
        data["port"] = _ports(tuple(ports))
    if marked.protocol is not Protocol.TCP:
        data["protocol"] = marked.protocol.value
    return data


def _tunnel(tunnel: Tunnel) -> Inline:
    data = Inline(type=tunnel.kind.value)
    if tunnel.port:
        data["port"] = tunnel.port
    if tunnel.flags in _CHECKSUMS:
        data["checksum"] = _CHECKSUMS[tunnel.flags]
    return data


def namespace(table: Table, own_timeouts: bool = False) -> dict[str, Value]:
    """Timeouts where they are not the kernel's own, or are the director's, and the sync daemons that run."""
    data: dict[str, Value] = {}
    timeouts = table.timeouts
    if timeouts is not None and (own_timeouts or timeouts != _KERNELS_TIMEOUTS):
        parts = {"tcp": timeouts.tcp_s, "tcpfin": timeouts.tcpfin_s, "udp": timeouts.udp_s}
        data["timeouts"] = Inline({name: format_duration(seconds) for name, seconds in parts.items()})
    if table.sync:
        daemons = sorted(table.sync, key=lambda daemon: daemon.role.value, reverse=True)  # master first
        data["sync"] = {daemon.role.value: _sync_daemon(daemon) for daemon in daemons}
    return data


def _sync_daemon(daemon: SyncDaemon) -> Inline:
    data = Inline(interface=daemon.interface, id=daemon.id)
    usual: Mapping[str, Value] = {"group": str(SYNC_GROUP), "port": 8848, "ttl": 1}
    found: Mapping[str, Value] = {"group": str(daemon.group), "port": daemon.port, "ttl": daemon.ttl}
    data |= {name: value for name, value in found.items() if value != usual[name]}
    if daemon.maxlen is not None:
        data["maxlen"] = daemon.maxlen
    return data
