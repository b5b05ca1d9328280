"""Looks at the VIPs: held where they must be, and answered for by nobody else."""

from __future__ import annotations

from collections.abc import Iterator

from director.doctor.facts import Facts, need
from director.doctor.finding import Code, Finding, error, listed
from director.doctor.network import FAR
from director.doctor.situation import Virtual
from director.doctor.wire import Answers, Question
from director.kit.net import IPAddress


def held(facts: Facts) -> Iterator[Finding]:
    """A director and a dr or tun real server take packets for a VIP as their own: the kernel must know it."""
    for vip, virtuals in _by_vip(facts.directs).items():
        route = facts.network.routes.get(vip)
        if facts.network.holders(vip) or (route and route.is_local):
            continue
        interface = next((virtual.interface for virtual in virtuals if virtual.interface), None)
        if interface and interface not in facts.network.links:
            there = ", ".join(link.name for link in facts.network.links.values() if not link.loopback)
            found = f"interface {interface} of the file does not exist"
            remedy = f"use one of {there}, or make it first" if there else "make it first"
        elif interface:
            found = "no interface has it"
            remedy = f"`director apply {facts.situation.source}`, or ip address add {_host(vip)} dev {interface}"
        else:
            found = "no interface has it"
            remedy = f"add `interface:` to the file, or ip address add {_host(vip)} dev INTERFACE"
        yield error(Code.VIP_NOT_LOCAL, vip, f"{found}, so packets for {_names(virtuals)} are not this host's", remedy)
    for vip, virtuals in _by_vip(virtual for virtual in facts.serves if virtual.vip_is_at_real_servers).items():
        holders = facts.network.holders(vip)
        apply = virtuals[0].apply_command(facts.situation.source)
        if not holders:
            yield error(
                Code.VIP_NOT_LOCAL,
                vip,
                f"no interface of this real server has it, so what is sent to it for {_names(virtuals)} is dropped",
                f"`{apply}`",
            )
        for link in holders:
            if link.speaks_arp and link.up:
                yield error(
                    Code.VIP_ON_WIRE,
                    f"{vip} on {link.name}",
                    "a real server answers for it there, and takes it from the director",
                    f"ip address del {vip} dev {link.name}, then `{apply}`: it belongs on lo",
                )


def answered(facts: Facts) -> Iterator[Finding]:
    """Whoever else answers for a VIP gets its clients."""
    if not any(True for _ in questions(facts)):
        return
    heard = need(facts.heard)
    own = {link.mac for link in facts.network.links.values()}
    for vip in facts.situation.vips():
        for interface in dict.fromkeys(interface for interface, address in heard if address == vip):
            others = sorted(heard[interface, vip] - own)
            reals = [mac for mac in others if _real_at(facts, heard, mac, vip.version)]
            # A real server hears the director, and that is right: only a second one, or a real server, is wrong.
            wrong = others if _directs(facts, vip) or len(others) > 1 else reals
            if wrong:
                yield error(
                    Code.VIP_ANSWERED,
                    vip,
                    f"asked on {interface}, {listed(_real_at(facts, heard, mac, vip.version) or mac for mac in wrong)} "
                    "answers for it: clients that believe it go around the director",
                    "there: `director realserver apply` where it is a real server, else take the address off",
                )


def _real_at(facts: Facts, heard: Answers, mac: str, version: int) -> str | None:
    """The real server at a link-layer address, best by its address of an IP version."""
    reals = sorted(
        ((virtual, real) for virtual in facts.situation.virtuals for real in virtual.reals),
        key=lambda each: each[1].address.version != version,
    )
    for virtual, real in reals:
        if any(mac in macs for (_, address), macs in heard.items() if address == real.address):
            return f"real server {virtual.name}/{real.name} ({real.address})"
    return None


def questions(facts: Facts) -> Iterator[Question]:
    """Who has the VIPs and the real servers, to ask on the interfaces where it matters."""
    network = facts.network
    for virtual in facts.directs:
        interfaces = {link.name for link in network.holders(virtual.vip)}
        for real in virtual.reals if virtual.forward == "dr" else ():
            route = network.routes.get(real.address)
            if route and not route.is_local and not route.gateway:
                interfaces.add(route.interface)
        for interface in sorted(interfaces):
            yield from _question(facts, virtual.vip, interface)
    for virtual in facts.serves:
        for real in virtual.reals if virtual.vip_is_at_real_servers else ():
            for link in network.holders(real.address):
                yield from _question(facts, virtual.vip, link.name)
    for virtual in facts.serves:
        default = network.routes.get(FAR[virtual.vip.version])
        if virtual.forward == "nat" and default and default.gateway:
            yield from _question(facts, virtual.vip, default.interface)
            yield from _question(facts, default.gateway, default.interface)
    for address in facts.situation.reals():
        route = network.routes.get(address)
        if route and not route.is_local:
            yield from _question(facts, route.gateway or address, route.interface)


def _question(facts: Facts, address: IPAddress, interface: str) -> Iterator[Question]:
    link = facts.network.links.get(interface)
    if link and link.up and link.speaks_arp and link.mac:
        sender = facts.network.sender(interface, address.version, facts.situation.vips())
        yield Question(address, interface, link.mac, sender)


def _directs(facts: Facts, vip: IPAddress) -> bool:
    return any(virtual.vip == vip for virtual in facts.directs)


def _by_vip(virtuals: Iterator[Virtual] | tuple[Virtual, ...]) -> dict[IPAddress, list[Virtual]]:
    found: dict[IPAddress, list[Virtual]] = {}
    for virtual in virtuals:
        found.setdefault(virtual.vip, []).append(virtual)
    return found


def _names(virtuals: list[Virtual]) -> str:
    return listed(dict.fromkeys(virtual.name for virtual in virtuals))


def _host(vip: IPAddress) -> str:
    return f"{vip}/{vip.max_prefixlen}"
