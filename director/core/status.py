"""A snapshot of everything an operator may ask about, as plain JSON values.

One rule: the keys here are the API's; they are added to, and never change their meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict

from director.core.describe import flag_names
from director.core.desired import leaves_out
from director.core.driftlines import DriftLine, sentence
from director.core.model import Config, Placement, RealServer, ServerRef, VirtualServer
from director.core.serving import Serving
from director.core.table import Counters, RealCounters, RealRow, Table, TableCounters
from director.core.vip import Vip
from director.core.weight import NO_WISH, Weight, Wish
from director.kit.health import HealthState


class MaintenanceStatus(TypedDict):
    """Taken out by the operator until `until` (seconds since 1970), or, with None, until it is enabled."""

    reason: str
    until: float | None


class RealServerStatus(TypedDict):
    """One real server. `weight` is the effective one, `kernel_weight` what the kernel has (None: not in it).

    It has as many `entries` as its virtual server; `kernel_weight` is that of one of the `entries_wrong`, where some
    have not `weight` (or are there although they are to be left out while it is down). `warning` says what will fail
    later, such as a certificate that ends, or why no probe can be made. `host` is the name that it is given by, if it
    is.
    """

    name: str
    address: str
    host: str
    port: int
    forward: str
    configured_weight: int
    weight: int
    kernel_weight: int | None
    entries: int
    entries_wrong: int
    health: str
    health_since_s: float | None
    reason: str
    check: str | None
    drained: bool
    operator_weight: int | None
    maintenance: MaintenanceStatus | None
    warning: str
    active: int
    inactive: int
    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


class VirtualServerStatus(TypedDict):
    """One virtual server. `interface` and `vip_present` are None where the director leaves the address alone.

    `keys` are its entries in the kernel's table; `address` and `port` are those of the first (empty and 0 for a
    firewall mark). `keys_in_kernel` counts those that are there, `in_kernel` says that all are. Counters are sums over
    all of them. `quorum` is held or lost, with `alive` real servers that take connections (or would, were there no
    sorry server in their place); `panic`: so many are down that the probes are not trusted. `drift` is what somebody
    else has changed, in sentences; `drift_repaired` counts what was put right since the start.
    """

    name: str
    protocol: str
    address: str
    port: int
    keys: list[str]
    scheduler: str
    scheduler_flags: list[str]
    persistence_s: int
    forward: str
    in_kernel: bool
    keys_in_kernel: int
    interface: str | None
    vip_present: bool | None
    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int
    quorum: str
    alive: int
    panic: bool
    on_drift: str
    drift: list[str]
    drift_repaired: int
    real_servers: list[RealServerStatus]


class UnconfirmedStatus(TypedDict):
    """The configuration in force goes at `until`, in `left_s`, unless it is confirmed."""

    until: str
    left_s: float


class LeavingStatus(TypedDict):
    """A real server (or an empty virtual server) at weight 0 that is to be removed: `web/b`."""

    name: str
    connections: int


class DaemonStatus(TypedDict):
    """The daemon itself. `failures` says what it could not bring about, `waiting` what it will, in sentences.

    `reload_refused` has the problems of the file that SIGHUP met last; empty once a configuration was taken.
    `namespace` is the inode of the network namespace that it manages. `leaving` are removed when they have no
    connections left, after `drain_left_s` at the latest, or when the configuration is confirmed. `drift` is that of
    the whole network namespace, `drift_repaired` counts everywhere; `notes` are what else the kernel holds.
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
    unconfirmed: UnconfirmedStatus | None
    leaving: list[LeavingStatus]
    drain_left_s: float | None
    drift: list[str]
    drift_repaired: int
    notes: list[str]


class Status(TypedDict):
    """What `director status --json` prints."""

    daemon: DaemonStatus
    virtual_servers: list[VirtualServerStatus]


_NOTHING = RealCounters()
_NO_COUNTERS = Counters()


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Drift that stands now, and by virtual server (empty: the network namespace) how much was put right."""

    lines: Iterable[DriftLine] = ()
    repaired: Counter[str] = field(default_factory=Counter)

    def sentences(self, virtual_server: str) -> list[str]:
        return [sentence(line) for line in self.lines if line["virtual_server"] == virtual_server]


_NO_DRIFT = DriftStatus()


def found(table: Table, place: Placement) -> RealRow | None:
    """What the kernel has at `place`."""
    entry = table.get(place.key)
    return entry.reals.get(place.endpoint) if entry else None


def due_weight(config: Config, virtual: VirtualServer, place: Placement, weight: Weight) -> int | None:
    """What `found` is to have; None: it is to be left out."""
    return None if weight.is_down and leaves_out(config, virtual, place.key) else weight.value


def virtual_servers(
    config: Config,
    table: Table,
    counters: TableCounters,
    vips: frozenset[Vip],
    serving: Serving,
    health: Mapping[ServerRef, HealthState],
    wishes: Mapping[ServerRef, Wish],
    now: float,
    drift: DriftStatus = _NO_DRIFT,
    troubles: Mapping[ServerRef, str] = MappingProxyType({}),
) -> list[VirtualServerStatus]:
    """Every virtual server of `config`, in the file's order."""

    weights = serving.weights
    places: dict[ServerRef, list[Placement]] = {}
    for owner, place in config.placed():
        places.setdefault(owner.ref(place.real), []).append(place)

    def real_server(virtual: VirtualServer, real: RealServer) -> RealServerStatus:
        ref = virtual.ref(real)
        ours = places.get(ref, [])
        rows = [found(table, place) for place in ours]
        there = [row.weight if row else None for row in rows]
        # Of several entries, one that is not as it should be is the one to see.
        due = [due_weight(config, virtual, place, weights[ref]) for place in ours]
        wrong = [weight for weight, wanted in zip(there, due, strict=True) if weight != wanted]
        carried = [counters.reals.get((place.key, place.endpoint), _NOTHING) for place in ours]
        state = health.get(ref) if real.check else None
        wish = wishes.get(ref, NO_WISH)
        return {
            "name": real.name,
            "address": str(real.address),
            "host": real.host,
            "port": real.at(virtual.keys[0]).port,
            "forward": virtual.method_of(real).value,
            "configured_weight": real.weight,
            "weight": weights[ref].value,
            "kernel_weight": next(iter([*wrong, *there]), None),
            "entries": len(ours),
            "entries_wrong": len(wrong),
            "health": state.status.value if state else "unchecked",
            "health_since_s": round(now - state.since_at, 3) if state else None,
            "reason": weights[ref].reason,
            "check": str(real.check) if real.check else None,
            "drained": wish.drain,
            "operator_weight": wish.weight,
            "maintenance": {"reason": out.reason, "until": out.until} if (out := wish.maintenance) else None,
            "warning": troubles.get(ref) or (state.warning if state else ""),
            "active": sum(each.active for each in carried),
            "inactive": sum(each.inactive for each in carried),
            "connections": sum(each.totals.connections for each in carried),
            "in_packets": sum(each.totals.in_packets for each in carried),
            "out_packets": sum(each.totals.out_packets for each in carried),
            "in_bytes": sum(each.totals.in_bytes for each in carried),
            "out_bytes": sum(each.totals.out_bytes for each in carried),
        }

    def virtual_server(virtual: VirtualServer) -> VirtualServerStatus:
        key = virtual.keys[0]
        endpoint = key.endpoint
        present = sum(table.get(each) is not None for each in virtual.keys)
        standing = serving.standings[virtual.name]
        totals = [counters.virtuals.get(each, _NO_COUNTERS) for each in virtual.keys]
        return {
            "name": virtual.name,
            "protocol": key.protocol.value if key.protocol else "fwmark",
            "address": str(endpoint.address) if endpoint else "",
            "port": endpoint.port if endpoint else 0,
            "keys": [str(each) for each in virtual.keys],
            "scheduler": virtual.row.scheduler,
            "scheduler_flags": flag_names(virtual.row),
            "persistence_s": virtual.row.persistence_s,
            "forward": virtual.method.value,
            "in_kernel": present == len(virtual.keys),
            "keys_in_kernel": present,
            "interface": virtual.vips[0].interface if virtual.vips else None,
            "vip_present": vips.issuperset(virtual.vips) if virtual.vips else None,
            "connections": sum(each.connections for each in totals),
            "in_packets": sum(each.in_packets for each in totals),
            "out_packets": sum(each.out_packets for each in totals),
            "in_bytes": sum(each.in_bytes for each in totals),
            "out_bytes": sum(each.out_bytes for each in totals),
            "quorum": "held" if standing.quorate else "lost",
            "alive": standing.alive,
            "panic": standing.panic,
            "on_drift": virtual.on_drift.value,
            "drift": drift.sentences(virtual.name),
            "drift_repaired": drift.repaired[virtual.name],
            "real_servers": [real_server(virtual, real) for real in virtual.real_servers],
        }

    return [virtual_server(virtual) for virtual in config.virtual_servers]
