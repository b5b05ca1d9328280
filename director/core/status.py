"""A snapshot of everything an operator may ask about, as plain JSON values.

One rule: the keys here are the API's; they are added to, and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from director.core.model import Config, RealServer, ServerRef, VirtualServer
from director.core.plan import flag_names
from director.core.table import RealCounters, Table, TableCounters
from director.core.vip import Vip
from director.core.weight import NO_WISH, Weight, Wish
from director.kit.health import HealthState


class RealServerStatus(TypedDict):
    """One real server. `weight` is the effective one, `kernel_weight` what the kernel has (None: not in it)."""

    name: str
    address: str
    port: int
    forward: str
    configured_weight: int
    weight: int
    kernel_weight: int | None
    health: str
    health_since_s: float | None
    reason: str
    check: str | None
    drained: bool
    operator_weight: int | None
    active: int
    inactive: int
    connections: int


class VirtualServerStatus(TypedDict):
    """One virtual server. `interface` and `vip_present` are None where the director leaves the address alone."""

    name: str
    protocol: str
    address: str
    port: int
    scheduler: str
    scheduler_flags: list[str]
    persistence_s: int
    forward: str
    in_kernel: bool
    interface: str | None
    vip_present: bool | None
    connections: int
    in_bytes: int
    out_bytes: int
    real_servers: list[RealServerStatus]


class DaemonStatus(TypedDict):
    """The daemon itself. `failures` says what it could not bring about, `waiting` what it will, in sentences.

    `reload_refused` has the problems of the file that SIGHUP met last; empty once a configuration was taken.
    `namespace` is the inode of the network namespace that it manages.
    """

    pid: int
    namespace: int
    version: str
    config: str
    uptime_s: float
    converged: bool
    failures: list[str]
    reload_refused: list[str]
    waiting: list[str]


class Status(TypedDict):
    """What `director status --json` prints."""

    daemon: DaemonStatus
    virtual_servers: list[VirtualServerStatus]


def virtual_servers(
    config: Config,
    table: Table,
    counters: TableCounters,
    vips: frozenset[Vip],
    weights: Mapping[ServerRef, Weight],
    health: Mapping[ServerRef, HealthState],
    wishes: Mapping[ServerRef, Wish],
    now: float,
) -> list[VirtualServerStatus]:
    """Every virtual server of `config`, in the file's order."""

    def real_server(virtual: VirtualServer, real: RealServer) -> RealServerStatus:
        ref = virtual.ref(real)
        entry = table.get(virtual.key)
        row = entry.reals.get(real.endpoint) if entry else None
        carried = counters.reals.get((virtual.key, real.endpoint), RealCounters())
        state = health.get(ref) if real.check else None
        wish = wishes.get(ref, NO_WISH)
        return {
            "name": real.name,
            "address": str(real.endpoint.address),
            "port": real.endpoint.port,
            "forward": virtual.forward.value,
            "configured_weight": real.weight,
            "weight": weights[ref].value,
            "kernel_weight": row.weight if row else None,
            "health": state.status.value if state else "unchecked",
            "health_since_s": round(now - state.since_at, 3) if state else None,
            "reason": weights[ref].reason,
            "check": str(real.check) if real.check else None,
            "drained": wish.drain,
            "operator_weight": wish.weight,
            "active": carried.active,
            "inactive": carried.inactive,
            "connections": carried.totals.connections,
        }

    def virtual_server(virtual: VirtualServer) -> VirtualServerStatus:
        endpoint = virtual.key.endpoint
        total = counters.virtuals.get(virtual.key)
        return {
            "name": virtual.name,
            "protocol": virtual.key.protocol.value if virtual.key.protocol else "fwmark",
            "address": str(endpoint.address) if endpoint else "",
            "port": endpoint.port if endpoint else 0,
            "scheduler": virtual.row.scheduler,
            "scheduler_flags": flag_names(virtual.row),
            "persistence_s": virtual.row.persistence_s,
            "forward": virtual.forward.value,
            "in_kernel": table.get(virtual.key) is not None,
            "interface": virtual.vip.interface if virtual.vip else None,
            "vip_present": virtual.vip in vips if virtual.vip else None,
            "connections": total.connections if total else 0,
            "in_bytes": total.in_bytes if total else 0,
            "out_bytes": total.out_bytes if total else 0,
            "real_servers": [real_server(virtual, real) for real in virtual.real_servers],
        }

    return [virtual_server(virtual) for virtual in config.virtual_servers]
