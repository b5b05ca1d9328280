"""Gathers the facts of one checkup: this host's own first, then what it hears from the wire, all at once.

One rule: nothing is changed, and every wait is bounded: a second for the wire, five for a program or the kernel.

What goes over the wire: ARP requests or neighbour solicitations for the VIPs and the real servers (an empty UDP
datagram to port 9, discard, of each real server where that is not permitted); on a nat real server an echo request
to each VIP; on a real server a connection to itself where only that tells whether somebody listens.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import TypeVar

from director.core.table import Table, TunnelKind
from director.doctor import addresses, listening, network, proc, sysctls, ways, wire
from director.doctor.facts import Facts, Unseen
from director.doctor.packets import read as packet_filters
from director.doctor.packets.rules import Table as FilterTable
from director.doctor.situation import Situation
from director.host import gue
from director.host.rtnetlink import FAMILIES
from director.host.sysctl import Key, read
from director.kit.errors import DirectorError, HostError
from director.kit.net import IPAddress

PATIENCE_S = 1.0
"""How long answers from the wire are waited for."""
ECHOES = 16
"""VIPs that are pinged at most."""
DISCARD = 9
AS_ROOT = "run as root"

Gathered = TypeVar("Gathered")


class Role(Enum):
    """As what a host is looked at. AUTO: a real server if it has the address of one, else a director, or both."""

    AUTO = "auto"
    DIRECTOR = "director"
    REALSERVER = "realserver"


def gather(situation: Situation, role: Role = Role.AUTO, patience_s: float = PATIENCE_S) -> Facts:
    """Everything that the looks at this host want to know of it.

    Raises: HostError when not even its addresses and neighbours can be listed.
    """
    seen = network.observe((*situation.vips(), *situation.reals()))
    table = _table()
    facts = _with_roles(Facts(situation, network=seen, table=table), role)
    facts = replace(
        facts,
        modules=proc.modules(),
        has_ipvs=proc.has_ipvs(),
        flows=proc.flows() if facts.directs else (),
        processes=proc.processes("kube-ipvs0" in seen.links) if facts.directs else (),
        conntrack=proc.conntrack(),
        sockets=proc.sockets() if facts.serves else (),
        gue_ports=_gue_ports(facts),
        sysctls=_sysctls(sysctls.wanted(facts)),
    )
    with ThreadPoolExecutor(max_workers=8) as pool:
        heard = pool.submit(_or_unseen, "who answers for addresses", lambda: _heard(facts, patience_s))
        echoes = pool.submit(_or_unseen, "how far away the VIPs are", lambda: _echoes(facts, pool, patience_s))
        filters = pool.submit(_or_unseen, "the packet filter's rules", lambda: _filters(facts))
        tried = {target: pool.submit(_connects, *target, patience_s) for target in listening.doubtful(facts)}
        facts = replace(
            facts,
            heard=heard.result(),
            echoes=echoes.result(),
            answering=MappingProxyType({target: each.result() for target, each in tried.items()}),
        )
        rules = filters.result()
    facts = replace(facts, neighbours=network.neighbours())
    if isinstance(rules, Unseen):
        return replace(facts, filters=rules)
    unseen = tuple(
        Unseen(
            "some of the packet filter's rules",
            why,
            "install what shows them (nftables, iptables), or look at them yourself",
        )
        for why in rules[1]
    )
    return replace(facts, filters=rules[0], unseen=unseen)


def _or_unseen(what: str, look: Callable[[], Gathered]) -> Gathered | Unseen:
    try:
        return look()
    except (DirectorError, OSError) as error:
        why, _, remedy = str(error).partition(": run as root")
        return Unseen(what, why, AS_ROOT + remedy if remedy or "ermi" in why else "mend that, then look again")


def _table() -> Table | Unseen:
    from director.ipvs.client import IpvsClient

    if not proc.has_ipvs():
        return Table()
    if not proc.has_capability(proc.NET_ADMIN):
        return Unseen("the kernel's table", "not permitted to use IPVS", AS_ROOT)

    def look() -> Table:
        with IpvsClient.open() as client:
            return client.read()[0]

    return _or_unseen("the kernel's table", look)


def _with_roles(facts: Facts, role: Role) -> Facts:
    situation = facts.situation
    serves = situation.served_by(facts.network.addresses()) if role is not Role.DIRECTOR else ()
    is_director = role is Role.DIRECTOR or (role is Role.AUTO and (not serves or _has_entries(facts)))
    return replace(facts, serves=serves, directs=situation.virtuals if is_director else ())


def _has_entries(facts: Facts) -> bool:
    return not isinstance(facts.table, Unseen) and any(key in facts.situation.keys for key in facts.table)


def _sysctls(keys: Iterable[Key]) -> Mapping[Key, str | None]:
    found = {}
    for key in keys:
        with suppress(HostError):  # what may not be read is as if it were not there
            found[key] = read(key)
    return MappingProxyType(found)


def _filters(facts: Facts) -> tuple[tuple[FilterTable, ...], tuple[str, ...]]:
    versions = {virtual.vip.version for virtual in (*facts.directs, *facts.serves)}
    versions |= {real.address.version for virtual in facts.serves for real in virtual.reals}
    if not proc.has_capability(proc.NET_ADMIN):
        raise HostError("not permitted to read it: run as root, or with CAP_NET_ADMIN")
    known = facts.modules
    return packet_filters.read(versions, has_nft="nf_tables" in known.loaded or not known.complete)


def _gue_ports(facts: Facts) -> frozenset[int] | Unseen:
    kinds = {real.tunnel.kind for virtual in facts.serves if virtual.forward == "tun" for real in virtual.reals}
    if TunnelKind.GUE not in kinds:
        return frozenset()
    return _or_unseen("UDP ports that unpack gue", lambda: frozenset(each.port for each in gue.present()))


def _heard(facts: Facts, patience_s: float) -> wire.Answers:
    try:
        return wire.ask(addresses.questions(facts), patience_s)
    except HostError:
        _nudge(facts, patience_s)
        raise


def _nudge(facts: Facts, patience_s: float) -> None:
    """Have the kernel look for its neighbours, by sending each something; ends when all are found."""
    asked = {(question.interface, question.address) for question in addresses.questions(facts)}
    for _, address in asked:
        with suppress(OSError), socket.socket(FAMILIES[address.version], socket.SOCK_DGRAM) as opened:
            opened.sendto(b"", (str(address), DISCARD))
    until = time.monotonic() + patience_s
    while time.monotonic() < until and asked - network.neighbours().keys():
        time.sleep(patience_s / 10)


def _echoes(facts: Facts, pool: ThreadPoolExecutor, patience_s: float) -> Mapping[IPAddress, wire.Echo]:
    vips = ways.echo_targets(facts)[:ECHOES]
    return MappingProxyType(dict(zip(vips, pool.map(lambda vip: wire.echo(vip, patience_s), vips), strict=True)))


def _connects(address: IPAddress, port: int, limit_s: float) -> bool:
    try:
        socket.create_connection((str(address), port), limit_s).close()
    except OSError:
        return False
    return True
