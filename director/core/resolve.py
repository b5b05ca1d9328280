"""What a section of director.yaml amounts to once defaults are in; the findings and the values both ask here.

One rule: these take sections as they are written, also ones that have findings.
"""

from __future__ import annotations

from collections.abc import Sequence

from director.core.model import Method
from director.core.naming import Named, by_name
from director.core.ports import ANY
from director.core.schema import (
    FileSection,
    NoCheckSection,
    RealServerSection,
    SorryServerSection,
    VirtualServerSection,
)
from director.core.table import IPIP, Protocol, Tunnel, TunnelFlags, TunnelKind, VirtualKey
from director.kit.checks.base import NetworkSection, TimingSection
from director.kit.checks.check import AnyCheck, AnyCheckSection, Check, Combination, CombinedCheckSection, resolve
from director.kit.net import Endpoint, IPAddress

_TUNNEL_FLAGS = {"none": TunnelFlags.NONE, "full": TunnelFlags.CHECKSUM, "remote": TunnelFlags.REMOTE_CHECKSUM}


def keys_of(section: VirtualServerSection) -> tuple[VirtualKey, ...]:
    """One for each address and port, or the firewall mark; none where neither is given."""
    if section.fwmark is not None:
        return (VirtualKey(family_of(section), mark=section.fwmark),)
    protocol = Protocol(section.protocol or "tcp")
    return tuple(
        VirtualKey.of(protocol, address, port) for address in section.address or () for port in section.port or ()
    )


def families_of(section: VirtualServerSection) -> tuple[int, ...]:
    """The families of `keys_of`, one for each address: a range has thousands of keys."""
    if section.fwmark is not None:
        return (family_of(section),)
    return tuple(address.version for address in section.address or ()) if section.port else ()


def family_of(section: VirtualServerSection) -> int:
    """4 or 6; that of the first address where there are several."""
    if section.address:
        return section.address[0].version
    return 6 if section.family == "ipv6" else 4


def addresses_of(section: VirtualServerSection) -> tuple[IPAddress, ...]:
    """Every VIP once: those of a firewall mark are in its traffic."""
    if section.address is not None:
        return section.address
    return tuple(dict.fromkeys(address for traffic in section.traffic for address in traffic.address))


def port_of(section: VirtualServerSection, real: RealServerSection) -> int | None:
    """The port to check a real server on where the check names none: None when there is no telling."""
    if real.port is not None:
        return real.port
    if section.fwmark is not None or not section.port or section.port == (ANY,):
        return None
    return section.port[0]


def collide(section: VirtualServerSection, one: int | None, other: int | None) -> bool:
    """Whether two ports of one address are one destination under some port of the virtual server."""
    if one == other:
        return True
    own = section.port or () if section.fwmark is None else ()
    return (one is None and other in own) or (other is None and one in own)


def address_of(section: VirtualServerSection, real: RealServerSection | SorryServerSection) -> IPAddress:
    """Its address; of a name the one that suits the virtual server's IP version (with tun, any does)."""
    address = real.address
    if not isinstance(address, Named):
        return address
    found = address.address(family_of(section), other=forward_of(section, real) == Method.TUN.value)
    assert found is not None, "a name without an address is a problem of its own"  # noqa: S101
    return found


def host_of(real: RealServerSection | SorryServerSection) -> str:
    """Its name, where it is given by one."""
    return real.address.host if isinstance(real.address, Named) else ""


def told_address(section: VirtualServerSection, real: RealServerSection | SorryServerSection) -> str:
    """Its address, and its name where it is given by one."""
    return by_name(address_of(section, real), host_of(real))


def forward_of(section: VirtualServerSection, real: RealServerSection | SorryServerSection) -> str:
    """The forwarding method as it is written."""
    return real.forward or section.forward


def tunnel_of(section: VirtualServerSection, real: RealServerSection | SorryServerSection) -> Tunnel:
    """Plain IPIP where nothing is said."""
    chosen = (real.tunnel or section.tunnel) if forward_of(section, real) == Method.TUN.value else None
    if chosen is None:
        return IPIP
    return Tunnel(TunnelKind(chosen.type), chosen.port or 0, _TUNNEL_FLAGS[chosen.checksum])


def check_of(section: VirtualServerSection, real: RealServerSection, file: FileSection) -> AnyCheck | None:
    """How `real` is probed; None when it is not, or when there is no telling on which port."""
    chosen = chosen_check(section, real, file)
    if chosen is None or real.state == "disabled":
        return None
    defaults = [item for item in (section.check, file.defaults.check) if isinstance(item, TimingSection)]
    if isinstance(chosen, CombinedCheckSection):
        parts = [_resolved(part, (chosen, *defaults), section, real) for part in chosen.of]
        known = tuple(part for part in parts if part is not None)
        return Combination(chosen.type == "all", known) if known else None
    return _resolved(chosen, defaults, section, real)


def load_of(section: VirtualServerSection, real: RealServerSection, file: FileSection) -> Check | None:
    """Who is asked for `real`'s share of the weight, apart from health."""
    chosen = real.load or section.load
    if chosen is None or real.state == "disabled":
        return None
    defaults = [item for item in (section.load, section.check, file.defaults.check) if isinstance(item, TimingSection)]
    return _resolved(chosen, defaults, section, real)


def chosen_check(
    section: VirtualServerSection, real: RealServerSection, file: FileSection
) -> AnyCheckSection | CombinedCheckSection | None:
    """The check that holds for `real`, as it is written; None where it has none."""
    inherited = file.defaults.check
    if inherited is not None and not isinstance(inherited, NoCheckSection):
        parts = inherited.of if isinstance(inherited, CombinedCheckSection) else (inherited,)
        if not all(says_something(part, section) for part in parts):
            inherited = None
    chosen = real.check or section.check or inherited
    return None if isinstance(chosen, NoCheckSection) else chosen


def _resolved(
    section: AnyCheckSection, defaults: Sequence[TimingSection], virtual: VirtualServerSection, real: RealServerSection
) -> Check | None:
    port = port_of(virtual, real)
    if port is None and lacks_port(section):
        return None
    vip = next(iter(addresses_of(virtual)), None)
    return resolve(section, defaults, Endpoint(address_of(virtual, real), port or 0), vip)


def lacks_port(check: AnyCheckSection) -> bool:
    """Whether it cannot be made unless the real server's port is known."""
    return check.needs_port and not (isinstance(check, NetworkSection) and check.port)


def says_something(check: AnyCheckSection, section: VirtualServerSection) -> bool:
    """Whether it says something of its real servers: a TCP connection to a UDP server's port does not."""
    if section.fwmark is not None or check.over in {None, section.protocol or "tcp"}:
        return True
    return isinstance(check, NetworkSection) and check.port is not None
