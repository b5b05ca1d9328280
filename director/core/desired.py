"""The table that a configuration and the weights of the moment amount to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from director.core.model import Config, ServerRef
from director.core.table import RealRow, Table, VirtualEntry, VirtualKey
from director.core.weight import NO_WISH, Weight, Wish
from director.kit.net import Endpoint


def desired_table(config: Config, weights: Mapping[ServerRef, Weight]) -> Table:
    """Every virtual server of `config`, its real servers in insertion order. `weights` must hold them all."""
    return Table(
        MappingProxyType(
            {
                virtual.key: VirtualEntry(
                    virtual.row,
                    MappingProxyType(
                        {
                            real.endpoint: RealRow(virtual.forward, weights[virtual.ref(real)].value)
                            for real in virtual.real_servers
                        }
                    ),
                )
                for virtual in config.virtual_servers
            }
        )
    )


def insertion_weights(config: Config, wishes: Mapping[ServerRef, Wish]) -> dict[tuple[VirtualKey, Endpoint], int]:
    """The weight at which Maglev (mh) must first see each of its real servers, also one that is due at 0.

    Its table is made of the last weights above 0 (ip_vs_mh.c, last_weight): a director that finds a server down when
    it starts must come to the table of one that lowered it later, or the two choose differently.
    """
    return {
        (virtual.key, real.endpoint): wishes.get(virtual.ref(real), NO_WISH).weight or real.weight
        for virtual in config.virtual_servers
        if virtual.row.scheduler == "mh"
        for real in virtual.real_servers
    }


def adopted_weights(config: Config, table: Table) -> dict[ServerRef, int]:
    """The kernel's weight of every real server of `config` that `table` already holds."""
    adopted: dict[ServerRef, int] = {}
    for virtual in config.virtual_servers:
        entry = table.get(virtual.key)
        for real in virtual.real_servers if entry else ():
            row = entry.reals.get(real.endpoint) if entry else None
            if row is not None:
                adopted[virtual.ref(real)] = row.weight
    return adopted


def unproven_servers(config: Config, table: Table) -> frozenset[ServerRef]:
    """Real servers that are checked and new to a virtual server whose other real servers take connections.

    They can wait for their first verdict; where nobody else serves, a new server is better than none.
    """
    unproven: set[ServerRef] = set()
    for virtual in config.virtual_servers:
        entry = table.get(virtual.key)
        rows = [entry.reals.get(real.endpoint) for real in virtual.real_servers] if entry else []
        if any(row is not None and row.weight for row in rows):
            unproven |= {
                virtual.ref(real)
                for real, row in zip(virtual.real_servers, rows, strict=True)
                if row is None and real.check is not None
            }
    return frozenset(unproven)
