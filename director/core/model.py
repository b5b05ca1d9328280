"""What the operator asked for, as values: the one frozen `Config` that everything else reads.

One rule: a value here has passed every check of `config.py`; nothing downstream validates again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from director.core.notifying import Notification
from director.core.policy import DEFAULT_POLICY, Policy
from director.core.steering import Steering, steerings
from director.core.table import (
    IPIP,
    Forward,
    Protocol,
    SyncDaemon,
    Timeouts,
    Tunnel,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.kit.checks.check import AnyCheck, Check
from director.kit.net import Endpoint, IPAddress


@dataclass(frozen=True, slots=True, order=True)
class ServerRef:
    """Names one real server of one virtual server, as operators do: `web/a`."""

    virtual_server: str
    real_server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}/{self.real_server}"


class Method(Enum):
    """How packets reach a real server. Full NAT is the kernel's NAT with the source address rewritten as well."""

    NAT = "nat"
    DR = "dr"
    TUN = "tun"
    FULLNAT = "fullnat"

    @property
    def forward(self) -> Forward:
        """The kernel's own method."""
        return _FORWARDS[self]


_FORWARDS = {each: Forward.NAT if each is Method.FULLNAT else Forward(each.value) for each in Method}


class RealState(Enum):
    """What the file says of a real server apart from its weight.

    Drained: in the table at weight 0. Disabled: not in the table, not checked.
    """

    ENABLED = "enabled"
    DRAINED = "drained"
    DISABLED = "disabled"


class OnDrift(Enum):
    """What to do about changes that somebody else made to a virtual server."""

    REPAIR = "repair"
    REPORT = "report"


class DeadConnections(Enum):
    """What becomes of connections to a real server that is down or removed; one choice for the whole namespace.

    Keep: they stay, and go on should it come back. Expire: they end at once (net.ipv4.vs.expire_nodest_conn=1, and a
    UDP server that is down leaves the table).
    """

    KEEP = "keep"
    EXPIRE = "expire"


SORRY = "sorry_server"
"""The name of a virtual server's sorry server; no other real server may have it beside one."""


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server as configured. `weight` is 0 to 65535; without a `check` it is taken as up.

    `port` and `method` None are the virtual server's own. `load` is asked for a share of the weight. `is_sorry`: it
    serves only while quorum is lost. `host` is the name that it is given by, empty where it is given by address: where
    that is the same, so is the server.
    """

    name: str
    address: IPAddress
    weight: int
    port: int | None = None
    check: AnyCheck | None = None
    tunnel: Tunnel = IPIP
    upper_threshold: int = 0
    lower_threshold: int = 0
    state: RealState = RealState.ENABLED
    method: Method | None = None
    load: Check | None = None
    is_sorry: bool = False
    host: str = field(default="", compare=False)

    def at(self, key: VirtualKey) -> Endpoint:
        """Where it takes the connections of `key`; port 0 is the port that the client named."""
        if self.port is not None:
            return Endpoint(self.address, self.port)
        return Endpoint(self.address, key.endpoint.port if key.endpoint else 0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the director marks for a virtual server with a firewall mark; `ports` empty are all of them."""

    protocol: Protocol
    address: IPAddress
    ports: tuple[int, ...] = ()


class Placement(NamedTuple):
    """One real server under one key: one destination of the kernel's table."""

    key: VirtualKey
    real: RealServer
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server as configured: one entry in the kernel's table for each of its `keys`.

    `real_servers` are in the order in which they are inserted, the sorry server last, and `refs` name them in that
    order; `placements` are those that are not disabled, under every key. `source` is what full NAT rewrites the
    client's address to, None is the address of the way out.
    """

    name: str
    keys: tuple[VirtualKey, ...]
    row: VirtualRow
    method: Method
    real_servers: tuple[RealServer, ...]
    vips: tuple[Vip, ...] = ()
    on_drift: OnDrift = OnDrift.REPAIR
    traffic: tuple[Traffic, ...] = ()
    source: IPAddress | None = None
    policy: Policy = DEFAULT_POLICY
    refs: tuple[ServerRef, ...] = field(init=False, repr=False, compare=False)
    placements: tuple[Placement, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "refs", tuple(ServerRef(self.name, real.name) for real in self.real_servers))
        placements = tuple(
            Placement(key, real, real.at(key))
            for key in self.keys
            for real in self.real_servers
            if real.state is not RealState.DISABLED
        )
        object.__setattr__(self, "placements", placements)

    @property
    def sorry(self) -> RealServer | None:
        """Who serves while quorum is lost."""
        return next((real for real in reversed(self.real_servers) if real.is_sorry), None)

    @property
    def wants_whole_weights(self) -> bool:
        """Whether a weight is nominal or 0: with Maglev, whose table must be the same on every director."""
        return self.row.scheduler == "mh"

    @property
    def starts_slowly(self) -> bool:
        """Whether who comes back does so in steps."""
        return self.policy.slow_start_s > 0 and not self.wants_whole_weights

    def method_of(self, real: RealServer) -> Method:
        """How packets reach `real`."""
        return real.method or self.method

    def methods(self) -> tuple[Method, ...]:
        """Each that is in use here, once."""
        return tuple(dict.fromkeys((self.method, *(real.method for real in self.real_servers if real.method))))

    def ref(self, real: RealServer) -> ServerRef:
        return ServerRef(self.name, real.name)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `director.yaml` says. `drift_interval_s` is the longest time between two looks at the kernel,
    `resolve_interval_s` about that between two lookups of its names.

    `exclusive`: whatever else the table holds is removed. `timeouts` or `sync` None: they are left alone. `steerings`
    are the entries of the table that its probes need. `metrics` is where a running director serves them, if anywhere.
    """

    virtual_servers: tuple[VirtualServer, ...] = ()
    drift_interval_s: float = 10.0
    resolve_interval_s: float = 30.0
    exclusive: bool = False
    timeouts: Timeouts | None = None
    sync: frozenset[SyncDaemon] | None = None
    manage_settings: bool = True
    dead_connections: DeadConnections = DeadConnections.KEEP
    notifications: tuple[Notification, ...] = ()
    metrics: Endpoint | None = None
    steerings: tuple[Steering, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steerings", steerings(self.virtual_servers))

    def vips(self) -> tuple[Vip, ...]:
        """Every address once, in the order of the file."""
        return tuple(dict.fromkeys(vip for vs in self.virtual_servers for vip in vs.vips))

    def keys(self) -> frozenset[VirtualKey]:
        """Every key that the file declares, and those that its probes need."""
        declared = frozenset(key for vs in self.virtual_servers for key in vs.keys)
        return declared.union(each.key for each in self.steerings) if self.steerings else declared

    def placed(self) -> Iterator[tuple[VirtualServer, Placement]]:
        """Every destination that the file declares."""
        for virtual in self.virtual_servers:
            for placement in virtual.placements:
                yield virtual, placement

    def named(self) -> Iterator[tuple[VirtualServer, RealServer]]:
        """Every real server that is given by name."""
        for virtual in self.virtual_servers:
            for real in virtual.real_servers:
                if real.host:
                    yield virtual, real

    def hosts(self) -> dict[str, frozenset[IPAddress]]:
        """The names that real servers are given by, with the addresses in use for them."""
        found: dict[str, set[IPAddress]] = {}
        for _, real in self.named():
            found.setdefault(real.host, set()).add(real.address)
        return {host: frozenset(used) for host, used in found.items()}

    def find(self, ref: ServerRef) -> tuple[VirtualServer, RealServer] | None:
        for virtual in self.virtual_servers:
            for real in virtual.real_servers if virtual.name == ref.virtual_server else ():
                if real.name == ref.real_server:
                    return virtual, real
        return None
