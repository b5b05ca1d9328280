"""The diff is right by what `apply` makes of it, whole or interrupted."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    NamespaceChange,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
    apply,
    diff,
)
from director.core.table import Forward, Protocol, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.kit.net import Endpoint
from tests.director.core.tables import KEYS, key_sets, tables

pytestmark = pytest.mark.unit

WEB, TLS, OLD = (VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), port) for port in (80, 443, 8080))
A, B, C = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3))
RR, WLC = VirtualRow("rr"), VirtualRow("wlc")
NAT, NAT0, DR = RealRow(Forward.NAT, 100), RealRow(Forward.NAT, 0), RealRow(Forward.DR, 100)


def table(**entries: VirtualEntry) -> Table:
    keys = {"web": WEB, "tls": TLS, "old": OLD}
    return Table(MappingProxyType({keys[name]: entry for name, entry in entries.items()}))


def expected(before: Table, desired: Table, managed: frozenset[VirtualKey]) -> dict[VirtualKey, VirtualEntry]:
    others = {key: entry for key, entry in before.entries.items() if key not in managed}
    return {**others, **desired.entries}


@given(tables, tables, key_sets)
def test_applied_diff_is_the_desired_table_and_what_others_have(
    before: Table, desired: Table, managed: frozenset[VirtualKey]
) -> None:
    after = apply(diff(before, desired, managed), before)
    assert after.entries == expected(before, desired, managed)


@given(tables, key_sets)
def test_nothing_to_do_when_all_is_as_desired(current: Table, managed: frozenset[VirtualKey]) -> None:
    assert diff(current, current, managed) == ()


@given(tables, tables)
def test_virtual_servers_of_others_are_not_touched(before: Table, desired: Table) -> None:
    changes = diff(before, desired)
    assert not [change for change in changes if isinstance(change, NamespaceChange)]
    assert {change.key for change in changes if not isinstance(change, NamespaceChange)} <= set(desired.entries)


@given(st.data(), tables, tables)
def test_an_apply_that_was_interrupted_converges(data: st.DataObject, before: Table, desired: Table) -> None:
    managed = frozenset(KEYS)
    changes = diff(before, desired, managed)
    middle = apply(changes[: data.draw(st.integers(0, len(changes)))], before)
    assert apply(diff(middle, desired, managed), middle) == desired


@given(tables, tables)
def test_the_order_is_create_settle_remove_and_remove_virtual(before: Table, desired: Table) -> None:
    changes = diff(before, desired, frozenset(KEYS))
    anew = {(c.key, c.real) for c in changes if isinstance(c, AddReal)}

    def rank(change: Change) -> int:
        match change:
            case AddVirtual() | EditVirtual():
                return 0
            case AddReal() | EditReal():
                return 1
            case RemoveReal(key, real, _):
                return 1 if (key, real) in anew else 2  # another forwarding method: removed and made anew
            case RemoveVirtual():
                return 3
            case StopSync() | SetTimeouts():
                return -1
            case StartSync():
                return 4

    assert [rank(change) for change in changes] == sorted(rank(change) for change in changes)


def test_every_kind_of_change_in_its_place() -> None:
    gone = VirtualEntry(RR, {A: NAT})
    before = table(web=VirtualEntry(RR, {A: NAT, B: NAT, C: NAT}), old=gone)
    desired = table(web=VirtualEntry(WLC, {A: NAT0, B: DR}), tls=VirtualEntry(RR, {C: NAT}))
    assert diff(before, desired, {OLD}) == (
        EditVirtual(WEB, RR, WLC),
        AddVirtual(TLS, RR),
        EditReal(WEB, A, NAT, NAT0),
        RemoveReal(WEB, B, NAT),
        AddReal(WEB, B, DR),
        AddReal(TLS, C, NAT),
        RemoveReal(WEB, C, NAT),
        RemoveVirtual(OLD, gone),
    )


def test_maglev_sees_a_server_at_its_weight_before_it_is_lowered() -> None:
    mh = VirtualRow("mh")
    desired = table(web=VirtualEntry(mh, {A: NAT, B: NAT0, C: NAT0}))
    changes = diff(Table(), desired, (), {(WEB, A): 100, (WEB, B): 5, (WEB, C): 0})
    five = RealRow(Forward.NAT, 5)
    assert changes == (
        AddVirtual(WEB, mh),
        AddReal(WEB, A, NAT),
        AddReal(WEB, B, five),
        EditReal(WEB, B, five, NAT0),
        AddReal(WEB, C, NAT0),
    )
    assert apply(changes, Table()) == desired
    assert diff(desired, desired, (), {(WEB, B): 5}) == ()


def test_apply_refuses_what_the_kernel_would() -> None:
    there = table(web=VirtualEntry(RR, {A: NAT}))
    impossible: list[Change] = [
        AddVirtual(WEB, RR),
        EditVirtual(TLS, RR, WLC),
        RemoveVirtual(TLS, VirtualEntry(RR)),
        AddReal(WEB, A, NAT),
        AddReal(TLS, A, NAT),
        EditReal(WEB, B, NAT, NAT0),
        RemoveReal(WEB, B, NAT),
    ]
    for change in impossible:
        with pytest.raises(KeyError):
            apply([change], there)
