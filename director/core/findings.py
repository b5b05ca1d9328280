"""What two keys of director.yaml get wrong together: every finding has its place and its remedy.

One rule: combinations that the kernel would accept and then not serve, or refuse with a bare errno, are refused here.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.core.checkfindings import check_findings, policy_findings
from director.core.model import Method
from director.core.naming import by_name
from director.core.notifyschema import notification_findings
from director.core.ports import ANY, describe_ports
from director.core.resolve import (
    address_of,
    addresses_of,
    collide,
    families_of,
    family_of,
    forward_of,
    host_of,
    keys_of,
    port_of,
    told_address,
)
from director.core.schema import (
    FileSection,
    RealServerSection,
    SorryServerSection,
    TunnelSection,
    VirtualServerSection,
)
from director.core.table import Protocol, VirtualKey
from director.kit.configfile import Finding
from director.kit.net import Endpoint, IPAddress

At = tuple[str | int, ...]
_SAME_PORT = {Method.DR.value, Method.TUN.value}


def findings(file: FileSection) -> Iterator[Finding]:
    """Every problem of a file whose keys are right one by one."""
    seen: dict[VirtualKey, str] = {}
    interfaces: dict[IPAddress, tuple[str, str]] = {}
    vips = {address: name for name, section in file.virtual_servers.items() for address in addresses_of(section)}
    for name, section in file.virtual_servers.items():
        at = ("virtual_servers", name)
        yield from _identity(at, section)
        for key in keys_of(section):
            if key in seen:
                field, remedy = ("address", "change port or address") if key.mark is None else ("fwmark", "use another")
                yield (*at, field), f"{key} is a duplicate of virtual server {seen[key]!r}: {remedy}"
                break
        for key in keys_of(section):
            seen.setdefault(key, name)
        yield from _interface(at, name, section, file, interfaces)
        yield from _scheduling(at, section)
        yield from _forwarding(at, section)
        yield from _real_servers(at, section, file, vips)
        yield from policy_findings(at, section, file)
    yield from _marked_twice(file, seen)
    yield from _sync(file)
    yield from notification_findings(file.notifications, file.virtual_servers)


def _identity(at: At, section: VirtualServerSection) -> Iterator[Finding]:
    if section.fwmark is None:
        if section.address is None:
            yield at, "neither address nor fwmark: write `address:` and `port:`, or `fwmark:`"
        elif section.port is None:
            yield at, "`port` is missing: write the port that clients connect to, a range, or any"
        for key in ("family", "traffic"):
            if getattr(section, key):
                yield (*at, key), f"{key} goes with fwmark: remove it, or serve a firewall mark"
        if section.port == (ANY,) and section.persistence is None:
            yield (*at, "port"), "IPVS serves `any` port only with persistence: add `persistence:`, or name the ports"
        return
    for key in ("address", "port", "protocol"):
        if getattr(section, key) is not None:
            yield (
                (*at, key),
                f"{key} does not go with fwmark {section.fwmark}: the mark alone decides; remove it, and say under "
                "`traffic:` what is to be marked",
            )
    family = family_of(section)
    for index, traffic in enumerate(section.traffic):
        for address in traffic.address:
            if address.version != family:
                yield (
                    (*at, "traffic", index, "address"),
                    f"{address} is IPv{address.version} and the virtual server is IPv{family}: use an IPv{family} "
                    f"address, or `family: ipv{address.version}`",
                )


def _interface(
    at: At, name: str, section: VirtualServerSection, file: FileSection, interfaces: dict[IPAddress, tuple[str, str]]
) -> Iterator[Finding]:
    addresses = addresses_of(section)
    if section.interface and not addresses:
        yield (
            (*at, "interface"),
            "there is no address to keep on it: remove it, or name the addresses under `traffic:`",
        )
    interface = section.interface or file.defaults.interface
    for address in addresses if interface else ():
        other = interfaces.setdefault(address, (interface or "", name))
        if other[0] != interface:
            yield (*at, "interface"), f"{address} is kept on {other[0]} by {other[1]!r}: use one interface"


def _scheduling(at: At, section: VirtualServerSection) -> Iterator[Finding]:
    for flag in section.scheduler_flags or ():
        if flag.partition("-")[0] != section.scheduler:
            yield (
                (*at, "scheduler_flags"),
                f"{flag!r} does not go with scheduler {section.scheduler!r}: remove it, or use scheduler "
                f"{flag.partition('-')[0]!r}",
            )
    # A mark that others set may be on packets of any protocol.
    protocols = {traffic.protocol for traffic in section.traffic} if section.fwmark else {section.protocol or "tcp"}
    other = "" if "udp" in protocols or not protocols else " and ".join(sorted(protocols))
    if section.one_packet and other:
        yield (*at, "one_packet"), f"one-packet scheduling is for udp, and this is {other}: remove it"
    persistence = section.persistence
    if persistence is None:
        return
    if persistence.prefix is not None and persistence.netmask is not None:
        yield (*at, "persistence", "netmask"), "prefix says the same: remove one of them"
    here = (*at, "persistence", "prefix" if persistence.netmask is None else "netmask")
    bits = persistence.bits
    families: set[int] = {address.version for address in section.address or ()} or {family_of(section)}
    if bits is not None and 4 in families and bits > 32:
        yield here, f"{bits} is longer than an address: use at most 32"
    if persistence.netmask is not None and 6 in families:
        yield here, "a netmask is IPv4's: write `prefix:`, 1 to 128"
    elif bits == 0 and 6 in families:
        yield here, "the kernel refuses 0 with IPv6: use 1 to 128"
    if persistence.engine == "sip" and other:
        yield (
            (*at, "persistence", "engine"),
            f"sip reads Call-IDs from udp packets, and this is {other}: use protocol: udp, or remove it",
        )


def _forwarding(at: At, section: VirtualServerSection) -> Iterator[Finding]:
    if section.source is not None and section.forward != "fullnat":
        yield (*at, "source"), f"{section.forward} keeps the client's address: remove it, or use forward: fullnat"
    elif section.source is not None and (section.source.is_loopback or section.source in addresses_of(section)):
        yield (
            (*at, "source"),
            f"{section.source} is no address that answers come back to: give one of the director's own on the way to "
            "the real servers",
        )
    elif section.source is not None:
        for version in sorted({key.family for key in keys_of(section)} - {section.source.version}):
            yield (*at, "source"), f"{section.source} is not an IPv{version} address, as the virtual server's is"
    forwards = {section.forward, *(real.forward for real in section.real_servers.values())}
    yield from _tunnel((*at, "tunnel"), section.tunnel, "tun" if "tun" in forwards else section.forward)


def _tunnel(at: At, tunnel: TunnelSection | None, forward: str) -> Iterator[Finding]:
    if tunnel is None:
        return
    if forward != "tun":
        yield at, f"{forward} has no tunnel: remove it, or use forward: tun"
    if tunnel.type == "gue" and tunnel.port is None:
        yield at, "gue needs `port:`, the UDP port on which the real server takes it"
    if tunnel.type != "gue" and tunnel.port is not None:
        yield (*at, "port"), f"{tunnel.type} has no port: remove it, or use type: gue"
    if tunnel.type == "ipip" and tunnel.checksum != "none":
        yield (*at, "checksum"), "ipip has no checksum of its own: remove it, or use type: gre or gue"
    if tunnel.type == "gre" and tunnel.checksum == "remote":
        yield (*at, "checksum"), "gre has no remote checksum: use full or none, or type: gue"


def _real_servers(
    at: At, section: VirtualServerSection, file: FileSection, vips: dict[IPAddress, str]
) -> Iterator[Finding]:
    seen: dict[IPAddress, list[tuple[int | None, str]]] = {}
    for name, real in section.real_servers.items():
        here = (*at, "real_servers", name)
        address = address_of(section, real)
        same = seen.setdefault(address, [])
        other = next((name for port, name in same if collide(section, port, real.port)), None)
        if other is not None:
            port = port_of(section, real)
            where = by_name(Endpoint(address, port) if port else address, host_of(real))
            yield (*here, "address"), f"{where} is a duplicate of real server {other!r}: remove one of them"
        same.append((real.port, name))
        yield from _member(here, section, real, vips)
        yield from _thresholds(here, real)
        yield from check_findings(here, at, section, real, file)
    if section.sorry_server is not None:
        yield from _member((*at, "sorry_server"), section, section.sorry_server, vips)


def _member(
    here: At, section: VirtualServerSection, real: RealServerSection | SorryServerSection, vips: dict[IPAddress, str]
) -> Iterator[Finding]:
    yield from _port(here, section, real)
    yield from _address(here, section, real, vips)
    yield from _tunnel((*here, "tunnel"), real.tunnel, forward_of(section, real))
    if section.forward == "fullnat" and real.forward == "nat":
        yield (
            (*here, "forward"),
            "beside fullnat it would be rewritten as well, for the rule knows the virtual server only: remove it, "
            "or make a virtual server of its own",
        )


def _port(here: At, section: VirtualServerSection, real: RealServerSection | SorryServerSection) -> Iterator[Finding]:
    if real.port is None or forward_of(section, real) not in _SAME_PORT:
        return
    arrives = "with " + forward_of(section, real) + " packets arrive unchanged"
    if section.fwmark is not None:
        yield (*here, "port"), f"{arrives}, on whichever port the client named: remove it, or use forward: nat"
    elif section.port is not None and section.port != (real.port,):
        ports = describe_ports(section.port)
        yield (
            (*here, "port"),
            f"{real.port} differs from the virtual server's port {ports}: {arrives}, so "
            + (f"use {ports}" if len(section.port) == 1 and section.port != (ANY,) else "remove it")
            + ", or forward: nat",
        )


def _address(
    here: At, section: VirtualServerSection, real: RealServerSection | SorryServerSection, vips: dict[IPAddress, str]
) -> Iterator[Finding]:
    at = (*here, "address")
    address = address_of(section, real)
    own = addresses_of(section)
    forward = forward_of(section, real)
    if forward != "tun":
        other = next((family for family in families_of(section) if family != address.version), None)
        if other is not None:
            yield (
                at,
                f"{told_address(section, real)} is IPv{address.version} and the virtual server's address is "
                f"IPv{other}: {forward} cannot change the family, use an IPv{other} address, or forward: tun",
            )
    if address in own:
        yield at, f"{told_address(section, real)} is the VIP itself: give the real server's own address"
    elif address in vips and forward in _SAME_PORT:
        yield (
            at,
            f"{told_address(section, real)} is the VIP of virtual server {vips[address]!r}, an address of this "
            "director: packets would not leave it; give the real server's own address",
        )


def _thresholds(here: At, real: RealServerSection) -> Iterator[Finding]:
    if real.lower_threshold and not real.upper_threshold:
        yield (
            (*here, "lower_threshold"),
            "it does nothing without upper_threshold: add that, or remove this",
        )
    elif real.lower_threshold > real.upper_threshold:
        yield (
            (*here, "lower_threshold"),
            f"{real.lower_threshold} is above upper_threshold {real.upper_threshold}: new connections come again "
            "below the lower one, so make it the smaller",
        )


def _marked_twice(file: FileSection, declared: dict[VirtualKey, str]) -> Iterator[Finding]:
    """Traffic that two marks claim, or that has a virtual server of its own."""
    seen: dict[tuple[Protocol, IPAddress], list[tuple[tuple[int, ...], str]]] = {}
    for name, section in file.virtual_servers.items():
        for index, traffic in enumerate(section.traffic):
            at = ("virtual_servers", name, "traffic", index)
            ports = () if traffic.port in {None, (ANY,)} else traffic.port or ()
            protocol = Protocol(traffic.protocol)
            for address in traffic.address:
                others = seen.setdefault((protocol, address), [])
                rival = _rival(ports, others) or _declared(protocol, address, ports, declared)
                others.append((ports, name))
                if rival is not None:
                    what = f"{protocol.value} {address}" + (f" port {describe_ports(ports)}" if ports else "")
                    yield at, f"{what} belongs to virtual server {rival!r} already: remove one of them"


def _rival(ports: tuple[int, ...], others: list[tuple[tuple[int, ...], str]]) -> str | None:
    return next((name for claimed, name in others if not claimed or not ports or set(claimed) & set(ports)), None)


def _declared(
    protocol: Protocol, address: IPAddress, ports: tuple[int, ...], declared: dict[VirtualKey, str]
) -> str | None:
    for key, name in declared.items():
        endpoint = key.endpoint
        if endpoint is None or (key.protocol, endpoint.address) != (protocol, address):
            continue
        if not ports or endpoint.port in {ANY, *ports}:
            return name
    return None


def _sync(file: FileSection) -> Iterator[Finding]:
    if file.sync is None:
        return
    for role, daemon in (("master", file.sync.master), ("backup", file.sync.backup)):
        if daemon is None or daemon.maxlen is None:
            continue
        # start_sync_thread() in ip_vs_sync.c: it takes another without a word
        least, most = 1024 if role == "backup" else 1, 65507 if daemon.group.version == 4 else 65487
        if not least <= daemon.maxlen <= most:
            yield (
                ("sync", role, "maxlen"),
                f"the kernel would make it another: a {role} with an IPv{daemon.group.version} group has {least} to "
                f"{most} bytes; use one of these, or remove it",
            )
    for name, section in file.virtual_servers.items():
        members: list[tuple[At, RealServerSection | SorryServerSection]] = [
            (("real_servers", real_name), real)
            for real_name, real in section.real_servers.items()
            if real.state != "disabled"
        ]
        if section.sorry_server is not None:
            members.append((("sorry_server",), section.sorry_server))
        for place, real in members:
            mixed = any(key.family != address_of(section, real).version for key in keys_of(section))
            if mixed and forward_of(section, real) == "tun":
                yield (
                    ("virtual_servers", name, *place, "address"),
                    f"{told_address(section, real)} is of another IP version than its virtual server, and the kernel "
                    "refuses that together with a sync daemon: use one version, or remove `sync`",
                )
