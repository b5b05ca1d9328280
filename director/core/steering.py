"""Probes through the forwarding path (`via: vip`): the firewall mark that leads to one real server, and its entry.

One rule: a mark depends on nothing but what the way depends on, so that neither a reload nor another order of the file
moves it. A way that changes (another method or tunnel) gets another mark: the kernel keeps one route for a destination,
and takes it out of its trash with the route that it had (see `handover`).

A connection of the director's own that carries the mark goes through IPVS to exactly that real server, by the method of
its virtual server and to the VIP: what answers has its VIP, and its tunnel works.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from zlib import crc32

from director.core.table import IPIP, Forward, RealRow, Table, Tunnel, VirtualEntry, VirtualKey, VirtualRow
from director.kit.checks.check import Check, Combination, leaves
from director.kit.checks.dns import DnsProbe
from director.kit.checks.udp import UdpProbe
from director.kit.net import Endpoint, IPAddress

if TYPE_CHECKING:
    from director.core.model import Config, RealServer, VirtualServer

FIRST_MARK, LAST_MARK = 0x4C000000, 0x4CFFFFFF
"""Marks that the director gives away by itself."""

_ROW = VirtualRow("rr")
_BY_DATAGRAMS = (UdpProbe, DnsProbe)  # of a name server by TCP as well, when an answer is too long


@dataclass(frozen=True, slots=True)
class Path:
    """All that the way of a probe to one real server of one virtual server depends on."""

    virtual_server: str
    address: IPAddress
    port: int | None = None
    forward: Forward = Forward.DR
    tunnel: Tunnel = IPIP

    def __str__(self) -> str:
        tunnel = self.tunnel
        kind = f"{tunnel.kind.value},{tunnel.port},{tunnel.flags.value}" if self.forward is Forward.TUN else ""
        return f"{self.virtual_server} {self.address} {self.port or 0} {self.forward.value} {kind}"


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """Where a probe goes and what it is bound to; `source` None is the host's choice.

    `datagrams`: answers may be UDP as well as TCP.
    """

    target: Endpoint
    source: IPAddress | None = None
    datagrams: bool = False


@dataclass(frozen=True, slots=True)
class Steering:
    """One entry of the table that is there for probes alone; `name` is the real server's, `web/a`."""

    name: str
    mark: int
    family: int
    real: IPAddress
    forward: Forward
    tunnel: Tunnel = IPIP
    ways: tuple[Way, ...] = ()

    @property
    def key(self) -> VirtualKey:
        return VirtualKey(self.family, mark=self.mark)

    @property
    def entry(self) -> VirtualEntry:
        """What the kernel should hold: the one real server, on whichever port a probe names."""
        row = RealRow(self.forward, 1, tunnel=self.tunnel)
        return VirtualEntry(_ROW, MappingProxyType({Endpoint(self.real, 0): row}))

    def __str__(self) -> str:
        return f"probe path to {self.name}"


def allot(paths: Iterable[Path], taken: Collection[int] = ()) -> dict[Path, int]:
    """A mark for each of `paths`, none of `taken`: always the same, but where two of them would have one.

    >>> from ipaddress import ip_address
    >>> {hex(mark) for mark in allot([Path("web", ip_address("10.0.0.1"))]).values()}
    {'0x4cb31073'}
    """
    marks: dict[Path, int] = {}
    used = set(taken)
    size = LAST_MARK - FIRST_MARK + 1
    for path in sorted(set(paths), key=str):
        at = crc32(str(path).encode()) % size
        while FIRST_MARK + at in used:
            at = (at + 1) % size
        marks[path] = FIRST_MARK + at
        used.add(FIRST_MARK + at)
    return marks


def with_marks(config: Config) -> Config:
    """`config` with a mark in every check that goes through the forwarding path (those with `route.real`)."""
    paths = {
        ref: _path(virtual, real)
        for virtual in config.virtual_servers
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
        if any(check.route.real is not None for check in _checks(real))
    }
    if not paths:
        return config
    marks = allot(paths.values(), _declared(config))

    def marked(virtual: VirtualServer) -> VirtualServer:
        reals = zip(virtual.refs, virtual.real_servers, strict=True)
        return replace(
            virtual,
            real_servers=tuple(_marked(real, marks[paths[ref]]) if ref in paths else real for ref, real in reals),
        )

    return replace(config, virtual_servers=tuple(map(marked, config.virtual_servers)))


def steerings(virtual_servers: Iterable[VirtualServer]) -> tuple[Steering, ...]:
    """The entries that the checks of these need, in the order of the file."""
    found: dict[VirtualKey, Steering] = {}
    for virtual in virtual_servers:
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
            for check in _checks(real) if real.check or real.load else ():
                route = check.route
                if route.real is None or not route.mark:
                    continue
                target = check.target
                way = Way(target, route.source, isinstance(check.probe, _BY_DATAGRAMS))
                key = VirtualKey(target.address.version, mark=route.mark)
                known = found.get(key)
                if known is None:
                    forward = virtual.method_of(real).forward
                    known = Steering(str(ref), route.mark, key.family, route.real, forward, real.tunnel)
                if way not in known.ways:
                    found[key] = replace(known, ways=(*known.ways, way))
    return tuple(found.values())


def probe_paths(table: Table, configs: Iterable[Config | None]) -> frozenset[VirtualKey]:
    """Entries of `table` for probes: marks that the director gives away, but for what `configs` have by such a mark."""
    found = {key for key in table if is_given_away(key)}
    for config in configs if found else ():
        found -= {key for virtual in config.virtual_servers for key in virtual.keys} if config else set()
    return frozenset(found)


def is_given_away(key: VirtualKey) -> bool:
    """Whether `key` is a mark out of those that the director gives away."""
    return key.mark is not None and FIRST_MARK <= key.mark <= LAST_MARK


def without(table: Table, owned: Collection[VirtualKey]) -> Table:
    """`table` without those entries of `owned` that are there for probes alone."""
    entries: Mapping[VirtualKey, VirtualEntry] = {
        key: entry for key, entry in table.entries.items() if not (is_given_away(key) and key in owned)
    }
    return replace(table, entries=MappingProxyType(entries))


def _path(virtual: VirtualServer, real: RealServer) -> Path:
    return Path(virtual.name, real.address, real.port, virtual.method_of(real).forward, real.tunnel)


def _declared(config: Config) -> set[int]:
    """Marks that the file gives to virtual servers, and to other probes."""
    found = {key.mark for virtual in config.virtual_servers for key in virtual.keys if key.mark is not None}
    for virtual in config.virtual_servers:
        for real in virtual.real_servers:
            found |= {check.route.mark for check in _checks(real) if check.route.real is None}
    return found


def _checks(real: RealServer) -> tuple[Check, ...]:
    return (*leaves(real.check), *leaves(real.load))


def _marked(real: RealServer, mark: int) -> RealServer:
    check, load = real.check, real.load
    if isinstance(check, Combination):
        check = replace(check, parts=tuple(_with_mark(part, mark) for part in check.parts))
    elif check is not None:
        check = _with_mark(check, mark)
    return replace(real, check=check, load=load and _with_mark(load, mark))


def _with_mark(check: Check, mark: int) -> Check:
    return check if check.route.real is None else replace(check, route=replace(check.route, mark=mark))
