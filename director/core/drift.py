"""What somebody else changed in the kernel, and whose word counts.

One rule: three tables decide, element by element (a virtual server's row, a real server's): `base`, what the kernel
held when director last left it; `theirs`, what it holds now; `ours`, what it should hold. Where theirs is no longer
base, somebody changed it. With `on_drift: report` that stands until ours is another than base, too: what checks and
operators decide reaches the kernel all the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
)
from director.core.model import Config, OnDrift
from director.core.table import RealRow, SyncDaemon, Table, Timeouts, VirtualEntry, VirtualKey, VirtualRow
from director.kit.net import Endpoint

Element = VirtualRow | RealRow | Timeouts | frozenset[SyncDaemon]
Row = TypeVar("Row", VirtualRow, RealRow)


@dataclass(frozen=True, slots=True)
class Drift:
    """One element that somebody else changed; `was` or `found` None: it is not there.

    `key` None is the network namespace: its timeouts and sync daemons. `real` None is the virtual server itself.
    `kept`: it stays as it was found.
    """

    key: VirtualKey | None
    real: Endpoint | None
    was: Element | None
    found: Element | None
    kept: bool = False


def reporting(config: Config) -> frozenset[VirtualKey]:
    """The virtual servers whose drift is told and left."""
    return frozenset(key for vs in config.virtual_servers if vs.on_drift is OnDrift.REPORT for key in vs.keys)


def merge(
    base: Table | None, theirs: Table, ours: Table, report: Container[VirtualKey] = ()
) -> tuple[Table, tuple[Drift, ...]]:
    """The table to aim for, and what somebody else changed on the way there; `base` None: nobody knows of any.

    Virtual servers that are not in `ours` are no matter of drift.
    """
    if base is None:
        return ours, ()
    drifts: list[Drift] = list(_namespace_drifts(base, theirs, ours))
    entries: dict[VirtualKey, VirtualEntry] = {}
    for key, want in ours.entries.items():
        known, have = base.get(key), theirs.get(key)
        if known is None or known == have:
            entries[key] = want
            continue
        row = _settle(key, None, (known.row, have.row if have else None, want.row), key in report, drifts)
        if row is None:
            continue
        if have is None:
            entries[key] = want
            continue
        reals: dict[Endpoint, RealRow] = {}
        for real in dict.fromkeys((*want.reals, *known.reals, *have.reals)):
            each = (known.reals.get(real), have.reals.get(real), want.reals.get(real))
            aim = _settle(key, real, each, key in report, drifts)
            if aim is not None:
                reals[real] = aim
        entries[key] = VirtualEntry(row, MappingProxyType(reals))
    return replace(ours, entries=MappingProxyType(entries)), tuple(drifts)


def rebase(base: Table | None, theirs: Table, drifts: Iterable[Drift]) -> Table:
    """The `base` of the next look: what was seen; drift that was kept stays drift."""
    entries = dict(theirs.entries)
    for drift in drifts if base is not None else ():
        key = drift.key
        known = base.get(key) if base is not None and key is not None else None
        if not drift.kept or key is None or known is None:
            continue
        have = entries.get(key)
        if drift.real is None:
            entries[key] = replace(have, row=known.row) if have is not None else known
        elif have is not None:
            reals = {real: row for real, row in have.reals.items() if real != drift.real}
            if drift.real in known.reals:
                reals[drift.real] = known.reals[drift.real]
            entries[key] = replace(have, reals=MappingProxyType(reals))
    return replace(theirs, entries=MappingProxyType(entries))


def record(base: Table, made: Iterable[Change]) -> Table:
    """`base` after the director's own changes; what somebody else did between them is none of it."""
    made = tuple(made)
    touched: set[VirtualKey] = set()
    last: VirtualKey | None = None
    for change in made:  # those to one virtual server follow each other
        if not isinstance(change, (SetTimeouts, StopSync, StartSync)) and change.key is not last:
            last = change.key
            touched.add(last)
    entries = {key: (entry.row, dict(entry.reals)) for key, entry in base.entries.items() if key in touched}
    timeouts = base.timeouts
    last, reals_of_last = None, {}
    for change in made:
        if isinstance(change, (AddReal, EditReal)) and change.key is last:  # a union takes five times as long
            reals_of_last[change.real] = change.row
            continue
        last = None
        match change:
            case AddVirtual(key, row) | EditVirtual(key, _, row):
                entries[key] = (row, entries[key][1] if key in entries else {})
            case RemoveVirtual(key, _):
                entries.pop(key, None)
            case AddReal(key, real, row_real) | EditReal(key, real, _, row_real) if key in entries:
                last, reals_of_last = key, entries[key][1]
                reals_of_last[real] = row_real
            case RemoveReal(key, real, _) if key in entries:
                entries[key][1].pop(real, None)
            case SetTimeouts(_, timeouts):
                pass
    rest = {key: entry for key, entry in base.entries.items() if key not in touched}
    found = {key: VirtualEntry(row, MappingProxyType(reals)) for key, (row, reals) in entries.items()}
    return Table(MappingProxyType(rest | found), timeouts, base.sync)


def _settle(
    key: VirtualKey,
    real: Endpoint | None,
    rows: tuple[Row | None, Row | None, Row | None],
    report: bool,
    drifts: list[Drift],
) -> Row | None:
    """Which of base, theirs and ours is to be."""
    base, theirs, ours = rows
    if theirs in (base, ours):
        return ours
    kept = report and ours == base
    drifts.append(Drift(key, real, base, theirs, kept))
    return theirs if kept else ours


def _namespace_drifts(base: Table, theirs: Table, ours: Table) -> Iterable[Drift]:
    if ours.timeouts is not None and theirs.timeouts not in (base.timeouts, ours.timeouts):
        yield Drift(None, None, base.timeouts, theirs.timeouts)
    if ours.sync is None or theirs.sync == base.sync:
        return
    have = theirs.sync or frozenset()
    if len(have) != len(ours.sync) or not all(any(each.agrees(daemon) for daemon in have) for each in ours.sync):
        yield Drift(None, None, base.sync, theirs.sync)
