"""What the operator asked for, as values: the one frozen `Config` that everything else reads.

One rule: a value here has passed every check of `config.py`; nothing downstream validates again.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.core.table import Forward, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.kit.net import Endpoint
from director.kit.probespec import Check


@dataclass(frozen=True, slots=True, order=True)
class ServerRef:
    """Names one real server of one virtual server, as operators do: `web/a`."""

    virtual_server: str
    real_server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}/{self.real_server}"


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server as configured. `weight` is 0 to 65535; without a `check` it is taken as up."""

    name: str
    endpoint: Endpoint
    weight: int
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server as configured; `real_servers` are in the order in which they are inserted."""

    name: str
    key: VirtualKey
    row: VirtualRow
    forward: Forward
    real_servers: tuple[RealServer, ...]
    vip: Vip | None = None

    def ref(self, real: RealServer) -> ServerRef:
        return ServerRef(self.name, real.name)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `director.yaml` says. `drift_interval_s` is the longest time between two looks at the kernel."""

    virtual_servers: tuple[VirtualServer, ...] = ()
    drift_interval_s: float = 10.0

    def vips(self) -> tuple[Vip, ...]:
        """Every address once, in the order of the file."""
        return tuple(dict.fromkeys(vs.vip for vs in self.virtual_servers if vs.vip is not None))

    def find(self, ref: ServerRef) -> tuple[VirtualServer, RealServer] | None:
        for virtual in self.virtual_servers:
            for real in virtual.real_servers if virtual.name == ref.virtual_server else ():
                if real.name == ref.real_server:
                    return virtual, real
        return None
