"""The table of IPVS as values: what the kernel holds and what it should hold, in one shape.

One rule: equality means "the same configuration". Counters stand apart (`Counters`), so that two
tables can be compared by value while traffic flows.

Source of the fields: include/uapi/linux/ip_vs.h (struct ip_vs_service_user, ip_vs_dest_user, ip_vs_timeout_user,
ip_vs_daemon_user).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntFlag
from ipaddress import IPv4Address
from types import MappingProxyType

from director.kit.net import Endpoint, IPAddress, parse_endpoint


class Protocol(Enum):
    """Transport protocols of a virtual server."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class Forward(Enum):
    """Forwarding methods that can be asked for, and those that a foreign table may hold."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    LOCAL = "local"  # the kernel's own mark for a real server on the director itself
    BYPASS = "bypass"


class TunnelKind(Enum):
    """How a packet is wrapped on its way to a real server by TUN."""

    IPIP = "ipip"
    GUE = "gue"
    GRE = "gre"


class TunnelFlags(IntFlag):
    """IP_VS_TUNNEL_ENCAP_FLAG_*: checksums of the outer header (gue and gre only)."""

    NONE = 0
    CHECKSUM = 1
    REMOTE_CHECKSUM = 2  # gue: the receiver computes the inner checksum


@dataclass(frozen=True, slots=True)
class Tunnel:
    """`port` is gue's UDP port at the real server, 0 for the others."""

    kind: TunnelKind = TunnelKind.IPIP
    port: int = 0
    flags: TunnelFlags = TunnelFlags.NONE


IPIP = Tunnel()


class SchedulerFlags(IntFlag):
    """IP_VS_SVC_F_SCHED*: their meaning depends on the scheduler (mh: fallback, port; sh: fallback, port)."""

    NONE = 0
    FALLBACK = 0x0008  # IP_VS_SVC_F_SCHED1: mh-fallback, sh-fallback
    PORT = 0x0010  # IP_VS_SVC_F_SCHED2: mh-port, sh-port
    THIRD = 0x0020  # IP_VS_SVC_F_SCHED3: no scheduler of this kernel uses it


class _KeepsHash:
    """Room for a hash beside a value's fields."""

    __slots__ = ("_hash",)
    _hash: int


@dataclass(frozen=True, slots=True)
class VirtualKey(_KeepsHash):
    """What IPVS knows a virtual server by: protocol and endpoint, or a firewall mark.

    `mark` is 1 to 2**32-1 and then `protocol` is None and `endpoint` None; `family` (4 or 6) always holds.
    The hash is kept: a key is looked up for each of its real servers.
    """

    family: int
    protocol: Protocol | None = None
    endpoint: Endpoint | None = None
    mark: int | None = None

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            found = hash((self.family, self.protocol, self.endpoint, self.mark))
            object.__setattr__(self, "_hash", found)
            return found

    @staticmethod
    def of(protocol: Protocol, address: IPAddress, port: int) -> VirtualKey:
        return VirtualKey(address.version, protocol, Endpoint(address, port))

    @staticmethod
    def parse(text: str) -> VirtualKey:
        """What `str` wrote. Raises: ValueError.

        >>> str(VirtualKey.parse("tcp [2001:db8::1]:80"))
        'tcp [2001:db8::1]:80'
        """
        kind, _, rest = text.partition(" ")
        if kind == "fwmark":
            mark, _, family = rest.partition(" ")
            return VirtualKey(6 if family else 4, mark=int(mark))
        endpoint = parse_endpoint(rest)
        return VirtualKey(endpoint.address.version, Protocol(kind), endpoint)

    def __str__(self) -> str:
        if self.protocol is None or self.endpoint is None:
            return f"fwmark {self.mark}" + (" (IPv6)" if self.family == 6 else "")
        return f"{self.protocol.value} {self.endpoint}"

    def sort_key(self) -> tuple[int, str, tuple[int, int, int], int]:
        endpoint = self.endpoint.sort_key() if self.endpoint else (0, 0, 0)
        return (self.family, self.protocol.value if self.protocol else "", endpoint, self.mark or 0)


@dataclass(frozen=True, slots=True)
class RealRow:
    """One real server as the kernel holds it.

    `weight` is 0 to 65535 (0: no new connections). Thresholds count active plus inactive connections, 0 is none: above
    the upper one no new connections come until there are fewer than the lower one (three quarters of the upper one
    where that is 0; ip_vs_ctl.c, ip_vs_dest_update_overload). `tunnel` means something with TUN only.
    """

    forward: Forward
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel: Tunnel = IPIP


@dataclass(frozen=True, slots=True)
class VirtualRow:
    """One virtual server as the kernel holds it, without its real servers.

    `persistence_s` 0 is none; `persistence_prefix` is the prefix length clients are grouped by, None is each alone.
    `engine` is the persistence engine, such as `sip`, and empty for none.
    """

    scheduler: str
    flags: SchedulerFlags = SchedulerFlags.NONE
    persistence_s: int = 0
    persistence_prefix: int | None = None
    one_packet: bool = False
    engine: str = ""


@dataclass(frozen=True, slots=True)
class VirtualEntry:
    """A virtual server with its real servers, in the order in which they were (or should be) inserted."""

    row: VirtualRow
    reals: Mapping[Endpoint, RealRow] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long IPVS remembers a silent connection, in whole seconds: established TCP, TCP after FIN, UDP."""

    tcp_s: int
    tcpfin_s: int
    udp_s: int


SYNC_GROUP = IPv4Address("224.0.0.81")  # IP_VS_SYNC_GROUP


class SyncRole(Enum):
    """What a sync daemon does with connections: send them (master) or take them in (backup)."""

    MASTER = "master"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """One thread of the kernel that sends or takes in connections; at most one for each role.

    `id` is 0 to 255: a backup heeds masters of the same id, and any with 0. `group` is a multicast address.
    `maxlen` bounds a message's bytes; None leaves it to the kernel (by the interface's MTU).
    """

    role: SyncRole
    interface: str
    id: int = 0
    group: IPAddress = SYNC_GROUP
    port: int = 8848  # IP_VS_SYNC_PORT
    ttl: int = 1
    maxlen: int | None = None

    def agrees(self, found: SyncDaemon) -> bool:
        """Whether `found` in the kernel is what this asks for."""
        return self == (found if self.maxlen is not None else replace(found, maxlen=None))


@dataclass(frozen=True, slots=True)
class Table:
    """The whole IPVS table of one network namespace.

    As a wish, `timeouts` or `sync` None leaves them as they are; as read, both are there.
    """

    entries: Mapping[VirtualKey, VirtualEntry] = field(default_factory=lambda: MappingProxyType({}))
    timeouts: Timeouts | None = None
    sync: frozenset[SyncDaemon] | None = None

    def __iter__(self) -> Iterator[VirtualKey]:
        return iter(self.entries)

    def get(self, key: VirtualKey) -> VirtualEntry | None:
        return self.entries.get(key)


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


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of a virtual or a real server; all are totals since its creation, rates are a second's.

    The kernel's estimator brings totals up to date every 2 s; connection counts are exact at once.
    """

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RealCounters:
    """What one real server carries now, and has carried."""

    active: int = 0
    inactive: int = 0
    persistent: int = 0
    totals: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class TableCounters:
    """Counters beside a `Table` read at the same time."""

    virtuals: Mapping[VirtualKey, Counters]
    reals: Mapping[tuple[VirtualKey, Endpoint], RealCounters]


@dataclass(frozen=True, slots=True)
class Reading:
    """One pass over the kernel's table; `foreign` is what it holds and `table` cannot."""

    table: Table
    counters: TableCounters
    foreign: tuple[Foreign, ...] = ()
