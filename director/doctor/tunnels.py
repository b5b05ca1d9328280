"""Looks at tunnels: wide enough, open to directors alone, and believed by the real server that unpacks them."""

from __future__ import annotations

from collections.abc import Iterator

from director.core.table import TunnelKind
from director.doctor.facts import Facts, need
from director.doctor.finding import Code, Finding, error, listed, note, warning
from director.doctor.network import FAR, Link, Route
from director.doctor.packets.rules import PROTOCOLS, Packet, at_hook, may_be_clamped
from director.doctor.situation import Real, Virtual
from director.doctor.sysctls import PMTU_DISC
from director.host import decapsulation
from director.host.decapsulation import End, Served
from director.host.sysctl import conf, name
from director.kit.net import IPAddress

_HEADERS_BYTES = {4: 40, 6: 60}
"""Of IP and TCP, which a segment's size does not count."""


def ends(facts: Facts, virtual: Virtual) -> tuple[End, ...]:
    """What a tun real server must unpack for a virtual server, from anybody; one end for each of its own addresses."""
    return tuple(_end(virtual, real) for real in virtual.reals or _nameless(facts, virtual))


def _end(virtual: Virtual, real: Real) -> End:
    return decapsulation.ends([Served(virtual.vip, real.tunnel, locals=(real.address,))])[0]


def _nameless(facts: Facts, virtual: Virtual) -> tuple[Real, ...]:
    """This host, where no file names it: by its address on the way to everybody."""
    route = facts.network.routes.get(FAR[virtual.vip.version])
    interfaces = [route.interface] if route else [link.name for link in facts.network.wires()]
    own = (facts.network.sender(interface, virtual.vip.version, [virtual.vip]) for interface in interfaces)
    return tuple(Real("this host", address, None) for address in own if address is not None)[:1]


def widths(facts: Facts) -> Iterator[Finding]:
    """On a director: whether a client's full packet fits into the tunnel."""
    for virtual in facts.directs:
        if virtual.forward != "tun" or (ingress := _ingress(facts, virtual)) is None:
            continue
        full = ingress.mtu - _HEADERS_BYTES[virtual.vip.version]
        narrow = {real.name: fits for real in virtual.reals if (fits := _segment(facts, virtual, real) or full) < full}
        if not narrow:
            continue
        least = min(narrow.values())
        told = facts.number(*PMTU_DISC) != 0
        yield (note if told else warning)(
            Code.TUNNEL_MTU,
            virtual.name,
            f"clients may send segments of {full} bytes, and the tunnel to {listed(narrow)} carries {least}"
            + ("" if told else "; with pmtu_disc=0 they are not told"),
            f"`director realserver apply {facts.situation.source}` has them announce less (`director doctor` there "
            f"tells whether they do), or raise the MTU of the way there by {full - least}",
        )


def _segment(facts: Facts, virtual: Virtual, real: Real) -> int | None:
    """The largest segment that fits into the tunnel to a real server; None where the way there is not known."""
    route = facts.network.routes.get(real.address)
    mtu = None if route is None or route.is_local else _mtu(facts, route)
    return None if mtu is None else decapsulation.segment_bytes(_end(virtual, real), mtu)


def _mtu(facts: Facts, route: Route) -> int | None:
    link = facts.network.links.get(route.interface)
    return route.mtu or (link.mtu if link else None)


def _ingress(facts: Facts, virtual: Virtual) -> Link | None:
    """The interface that clients' packets come in by: the VIP's, or else the default route's."""
    wires = [link for link in facts.network.holders(virtual.vip) if link.speaks_arp]
    route = facts.network.routes.get(FAR[virtual.vip.version])
    return wires[0] if wires else facts.network.links.get(route.interface) if route else None


def segments(facts: Facts) -> Iterator[Finding]:
    """On a real server: whether it tells clients to send what still fits once the director has wrapped it."""
    for virtual, end in _tunneled(facts):
        carrier = min((link.mtu for link in facts.network.holders(_outer(end))), default=None)
        if carrier is None:
            continue
        # Without a default route all clients are near, by the interface that the tunnel comes by or one like it.
        route = facts.network.routes.get(FAR[virtual.vip.version])
        mtu = (_mtu(facts, route) if route else None) or carrier
        announced = (route.segment_bytes if route else None) or mtu - _HEADERS_BYTES[virtual.vip.version]
        fits = decapsulation.segment_bytes(end, carrier)
        syn = Packet(virtual.vip.version, PROTOCOLS["tcp"], source=virtual.vip, source_port=virtual.port)
        if announced > fits and not may_be_clamped(need(facts.filters), syn):
            yield warning(
                Code.TUNNEL_MTU,
                virtual.name,
                f"it has clients send segments of {announced} bytes, and the tunnel carries {fits}: where ICMP "
                '"fragmentation needed" is filtered, uploads hang',
                f"`{virtual.apply_command(facts.situation.source)}`, without --no-mss",
            )


def devices(facts: Facts) -> Iterator[Finding]:
    """On a real server: what it needs to unpack what it is sent, and to believe it."""
    for virtual, end in _tunneled(facts):
        apply = virtual.apply_command(facts.situation.source)
        links = _unpacking(facts, end)
        if not links:
            yield error(
                Code.TUNNEL_MISSING,
                virtual.name,
                f"no tunnel device of kind {end.device.kind.value} is up, so what the director sends is refused",
                f"`{apply}`",
            )
        elif end.tunnel.kind is TunnelKind.GUE and end.tunnel.port not in need(facts.gue_ports):
            yield error(
                Code.TUNNEL_MISSING,
                virtual.name,
                f"nothing unpacks gue on UDP port {end.tunnel.port}",
                f"`{apply}`, or ip fou add port {end.tunnel.port} gue",
            )
        for link in links if virtual.vip.version == 4 else ():
            if facts.effective("rp_filter", link.name) == 1:
                yield error(
                    Code.TUNNEL_RP_FILTER,
                    f"rp_filter on {link.name}",
                    f"the maximum of `all` and {link.name} is 1: clients do not live behind the tunnel, so their "
                    "packets are dropped as they come out of it",
                    f"`{apply}`, or sysctl -w {name(conf(4, link.name, 'rp_filter'))}=2",
                )


def openness(facts: Facts) -> Iterator[Finding]:
    """On a real server: whether anybody can send packets into its tunnel, past every filter on the way."""
    seen = set()
    for virtual, end in _tunneled(facts):
        apply = virtual.apply_command(facts.situation.source)
        links = [link for link in _unpacking(facts, end) if link.remote is None]
        packet = envelope(facts, end)
        if not links or packet in seen:
            continue
        seen.add(packet)
        tables = need(facts.filters)
        if all(at_hook(tables, hook, packet).certainly_accepted for hook in ("prerouting", "input")):
            yield warning(
                Code.TUNNEL_OPEN,
                listed(link.name for link in links),
                "it unpacks what anybody sends, with any source inside, which filters on the way do not see",
                f"`{apply} --director ADDRESS` for each director, or a rule that drops {_wrapping(end)} of all others",
            )


def envelope(facts: Facts, end: End) -> Packet:
    """A packet of the tunnel as it comes from the wire, from anybody."""
    inner = 4 if end.vip.version == 4 else PROTOCOLS["ipv6"]
    kind = end.tunnel.kind
    return Packet(
        version=end.outer_version,
        protocol={TunnelKind.IPIP: inner, TunnelKind.GRE: PROTOCOLS["gre"], TunnelKind.GUE: PROTOCOLS["udp"]}[kind],
        destination=_outer(end),
        destination_port=end.tunnel.port or None,
        interfaces=frozenset(link.name for link in facts.network.wires()),
    )


def _wrapping(end: End) -> str:
    if end.tunnel.kind is TunnelKind.GUE:
        return f"UDP port {end.tunnel.port}"
    return f"protocol {47 if end.tunnel.kind is TunnelKind.GRE else 4 if end.vip.version == 4 else 41}"


def _outer(end: End) -> IPAddress:
    assert end.device.local is not None  # noqa: S101 -- `_end` names no directors
    return end.device.local


def _tunneled(facts: Facts) -> Iterator[tuple[Virtual, End]]:
    """What this host serves by tun, each VIP, tunnel and address once."""
    seen = set()
    for virtual in facts.serves:
        for end in ends(facts, virtual) if virtual.forward == "tun" else ():
            if end not in seen:
                seen.add(end)
                yield virtual, end


def _unpacking(facts: Facts, end: End) -> list[Link]:
    """The devices that may unpack it. One that is for a single address of this host is for that one."""
    return [link for link in facts.network.links.values() if link.up and link.kind == end.device.kind.value]
