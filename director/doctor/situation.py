"""What should be served, as the doctor needs it: read from a configuration, or named on the command line.

One rule: this is the only file of the package that reads a `Config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import get_args

from director.core import model
from director.core.model import Config, RealState, VirtualServer
from director.core.table import IPIP, Protocol, Tunnel, VirtualKey
from director.host.settings import DeadConnections, Method, Use
from director.host.surroundings import dead_connections, uses
from director.kit.net import IPAddress

METHODS: Mapping[str, Method] = MappingProxyType({method: method for method in get_args(Method)})
"""Forwarding methods by their names in a file."""


@dataclass(frozen=True, slots=True)
class Real:
    """A real server; `port` None is the one that the client named."""

    name: str
    address: IPAddress
    port: int | None
    tunnel: Tunnel = IPIP


@dataclass(frozen=True, slots=True)
class Virtual:
    """One address and port that clients use: a virtual server with several is several of these, of one name.

    `port` None is any. Of one named on the command line, `key` and `scheduler` are None and `reals` is empty.
    """

    name: str
    protocol: Protocol
    vip: IPAddress
    port: int | None
    forward: Method
    scheduler: str | None = None
    reals: tuple[Real, ...] = ()
    interface: str | None = None
    key: VirtualKey | None = None

    def __str__(self) -> str:
        return str(self.key) if self.key else str(self.vip)

    @property
    def vip_is_at_real_servers(self) -> bool:
        """Whether packets reach the real server with the VIP as their destination."""
        return self.forward in {"dr", "tun"}

    def apply_command(self, source: str) -> str:
        """What makes a host its real server."""
        return f"director realserver apply {source if self.key else f'--vip {self.vip} --forward {self.forward}'}"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that should be served.

    `keys` are all entries of the table that `source` declares, with the names of their virtual servers; those known
    by a firewall mark that others set have no address, and so are among `keys` alone. `managed`: the director makes
    the settings that `uses` and `dead_connections` ask for.
    """

    source: str
    virtuals: tuple[Virtual, ...]
    keys: Mapping[VirtualKey, str] = field(default_factory=lambda: MappingProxyType({}))
    uses: tuple[Use, ...] = ()
    dead_connections: DeadConnections | None = None
    managed: bool = False

    def vips(self) -> tuple[IPAddress, ...]:
        """Every VIP once."""
        return tuple(dict.fromkeys(each.vip for each in self.virtuals))

    def reals(self) -> tuple[IPAddress, ...]:
        """Every real server's address once."""
        return tuple(dict.fromkeys(real.address for each in self.virtuals for real in each.reals))

    def served_by(self, addresses: Iterable[IPAddress]) -> tuple[Virtual, ...]:
        """What a host with these addresses serves as a real server, each with only its own real servers.

        Without any real server known (`--vip`), this host is taken for one.
        """
        ours = set(addresses)
        found = []
        for virtual in self.virtuals:
            own = tuple(real for real in virtual.reals if real.address in ours)
            if own or virtual.key is None:
                found.append(replace(virtual, reals=own))
        return tuple(found)


def of_config(config: Config, source: str) -> Situation:
    """The situation that a file declares; `source` is its name."""
    return Situation(
        source,
        virtuals=tuple(each for virtual in config.virtual_servers for each in _virtuals(virtual)),
        keys=MappingProxyType(
            {key: virtual.name for virtual in config.virtual_servers for key in virtual.keys}
            | {each.key: str(each) for each in config.steerings}
        ),
        uses=uses(config),
        dead_connections=dead_connections(config),
        managed=config.manage_settings,
    )


def of_vips(vips: Iterable[IPAddress], forward: Method) -> Situation:
    """The situation of a real server that is only told which VIPs it answers for."""
    return Situation(
        "the command line", tuple(Virtual(str(vip), Protocol.TCP, vip, None, forward) for vip in dict.fromkeys(vips))
    )


def _virtuals(virtual: VirtualServer) -> Iterator[Virtual]:
    for key in virtual.keys:
        if key.endpoint is not None and key.protocol is not None:
            yield from _each_method(virtual, key, key.protocol, key.endpoint.address, key.endpoint.port)
            continue
        for traffic in virtual.traffic:
            for port in traffic.ports or (0,):
                if traffic.address.version == key.family:
                    yield from _each_method(virtual, key, traffic.protocol, traffic.address, port)


def _each_method(
    virtual: VirtualServer, key: VirtualKey, protocol: Protocol, vip: IPAddress, port: int
) -> Iterator[Virtual]:
    """The real servers of each forwarding method by themselves: each needs something else."""
    for method in virtual.methods():
        found = _virtual(virtual, key, protocol, vip, port, method)
        if found.reals or method is virtual.method:
            yield found


def _virtual(
    virtual: VirtualServer, key: VirtualKey, protocol: Protocol, vip: IPAddress, port: int, method: model.Method
) -> Virtual:
    reals = tuple(
        Real(real.name, real.address, real.at(key).port or port or None, real.tunnel)
        for real in virtual.real_servers
        if real.state is not RealState.DISABLED and virtual.method_of(real) is method
    )
    return Virtual(
        name=virtual.name,
        protocol=protocol,
        vip=vip,
        port=port or None,
        forward=METHODS[method.value],
        scheduler=virtual.row.scheduler,
        reals=reals,
        interface=next((each.interface for each in virtual.vips if each.address == vip), None),
        key=key,
    )
