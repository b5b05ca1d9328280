"""What a real server remembers of its own changes, so that they can be taken back after whatever happened.

One rule: what is remembered was saved before it was done; a fact that never came about is taken back for free.
Version 1 knew DR only: VIPs on lo and settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from director.core.vip import Vip
from director.host import sysctl
from director.host.decapsulation import Device, DeviceKind, Listener
from director.host.sysctl import Epoch, Remembered
from director.kit import statefile
from director.kit.net import IPAddress

VERSION = 2
OLDER = (1,)
LOOPBACK = "lo"

_NO_DEVICES: Mapping[str, Device] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class State:
    """What of this host is ours: addresses that were not there before us, settings and what they were, and so on.

    `clamped` are the IP versions for which segment sizes are set.
    """

    epoch: Epoch
    vips: frozenset[Vip] = frozenset()
    sysctls: tuple[Remembered, ...] = ()
    devices: Mapping[str, Device] = field(default_factory=lambda: _NO_DEVICES)
    listeners: frozenset[Listener] = frozenset()
    clamped: frozenset[int] = frozenset()

    def is_empty(self) -> bool:
        return not (self.vips or self.sysctls or self.devices or self.listeners or self.clamped)


def load(path: Path) -> State:
    """What is remembered and still holds: after a reboot, or in another network namespace, nothing does.

    Raises: HostError when the file is damaged.
    """
    now = sysctl.epoch()
    content = statefile.load(path, VERSION, older=OLDER)
    state = State(now) if content is None else decode(content, path)
    return state if state.epoch == now else State(now)


def save(path: Path, state: State, on_disk: State) -> None:
    """Replace `on_disk` by `state`; there is no file where there is nothing to remember.

    Raises: HostError when the file cannot be written.
    """
    if state.is_empty():
        statefile.remove(path)
    elif state != on_disk:
        statefile.save(path, VERSION, encode(state))


def in_order(vips: Iterable[Vip]) -> list[Vip]:
    return sorted(vips, key=lambda vip: (vip.address.version, int(vip.address), vip.interface))


def encode(state: State) -> dict[str, statefile.Json]:
    """The state as JSON; `decode` is its inverse."""
    return {
        "boot_id": state.epoch.boot_id,
        "namespace": state.epoch.namespace,
        "vips": [{"address": str(vip.address), "interface": vip.interface} for vip in in_order(state.vips)],
        "sysctls": sysctl.to_json(state.sysctls),
        "devices": [
            {
                "name": name,
                "kind": device.kind.value,
                "remote": _text(device.remote),
                "local": _text(device.local),
                "checksum": device.checksum,
            }
            for name, device in sorted(state.devices.items())
        ],
        "listeners": [{"port": each.port, "ip_version": each.version} for each in sorted(state.listeners)],
        "clamped": [*sorted(state.clamped)],
    }


def decode(content: dict[str, statefile.Json], path: Path) -> State:
    """The state in a file's content.

    Raises: HostError naming `path` when the content is not what `encode` writes, nor what version 1 wrote.
    """
    # What came with version 2.
    whole = {"devices": [], "listeners": [], "clamped": [], **content}
    match whole:
        case {
            "boot_id": str(boot_id),
            "namespace": int(namespace),
            "vips": list(vips),
            "sysctls": list(sysctls),
            "devices": list(devices),
            "listeners": list(listeners),
            "clamped": list(clamped),
        }:
            try:
                return State(
                    Epoch(boot_id, namespace),
                    frozenset(map(_vip, vips)),
                    sysctl.from_json(sysctls),
                    dict(map(_device, devices)),
                    frozenset(map(_listener, listeners)),
                    frozenset(map(_ip_version, clamped)),
                )
            except ValueError as error:
                raise statefile.damaged(path, str(error)) from error
    raise statefile.damaged(path, "it lacks boot_id, namespace, vips or sysctls")


def _vip(entry: statefile.Json) -> Vip:
    match entry:
        case str(address):  # version 1
            return Vip(ip_address(address), LOOPBACK)
        case {"address": str(address), "interface": str(interface)}:
            return Vip(ip_address(address), interface)
    raise ValueError(f"{entry!r} is not a VIP")


def _device(entry: statefile.Json) -> tuple[str, Device]:
    match entry:
        case {
            "name": str(name),
            "kind": str(kind),
            "remote": (str() | None) as remote,
            "local": (str() | None) as local,
            "checksum": bool(checksum),
        }:
            return name, Device(DeviceKind(kind), _address(remote), _address(local), checksum)
    raise ValueError(f"{entry!r} is not a tunnel device")


def _listener(entry: statefile.Json) -> Listener:
    match entry:
        case {"port": int(port), "ip_version": int(version)} if version in {4, 6}:
            return Listener(port, version)
    raise ValueError(f"{entry!r} is not a port")


def _ip_version(entry: statefile.Json) -> int:
    if isinstance(entry, int) and entry in {4, 6}:
        return entry
    raise ValueError(f"{entry!r} is not an IP version")


def _address(text: str | None) -> IPAddress | None:
    return None if text is None else ip_address(text)


def _text(address: IPAddress | None) -> str | None:
    return None if address is None else str(address)
