"""What a real server needs under DR: the VIP as its own address, and silence about it on the wire.

One rule: what was there before us stays, and what we changed is on disk before we change it, so that
`undo` restores from any half-way point. Sysctls come before the VIP; the VIP goes before they do.

IPv4: a host answers ARP for any of its addresses on any interface, and asks for its router in the
VIP's name, which teaches the router the same lie; arp_ignore=1 and arp_announce=2 stop both.
IPv6 needs no setting. Tried on 6.1 and 6.18: a host neither answers a solicitation for an address of
lo (ndisc_recv_ns looks only at the receiving interface; nor with forwarding, proxy_ndp, or another address
in the same solicited-node group), nor solicits in its name (ndisc_solicit falls back to the link-local one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from director.core.vip import Vip
from director.host import addresses, sysctl
from director.host.change import Change
from director.host.lockfile import NamespaceLock
from director.host.sysctl import Epoch, Key, Remembered, conf
from director.kit import statefile
from director.kit.errors import HostError
from director.kit.net import IPAddress

STATE_PATH = statefile.DIRECTORY / "realserver.json"
STATE_VERSION = 1
LOOPBACK = "lo"

# The kernel takes the maximum of `all` and the interface (IN_DEV_ARP_IGNORE); lo as the LVS HOWTO has it.
ARP_SETTINGS: dict[Key, str] = {
    conf(4, interface, setting): value
    for interface in ("all", LOOPBACK)
    for setting, value in (("arp_ignore", "1"), ("arp_announce", "2"))
}


@dataclass(frozen=True, slots=True)
class State:
    """What of this host is ours: VIPs that were not there before us, settings and what they were."""

    epoch: Epoch
    vips: frozenset[IPAddress] = frozenset()
    sysctls: tuple[Remembered, ...] = ()

    def is_empty(self) -> bool:
        return not self.vips and not self.sysctls


def apply(vips: Iterable[IPAddress], state_path: Path = STATE_PATH) -> list[Change]:
    """Make exactly `vips` this real server's VIPs: those we added earlier and that are not named, go.

    Raises: HostError when another process is at it, a VIP sits on another interface, or the kernel refuses.
    """
    wanted = frozenset(vips)
    with NamespaceLock("director realserver apply", name="realserver"):
        known = _load(state_path)
        there = _vips_there(wanted)
        settings = ARP_SETTINGS if any(vip.version == 4 for vip in wanted) else {}
        planned = replace(known, vips=known.vips | (wanted - there), sysctls=sysctl.remember(settings, known.sysctls))
        _save(state_path, planned, known)

        changes = sysctl.enforce(settings)
        changes += _add(wanted - there)
        changes += _take_off(planned.vips - wanted)
        final = replace(planned, vips=planned.vips & wanted)
        if not settings:
            changes += sysctl.undo(final.sysctls)
            final = replace(final, sysctls=())
        _save(state_path, final, planned)
        return changes


def undo(state_path: Path = STATE_PATH) -> list[Change]:
    """Put this host back to what it was before the first `apply`; nothing when there is nothing of ours.

    After a reboot the file is only deleted: nothing of what it says holds any more.
    Raises: HostError when another process is at it, the file is damaged, or the kernel refuses.
    """
    with NamespaceLock("director realserver undo", name="realserver"):
        known = _load(state_path)
        changes = _take_off(known.vips)
        changes += sysctl.undo(known.sysctls)
        statefile.remove(state_path)
        return changes


def _vips_there(wanted: frozenset[IPAddress]) -> frozenset[IPAddress]:
    held = [vip for vip in addresses.held() if vip.address in wanted]
    for vip in held:
        if vip.interface != LOOPBACK:
            raise HostError(
                f"{vip}: a real server must not hold a VIP there, since it answers ARP and neighbour "
                f"solicitations for it: ip address del {vip.address} dev {vip.interface}, then try again"
            )
    return frozenset(vip.address for vip in held)


def _add(wanted: frozenset[IPAddress]) -> list[Change]:
    vips = [Vip(address, LOOPBACK) for address in _sorted(wanted)]
    return [Change("address", str(vip), None, "present") for vip in vips if addresses.add(vip)]


def _take_off(unwanted: frozenset[IPAddress]) -> list[Change]:
    vips = [Vip(address, LOOPBACK) for address in _sorted(unwanted)]
    return [Change("address", str(vip), "present", None) for vip in vips if addresses.remove(vip)]


def _sorted(vips: Iterable[IPAddress]) -> list[IPAddress]:
    return sorted(vips, key=lambda vip: (vip.version, int(vip)))


def _save(path: Path, state: State, on_disk: State) -> None:
    if state.is_empty():
        statefile.remove(path)
    elif state != on_disk:
        statefile.save(path, STATE_VERSION, encode(state))


def _load(path: Path) -> State:
    now = sysctl.epoch()
    content = statefile.load(path, STATE_VERSION)
    state = State(now) if content is None else decode(content, path)
    return state if state.epoch == now else State(now)


def encode(state: State) -> dict[str, statefile.Json]:
    """The state as JSON; `decode` is its inverse."""
    return {
        "boot_id": state.epoch.boot_id,
        "namespace": state.epoch.namespace,
        "vips": [str(vip) for vip in _sorted(state.vips)],
        "sysctls": [
            {"name": sysctl.name(entry.key), "before": entry.before, "ours": entry.ours} for entry in state.sysctls
        ],
    }


def decode(content: dict[str, statefile.Json], path: Path) -> State:
    """The state in a file's content.

    Raises: HostError naming `path` when the content is not what `encode` writes.
    """
    match content:
        case {
            "boot_id": str(boot_id),
            "namespace": int(namespace),
            "vips": list(vips),
            "sysctls": list(entries),
        }:
            try:
                return State(
                    Epoch(boot_id, namespace),
                    frozenset(ip_address(str(vip)) for vip in vips),
                    tuple(_decode_entry(entry) for entry in entries),
                )
            except ValueError as error:
                raise statefile.damaged(path, str(error)) from error
    raise statefile.damaged(path, "it lacks boot_id, namespace, vips or sysctls")


def _decode_entry(entry: statefile.Json) -> Remembered:
    match entry:
        case {"name": str(name), "before": str(before), "ours": str(ours)}:
            return Remembered(sysctl.key_of(name), before, ours)
    raise ValueError(f"{entry!r} is not a remembered sysctl")
