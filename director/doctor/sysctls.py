"""Looks at settings: what forwarding methods need, what hurts, and how full the table of connections is.

One rule: what holds is judged, not what one file of /proc/sys says: `all` and the interface together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from director.core.table import Protocol
from director.doctor.facts import Facts
from director.doctor.finding import Code, Finding, error, listed, warning
from director.host.settings import Requirement, required
from director.host.sysctl import Key, conf, name

VS = ("net", "ipv4", "vs")
CONNTRACK_COUNT: Key = ("net", "netfilter", "nf_conntrack_count")
CONNTRACK_MAX: Key = ("net", "netfilter", "nf_conntrack_max")
FULL, FILLING = 0.95, 0.80
"""Parts of nf_conntrack_max: at the first new connections are being lost or soon are."""
_VITAL = {"ip_forward", "forwarding"}
_JUDGED_HERE = {"expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode"}


def wanted(facts: Facts) -> set[Key]:
    """Every setting that these looks want to see."""
    found = {requirement.key for requirement in _requirements(facts)}
    found |= {(*VS, setting) for setting in (*_JUDGED_HERE, "conntrack", "pmtu_disc")}
    for interface in ("all", *facts.network.links):
        found |= {conf(4, interface, setting) for setting in ("arp_ignore", "arp_announce", "rp_filter")}
    return found


def _requirements(facts: Facts) -> tuple[Requirement, ...]:
    names = {virtual.name for virtual in facts.directs}
    uses = [use for use in facts.situation.uses() if use.virtual_server in names]
    return required(uses, [link.name for link in facts.network.outsides()])


def forwarding(facts: Facts) -> Iterator[Finding]:
    """What the forwarding methods need of a director's settings."""
    wrong: dict[tuple[str, str], list[Requirement]] = {}
    for requirement in _requirements(facts):
        value = facts.sysctls.get(requirement.key)
        if requirement.key[-1] in _JUDGED_HERE or value is None or value in requirement.allowed:
            continue
        wrong.setdefault((requirement.key[-1], requirement.advised), []).append(requirement)
    for (setting, advised), requirements in wrong.items():
        first = requirements[0]
        is_vital = setting in _VITAL or (setting == "conntrack" and advised == "1")
        make = error if is_vital else warning
        names = [name(each.key) for each in requirements]
        yield make(
            Code.SETTING_WRONG,
            listed(names),
            f"it is {facts.sysctls[first.key]}, and {listed(first.needed_by)} needs {advised} ({first.because})",
            "sysctl -w " + " ".join(f"{each}={advised}" for each in names),
        )


def expiry(facts: Facts) -> Iterator[Finding]:
    """Settings of IPVS about what happens to connections and clients of servers that go."""
    if not facts.directs:
        return
    if facts.sysctl(*VS, "expire_nodest_conn") == "0" and any(
        virtual.forward in {"dr", "tun"} or virtual.protocol is Protocol.UDP for virtual in facts.directs
    ):
        yield warning(
            Code.EXPIRE_NODEST,
            "net.ipv4.vs.expire_nodest_conn",
            "it is 0: packets of connections to a server that was removed are dropped without a word, and a client "
            "that takes one of their ports again meets the dead server",
            "sysctl -w net.ipv4.vs.expire_nodest_conn=1",
        )
    persistent = [virtual.name for virtual in facts.directs if virtual.persistent]
    if facts.sysctl(*VS, "expire_quiescent_template") == "0" and persistent:
        yield warning(
            Code.EXPIRE_TEMPLATE,
            "net.ipv4.vs.expire_quiescent_template",
            f"it is 0: known clients of {listed(dict.fromkeys(persistent))} go on to get a server at weight 0, "
            "drained or dead",
            "sysctl -w net.ipv4.vs.expire_quiescent_template=1",
        )
    if facts.sysctl(*VS, "conn_reuse_mode") == "0" and _version(facts.release) >= (5, 9):
        yield warning(
            Code.REUSE_MODE,
            "net.ipv4.vs.conn_reuse_mode",
            "it is 0: a client that takes a port again is sent where its last connection went, even to a server at "
            "weight 0",
            "sysctl -w net.ipv4.vs.conn_reuse_mode=1 (from kernel 5.9 on it costs no delay)",
        )
    elif (
        facts.number(*VS, "conn_reuse_mode") == 1
        and facts.number(*VS, "conntrack") == 1
        and _version(facts.release) < (5, 9)
    ):
        yield warning(
            Code.REUSE_MODE,
            "net.ipv4.vs.conn_reuse_mode",
            f"it is 1 with net.ipv4.vs.conntrack=1: kernels before 5.9 (this is {facts.release}) drop the first packet "
            "of a client that takes a port again, which costs it a second",
            "sysctl -w net.ipv4.vs.conn_reuse_mode=0, or run a newer kernel",
        )


def _version(release: str) -> tuple[int, int]:
    """The first two numbers of a kernel's release.

    >>> _version("6.1.0-32-amd64")
    (6, 1)
    """
    numbers: Sequence[str] = (*release.partition("-")[0].split("."), "0")
    try:
        return int(numbers[0]), int(numbers[1])
    except ValueError:
        return (99, 0)


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
    for interface, vips in _asked_on(facts).items():
        ignore, announce = (facts.effective(setting, interface) for setting in ("arp_ignore", "arp_announce"))
        # 3 is silent about addresses of scope host alone, and a VIP on lo is global (arp_ignore in inet_addr.c).
        for setting, value, good in (
            ("arp_ignore", ignore, ignore in {1, 2, 8}),
            ("arp_announce", announce, announce >= 2),
        ):
            if good:
                continue
            best = 1 if setting == "arp_ignore" else 2
            says = "it answers ARP for" if setting == "arp_ignore" else "it asks others in the name of"
            yield error(
                Code.ARP_SETTINGS,
                f"{setting} on {interface}",
                f"the maximum of `all` and {interface} is {value}: {says} {listed(vips)}, and the director loses it",
                f"`director realserver apply {_source(facts)}`, or sysctl -w net.ipv4.conf.all.{setting}={best}",
            )


def _source(facts: Facts) -> str:
    known = [virtual for virtual in facts.serves if virtual.key is not None]
    return facts.situation.source if known else " ".join(f"--vip {virtual.vip}" for virtual in facts.serves)


def _asked_on(facts: Facts) -> dict[str, list[str]]:
    """The VIPs that this host must be silent about, by the interface that others may ask on."""
    found: dict[str, list[str]] = {}
    for virtual in facts.serves:
        if not virtual.vip_is_at_real_servers or virtual.vip.version != 4:
            continue
        own = {real.address for real in virtual.reals}
        for held in facts.network.held:
            link = facts.network.links[held.interface]
            near = held.address in own or (held.prefix_length < 31 and held.covers(virtual.vip))
            if link.speaks_arp and link.up and held.address != virtual.vip and (near or not own):
                vips = found.setdefault(link.name, [])
                if str(virtual.vip) not in vips:
                    vips.append(str(virtual.vip))
    return found
