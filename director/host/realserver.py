"""What a real server needs under DR and TUN: the VIP as its own address, silence about it, and to unwrap tunnels.

One rule: what was there before us stays, and what we changed is on disk before we change it, so that
`undo` restores from any half-way point. Settings, ports, devices and segment sizes come before the VIP, and the
VIP goes before they do.

The VIP of DR is on lo, that of TUN on each of its tunnel devices, since rp_filter asks for an address there.

IPv4: a host answers ARP for any of its addresses on any interface, and asks for its router in the
VIP's name, which teaches the router the same lie; arp_ignore=1 and arp_announce=2 stop both.
IPv6 needs no setting. Tried on 6.1 and 6.18: a host neither answers a solicitation for an address of
lo (ndisc_recv_ns looks only at the receiving interface; nor with forwarding, proxy_ndp, or another address
in the same solicited-node group), nor solicits in its name (ndisc_solicit falls back to the link-local one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from director.core.vip import Vip
from director.host import addresses, decapsulation, gue, mss, sysctl, tunnels
from director.host.change import Change
from director.host.decapsulation import Device, End, Served
from director.host.lockfile import NamespaceLock
from director.host.realserver_state import LOOPBACK, in_order, load, save
from director.host.sysctl import Key, conf
from director.kit import statefile
from director.kit.errors import HostError
from director.kit.net import IPAddress

STATE_PATH = statefile.DIRECTORY / "realserver.json"

# The kernel takes the maximum of `all` and the interface (IN_DEV_ARP_IGNORE); lo as the LVS HOWTO has it.
ARP_SETTINGS: dict[Key, str] = {
    conf(4, interface, setting): value
    for interface in ("all", LOOPBACK)
    for setting, value in (("arp_ignore", "1"), ("arp_announce", "2"))
}


def apply(served: Iterable[Served], state_path: Path = STATE_PATH, *, clamp: bool = True) -> list[Change]:
    """Make this host the real server of exactly `served`: what we did earlier for other VIPs is taken back.

    Without `clamp` the segment size that clients are told stays what the route says.
    Raises: HostError when another process is at it, a VIP sits on another interface, or the kernel refuses.
    """
    served = tuple(dict.fromkeys(served))
    with NamespaceLock("director realserver apply", name="realserver"):
        known = load(state_path)
        ends = decapsulation.ends(served)
        links = tunnels.links() if ends else {}
        named = decapsulation.name_all((end.device for end in ends), known.devices, links)
        vips = _places(served, ends, named)
        held = addresses.held()
        _refuse_elsewhere(held, vips, known.vips)
        settings = ARP_SETTINGS if any(vip.address.version == 4 for vip in vips) else {}
        ports = decapsulation.listeners(ends)
        open_ports = gue.present() if ports else frozenset()
        sizes = _sizes(ends) if clamp else {}
        clamped = frozenset(vip.version for vip in sizes)
        mss.require(clamped)

        planned = replace(
            known,
            vips=known.vips | (vips - held),
            sysctls=sysctl.remember(settings, known.sysctls),
            devices={**known.devices, **named},
            listeners=known.listeners | (ports - open_ports),
            clamped=known.clamped | clamped,
        )
        save(state_path, planned, known)
        changes = sysctl.enforce(settings)
        changes += gue.enforce(ports, open_ports)
        # First: the kernel has one GRE device for a director, with checksums or without.
        changes += tunnels.remove({name: device for name, device in planned.devices.items() if name not in named})
        changes += tunnels.enforce(named, links)
        changes += mss.enforce(sizes, planned.clamped)
        changes += _add(vips)

        changes += _take_off(planned.vips - vips)
        changes += gue.remove(planned.listeners - ports)
        final = replace(
            planned, vips=planned.vips & vips, devices=named, listeners=planned.listeners & ports, clamped=clamped
        )
        if not settings:
            changes += sysctl.undo(final.sysctls)
            final = replace(final, sysctls=())
        save(state_path, final, planned)
        return changes


def undo(state_path: Path = STATE_PATH) -> list[Change]:
    """Put this host back to what it was before the first `apply`; nothing when there is nothing of ours.

    After a reboot the file is only deleted: nothing of what it says holds any more.
    Raises: HostError when another process is at it, the file is damaged, or the kernel refuses.
    """
    with NamespaceLock("director realserver undo", name="realserver"):
        known = load(state_path)
        changes = _take_off(known.vips)
        changes += mss.enforce({}, known.clamped)
        changes += tunnels.remove(known.devices)
        changes += gue.remove(known.listeners)
        changes += sysctl.undo(known.sysctls)
        statefile.remove(state_path)
        return changes


def _places(served: Iterable[Served], ends: Iterable[End], named: Mapping[str, Device]) -> frozenset[Vip]:
    names = {device: name for name, device in named.items()}
    on_devices = {Vip(end.vip, names[end.device]) for end in ends}
    return frozenset(on_devices | {Vip(each.vip, LOOPBACK) for each in served if each.tunnel is None})


def _refuse_elsewhere(held: Iterable[Vip], wanted: frozenset[Vip], ours: frozenset[Vip]) -> None:
    addresses_wanted = {vip.address for vip in wanted}
    for vip in held:
        if vip.address in addresses_wanted and vip.interface != LOOPBACK and vip not in wanted | ours:
            raise HostError(
                f"{vip}: a real server must not hold a VIP there, since it answers ARP and neighbour "
                f"solicitations for it: ip address del {vip.address} dev {vip.interface}, then try again"
            )


def _sizes(ends: Iterable[End]) -> dict[IPAddress, int]:
    sizes: dict[IPAddress, int] = {}
    for end in ends:
        size = decapsulation.segment_bytes(end, tunnels.outer_mtu(end))
        sizes[end.vip] = min(size, sizes.get(end.vip, size))
    return sizes


def _add(wanted: frozenset[Vip]) -> list[Change]:
    there = addresses.present(wanted)
    return [Change("address", str(vip), None, "present") for vip in in_order(wanted - there) if addresses.add(vip)]


def _take_off(unwanted: frozenset[Vip]) -> list[Change]:
    return [Change("address", str(vip), "present", None) for vip in in_order(unwanted) if addresses.remove(vip)]
