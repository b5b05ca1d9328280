"""Looks at packet filters: whether they drop what a virtual server lives on.

One rule: a rule that lets some clients through is somebody's intent; only what every client meets is a finding.

Where IPVS stands (ip_vs_ops in ip_vs_core.c): it takes clients' packets at INPUT, after the filter; it sends them
on by OUTPUT; and answers of nat pass FORWARD, as the real server sent them, before it puts the VIP back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from director.core.table import Protocol
from director.doctor.facts import Facts, need
from director.doctor.finding import Code, Finding, error, listed
from director.doctor.packets.rules import PROTOCOLS, Fate, Packet, Table, at_hook
from director.doctor.situation import Real, Virtual
from director.doctor.tunnels import ends, envelope
from director.host.settings import CONNTRACK

Case = tuple[str, Packet]
"""A packet and what it is for, as a finding names it."""


def incoming(facts: Facts) -> Iterator[Finding]:
    """Clients' packets to a VIP, and those in a tunnel, on the director and on the real server."""
    for by, cases in _dropped(facts, ("prerouting", "input"), _inbound(facts)).items():
        yield error(
            Code.INPUT_DROPPED,
            _subjects(cases),
            f"clients' packets are dropped before anything gets them ({by})",
            f"accept them before that: {_accept(by, 'INPUT', cases[0][1])}",
        )


def answers(facts: Facts) -> Iterator[Finding]:
    """What nat and fullnat real servers answer, on its way through the director."""
    hooks = ("prerouting", "forward")
    for by, cases in _dropped(facts, hooks, _answers(facts)).items():
        packet = cases[0][1]
        tracked = [at_hook(need(facts.filters), hook, replace(packet, state="established")) for hook in hooks]
        yield error(
            Code.FORWARD_DROPPED,
            _subjects(cases),
            f"answers to clients are dropped on their way through this host ({by})",
            "sysctl -w net.ipv4.vs.conntrack=1, so that they count as established"
            if all(outcome.certainly_accepted for outcome in tracked)
            else f"accept them before that: {_accept(by, 'FORWARD', packet)}",
        )


def outgoing(facts: Facts) -> Iterator[Finding]:
    """What the director sends on to real servers."""
    for by, cases in _dropped(facts, ("output",), _outbound(facts)).items():
        yield error(
            Code.OUTPUT_DROPPED,
            _subjects(cases),
            f"clients' packets are dropped on their way from here to there ({by})",
            f"accept them before that: {_accept(by, 'OUTPUT', cases[0][1])}",
        )


def invalid(facts: Facts) -> Iterator[Finding]:
    """Packets that connection tracking calls invalid because IPVS shows it half of each flow.

    Under dr and tun the answers go another way; with net.ipv4.vs.conntrack=0 also under nat IPVS takes the packets
    before they are tracked. Then SYN is new, and FIN and RST are invalid (tcp_conntracks in nf_conntrack_proto_tcp.c).
    """
    hooks = ("prerouting", "input")
    halves = [
        virtual
        for virtual in facts.directs
        if virtual.protocol is Protocol.TCP and (virtual.vip_is_at_real_servers or not _is_tracked(facts))
    ]
    cases = [(virtual.name, replace(_to_vip(facts, virtual), state="invalid")) for virtual in halves]
    for by, found in _dropped(facts, hooks, cases).items():
        # Where the first packet does not pass either, the filter is about the VIP, not about tracking.
        mine = [case for case in found if not dropper(need(facts.filters), hooks, replace(case[1], state="new"))]
        names = {name for name, _ in mine}
        if not mine:
            continue
        only_nat = not any(virtual.vip_is_at_real_servers for virtual in halves if virtual.name in names)
        usual = "ip6tables" if mine[0][1].version == 6 else "iptables"
        program = usual if by.startswith("nft ") else by.split(" ", 1)[0]
        tracked = "sysctl -w net.ipv4.vs.conntrack=1, or " if only_nat else ""
        lost = "all but its first packet" if _is_tracked(facts) else "its end (FIN, RST)"
        yield error(
            Code.INVALID_DROPPED,
            _subjects(mine),
            f"connection tracking sees half of each flow and calls {lost} invalid, which is dropped ({by})",
            f"{tracked}accept the VIP's packets before that, or keep them untracked: {program} -t raw -A PREROUTING "
            "-d VIP -j CT --notrack",
        )


def _dropped(facts: Facts, hooks: tuple[str, ...], cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Those of `cases` that no way through the hooks lets pass, by what drops them."""
    found: dict[str, list[Case]] = {}
    for subject, packet in cases:
        if by := dropper(need(facts.filters), hooks, packet):
            found.setdefault(by, []).append((subject, packet))
    return found


def _subjects(cases: Iterable[Case]) -> str:
    return listed(dict.fromkeys(subject for subject, _ in cases))


def dropper(tables: Iterable[Table], hooks: tuple[str, ...], packet: Packet) -> str | None:
    """What drops `packet` at one of `hooks`, whatever else it may be; None when some such packets pass."""
    tables = tuple(tables)
    variants = [packet]
    for hook in hooks:
        outcomes = [at_hook(tables, hook, each) for each in variants]
        if all(outcome.certainly_dropped for outcome in outcomes):
            return outcomes[0].droppers[-1]
        if hook == "prerouting" and any(Fate.UNTRACKED in outcome.fates for outcome in outcomes):
            variants.append(replace(packet, state="untracked"))
    return None


def _inbound(facts: Facts) -> Iterator[Case]:
    for virtual in facts.directs:
        yield virtual.name, _to_vip(facts, virtual)
    for virtual in facts.serves:
        if virtual.forward == "tun":
            yield from ((f"{virtual.name} (the tunnel)", envelope(facts, end)) for end in ends(facts, virtual))
        if virtual.vip_is_at_real_servers:
            yield virtual.name, _to_vip(facts, virtual)
            continue
        for real in virtual.reals:
            yield virtual.name, replace(_to_vip(facts, virtual), destination=real.address, destination_port=real.port)


def _outbound(facts: Facts) -> Iterator[Case]:
    for virtual in facts.directs:
        for real in virtual.reals if virtual.forward != "tun" else ():
            state = "new" if _is_tracked(facts) else "untracked"
            route = facts.network.routes.get(real.address)
            leaves = frozenset({route.interface}) if route else frozenset()
            packet = replace(_to_vip(facts, virtual), state=state, interfaces=frozenset(), leaves=leaves)
            if virtual.forward != "dr":
                packet = replace(packet, destination=real.address, destination_port=real.port)
            yield f"{virtual.name}/{real.name}", packet


def _answers(facts: Facts) -> Iterator[Case]:
    for virtual in facts.directs:
        for real in virtual.reals if not virtual.vip_is_at_real_servers else ():
            yield f"{virtual.name}/{real.name}", _answer(facts, virtual, real)


def _to_vip(facts: Facts, virtual: Virtual) -> Packet:
    return Packet(
        version=virtual.vip.version,
        protocol=PROTOCOLS[virtual.protocol.value],
        destination=virtual.vip,
        destination_port=virtual.port,
        interfaces=frozenset(link.name for link in facts.network.outsides()),
    )


def _answer(facts: Facts, virtual: Virtual, real: Real) -> Packet:
    """The first answer: connection tracking knows it only where IPVS lets it (net.ipv4.vs.conntrack)."""
    route = facts.network.routes.get(real.address)
    unknown = "invalid" if virtual.protocol is Protocol.TCP else "new"  # SYN-ACK of nothing, a datagram of nothing
    return Packet(
        version=real.address.version,
        protocol=PROTOCOLS[virtual.protocol.value],
        source=real.address,
        source_port=real.port,
        state="established" if _is_tracked(facts) else unknown,
        interfaces=frozenset({route.interface}) if route else frozenset(),
        leaves=frozenset(link.name for link in facts.network.holders(virtual.vip) if link.speaks_arp),
    )


def _is_tracked(facts: Facts) -> bool:
    return facts.sysctl(*CONNTRACK) == "1"


def _accept(by: str, chain: str, packet: Packet) -> str:
    """A command that lets packets like this one pass, in the language of what drops them."""
    numbers = {number: name for name, number in PROTOCOLS.items() if name in {"tcp", "udp"}}
    protocol = numbers.get(packet.protocol, str(packet.protocol))
    family = "ip" if packet.version == 4 else "ip6"
    nft = by.startswith("nft ")
    # `by` begins with who showed the rule: what the other kind of iptables accepts, this one drops all the same.
    words = [] if nft else [by.split(" ", 1)[0], "-I", chain, "-p", protocol]
    for address, short, long in ((packet.source, "-s", "saddr"), (packet.destination, "-d", "daddr")):
        if address is not None:
            words += [family, long, str(address)] if nft else [short, str(address)]
    for port, name in ((packet.source_port, "sport"), (packet.destination_port, "dport")):
        if port is not None:
            words += [protocol, name, str(port)] if nft else [f"--{name}", str(port)]
    if nft:
        return f"nft insert rule {by.partition(': ')[0].removeprefix('nft ')} CHAIN {' '.join(words)} accept"
    return " ".join([*words, "-j", "ACCEPT"])
