"""What should be served, as the doctor needs it: read from a configuration, or named on the command line.

One rule: this is the only file of the package that reads a `Config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

from director.core.model import Config, VirtualServer
from director.core.table import Protocol, VirtualKey
from director.host.settings import Method, Use
from director.kit.net import IPAddress

METHODS: Mapping[str, Method] = MappingProxyType({method: method for method in get_args(Method)})
"""Forwarding methods by their names in a file."""
IPIP_BYTES = {4: 20, 6: 40}
"""What an outer header adds to a packet, by its IP version (ip_vs_xmit.c, ip_vs_tunnel_xmit)."""


@dataclass(frozen=True, slots=True)
class Real:
    """A real server; `overhead_bytes` is what a tunnel to it adds to each packet."""

    name: str
    address: IPAddress
    port: int | None
    overhead_bytes: int = 20


@dataclass(frozen=True, slots=True)
class Virtual:
    """One entry of the table: a virtual server with several addresses or ports is several of these, of one name.

    Of one named on the command line, `key`, `port` and `scheduler` are None and `reals` is empty.
    """

    name: str
    protocol: Protocol
    vip: IPAddress
    port: int | None
    forward: Method
    scheduler: str | None = None
    persistent: bool = False
    reals: tuple[Real, ...] = ()
    interface: str | None = None
    key: VirtualKey | None = None

    def __str__(self) -> str:
        return str(self.key) if self.key else str(self.vip)

    @property
    def vip_is_at_real_servers(self) -> bool:
        """Whether packets reach the real server with the VIP as their destination."""
        return self.forward in {"dr", "tun"}


@dataclass(frozen=True, slots=True)
class Situation:
    """All that should be served; `keys` are all entries of the table that `source` declares, firewall marks too."""

    source: str
    virtuals: tuple[Virtual, ...]
    keys: frozenset[VirtualKey] = frozenset()

    def uses(self) -> tuple[Use, ...]:
        return tuple(dict.fromkeys(Use(each.name, each.forward, each.vip.version) for each in self.virtuals))

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
    virtuals = tuple(each for virtual in config.virtual_servers for each in _virtuals(virtual))
    return Situation(source, virtuals, frozenset(virtual.key for virtual in config.virtual_servers))


def of_vips(vips: Iterable[IPAddress], forward: Method) -> Situation:
    """The situation of a real server that is only told which VIPs it answers for."""
    return Situation(
        "the command line", tuple(Virtual(str(vip), Protocol.TCP, vip, None, forward) for vip in dict.fromkeys(vips))
    )


def _virtuals(virtual: VirtualServer) -> Iterable[Virtual]:
    key = virtual.key
    if key.endpoint is None or key.protocol is None:
        return  # a firewall mark has no address of its own to look for
    yield Virtual(
        name=virtual.name,
        protocol=key.protocol,
        vip=key.endpoint.address,
        port=key.endpoint.port,
        forward=METHODS[virtual.forward.value],
        scheduler=virtual.row.scheduler,
        persistent=virtual.row.persistence_s > 0,
        reals=tuple(
            Real(real.name, real.endpoint.address, real.endpoint.port, IPIP_BYTES[real.endpoint.address.version])
            for real in virtual.real_servers
        ),
        interface=virtual.vip.interface if virtual.vip else None,
        key=key,
    )
