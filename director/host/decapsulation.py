"""What a real server needs to unwrap what directors tunnel to it: devices, UDP ports, smaller segments. Pure.

One rule: a device takes packets from one director or, where none is named, those sent to one address of this
host. The kernel's own tunl0, gre0 and sit0, which take everybody's packets to anywhere, stay down.

An ipip device takes what came as gue too: the fou port strips UDP and GUE and hands the rest, outer addresses
unchanged, to the device of the inner protocol (net/ipv4/fou.c, gue_udp_recv). Nothing is ever sent by these
devices, answers leave by the ordinary route, so no kernel needs CONFIG_NET_FOU_IP_TUNNELS for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from director.core.table import Tunnel, TunnelFlags, TunnelKind
from director.kit.errors import ConfigError
from director.kit.net import IPAddress


class DeviceKind(Enum):
    """Kinds of tunnel devices, as `ip link add type` has them."""

    IPIP = "ipip"  # IPv4 in IPv4
    SIT = "sit"  # IPv6 in IPv4
    IP6TNL = "ip6tnl"  # both in IPv6
    GRE = "gre"  # both in GRE in IPv4
    IP6GRE = "ip6gre"  # both in GRE in IPv6


@dataclass(frozen=True, slots=True)
class Device:
    """A tunnel device for what `remote` sends, or for what is sent to `local`; one of them is None: any address.

    `checksum`: GRE's. The kernel drops packets that have one where the device has not, and the other way round
    (ip_tunnel_rcv).
    """

    kind: DeviceKind
    remote: IPAddress | None = None
    local: IPAddress | None = None
    checksum: bool = False

    def __str__(self) -> str:
        ends = [f"from {self.remote}" if self.remote else "", f"to {self.local}" if self.local else ""]
        return " ".join(filter(None, [self.kind.value, *ends, "with checksums" if self.checksum else ""]))


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A UDP port on which the kernel unwraps GUE (`ip fou add port PORT gue`); `version` is 4 or 6."""

    port: int
    version: int

    def __str__(self) -> str:
        return f"gue on UDP port {self.port} (IPv{self.version})"


@dataclass(frozen=True, slots=True)
class Served:
    """A VIP that this real server answers for: under DR, or as the far end of `tunnel`.

    What is tunneled is taken from `directors`, whose addresses as this host sees them these are; without any,
    from everybody, if sent to one of `locals`.
    """

    vip: IPAddress
    tunnel: Tunnel | None = None
    directors: tuple[IPAddress, ...] = ()
    locals: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """One device that packets for a VIP come out of, and how they were wrapped."""

    vip: IPAddress
    tunnel: Tunnel
    device: Device

    @property
    def outer_version(self) -> int:
        outer = self.device.remote or self.device.local
        assert outer is not None  # noqa: S101 -- a device has one or the other
        return outer.version


def ends(served: Iterable[Served]) -> tuple[End, ...]:
    """Every device that each tunneled VIP comes out of; devices that carry several VIPs are equal.

    Raises: ConfigError for GRE both with and without checksums from one director.
    """
    found = []
    for each in served:
        if each.tunnel is None:
            continue
        checksum = each.tunnel.kind is TunnelKind.GRE and TunnelFlags.CHECKSUM in each.tunnel.flags
        for outer in each.directors or each.locals:
            kind = _kind(each.tunnel.kind, outer.version, each.vip.version)
            remote, local = (outer, None) if each.directors else (None, outer)
            found.append(End(each.vip, each.tunnel, Device(kind, remote, local, checksum)))
    _refuse_both(found)
    return tuple(found)


def listeners(of: Iterable[End]) -> frozenset[Listener]:
    """The UDP ports that gue needs."""
    return frozenset(Listener(end.tunnel.port, end.outer_version) for end in of if end.tunnel.kind is TunnelKind.GUE)


def segment_bytes(end: End, outer_mtu: int) -> int:
    """The largest TCP segment (MSS) whose packet still fits, wrapped, in `outer_mtu` bytes.

    >>> from ipaddress import ip_address
    >>> vip, director = ip_address("192.0.2.10"), ip_address("10.0.0.1")
    >>> [segment_bytes(end, 1500) for end in ends([Served(vip, Tunnel(), (director,))])]
    [1440]
    """
    wrapping = _IP_BYTES[end.outer_version] + _WRAPPING_BYTES[end.tunnel.kind]
    if end.device.checksum:
        wrapping += 4
    return outer_mtu - wrapping - _IP_BYTES[end.vip.version] - _TCP_BYTES


def name_all(
    wanted: Iterable[Device], known: Mapping[str, Device], there: Mapping[str, Device | None]
) -> dict[str, Device]:
    """A name for every device: the one it is known by, else a new one that no link of `there` has.

    A link that has a known name but is another device has been replaced by someone: it is not ours any more.

    >>> from ipaddress import ip_address
    >>> list(name_all([Device(DeviceKind.IPIP, ip_address("10.0.0.1"))], {}, {"lvs-ipip0": None}))
    ['lvs-ipip1']
    """
    wanted = set(wanted)
    names = {device: name for name, device in known.items() if there.get(name, device) == device}
    taken = {*there, *known}
    for device in sorted(wanted - names.keys(), key=str):
        names[device] = next(name for name in _names(device.kind) if name not in taken)
        taken.add(names[device])
    return {names[device]: device for device in sorted(wanted, key=str)}


_IP_BYTES = {4: 20, 6: 40}
_TCP_BYTES = 20
# GUE: UDP, its header, and the remote checksum option that IPVS adds where it is asked to (ip_vs_xmit.c).
_WRAPPING_BYTES = {TunnelKind.IPIP: 0, TunnelKind.GRE: 4, TunnelKind.GUE: 8 + 4 + 8}


def _refuse_both(found: Iterable[End]) -> None:
    seen: dict[Device, End] = {}
    for end in found:
        other = seen.setdefault(replace(end.device, checksum=False), end)
        if other.device != end.device:
            raise ConfigError(
                f"{other.vip} and {end.vip} come by {other.device} and by {end.device}: a host takes only one of them "
                "from the same director; give both virtual servers the same checksum flag"
            )


def _kind(kind: TunnelKind, outer_version: int, inner_version: int) -> DeviceKind:
    if kind is TunnelKind.GRE:
        return DeviceKind.GRE if outer_version == 4 else DeviceKind.IP6GRE
    if outer_version == 6:
        return DeviceKind.IP6TNL
    return DeviceKind.IPIP if inner_version == 4 else DeviceKind.SIT


def _names(kind: DeviceKind) -> Iterable[str]:
    return (f"lvs-{kind.value}{number}" for number in range(10_000))
