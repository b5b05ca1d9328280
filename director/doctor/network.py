"""This host's links, addresses, routes and neighbours, as rtnetlink tells them; needs no root.

One rule: one pass, one value; what is asked of the wire is `wire.py`'s.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from director.host.rtnetlink import FAMILIES, IFF_UP, iproute
from director.kit.net import IPAddress

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# linux/if.h, linux/if_arp.h, linux/rtnetlink.h, linux/neighbour.h
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80
ARPHRD_ETHER = 1
RTN_LOCAL = 2
NUD_FAILED = 0x20
NUD_INCOMPLETE = 0x01
NUD_PERMANENT = 0x80
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}

FAR: Mapping[int, IPAddress] = MappingProxyType({4: ip_address("1.1.1.1"), 6: ip_address("2606:4700:4700::1111")})
"""Addresses beyond any default route. A route to them is looked up; nothing is sent there."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `speaks_arp` holds where others can ask for addresses; `remote` is a tunnel's only peer."""

    name: str
    index: int
    mtu: int
    up: bool = True
    loopback: bool = False
    speaks_arp: bool = True
    kind: str = ""
    mac: str | None = None
    remote: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """An address of this host."""

    address: IPAddress
    prefix_length: int
    interface: str

    def covers(self, other: IPAddress) -> bool:
        """Whether `other` is in the network that this address makes local to its interface."""
        return other in ip_interface(f"{self.address}/{self.prefix_length}").network


@dataclass(frozen=True, slots=True)
class Route:
    """How this host sends to an address; `is_local` means to itself. `segment_bytes` is the route's own `advmss`."""

    interface: str
    gateway: IPAddress | None = None
    mtu: int | None = None
    is_local: bool = False
    segment_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """What rtnetlink said. `routes` has None for an address that there is no way to."""

    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    held: tuple[Held, ...] = ()
    routes: Mapping[IPAddress, Route | None] = field(default_factory=lambda: MappingProxyType({}))

    def addresses(self) -> frozenset[IPAddress]:
        """Every address of this host."""
        return frozenset(each.address for each in self.held)

    def holders(self, address: IPAddress) -> tuple[Link, ...]:
        """The interfaces that have `address`."""
        return tuple(self.links[each.interface] for each in self.held if each.address == address)

    def wires(self) -> tuple[Link, ...]:
        """The interfaces that packets of others come in by and that answer for addresses."""
        return tuple(link for link in self.links.values() if link.up and link.speaks_arp)

    def outsides(self) -> tuple[Link, ...]:
        """The interfaces that packets of others come in by."""
        return tuple(link for link in self.links.values() if link.up and not link.loopback)

    def sender(self, interface: str, version: int, others_than: Iterable[IPAddress]) -> IPAddress | None:
        """An address of an interface's own to ask in the name of."""
        without = set(others_than)
        own = [each for each in self.held if each.interface == interface and each.address.version == version]
        fitting = [each.address for each in own if each.address not in without]
        return next(iter(sorted(fitting, key=lambda address: address.is_link_local)), None)

    def on_link(self, address: IPAddress) -> Held | None:
        """The address of this host whose network `address` is in."""
        return next((each for each in self.held if each.prefix_length < 31 and each.covers(address)), None)


def observe(targets: Iterable[IPAddress]) -> Network:
    """The host's network, with its routes to `targets` and to far away.

    Raises: HostError when the kernel refuses.
    """
    with iproute("list this host's network") as ipr:
        links = {link.name: link for link in map(_link, ipr.get_links())}
        names = {link.index: link.name for link in links.values()}
        held = tuple(_held(ipr.get_addr(), names))
        routes = {target: _route(ipr, target, names) for target in dict.fromkeys((*targets, *FAR.values()))}
    return Network(MappingProxyType(links), held, MappingProxyType(routes))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Where the kernel believes an address to be; `permanent` is what somebody wrote down, and nobody asked for."""

    mac: str
    permanent: bool


Neighbours = Mapping[tuple[str, IPAddress], Neighbour]
"""By interface and address; what was asked in vain is not there."""


def neighbours() -> Neighbours:
    """The kernel's neighbour table.

    Raises: HostError when the kernel refuses.
    """
    found = {}
    with iproute("list this host's network") as ipr:
        names = dict(socket.if_nameindex())
        for family in FAMILIES.values():
            for message in ipr.get_neighbours(family=family):
                mac = message.get("lladdr")
                state, index = message["state"], message["ifindex"]
                if mac and not state & (NUD_FAILED | NUD_INCOMPLETE) and index in names:
                    at = (names[index], ip_address(str(message.get("dst"))))
                    found[at] = Neighbour(str(mac), bool(state & NUD_PERMANENT))
    return found


def _link(message: Any) -> Link:
    flags = message["flags"]
    return Link(
        name=message.get("ifname"),
        index=message["index"],
        mtu=message.get("mtu"),
        up=bool(flags & IFF_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        speaks_arp=message["ifi_type"] == ARPHRD_ETHER and not flags & IFF_NOARP,
        kind=message.get(("linkinfo", "kind")) or "",
        mac=message.get("address") if message["ifi_type"] == ARPHRD_ETHER else None,
        remote=_remote(message.get(("linkinfo", "data"))),
    )


def _remote(data: Any) -> IPAddress | None:
    try:
        attributes = dict(data["attrs"])
    except (TypeError, KeyError):
        return None
    text = next((value for name, value in attributes.items() if name.endswith("_REMOTE")), "")
    try:
        address = ip_address(str(text))
    except ValueError:
        return None
    return None if address.is_unspecified else address


def _held(messages: Iterable[Any], names: Mapping[int, str]) -> Iterator[Held]:
    for message in messages:
        # As in director.host.addresses: IFA_LOCAL is ours, IFA_ADDRESS the peer's on a point-to-point link.
        text = message.get("local") or message.get("address")
        if text and message["index"] in names:
            yield Held(ip_address(text), message["prefixlen"], names[message["index"]])


def _route(ipr: IPRoute, target: IPAddress, names: Mapping[int, str]) -> Route | None:
    from pyroute2 import NetlinkError

    try:
        message = ipr.route("get", dst=str(target))[0]
    except NetlinkError as error:
        if error.code in _NO_WAY:
            return None
        raise
    gateway = message.get("gateway")
    return Route(
        names.get(message.get("oif"), "?"),
        ip_address(gateway) if gateway else None,
        message.get(("metrics", "mtu")),
        message["type"] == RTN_LOCAL,
        message.get(("metrics", "advmss")),
    )
