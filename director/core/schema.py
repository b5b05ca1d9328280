"""The shape of director.yaml: names, types and ranges of its keys, and nothing across sections.

One rule: what one key alone can get wrong is refused here; what two keys together can, in `findings.py`.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from director.core.metricsschema import MetricsSection
from director.core.naming import Lookups, Named
from director.core.notifyschema import NotificationSections
from director.core.policyschema import HookSection, PolicySection, QuorumSection
from director.core.ports import Ports
from director.core.table import SYNC_GROUP
from director.kit.checks.base import Port
from director.kit.checks.check import AnyCheckSection, CombinedCheckSection
from director.kit.checks.check import CheckSection as ProbeCheckSection
from director.kit.configfile import Section
from director.kit.duration import Duration, format_duration
from director.kit.net import IPAddress, is_host_name, parse_unicast
from director.kit.shown import shown


def _address(value: object) -> IPAddress:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an IP address: use one such as 192.0.2.10 or 2001:db8::10")
    return parse_unicast(value)


def _server_address(value: object, info: ValidationInfo) -> IPAddress | Named:
    if isinstance(value, str) and is_host_name(value):
        return Lookups.named(value, info.context)
    return _address(value)


def _vip(address: IPAddress) -> IPAddress:
    if address.is_loopback:
        raise ValueError(f"{address} is a loopback address: give the address that clients connect to")
    return address


def _vips(value: object) -> tuple[IPAddress, ...]:
    found = tuple(_vip(_address(item)) for item in (value if isinstance(value, list) else [value]))
    if not found:
        raise ValueError("no address is given: write the one that clients connect to, or a list")
    if len(set(found)) < len(found):
        twice = next(address for address in found if found.count(address) > 1)
        raise ValueError(f"{twice} stands here twice: remove one")
    return found


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a name: use up to 63 letters, digits, '_', '-' and '.', a letter or digit first"
        )
    return value


def _interface(value: str) -> str:
    # dev_valid_name() in net/core/dev.c
    if not 0 < len(value) < 16 or value in {".", ".."} or re.search(r"[/:\s]", value):
        raise ValueError(f"{value!r} is not an interface name: use one that `ip link` shows, such as eth0")
    return value


def _group(value: object) -> IPAddress:
    try:
        group = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        group = None
    if group is None or not group.is_multicast:
        raise ValueError(f"{shown(value)} is not a multicast address: use one such as 224.0.0.81")
    return group


def _whole_seconds(value: float) -> float:
    if value != int(value):
        raise ValueError(f"{value:g}s has a fraction: the kernel counts whole seconds")
    if not 1 <= value <= _LONGEST_S:
        raise ValueError(f"{format_duration(value)} is out of range: use 1s to {_LONGEST_S}s")
    return value


_LONGEST_S = 2**31 // 1000  # the kernel counts jiffies in an int; HZ is at most 1000 (ip_vs_ctl.c, ip_vs_set_timeout)

LEAST_RESOLVE_S = 1.0
_ADDRESS = {"type": "string", "format": "ip"}
Address = Annotated[IPAddress, BeforeValidator(_address), WithJsonSchema(_ADDRESS)]
ServerAddress = Annotated[
    IPAddress | Named,
    PlainValidator(_server_address),
    WithJsonSchema({"anyOf": [_ADDRESS, {"type": "string", "format": "hostname"}]}),
]
VipAddresses = Annotated[
    tuple[IPAddress, ...],
    BeforeValidator(_vips),
    WithJsonSchema({"anyOf": [_ADDRESS, {"type": "array", "items": _ADDRESS}]}),
]
Group = Annotated[IPAddress, BeforeValidator(_group), WithJsonSchema(_ADDRESS)]
Name = Annotated[str, AfterValidator(_name)]
Interface = Annotated[str, AfterValidator(_interface)]
Weight = Annotated[int, Field(strict=True, ge=0, le=65535)]
Connections = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Seconds = Annotated[Duration, AfterValidator(_whole_seconds)]

# net/netfilter/ipvs/ip_vs_*.c
Scheduler = Literal[
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "twos"
]  # fmt: skip
SchedulerFlag = Literal["sh-fallback", "sh-port", "mh-fallback", "mh-port"]
ProtocolName = Literal["tcp", "udp", "sctp"]


class NoCheckSection(Section):
    """`check: {type: none}`: never probed, taken as up. Overrides a check from `defaults`."""

    type: Literal["none"]


CheckSection = Annotated[AnyCheckSection | CombinedCheckSection | NoCheckSection, Field(discriminator="type")]


class PersistenceSection(Section):
    """Keeps a client with the server it was first given."""

    timeout: Seconds = Field(300.0, description="how long a client is remembered after its last connection")
    prefix: Annotated[int, Field(strict=True, ge=0, le=128)] | None = Field(
        None, description="clients that share this many leading address bits count as one; default: each alone"
    )
    netmask: str | None = Field(None, description="the same as an IPv4 mask, such as 255.255.255.0")
    engine: Literal["sip"] | None = Field(
        None, description="sip: a client is known by its Call-ID, not its address (udp)"
    )

    @field_validator("netmask")
    @classmethod
    def _mask(cls, value: str | None) -> str | None:
        if value is not None:
            mask_prefix(value)
        return value

    @property
    def bits(self) -> int | None:
        """The prefix length, however it was written."""
        return self.prefix if self.netmask is None else mask_prefix(self.netmask)


def mask_prefix(text: str) -> int:
    """The prefix length of an IPv4 mask. Raises: ValueError.

    >>> mask_prefix("255.255.255.0")
    24
    """
    try:
        zeros = ~int(IPv4Address(text)) & 0xFFFFFFFF
    except ValueError:
        zeros = 2
    if zeros & (zeros + 1):
        raise ValueError(f"{text!r} is not a netmask: use one such as 255.255.255.0, or `prefix: 24`")
    return 32 - zeros.bit_length()


class TunnelSection(Section):
    """How `tun` wraps packets."""

    type: Literal["ipip", "gre", "gue"] = "ipip"
    port: Port | None = Field(None, description="gue: the UDP port at the real server")
    checksum: Literal["none", "full", "remote"] = Field(
        "none", description="of the outer header: gre none or full; gue also remote (the receiver's work)"
    )


class RealServerSection(Section):
    """One real server of a virtual server."""

    address: ServerAddress = Field(description="a name is looked up, again every resolve_interval")
    port: Port | None = Field(None, description="default: the virtual server's port; with dr and tun always that one")
    weight: Weight = Field(100, description="share of new connections, 0 to 65535; 0 gives it none")
    state: Literal["enabled", "drained", "disabled"] = Field(
        "enabled", description="drained: weight 0, connections finish; disabled: not in the table and not checked"
    )
    upper_threshold: Connections = Field(
        0, description="no new connections above this many, active and inactive ones together; 0: no limit"
    )
    lower_threshold: Connections = Field(
        0, description="new ones again below this many; 0: three quarters of upper_threshold"
    )
    forward: Literal["nat", "dr", "tun"] | None = Field(None, description="overrides the virtual server's forward")
    tunnel: TunnelSection | None = Field(None, description="overrides the virtual server's tunnel")
    check: CheckSection | None = Field(None, description="overrides the virtual server's check")
    load: ProbeCheckSection | None = Field(None, description="overrides the virtual server's load")


class SorryServerSection(Section):
    """Who answers while quorum is lost. It is not checked."""

    address: ServerAddress = Field(description="as a real server's")
    port: Port | None = Field(None, description="default: the virtual server's port; with dr and tun always that one")
    weight: Annotated[int, Field(strict=True, ge=1, le=65535)] = 1
    forward: Literal["nat", "dr", "tun"] | None = Field(None, description="overrides the virtual server's forward")
    tunnel: TunnelSection | None = Field(None, description="overrides the virtual server's tunnel")


class TrafficSection(Section):
    """Packets that the director marks with the virtual server's firewall mark."""

    address: VipAddresses = Field(description="one VIP, or a list")
    port: Ports | None = Field(None, description="one port, a list, a range or any; default: any")
    protocol: ProtocolName = "tcp"


class VirtualServerSection(PolicySection):
    """One virtual server: the addresses that clients connect to, and who answers."""

    address: VipAddresses | None = Field(None, description="the VIP, or a list; or use fwmark")
    port: Ports | None = Field(None, description="one port, a list, a range such as 8000-8099, or any")
    protocol: ProtocolName | None = Field(None, description="default: tcp")
    fwmark: Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)] | None = Field(
        None, description="serves whatever carries this firewall mark, in place of address and port"
    )
    family: Literal["ipv4", "ipv6"] | None = Field(None, description="with fwmark: the IP version; default: ipv4")
    traffic: tuple[TrafficSection, ...] = Field(
        (), description="with fwmark: what the director marks; without it, somebody else's rules do"
    )
    forward: Literal["nat", "dr", "tun", "fullnat"] = Field(description="how packets reach the real servers")
    source: Address | None = Field(
        None, description="with fullnat: the address real servers see; default: that of the way out"
    )
    tunnel: TunnelSection | None = Field(None, description="with tun: how packets are wrapped; default: ipip")
    scheduler: Scheduler = Field("wlc", description="who gets the next connection")
    scheduler_flags: tuple[SchedulerFlag, ...] | None = Field(
        None, description="options of sh and mh; default: sh-fallback or mh-fallback"
    )
    persistence: PersistenceSection | None = None
    one_packet: bool = Field(False, strict=True, description="udp: every packet is scheduled by itself")
    interface: Interface | None = Field(
        None, description="the director adds the VIP to this interface; default: `defaults.interface`"
    )
    on_drift: Literal["repair", "report"] | None = Field(
        None, description="what to do when somebody else changes it in the kernel; default: `defaults.on_drift`"
    )
    check: CheckSection | None = Field(None, description="how real servers are probed; default: `defaults.check`")
    load: ProbeCheckSection | None = Field(
        None,
        description="asked for a share of the weight (agent, script or file), apart from health: its failure changes "
        "nothing",
    )
    quorum: QuorumSection | None = Field(None, description="how many real servers are enough; default: one")
    quorum_up: HookSection | None = Field(None, description="run when quorum is held again")
    quorum_down: HookSection | None = Field(None, description="run when quorum is lost")
    sorry_server: SorryServerSection | None = Field(
        None, description="serves while quorum is lost; the real servers that are left take nothing new then"
    )
    real_servers: dict[Name, RealServerSection]


class DefaultsSection(PolicySection):
    """What virtual servers take over where they say nothing."""

    check: CheckSection | None = None
    interface: Interface | None = Field(
        None, description="the interface that VIPs are kept on; without one the director leaves addresses alone"
    )
    on_drift: Literal["repair", "report"] = "repair"


class TimeoutsSection(Section):
    """How long IPVS remembers a silent connection; for the whole network namespace."""

    tcp: Seconds = Field(900.0, description="established TCP")
    tcpfin: Seconds = Field(120.0, description="TCP after a FIN")
    udp: Seconds = Field(300.0, description="UDP")


class SyncDaemonSection(Section):
    """One of the kernel's sync daemons (ipvsadm --start-daemon)."""

    interface: Interface
    id: Annotated[int, Field(strict=True, ge=0, le=255)] = Field(
        0, description="a backup takes what masters of its id send; 0 takes all"
    )
    group: Group = SYNC_GROUP
    port: Port = 8848
    ttl: Annotated[int, Field(strict=True, ge=1, le=255)] = 1
    maxlen: Annotated[int, Field(strict=True, ge=1, le=65507)] | None = Field(
        None, description="bytes of one message; default: what the interface's MTU holds"
    )


class SyncSection(Section):
    """Connections are shown to other directors (master), taken in from them (backup), or both."""

    master: SyncDaemonSection | None = None
    backup: SyncDaemonSection | None = None

    @model_validator(mode="after")
    def _something(self) -> SyncSection:
        if self.master is None and self.backup is None:
            raise ValueError("no daemon is asked for: write `master:`, `backup:` or both, or remove `sync`")
        return self


class FileSection(Section):
    """director.yaml."""

    defaults: DefaultsSection = DefaultsSection()
    drift_interval: Duration = Field(
        10.0, description="longest time between two looks at the kernel's table, at least 100ms"
    )
    resolve_interval: Duration = Field(
        30.0, description="time between two lookups of real servers that are given by name, at least 1s"
    )
    exclusive: bool = Field(
        False, strict=True, description="true: the IPVS table is the director's alone, anything else in it is removed"
    )
    settings: Literal["manage", "report"] = Field(
        "manage",
        description="sysctls that the forwarding methods need: set and put back, or only told",
    )
    dead_connections: Literal["keep", "expire"] = Field(
        "keep",
        description="connections to a server that is down or removed: expire ends them at once, for all of the host; "
        "keep leaves the host's setting (net.ipv4.vs.expire_nodest_conn, by default 0) alone",
    )
    timeouts: TimeoutsSection | None = Field(None, description="default: left as they are")
    sync: SyncSection | None = Field(None, description="default: left as it is")
    notifications: dict[Name, NotificationSections] = Field({}, description="who is told of events, by name")
    metrics: MetricsSection | None = Field(None, description="what Prometheus reads; default: nothing is served")
    virtual_servers: dict[Name, VirtualServerSection]

    @field_validator("drift_interval")
    @classmethod
    def _idle(cls, value: float) -> float:
        if value < 0.1:
            raise ValueError(f"{format_duration(value)} leaves no time for anything else: use at least 100ms")
        return value

    @field_validator("resolve_interval")
    @classmethod
    def _patient(cls, value: float) -> float:
        if value < LEAST_RESOLVE_S:
            least = format_duration(LEAST_RESOLVE_S)
            raise ValueError(f"{format_duration(value)} is too often for name servers: use at least {least}")
        return value
