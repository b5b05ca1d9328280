"""Looks at tunnels: wide enough on the director; there, open to directors alone, and believed on a real server."""

from __future__ import annotations

from collections.abc import Iterator

from director.doctor.facts import Facts, need
from director.doctor.finding import Code, Finding, error, listed, warning
from director.doctor.network import FAR, Link
from director.doctor.packets.rules import Fate, Packet, at_hook
from director.doctor.situation import Virtual
from director.kit.net import IPAddress

KINDS = {4: ("ipip", "gre"), 6: ("ip6tnl", "ip6gre")}
"""Kinds of devices that unpack a tunnel between addresses of an IP version; sit unpacks IPv6 from IPv4."""
_HEADERS_BYTES = {4: 40, 6: 60}
"""Of IP and TCP, which an MSS does not count."""


def widths(facts: Facts) -> Iterator[Finding]:
    """Whether a client's full packet fits into the tunnel."""
    for virtual in facts.directs:
        if virtual.forward != "tun":
            continue
        ingress = _ingress(facts, virtual)
        narrow: dict[str, list[str]] = {}
        needed, narrowest = 0, 65535
        for real in virtual.reals:
            route = facts.network.routes.get(real.address)
            link = facts.network.links.get(route.interface) if route and not route.is_local else None
            if route is None or link is None or ingress is None:
                continue
            room = (route.mtu or link.mtu) - real.overhead_bytes
            if room < ingress.mtu:
                narrow.setdefault(f"{room} bytes to {{}} by {link.name}", []).append(real.name)
                needed = max(needed, ingress.mtu + real.overhead_bytes)
                narrowest = min(narrowest, room)
        if narrow and ingress:
            carried = "; ".join(text.format(listed(names)) for text, names in narrow.items())
            lost = (
                "fragmentation is asked of them"
                if facts.number("net", "ipv4", "vs", "pmtu_disc")
                else "pmtu_disc=0, and they are never told"
            )
            yield warning(
                Code.TUNNEL_MTU,
                virtual.name,
                f"clients send packets of up to {ingress.mtu} bytes, and the tunnel carries {carried} ({lost})",
                f"raise the MTU of the way to the real servers to {needed}, or let them announce a smaller MSS: there "
                f"ip route change default via ROUTER advmss {narrowest - _HEADERS_BYTES[virtual.vip.version]}",
            )


def _ingress(facts: Facts, virtual: Virtual) -> Link | None:
    """The interface that clients' packets come in by: the VIP's, or else the default route's."""
    wires = [link for link in facts.network.holders(virtual.vip) if link.speaks_arp]
    route = facts.network.routes.get(FAR[virtual.vip.version])
    return wires[0] if wires else facts.network.links.get(route.interface) if route else None


def devices(facts: Facts) -> Iterator[Finding]:
    """What a tun real server needs to unpack what it is sent."""
    for virtual, outer in _tunnelled(facts):
        apply = f"director realserver apply {facts.situation.source if virtual.key else f'--vip {virtual.vip}'}"
        links = _unpacking(facts, virtual, outer)
        if not links:
            yield error(
                Code.TUNNEL_MISSING,
                virtual.name,
                f"no tunnel device is up ({', '.join(_kinds(virtual, outer))}), so what the director sends is refused",
                f"`{apply}`, or for IPv4 in IPv4: modprobe ipip, ip link set tunl0 up",
            )
        for link in links if virtual.vip.version == 4 else ():
            value = facts.effective("rp_filter", link.name)
            if value == 1:
                yield error(
                    Code.TUNNEL_RP_FILTER,
                    f"rp_filter on {link.name}",
                    f"the maximum of `all` and {link.name} is 1: clients do not live behind the tunnel, so their "
                    "packets are dropped as they come out of it",
                    f"`{apply}`, or sysctl -w net.ipv4.conf.{link.name.replace('.', '/')}.rp_filter=2",
                )


def openness(facts: Facts) -> Iterator[Finding]:
    """Whether anybody can send packets into a real server's tunnel, past every filter on the way."""
    seen = set()
    for virtual, outer in _tunnelled(facts):
        links = [link for link in _unpacking(facts, virtual, outer) if link.remote is None]
        if not links or (virtual.vip.version, outer) in seen:
            continue
        seen.add((virtual.vip.version, outer))
        packet = envelope(facts, virtual)
        tables = need(facts.filters)
        if all(Fate.DROPPED not in at_hook(tables, hook, packet).fates for hook in ("prerouting", "input")):
            save = "iptables" if packet.version == 4 else "ip6tables"
            yield warning(
                Code.TUNNEL_OPEN,
                listed(link.name for link in links),
                "it unpacks what anybody sends, with any source inside, which filters on the way do not see",
                f"{save} -A INPUT -p {packet.protocol} ! -s ADDRESS-OF-THE-DIRECTOR -j DROP (several directors: accept "
                "each, then drop the rest)",
            )


def outer_version(virtual: Virtual) -> int:
    """The IP version of the tunnel around a tun virtual server's packets."""
    return virtual.reals[0].address.version if virtual.reals else virtual.vip.version


def envelope(facts: Facts, virtual: Virtual) -> Packet:
    """A packet of the tunnel as it comes from the wire, from anybody."""
    own: IPAddress | None = virtual.reals[0].address if virtual.reals else None
    return Packet(
        version=outer_version(virtual),
        protocol=4 if virtual.vip.version == 4 else 41,
        destination=own,
        interfaces=frozenset(link.name for link in facts.network.wires()),
    )


def _tunnelled(facts: Facts) -> Iterator[tuple[Virtual, int]]:
    """What this host serves by tun, each with the IP version of the tunnel around it."""
    for virtual in facts.serves:
        if virtual.forward == "tun":
            yield virtual, outer_version(virtual)


def _kinds(virtual: Virtual, outer: int) -> tuple[str, ...]:
    return (*KINDS[outer], "sit") if (virtual.vip.version, outer) == (6, 4) else KINDS[outer]


def _unpacking(facts: Facts, virtual: Virtual, outer: int) -> list[Link]:
    return [link for link in facts.network.links.values() if link.up and link.kind in _kinds(virtual, outer)]
