"""Whose word counts for each element of the table: what was, what is, and what should be."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.diff import AddReal, AddVirtual, EditReal, RemoveReal, RemoveVirtual, apply, diff
from director.core.drift import Drift, merge, rebase, record, reporting
from director.core.table import (
    Forward,
    RealRow,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.kit.net import Endpoint
from tests.director.core.tables import KEYS, REALS, key_sets, tables

pytestmark = pytest.mark.unit

WEB, TLS = KEYS[:2]
A, B = REALS[:2]
RR, WLC, LC = VirtualRow("rr"), VirtualRow("wlc"), VirtualRow("lc")


def nat(weight: int, upper: int = 0) -> RealRow:
    return RealRow(Forward.NAT, weight, upper)


def web(row: VirtualRow = RR, **reals: RealRow) -> Table:
    names = {"a": A, "b": B}
    return Table(
        MappingProxyType({WEB: VirtualEntry(row, MappingProxyType({names[name]: r for name, r in reals.items()}))})
    )


@given(tables, tables)
def test_without_a_base_nothing_is_drift(theirs: Table, ours: Table) -> None:
    assert merge(None, theirs, ours, KEYS) == (ours, ())


@given(tables, tables, key_sets)
def test_what_nobody_changed_becomes_ours(base: Table, ours: Table, report: frozenset[VirtualKey]) -> None:
    assert merge(base, base, ours, report) == (ours, ())


@given(tables, tables, tables)
def test_without_report_ours_always_wins(base: Table, theirs: Table, ours: Table) -> None:
    aim, drifts = merge(base, theirs, ours)
    assert {k: (e.row, dict(e.reals)) for k, e in aim.entries.items()} == {
        k: (e.row, dict(e.reals)) for k, e in ours.entries.items()
    }
    assert not any(drift.kept for drift in drifts)
    assert all(drift.found != drift.was for drift in drifts)


@given(tables, tables)
def test_with_report_everything_stays_as_found_where_ours_did_not_change(base: Table, theirs: Table) -> None:
    aim, drifts = merge(base, theirs, base, KEYS)
    assert diff(theirs, aim) == ()
    assert all(drift.kept for drift in drifts)
    assert bool(drifts) == bool(diff(theirs, base)), "what differs is told"


@given(tables, tables, key_sets)
def test_what_is_kept_is_told_the_same_at_every_look(base: Table, theirs: Table, report: frozenset[VirtualKey]) -> None:
    aim, drifts = merge(base, theirs, base, report)
    made = diff(theirs, aim)
    after = apply(made, theirs)
    again = record(rebase(base, theirs, drifts), made)
    next_aim, next_drifts = merge(again, after, base, report)
    assert diff(after, next_aim) == (), "what was put right stays, what was kept stays"
    assert next_drifts == tuple(drift for drift in drifts if drift.kept)
    assert merge(rebase(again, after, next_drifts), after, base, report)[1] == next_drifts


@given(tables, tables, tables, key_sets)
def test_it_converges_whatever_changed(base: Table, theirs: Table, ours: Table, report: frozenset[VirtualKey]) -> None:
    aim, drifts = merge(base, theirs, ours, report)
    made = diff(theirs, aim)
    after, again = apply(made, theirs), record(rebase(base, theirs, drifts), made)
    assert diff(after, merge(again, after, ours, report)[0]) == ()


@given(st.data(), tables, tables, key_sets)
def test_a_change_that_failed_is_tried_again_and_is_no_drift(
    data: st.DataObject, base: Table, ours: Table, report: frozenset[VirtualKey]
) -> None:
    changes = diff(base, merge(base, base, ours, report)[0])
    made = changes[: data.draw(st.integers(0, len(changes)))]
    after, again = apply(made, base), record(rebase(base, base, ()), made)
    aim, drifts = merge(again, after, ours, report)
    assert drifts == ()
    assert apply(diff(after, aim), after) == apply(changes, base)


CASES: dict[str, tuple[Table, Table, Table, Table, list[Drift]]] = {
    "a weight": (
        *(web(a=nat(100)), web(a=nat(5)), web(a=nat(100))),
        *(web(a=nat(5)), [Drift(WEB, A, nat(100), nat(5), kept=True)]),
    ),
    "a weight, and a check lowers it since": (
        *(web(a=nat(100)), web(a=nat(5)), web(a=nat(0))),
        *(web(a=nat(0)), [Drift(WEB, A, nat(100), nat(5))]),
    ),
    "a weight, and ours came to the same": (web(a=nat(100)), web(a=nat(0)), web(a=nat(0)), web(a=nat(0)), []),
    "a check lowers one, somebody changed the other": (
        *(web(a=nat(100), b=nat(100)), web(a=nat(100), b=nat(7)), web(a=nat(0), b=nat(100))),
        *(web(a=nat(0), b=nat(7)), [Drift(WEB, B, nat(100), nat(7), kept=True)]),
    ),
    "a real server is gone": (
        *(web(a=nat(100), b=nat(100)), web(a=nat(100)), web(a=nat(100), b=nat(100))),
        *(web(a=nat(100)), [Drift(WEB, B, nat(100), None, kept=True)]),
    ),
    "a real server is gone, and a check lowers it": (
        *(web(a=nat(100), b=nat(100)), web(a=nat(100)), web(a=nat(100), b=nat(0))),
        *(web(a=nat(100), b=nat(0)), [Drift(WEB, B, nat(100), None)]),
    ),
    "a stranger came": (
        *(web(a=nat(100)), web(a=nat(100), b=nat(1)), web(a=nat(100))),
        *(web(a=nat(100), b=nat(1)), [Drift(WEB, B, None, nat(1), kept=True)]),
    ),
    "the scheduler": (
        *(web(RR, a=nat(100)), web(LC, a=nat(100)), web(RR, a=nat(100))),
        *(web(LC, a=nat(100)), [Drift(WEB, None, RR, LC, kept=True)]),
    ),
    "the virtual server is gone": (
        *(web(a=nat(100)), Table(), web(a=nat(100))),
        *(Table(), [Drift(WEB, None, RR, None, kept=True)]),
    ),
    "the virtual server is gone, and a check lowers a server of it": (
        *(web(a=nat(100)), Table(), web(a=nat(0))),
        *(Table(), [Drift(WEB, None, RR, None, kept=True)]),
    ),
    "it is new to us": (Table(), web(LC, b=nat(1)), web(a=nat(100)), web(a=nat(100)), []),
}


@pytest.mark.parametrize("name", CASES)
def test_reported_drift(name: str) -> None:
    base, theirs, ours, aim, drifts = CASES[name]
    assert merge(base, theirs, ours, {WEB}) == (aim, tuple(drifts))


@pytest.mark.parametrize("name", CASES)
def test_repaired_drift(name: str) -> None:
    base, theirs, ours, _, drifts = CASES[name]
    assert merge(base, theirs, ours) == (ours, tuple(replace(drift, kept=False) for drift in drifts))


def test_repair_edits_in_place() -> None:
    """Somebody changed everything that can be changed in place; nothing that stays is removed."""
    base = web(RR, a=nat(100, 500), b=nat(100))
    theirs = web(WLC, a=nat(3, 9), b=RealRow(Forward.NAT, 100, 8, 2))
    aim, _ = merge(base, theirs, base)
    assert not [change for change in diff(theirs, aim) if isinstance(change, RemoveReal | RemoveVirtual)]


def test_timeouts_and_sync_daemons_are_told_and_put_right() -> None:
    ours_daemon = SyncDaemon(SyncRole.MASTER, "lan")
    found = replace(ours_daemon, maxlen=1464)
    other = replace(found, id=9)
    base = Table(timeouts=Timeouts(900, 120, 300), sync=frozenset({found}))
    ours = Table(timeouts=Timeouts(900, 120, 300), sync=frozenset({ours_daemon}))
    theirs = Table(timeouts=Timeouts(1, 120, 300), sync=frozenset({other}))
    assert merge(base, base, ours, KEYS)[1] == ()
    assert merge(base, theirs, ours, KEYS) == (
        ours,
        (Drift(None, None, base.timeouts, theirs.timeouts), Drift(None, None, base.sync, theirs.sync)),
    )
    assert merge(theirs, base, ours, KEYS)[1] == (), "we put it right ourselves"
    assert merge(base, theirs, Table(), KEYS)[1] == (), "the file says nothing of them"


def test_reporting_are_all_keys_of_those_virtual_servers() -> None:
    file = """
defaults: {on_drift: report}
virtual_servers:
  web: {address: 192.0.2.10, port: [80, 81], forward: nat, real_servers: {}}
  tls: {address: 192.0.2.10, port: 443, forward: nat, on_drift: repair, real_servers: {}}
"""
    assert reporting(parse_config(file, "f")) == frozenset(KEYS[:2])


def test_an_endpoint_that_both_have_is_one_element() -> None:
    other = Endpoint(A.address, 8080)
    theirs = Table(MappingProxyType({WEB: VirtualEntry(RR, MappingProxyType({other: nat(100)}))}))
    base = web(a=nat(100))
    aim, drifts = merge(base, theirs, base, {WEB})
    assert aim.entries == theirs.entries
    assert [(drift.real, drift.found) for drift in drifts] == [(A, None), (other, nat(100))]


def test_record_of_a_virtual_server_that_was_made_anew_between_its_real_servers() -> None:
    lost = (AddVirtual(WEB, RR), AddReal(WEB, A, nat(1)), RemoveVirtual(WEB, VirtualEntry(RR)), AddReal(WEB, B, nat(1)))
    made = (AddVirtual(WEB, RR), AddReal(WEB, B, nat(2)), EditReal(WEB, B, nat(2), nat(3)))
    assert record(Table(), (*lost, *made)).entries == {WEB: VirtualEntry(RR, {B: nat(3)})}
