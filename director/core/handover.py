"""Changing a real server's forwarding method: who may change now, and who waits for its connections to end.

One rule: a real server changes when it has weight 0 and carries nothing, never before.

IPVS keeps one route for a destination, whichever method its packets go by (ip_vs_xmit.c, __ip_vs_get_out_rt), and
connections keep the method they began with; the same holds for another kind of tunnel. Under DR that route must name
the real server as the next hop; one that a packet of a NAT or tunnel connection left there has none, and new DR
connections vanish. Under NAT the connections that began under DR vanish. Deleting and creating anew is no way around
it: while connections last, the kernel takes the destination back out of its trash, connections and all (ip_vs_ctl.c,
ip_vs_trash_get_dest).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from director.core.diff import same_path
from director.core.table import IPIP, Forward, RealCounters, RealRow, Table, Tunnel, VirtualEntry, VirtualKey
from director.kit.net import Endpoint

Reals = Mapping[tuple[VirtualKey, Endpoint], RealCounters]


@dataclass(frozen=True, slots=True)
class Held:
    """A real server that keeps the method `before` until its `connections` (active and inactive) have ended.

    `drains`: it gets no new ones meanwhile. Otherwise its turn comes when others have changed.
    """

    key: VirtualKey
    real: Endpoint
    before: Forward
    after: Forward
    connections: int
    drains: bool
    tunnel: Tunnel = IPIP
    new_tunnel: Tunnel = IPIP

    @property
    def ready(self) -> bool:
        """It carries nothing: the next look changes it."""
        return self.drains and not self.connections


def hold_back(
    current: Table, desired: Table, carried: Reals, exempt: Container[VirtualKey] = ()
) -> tuple[Table, tuple[Held, ...]]:
    """The table to aim for now on the way to `desired`, and what is held back in it.

    Of a virtual server's real servers at most half (or one) are drained at once, so that the others serve on. Those of
    virtual servers in `exempt` are changed at once: nobody misses their connections.
    """
    entries = dict(desired.entries)
    held: list[Held] = []
    for key, want in desired.entries.items():
        have = current.get(key)
        if have is None or have == want or key in exempt:
            continue
        found = _held(key, have, want, carried)
        if found:
            rows = {each.real: _meanwhile(each, want.reals[each.real]) for each in found}
            entries[key] = VirtualEntry(want.row, MappingProxyType({**want.reals, **rows}))
            held += found
    return (replace(desired, entries=MappingProxyType(entries)) if held else desired), tuple(held)


def _held(key: VirtualKey, have: VirtualEntry, want: VirtualEntry, carried: Reals) -> list[Held]:
    waiting: list[tuple[Endpoint, RealRow, int]] = []
    for real in want.reals:
        before = have.reals.get(real)
        if before is None or same_path(before, want.reals[real]):
            continue
        counters = carried.get((key, real), RealCounters())
        connections = counters.active + counters.inactive
        if before.weight or connections:
            waiting.append((real, before, connections))
    # Those that drain already go on, then those that will soon be free.
    waiting.sort(key=lambda each: (each[1].weight != 0, each[2]))
    at_once = max(1, len(want.reals) // 2)
    return [
        Held(
            *(key, real, before.forward, want.reals[real].forward, connections, place < at_once),
            *(before.tunnel, want.reals[real].tunnel),
        )
        for place, (real, before, connections) in enumerate(waiting)
    ]


def _meanwhile(held: Held, row: RealRow) -> RealRow:
    return replace(row, forward=held.before, tunnel=held.tunnel, weight=0 if held.drains else row.weight)
