"""The table that a configuration and the weights of the moment amount to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from director.core.model import Config, DeadConnections, ServerRef, VirtualServer
from director.core.policy import OnFailure
from director.core.table import Protocol, RealRow, Table, VirtualEntry, VirtualKey
from director.core.weight import NO_WISH, Weight, Wish
from director.kit.net import Endpoint


def desired_table(config: Config, weights: Mapping[ServerRef, Weight]) -> Table:
    """Every virtual server of `config`, its real servers in insertion order, and what its probes need.

    `weights` must hold them all. One that is down is left out where its virtual server says so (`on_failure: remove`).
    Where connections of dead servers are to expire, a UDP server that is down is left out, too: at weight 0 it would
    keep its flows, for UDP has no new connection by which IPVS could tell (ip_vs_core.c, ip_vs_in_hook).
    """
    expires = config.dead_connections is DeadConnections.EXPIRE
    entries: dict[VirtualKey, VirtualEntry] = {}
    for virtual in config.virtual_servers:
        rows = _rows(virtual, weights)
        may_lack = expires or virtual.policy.on_failure is OnFailure.REMOVE
        down = {ref.real_server for ref in virtual.refs if weights[ref].is_down} if may_lack else set()
        reals: dict[VirtualKey, dict[Endpoint, RealRow]] = {key: {} for key in virtual.keys}
        last: VirtualKey | None = None
        for key, real, endpoint in virtual.placements:
            if key is not last:
                members, last = reals[key], key
            if down and real.name in down and leaves_out(config, virtual, key):
                continue
            members[endpoint] = rows[real.name]
        for key in virtual.keys:
            entries[key] = VirtualEntry(virtual.row, MappingProxyType(reals[key]))
    for steering in config.steerings:
        entries.setdefault(steering.key, steering.entry)
    return Table(MappingProxyType(entries), config.timeouts, config.sync)


def leaves_out(config: Config, virtual: VirtualServer, key: VirtualKey) -> bool:
    """Whether real servers of `virtual` that are down are not in the table under `key`."""
    expires = config.dead_connections is DeadConnections.EXPIRE
    return virtual.policy.on_failure is OnFailure.REMOVE or (expires and key.protocol is Protocol.UDP)


def _rows(virtual: VirtualServer, weights: Mapping[ServerRef, Weight]) -> dict[str, RealRow]:
    """The row of each real server by its name; neighbours that have the same share one."""
    rows: dict[str, RealRow] = {}
    row: RealRow | None = None
    for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
        weight, forward = weights[ref].value, virtual.method_of(real).forward
        if (
            row is None
            or row.forward is not forward
            or row.weight != weight
            or row.tunnel is not real.tunnel
            or (row.upper_threshold, row.lower_threshold) != (real.upper_threshold, real.lower_threshold)
        ):
            row = RealRow(forward, weight, real.upper_threshold, real.lower_threshold, real.tunnel)
        rows[real.name] = row
    return rows


def insertion_weights(config: Config, wishes: Mapping[ServerRef, Wish]) -> dict[tuple[VirtualKey, Endpoint], int]:
    """The weight at which Maglev (mh) must first see each of its real servers, also one that is due at 0.

    Its table is made of the last weights above 0 (ip_vs_mh.c, last_weight): a director that finds a server down when
    it starts must come to the table of one that lowered it later, or the two choose differently.
    """
    return {
        (key, endpoint): wishes.get(virtual.ref(real), NO_WISH).weight or real.weight
        for virtual in config.virtual_servers
        if virtual.row.scheduler == "mh"
        for key, real, endpoint in virtual.placements
        if not real.is_sorry
    }


def adopted_weights(config: Config, table: Table) -> dict[ServerRef, int]:
    """The kernel's weight of every real server of `config` that `table` already holds; of several, the highest."""
    adopted: dict[ServerRef, int] = {}
    for virtual, (key, real, endpoint) in config.placed():
        entry = table.get(key)
        row = entry.reals.get(endpoint) if entry else None
        if row is not None:
            ref = virtual.ref(real)
            adopted[ref] = max(row.weight, adopted.get(ref, 0))
    return adopted


def unproven_servers(config: Config, table: Table) -> frozenset[ServerRef]:
    """Real servers that are checked and new to a virtual server whose other real servers take connections.

    They can wait for their first verdict; where nobody else serves, a new server is better than none.
    """
    unproven: set[ServerRef] = set()
    for virtual in config.virtual_servers:
        known: set[str] = set()
        serves = False
        for key, real, endpoint in virtual.placements:
            entry = table.get(key)
            row = entry.reals.get(endpoint) if entry else None
            if row is not None:
                known.add(real.name)
                serves = serves or row.weight > 0
        if serves:
            unproven |= {
                virtual.ref(real) for real in virtual.real_servers if real.check is not None and real.name not in known
            }
    return frozenset(unproven)
