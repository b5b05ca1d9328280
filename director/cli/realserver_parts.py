"""What this host is to virtual servers, from director.yaml or from options, and what that asks of the host.

One rule: `parts_of_file` is the only place that knows the configuration; the rest works on `Part`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from director.cli.configuration import read_configuration
from director.core.table import IPIP, Tunnel
from director.host.decapsulation import Served
from director.host.realserver_state import in_order
from director.kit.errors import ConfigError
from director.kit.net import IPAddress

if TYPE_CHECKING:
    from director.core.model import VirtualServer
    from director.core.vip import Vip

# Ours: what is on such a device is a VIP.
_OUR_DEVICES = "lvs-"


@dataclass(frozen=True, slots=True)
class Part:
    """A VIP whose director forwards to this host by `method` (nat, dr, tun, fullnat), to its `address` if known."""

    virtual_server: str
    vip: IPAddress
    method: str
    address: IPAddress | None = None
    tunnel: Tunnel = IPIP


def parts_of_file(file: Path, held: Iterable[Vip]) -> list[Part]:
    """Every virtual server of FILE that has one of the addresses `held` as a real server.

    Raises: ConfigError when the file is wrong, or has none.
    """
    _, config = read_configuration(file)
    ours = {vip.address for vip in held}
    parts = [
        Part(virtual.name, vip, virtual.method_of(real).value, real.address, real.tunnel)
        for virtual in config.virtual_servers
        for vip in _vips_of(virtual)
        for real in virtual.real_servers
        if real.address in ours
    ]
    if not parts:
        raise ConfigError(
            f"{file}: no virtual server with an address has one of this host's as a real server "
            f"(it has {', '.join(sorted(map(str, ours)))}): run this on a real server, or name the VIP with --vip"
        )
    return list(dict.fromkeys(parts))


def _vips_of(virtual: VirtualServer) -> Iterator[IPAddress]:
    """The addresses that its clients connect to; those of a bare firewall mark only the firewall knows."""
    yield from (key.endpoint.address for key in virtual.keys if key.endpoint is not None)
    yield from (traffic.address for traffic in virtual.traffic)


def served(parts: Iterable[Part], directors: Sequence[IPAddress], held: Iterable[Vip]) -> list[Served]:
    """What dr and tun ask of this host. A tunnel whose far ends are not named is taken from everybody.

    Raises: ConfigError when no end of a tunnel can be found.
    """
    parts = [part for part in parts if part.method in {"dr", "tun"}]
    vips = {part.vip for part in parts}
    own = [
        vip.address
        for vip in in_order(held)
        if vip.address not in vips
        if vip.interface != "lo" and not vip.interface.startswith(_OUR_DEVICES)
        if not vip.address.is_link_local
    ]
    return list(dict.fromkeys(_served(part, directors, own) for part in parts))


def _served(part: Part, directors: Sequence[IPAddress], own: Sequence[IPAddress]) -> Served:
    if part.method == "dr":
        return Served(part.vip)
    tunneled = Served(part.vip, part.tunnel)
    if part.address is None:
        near = tuple(address for address in own if address.version == part.vip.version)
        far = tuple(directors)
    else:
        near = (part.address,)
        far = tuple(director for director in directors if director.version == part.address.version)
        if directors and not far:
            raise ConfigError(
                f"{part.virtual_server}: the tunnel to {part.address} is IPv{part.address.version}, and no --director "
                "is: name the addresses from which the directors send to it"
            )
    if any(director.is_link_local for director in far):
        raise ConfigError(f"{part.vip}: a tunnel cannot begin at a link-local address: name another of the director's")
    if not (near or far):
        raise ConfigError(
            f"{part.vip}: this host has no IPv{part.vip.version} address that a tunnel could end at: "
            "name the director's address with --director"
        )
    return replace(tunneled, directors=far) if far else replace(tunneled, locals=near)
