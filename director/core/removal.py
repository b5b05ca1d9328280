"""Removals that wait: what is to go stays at weight 0 until it may.

One rule: whoever leaves gets no new connection from the start, and keeps those it has for as long as it is held.

A deletion cannot be undone: with net.ipv4.vs.expire_nodest_conn=1 its connections are gone, and another forwarding
method black-holes those that began under the first (see handover). Weight 0 can be undone at any time.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from director.core.diff import same_path
from director.core.table import RealCounters, Table, VirtualEntry, VirtualKey
from director.kit.net import Endpoint

Reals = Mapping[tuple[VirtualKey, Endpoint], RealCounters]


class Removal(Enum):
    """When what is not wanted any more goes.

    Held: not at all, and nobody changes its forwarding method either. While connected: each waits for its last
    connection, active or inactive.
    """

    AT_ONCE = "at once"
    HELD = "held"
    WHILE_CONNECTED = "while connected"


@dataclass(frozen=True, slots=True)
class Leaving:
    """A real server that is held at weight 0 and carries `connections`, active and inactive.

    `real` None is a virtual server without any. `drains`: it goes with its last connection.
    """

    key: VirtualKey
    real: Endpoint | None
    connections: int
    drains: bool


def hold_removals(
    current: Table,
    aim: Table,
    managed: Container[VirtualKey],
    carried: Reals,
    removal: Removal,
    at_once: Container[tuple[VirtualKey, Endpoint]] = (),
    exempt: Container[VirtualKey] = (),
) -> tuple[Table, tuple[Leaving, ...]]:
    """`aim` with what would be removed on the way to it still there, at weight 0, and a list of that.

    `managed` as for `diff`; real servers in `at_once`, and those of virtual servers in `exempt`, are never held. A
    virtual server leaves with the last of its real servers. A sync daemon that such a real server stands in the way of
    waits for it.
    """
    if removal is Removal.AT_ONCE:
        return aim, ()
    drains = removal is Removal.WHILE_CONNECTED
    entries = dict(aim.entries)
    leaving: list[Leaving] = []
    for key, have in current.entries.items():
        want = aim.get(key)
        if key in exempt or (want is None and key not in managed):
            continue
        waits: list[Leaving] = []
        for real, row in have.reals.items():
            if (want is not None and real in want.reals) or (key, real) in at_once:
                continue
            counters = carried.get((key, real), RealCounters())
            connections = counters.active + counters.inactive
            # One that has just carried nothing may carry something now: not before it is at weight 0.
            if not drains or row.weight or connections:
                waits.append(Leaving(key, real, connections, drains))
        if want is None and not waits and not drains:
            waits.append(Leaving(key, None, 0, drains))
        if not waits:
            continue
        stay = have.reals if want is None else {each.real: have.reals[each.real] for each in waits if each.real}
        lowered = {real: replace(row, weight=0) for real, row in stay.items()}
        rest = want or VirtualEntry(have.row)
        entries[key] = VirtualEntry(rest.row, MappingProxyType({**rest.reals, **lowered}))
        leaving += waits
    mixed = any(each.real and each.real.address.version != each.key.family for each in leaving)
    sync = None if mixed else aim.sync  # they refuse each other (ip_vs_ctl.c, ip_vs_genl_new_daemon)
    return (replace(aim, entries=MappingProxyType(entries), sync=sync) if leaving else aim), tuple(leaving)


def keep_methods(current: Table, desired: Table) -> Table:
    """`desired`, but every real server keeps the forwarding method and tunnel that it has in `current`.

    One that has drained for another method stays at weight 0.
    """
    entries = dict(desired.entries)
    for key, want in desired.entries.items():
        have = current.get(key)
        kept = {
            real: replace(row, forward=before.forward, tunnel=before.tunnel, weight=row.weight if before.weight else 0)
            for real, row in want.reals.items()
            if have and (before := have.reals.get(real)) and not same_path(before, row)
        }
        if kept:
            entries[key] = VirtualEntry(want.row, MappingProxyType({**want.reals, **kept}))
    return replace(desired, entries=MappingProxyType(entries))
