"""The steps from one IPVS table to another, in the order that keeps traffic flowing.

One rule: `apply(diff(a, b), a) == b` for what is managed, and an interrupted sequence still converges.
Order: stop sync daemons, timeouts, create virtual servers, add or edit real servers, remove real servers, remove
virtual servers, start sync daemons (one that runs refuses real servers of the other IP version, and they refuse it).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import assert_never

from director.core.table import Forward, RealRow, SyncDaemon, Table, Timeouts, VirtualEntry, VirtualKey, VirtualRow
from director.kit.net import Endpoint


@dataclass(frozen=True, slots=True)
class AddVirtual:
    key: VirtualKey
    row: VirtualRow


@dataclass(frozen=True, slots=True)
class EditVirtual:
    key: VirtualKey
    before: VirtualRow
    row: VirtualRow


@dataclass(frozen=True, slots=True)
class RemoveVirtual:
    """Its real servers go with it; `before` holds them, for whoever wants it back."""

    key: VirtualKey
    before: VirtualEntry


@dataclass(frozen=True, slots=True)
class AddReal:
    key: VirtualKey
    real: Endpoint
    row: RealRow


@dataclass(frozen=True, slots=True)
class EditReal:
    key: VirtualKey
    real: Endpoint
    before: RealRow
    row: RealRow


@dataclass(frozen=True, slots=True)
class RemoveReal:
    key: VirtualKey
    real: Endpoint
    before: RealRow


@dataclass(frozen=True, slots=True)
class SetTimeouts:
    before: Timeouts | None
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class StopSync:
    daemon: SyncDaemon


@dataclass(frozen=True, slots=True)
class StartSync:
    daemon: SyncDaemon


RealChange = AddReal | EditReal | RemoveReal
VirtualChange = AddVirtual | EditVirtual | RemoveVirtual
NamespaceChange = SetTimeouts | StopSync | StartSync
Change = VirtualChange | RealChange | NamespaceChange
Weights = Mapping[tuple[VirtualKey, Endpoint], int]
_NO_WEIGHTS: Weights = MappingProxyType({})


def diff(
    current: Table, desired: Table, managed: Container[VirtualKey] = (), inserted_at: Weights = _NO_WEIGHTS
) -> tuple[Change, ...]:
    """Steps that turn `current` into `desired`.

    A virtual server in `current` that is neither desired nor in `managed` is somebody else's and stays.
    A real server in `inserted_at` that is due at weight 0 is added at that weight and lowered at once.
    """
    stop, start = _diff_sync(current.sync or frozenset(), desired.sync)
    create: list[Change] = [*stop]
    if desired.timeouts is not None and desired.timeouts != current.timeouts:
        create.append(SetTimeouts(current.timeouts, desired.timeouts))
    settle: list[Change] = []
    remove: list[Change] = []
    remove_virtual: list[Change] = []
    for key, entry in desired.entries.items():
        have = current.get(key)
        if have == entry:
            continue
        if have is None:
            create.append(AddVirtual(key, entry.row))
            have = VirtualEntry(entry.row)
        elif have.row != entry.row:
            create.append(EditVirtual(key, have.row, entry.row))
        _diff_reals(key, have, entry, inserted_at, settle, remove)
    for key, entry in current.entries.items():
        if desired.get(key) is None and key in managed:
            remove_virtual.append(RemoveVirtual(key, entry))
    return (*create, *settle, *remove, *remove_virtual, *start)


def _diff_sync(
    have: frozenset[SyncDaemon], want: frozenset[SyncDaemon] | None
) -> tuple[list[StopSync], list[StartSync]]:
    if want is None:
        return [], []
    stop = [StopSync(daemon) for daemon in have if not any(each.agrees(daemon) for each in want)]
    start = [StartSync(daemon) for daemon in want if not any(daemon.agrees(each) for each in have)]
    return sorted(stop, key=lambda each: each.daemon.role.value), sorted(start, key=lambda each: each.daemon.role.value)


def _diff_reals(
    key: VirtualKey,
    have: VirtualEntry,
    want: VirtualEntry,
    inserted_at: Weights,
    settle: list[Change],
    remove: list[Change],
) -> None:
    for real, row in want.reals.items():
        before = have.reals.get(real) if have.reals else None
        if before is not None and same_path(before, row):
            if before != row:
                settle.append(EditReal(key, real, before, row))
            continue
        if before is not None:
            # Another method: made anew. `handover` has seen to it that nothing goes by the old one.
            settle.append(RemoveReal(key, real, before))
        due = row.weight or inserted_at.get((key, real), 0)
        if due == row.weight:
            settle.append(AddReal(key, real, row))
        else:
            first = replace(row, weight=due)
            settle += (AddReal(key, real, first), EditReal(key, real, first, row))
    remove.extend(RemoveReal(key, real, row) for real, row in have.reals.items() if real not in want.reals)


def same_path(before: RealRow, row: RealRow) -> bool:
    """Whether packets go the same way, so that the one may become the other in place."""
    return before.forward is row.forward and (before.forward is not Forward.TUN or before.tunnel == row.tunnel)


def apply(changes: Iterable[Change], table: Table) -> Table:
    """What `table` becomes by `changes`: the kernel's own semantics, for plans and for proofs.

    Raises: KeyError where the kernel would say EEXIST, ESRCH or ENOENT.
    """
    entries = {key: (entry.row, dict(entry.reals)) for key, entry in table.entries.items()}
    timeouts, sync = table.timeouts, set(table.sync or ())
    for change in changes:
        match change:
            case AddVirtual(key, row):
                if key in entries:
                    raise KeyError(f"{key} exists")
                entries[key] = (row, {})
            case EditVirtual(key, _, row):
                entries[key] = (row, entries[key][1])
            case RemoveVirtual(key, _):
                del entries[key]
            case AddReal(key, real, row_real):
                if real in entries[key][1]:
                    raise KeyError(f"{key} has {real}")
                entries[key][1][real] = row_real
            case EditReal(key, real, _, row_real):
                entries[key][1][real]
                entries[key][1][real] = row_real
            case RemoveReal(key, real, _):
                del entries[key][1][real]
            case SetTimeouts(_, timeouts):
                pass
            case StopSync(daemon):
                sync.remove(daemon)
            case StartSync(daemon):
                if any(each.role is daemon.role for each in sync):
                    raise KeyError(f"a sync {daemon.role.value} runs")
                sync.add(daemon)
            case _:
                assert_never(change)
    return Table(
        MappingProxyType({key: VirtualEntry(row, MappingProxyType(reals)) for key, (row, reals) in entries.items()}),
        timeouts,
        frozenset(sync) if sync or table.sync is not None else None,
    )
