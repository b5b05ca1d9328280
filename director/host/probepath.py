"""What this host needs so that the answers to probes of the forwarding path come in: a setting, and a rule beside it.

One rule: whatever this opens is closed by a `Guard` first, and nothing that somebody else opened is touched.

Under DR and TUN such an answer comes from a VIP, an address of this host: see `core/guard.py`. It is expected by the
interface that leads to the real server, and admitted there alone; `all` would open every interface. An answer that
takes another way in is dropped, and the probe fails.

With rp_filter=1 the kernel also wants a source to be reachable by the interface it comes from
(__fib_validate_source): that holds where the VIP is on that interface, and not where it is on another. Tried, 6.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from director.core.guard import Answer, Guard
from director.core.steering import Steering
from director.core.vip import Vip
from director.host import sysctl
from director.host.settings import Requirement
from director.host.sysctl import Key, conf
from director.kit.net import IPAddress
from director.kit.probes.source import source_towards

LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be so for probes: `guards` before `requirements`."""

    guards: tuple[Guard, ...] = ()
    requirements: tuple[Requirement, ...] = ()


NOTHING = Needs()


def needs(
    steerings: Iterable[Steering], held: Iterable[Vip], leaves: Mapping[IPAddress, str], ours: Collection[Key] = ()
) -> Needs:
    """What `steerings` need of this host; IPv6 needs nothing.

    `held` are the addresses of this host, `leaves` the interfaces that lead to real servers, `ours` the settings that
    the director has made: an interface that admits own addresses by somebody else's choice has no guard, since more
    than answers may be meant to come in there. Raises: HostError when a setting cannot be read.
    """
    homes: dict[IPAddress, set[str]] = {}
    for vip in held:
        homes.setdefault(vip.address, set()).add(vip.interface)
    by_interface: dict[str, list[Steering]] = {}
    for each in steerings:
        if each.family != 4:
            continue
        interface = leaves.get(each.real, LOOPBACK)
        if interface != LOOPBACK:
            by_interface.setdefault(interface, []).append(each)
    guards: list[Guard] = []
    requirements: list[Requirement] = []
    for interface, users in by_interface.items():
        names = tuple(dict.fromkeys(each.name for each in users))
        if not _is_open(interface, ours):
            guards.append(Guard(interface, tuple(dict.fromkeys(answer for each in users for answer in _answers(each)))))
            requirements.append(_accept_local(interface, names))
        vips = {way.target.address for each in users for way in each.ways}
        if any(interface not in homes.get(vip, {interface}) for vip in vips):
            requirements.append(_loose(interface, names))
    return Needs(tuple(guards), tuple(requirements))


def _is_open(interface: str, ours: Collection[Key]) -> bool:
    """Whether somebody else has it admit own addresses (IN_DEV_ACCEPT_LOCAL: `all` or the interface)."""
    keys = (conf(4, "all", "accept_local"), conf(4, interface, "accept_local"))
    return any(key not in ours and sysctl.read(key) == "1" for key in keys)


def _accept_local(interface: str, names: tuple[str, ...]) -> Requirement:
    return Requirement(
        *(conf(4, interface, "accept_local"), ("1",), "1", "probes through the VIP are answered in the VIP's name"),
        *(names, f"forged packets in an own address's name that this would admit on {interface} are dropped by a rule"),
    )


def _loose(interface: str, names: tuple[str, ...]) -> Requirement:
    # The kernel takes the maximum of `all` and the interface, and 2 is the loose one.
    strict = sysctl.read(conf(4, "all", "rp_filter")) == "1"
    return Requirement(
        *(conf(4, interface, "rp_filter"), ("2",) if strict else ("0", "2"), "2"),
        *("probes through the VIP are answered in the VIP's name, and the VIP is on another interface", names),
        f"filtering by source is loose on {interface} then: any way back to it will do",
    )


def _answers(steering: Steering) -> Iterable[Answer]:
    for way in steering.ways:
        source = way.source or source_towards(steering.real, way.target.address)
        if source is not None:
            yield Answer(way.target, source, way.datagrams)
