"""Looks at the ways between director, real servers and clients."""

from __future__ import annotations

from collections.abc import Iterator

from director.doctor.facts import Facts, Unseen, skipped
from director.doctor.finding import Code, Finding, error, listed, warning
from director.doctor.network import FAR
from director.doctor.situation import Real, Virtual
from director.kit.net import IPAddress


def to_real_servers(facts: Facts) -> Iterator[Finding]:
    """Whether a director's packets reach each real server."""
    for address, (virtual, real) in _reals(facts).items():
        route = facts.network.routes.get(address)
        subject = f"{virtual.name}/{real.name} ({address})"
        if route is None:
            yield error(
                Code.NO_ROUTE,
                subject,
                "this host has no route to it",
                f"ip route add {address}/{address.max_prefixlen} via ROUTER, or correct its address",
            )
        elif route.is_local:
            continue
        elif route.gateway and virtual.forward == "dr":
            yield error(
                Code.BEHIND_ROUTER,
                subject,
                f"it is reached by the router {route.gateway}: dr leaves the VIP as destination, so the router sends "
                "the packets back here",
                "give both a network in common, or use forward: tun or nat",
            )
        elif not _has_neighbour(facts, route.interface, route.gateway or address):
            by = f"its gateway {route.gateway}" if route.gateway else "it"
            yield error(
                Code.NO_NEIGHBOUR,
                subject,
                f"{by} does not answer for its address on {route.interface}, so nothing can be sent to it",
                f"see that it runs, is on the network of {route.interface} and has {route.gateway or address}",
            )


def _has_neighbour(facts: Facts, interface: str, address: IPAddress) -> bool:
    link = facts.network.links.get(interface)
    if link is None or not link.speaks_arp:
        return True
    known = facts.neighbours.get((interface, address))
    if isinstance(facts.heard, Unseen):
        return known is not None
    return bool(facts.heard.get((interface, address))) or (known is not None and known.permanent)


def _reals(facts: Facts) -> dict[IPAddress, tuple[Virtual, Real]]:
    """Each real server's address with the first that uses it; one under dr before others."""
    found: dict[IPAddress, tuple[Virtual, Real]] = {}
    for virtual in sorted(facts.directs, key=lambda each: each.forward != "dr"):
        for real in virtual.reals:
            found.setdefault(real.address, (virtual, real))
    return found


def from_nat_servers(facts: Facts) -> Iterator[Finding]:
    """Whether what a nat real server answers to clients passes the director again."""
    for vip, virtual in {each.vip: each for each in facts.serves if each.forward == "nat"}.items():
        route = facts.network.routes.get(FAR[vip.version])
        if route is None:
            yield error(
                Code.GATEWAY_NOT_DIRECTOR,
                virtual.name,
                "this host has no default route: what it answers to clients has no way",
                "ip route add default via ADDRESS-OF-THE-DIRECTOR",
            )
            continue
        leads = _leads_to_director(facts, vip)
        if isinstance(leads, Unseen):
            yield skipped(leads)
        elif not leads:
            yield error(
                Code.GATEWAY_NOT_DIRECTOR,
                virtual.name,
                f"the default route leads to {route.gateway or route.interface}, which does not have the VIP "
                f"{vip}: clients get answers from an address that they did not ask, and drop them",
                "ip route replace default via ADDRESS-OF-THE-DIRECTOR",
            )


def _leads_to_director(facts: Facts, vip: IPAddress) -> bool | Unseen:
    """Whether the first router on the default route has the VIP."""
    what = "whether the default route leads to the director"
    way, default = facts.network.routes.get(vip), facts.network.routes.get(FAR[vip.version])
    # A director answers for all its addresses on every interface, unless it was told not to (arp_ignore).
    there = _macs(facts, default.interface, vip) if default else None
    if there and default:
        return default.gateway is not None and bool(there & _macs(facts, default.interface, default.gateway))
    if way is None or way.gateway is None:
        return Unseen(what, f"nobody on a network of this host has {vip}", "see that the director runs and holds it")
    if isinstance(facts.echoes, Unseen):
        return facts.echoes
    echo = facts.echoes.get(vip)
    if echo is None or echo.by is None:
        why = f"nobody answered an echo request (ping) to {vip}"
        return Unseen(what, why, "allow them to the director, or see `ip route` yourself")
    return echo.arrived


def _macs(facts: Facts, interface: str, address: IPAddress) -> frozenset[str]:
    if not isinstance(facts.heard, Unseen) and facts.heard.get((interface, address)):
        return facts.heard[interface, address]
    known = facts.neighbours.get((interface, address))
    return frozenset({known.mac}) if known else frozenset()


def echo_targets(facts: Facts) -> tuple[IPAddress, ...]:
    """The VIPs whose distance decides `from_nat_servers`."""
    vips = dict.fromkeys(virtual.vip for virtual in facts.serves if virtual.forward == "nat")
    return tuple(vip for vip in vips if (way := facts.network.routes.get(vip)) and way.gateway)


def clients_nearby(facts: Facts) -> Iterator[Finding]:
    """Under nat, a client in the real servers' own network gets its answers past the director."""
    remedy = "use forward: dr or fullnat for them, or give the real servers a network without clients"
    for virtual in facts.directs:
        networks = {held for real in virtual.reals if (held := facts.network.on_link(real.address))}
        if virtual.forward != "nat":
            continue
        flows = () if isinstance(facts.flows, Unseen) else facts.flows
        mine = [flow for flow in flows if (flow.vip, flow.port) == (virtual.vip, virtual.port)]
        clients = [flow.client for flow in mine if any(held.covers(flow.client) for held in networks)]
        if clients:
            yield error(
                Code.CLIENTS_IN_SUBNET,
                virtual.name,
                f"{listed(dict.fromkeys(clients))} is in the real servers' own network: they answer it directly, from "
                "an address that it did not ask",
                remedy,
            )
        elif any(held.covers(virtual.vip) for held in networks):
            yield _vip_inside(virtual, remedy)
    for virtual in facts.serves:
        own = {real.address for real in virtual.reals}
        here = [each for each in facts.network.held if each.address in own and each.prefix_length < 31]
        if virtual.forward == "nat" and any(each.covers(virtual.vip) for each in here):
            yield _vip_inside(virtual, remedy)


def _vip_inside(virtual: Virtual, remedy: str) -> Finding:
    return warning(
        Code.CLIENTS_IN_SUBNET,
        virtual.name,
        f"the VIP {virtual.vip} is in the real servers' own network: clients there are answered directly, from an "
        "address that they did not ask",
        remedy,
    )
