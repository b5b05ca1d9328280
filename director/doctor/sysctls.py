"""Looks at settings: what forwarding methods need, what hurts, and how full the table of connections is.

One rule: what holds is judged, not what one file of /proc/sys says: `all` and the interface together.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.core.table import Protocol
from director.doctor.facts import Facts
from director.doctor.finding import Code, Finding, error, listed, warning
from director.doctor.situation import Virtual
from director.host.settings import (
    CONN_REUSE,
    CONNTRACK,
    EXPIRE_NODEST,
    EXPIRE_QUIESCENT,
    Requirement,
    SettingChange,
    pending,
    required,
)
from director.host.sysctl import Key, conf, name

PMTU_DISC: Key = ("net", "ipv4", "vs", "pmtu_disc")
CONNTRACK_COUNT: Key = ("net", "netfilter", "nf_conntrack_count")
CONNTRACK_MAX: Key = ("net", "netfilter", "nf_conntrack_max")
FULL, FILLING = 0.95, 0.80
"""Parts of nf_conntrack_max: at the first new connections are being lost or soon are."""
_VITAL = {"ip_forward", "forwarding"}
_CODES = {EXPIRE_NODEST: Code.EXPIRE_NODEST, EXPIRE_QUIESCENT: Code.EXPIRE_TEMPLATE, CONN_REUSE: Code.REUSE_MODE}
"""Settings that have a code of their own; all others are SETTING_WRONG."""


def wanted(facts: Facts) -> set[Key]:
    """Every setting that these looks want to see."""
    found = {requirement.key for requirement in _requirements(facts)}
    found |= {EXPIRE_NODEST, CONNTRACK, PMTU_DISC}
    for interface in ("all", *facts.network.links):
        found |= {conf(4, interface, setting) for setting in ("arp_ignore", "arp_announce", "rp_filter")}
    return found


def _requirements(facts: Facts) -> tuple[Requirement, ...]:
    names = {virtual.name for virtual in facts.directs}
    uses = [use for use in facts.situation.uses if use.virtual_server in names]
    interfaces = [link.name for link in facts.network.outsides()]
    return required(uses, interfaces, facts.situation.dead_connections if facts.directs else None)


def forwarding(facts: Facts) -> Iterator[Finding]:
    """What the forwarding methods, and what else the file asks for, need of a director's settings."""
    wrong: dict[tuple[str, str], list[SettingChange]] = {}
    for change in pending(_requirements(facts), facts.sysctls.get):
        wrong.setdefault((change.key[-1], change.after), []).append(change)
    for (setting, after), changes in wrong.items():
        first = changes[0]
        is_vital = setting in _VITAL or (first.key == CONNTRACK and after == "1")
        names = [name(each.key) for each in changes]
        by_hand = "sysctl -w " + " ".join(f"{each}={after}" for each in names)
        yield (error if is_vital else warning)(
            _CODES.get(first.key, Code.SETTING_WRONG),
            listed(names),
            f"it is {first.before}, and {listed(first.needed_by)} needs {after} ({first.because})",
            f"`director apply {facts.situation.source}`, or {by_hand}" if facts.situation.managed else by_hand,
        )


def expiry(facts: Facts) -> Iterator[Finding]:
    """What becomes of connections to servers that go, where the file leaves that to the kernel's default."""
    if facts.situation.dead_connections is not None or facts.sysctl(*EXPIRE_NODEST) != "0":
        return
    touched = [each for each in facts.directs if each.forward in {"dr", "tun"} or each.protocol is Protocol.UDP]
    if touched:
        yield warning(
            Code.EXPIRE_NODEST,
            name(EXPIRE_NODEST),
            "it is 0: packets of connections to a server that was removed are dropped without a word, and a client of "
            f"{listed(dict.fromkeys(each.name for each in touched))} that takes one of their ports again meets the "
            "dead server",
            f"`dead_connections: expire` in {facts.situation.source}, or sysctl -w {name(EXPIRE_NODEST)}=1",
        )


def tracking(facts: Facts) -> Iterator[Finding]:
    """How full the table of tracked connections is."""
    seen = facts.conntrack
    if seen is None or not seen.limit or seen.count < FILLING * seen.limit:
        return
    full = seen.count >= FULL * seen.limit
    yield (error if full else warning)(
        Code.CONNTRACK_FULL,
        "net.netfilter.nf_conntrack_max",
        f"{seen.count} of {seen.limit} tracked connections are in use: when it is full, new connections are dropped",
        f"sysctl -w net.netfilter.nf_conntrack_max={2 * seen.limit}, or keep the VIPs' packets out of it "
        "(-t raw -j CT --notrack)",
    )


def silence(facts: Facts) -> Iterator[Finding]:
    """Whether a real server under dr or tun keeps silent about the VIPs: IPv4 alone needs settings for that."""
    for interface, virtuals in _asked_on(facts).items():
        vips = listed(dict.fromkeys(virtual.vip for virtual in virtuals))
        ignore, announce = (facts.effective(setting, interface) for setting in ("arp_ignore", "arp_announce"))
        # 3 is silent about addresses of scope host alone, and a VIP on lo is global (arp_ignore in net/ipv4/arp.c).
        for setting, value, good, best, so in (
            ("arp_ignore", ignore, ignore in {1, 2, 8}, 1, f"it answers ARP for {vips}"),
            ("arp_announce", announce, announce >= 2, 2, f"it asks others in the name of {vips}"),
        ):
            if not good:
                yield error(
                    Code.ARP_SETTINGS,
                    f"{setting} on {interface}",
                    f"the maximum of `all` and {interface} is {value}: {so}, and the director loses it",
                    f"`{virtuals[0].apply_command(facts.situation.source)}`, or "
                    f"sysctl -w net.ipv4.conf.all.{setting}={best}",
                )


def _asked_on(facts: Facts) -> dict[str, list[Virtual]]:
    """What this host must keep silent about, by the interface that others may ask on."""
    found: dict[str, list[Virtual]] = {}
    for virtual in facts.serves:
        if not virtual.vip_is_at_real_servers or virtual.vip.version != 4:
            continue
        own = {real.address for real in virtual.reals}
        for held in facts.network.held:
            link = facts.network.links[held.interface]
            near = held.address in own or (held.prefix_length < 31 and held.covers(virtual.vip))
            if link.speaks_arp and link.up and held.address != virtual.vip and (near or not own):
                found.setdefault(link.name, []).append(virtual)
    return found
