"""The table that a configuration and the weights of the moment amount to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from director.core.model import Config, ServerRef
from director.core.table import RealRow, Table, VirtualEntry
from director.core.weight import Weight


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
