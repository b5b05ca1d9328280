"""director.yaml's text to one `Config`, or to every problem in it.

One rule: combinations that the kernel would accept and then not serve are refused here, with what to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.core.model import Config, RealServer, VirtualServer
from director.core.schema import FileSection, NoCheckSection, RealServerSection, VirtualServerSection
from director.core.table import Forward, Protocol, SchedulerFlags, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.kit.configfile import Finding, load
from director.kit.net import Endpoint, IPAddress
from director.kit.probespec import Check, HttpCheckSection, TcpCheckSection, TimingSection, resolve, timing_findings

_FLAGS = {"fallback": SchedulerFlags.FALLBACK, "port": SchedulerFlags.PORT}


def parse_config(text: str, source: str) -> Config:
    """The configuration in `text`; `source` is its name in messages.

    Raises: InvalidConfigError with one line for each problem.
    """
    return build(load(text, source, FileSection, findings))


def build(file: FileSection) -> Config:
    """The values of a file that has no findings."""
    return Config(
        virtual_servers=tuple(_virtual_server(name, section, file) for name, section in file.virtual_servers.items()),
        drift_interval_s=file.drift_interval,
    )


def _virtual_server(name: str, section: VirtualServerSection, file: FileSection) -> VirtualServer:
    interface = section.interface or file.defaults.interface
    reals = [
        RealServer(real_name, _endpoint(section, real), real.weight, _check(section, real, file))
        for real_name, real in section.real_servers.items()
    ]
    address = section.address
    return VirtualServer(
        name=name,
        key=VirtualKey.of(Protocol(section.protocol), address, section.port),
        row=_row(section),
        forward=Forward(section.forward),
        # Two directors with one file must insert in one order: Maglev's table depends on it.
        real_servers=tuple(sorted(reals, key=lambda real: real.endpoint.sort_key())),
        vip=Vip(address, interface) if interface else None,
    )


def _row(section: VirtualServerSection) -> VirtualRow:
    flags = SchedulerFlags.NONE
    default = (f"{section.scheduler}-fallback",) if section.scheduler in {"sh", "mh"} else ()
    for flag in default if section.scheduler_flags is None else section.scheduler_flags:
        flags |= _FLAGS[flag.partition("-")[2]]
    full = section.address.max_prefixlen
    persistence = section.persistence
    return VirtualRow(
        scheduler=section.scheduler,
        flags=flags,
        persistence_s=int(persistence.timeout) if persistence else 0,
        persistence_prefix=(persistence.prefix if persistence else None) or full,
    )


def _endpoint(section: VirtualServerSection, real: RealServerSection) -> Endpoint:
    return Endpoint(real.address, real.port or section.port)


def _check(section: VirtualServerSection, real: RealServerSection, file: FileSection) -> Check | None:
    inherited = file.defaults.check
    if section.protocol == "udp" and isinstance(inherited, TcpCheckSection | HttpCheckSection) and not inherited.port:
        inherited = None  # a TCP connection to a UDP server's port says nothing of it
    chosen = real.check or section.check or inherited
    if chosen is None or isinstance(chosen, NoCheckSection):
        return None
    defaults = [item for item in (section.check, file.defaults.check) if isinstance(item, TimingSection)]
    return resolve(chosen, defaults, _endpoint(section, real))


def findings(file: FileSection) -> Iterator[Finding]:
    """What two keys together get wrong."""
    seen: dict[VirtualKey, str] = {}
    interfaces: dict[IPAddress, tuple[str, str]] = {}
    for name, section in file.virtual_servers.items():
        at = ("virtual_servers", name)
        address = section.address
        key = VirtualKey.of(Protocol(section.protocol), address, section.port)
        if key in seen:
            yield (*at, "address"), f"{key} is a duplicate of virtual server {seen[key]!r}: change port or address"
        seen.setdefault(key, name)
        interface = section.interface or file.defaults.interface
        if interface:
            other = interfaces.setdefault(address, (interface, name))
            if other[0] != interface:
                yield (
                    (*at, "interface"),
                    (f"{address} is kept on {other[0]} by {other[1]!r}: use one interface"),
                )
        yield from _scheduler_findings(at, section)
        yield from _real_server_findings(at, section, file)


def _scheduler_findings(at: tuple[str, str], section: VirtualServerSection) -> Iterator[Finding]:
    for flag in section.scheduler_flags or ():
        if flag.partition("-")[0] != section.scheduler:
            yield (
                (*at, "scheduler_flags"),
                (f"{flag!r} does not go with scheduler {section.scheduler!r}: remove it, or use that scheduler"),
            )
    full = section.address.max_prefixlen
    prefix = section.persistence.prefix if section.persistence else None
    if prefix is not None and prefix > full:
        yield (*at, "persistence", "prefix"), f"{prefix} is longer than an address: use at most {full}"


def _real_server_findings(at: tuple[str, str], section: VirtualServerSection, file: FileSection) -> Iterator[Finding]:
    seen: dict[Endpoint, str] = {}
    for name, real in section.real_servers.items():
        here = (*at, "real_servers", name)
        endpoint = _endpoint(section, real)
        if endpoint in seen:
            yield (*here, "address"), f"{endpoint} is a duplicate of real server {seen[endpoint]!r}: remove one of them"
        seen.setdefault(endpoint, name)
        if section.forward == "dr" and endpoint.port != section.port:
            yield (
                (*here, "port"),
                (
                    f"{endpoint.port} differs from the virtual server's port {section.port}: with dr packets arrive "
                    f"unchanged, so use {section.port}, or forward: nat"
                ),
            )
        vip = section.address
        if endpoint.address.version != vip.version:
            yield (
                (*here, "address"),
                (
                    f"{endpoint.address} is IPv{endpoint.address.version} and the virtual server's address is "
                    f"IPv{vip.version}: {section.forward} cannot change the family, use an IPv{vip.version} address"
                ),
            )
        if endpoint.address == vip:
            yield (*here, "address"), f"{endpoint.address} is the VIP itself: give the real server's own address"
        yield from _check_findings(here, at, section, real, file)


def _check_findings(
    here: tuple[str, ...],
    at: tuple[str, str],
    section: VirtualServerSection,
    real: RealServerSection,
    file: FileSection,
) -> Iterator[Finding]:
    check = _check(section, real, file)
    if check is None:
        return
    owner = here if real.check is not None else at if section.check is not None else ("defaults",)
    for message in timing_findings(check):
        yield (*owner, "check"), message
    chosen = real.check or section.check
    if section.protocol == "udp" and isinstance(chosen, TcpCheckSection | HttpCheckSection) and chosen.port is None:
        yield (
            (*owner, "check"),
            (f"a {chosen.type} check of a udp virtual server needs `port:`, a TCP port; or use type: none"),
        )
