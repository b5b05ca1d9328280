"""Changing the forwarding method: nobody changes while it carries anything, and somebody always serves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.diff import AddReal, RemoveReal, apply, diff
from director.core.handover import Held, hold_back
from director.core.table import Forward, Protocol, RealCounters, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

WEB = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
REALS = A, B, C, D = tuple(Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3, 4))
NAT, DR = RealRow(Forward.NAT, 100), RealRow(Forward.DR, 100)
Carried = dict[tuple[VirtualKey, Endpoint], RealCounters]


def table(**rows: RealRow) -> Table:
    reals = {REALS["abcd".index(name)]: row for name, row in rows.items()}
    return Table(MappingProxyType({WEB: VirtualEntry(VirtualRow("rr"), MappingProxyType(reals))}))


def carrying(**numbers: int) -> Carried:
    return {(WEB, REALS["abcd".index(name)]): RealCounters(number, 1) for name, number in numbers.items()}


def rows(found: Table) -> dict[Endpoint, RealRow]:
    return dict(found.entries[WEB].reals)


def idle(row: RealRow) -> RealRow:
    return replace(row, weight=0)


def test_what_keeps_its_method_is_not_held_whatever_it_carries() -> None:
    desired = table(a=replace(NAT, weight=7), b=DR)
    assert hold_back(table(a=NAT), desired, carrying(a=5)) == (desired, ())
    assert hold_back(Table(), desired, {}) == (desired, ())


def test_half_are_drained_and_the_others_serve_on() -> None:
    current, desired = table(a=NAT, b=NAT, c=NAT, d=NAT), table(a=DR, b=DR, c=DR, d=DR)
    aim, held = hold_back(current, desired, carrying(a=1, b=1, c=1, d=1))
    assert rows(aim) == {A: idle(NAT), B: idle(NAT), C: NAT, D: NAT}
    assert held[0] == Held(WEB, A, Forward.NAT, Forward.DR, 2, drains=True)
    assert [each.drains for each in held] == [True, True, False, False]


def test_the_same_ones_go_on_draining() -> None:
    desired = table(a=DR, b=DR)
    aim, held = hold_back(table(a=NAT, b=idle(NAT)), desired, carrying(a=1, b=1))
    assert rows(aim) == {A: NAT, B: idle(NAT)}
    assert {each.real: each.drains for each in held} == {A: False, B: True}


def test_the_least_busy_begin() -> None:
    aim, _ = hold_back(table(a=NAT, b=NAT), table(a=DR, b=DR), carrying(a=1))
    assert rows(aim) == {A: NAT, B: idle(NAT)}


def test_one_changes_when_it_carries_nothing_and_then_it_is_the_others_turn() -> None:
    desired = table(a=DR, b=DR)
    aim, held = hold_back(table(a=idle(NAT), b=NAT), desired, carrying(b=1))
    assert rows(aim) == {A: DR, B: idle(NAT)}, "in one batch: a serves before b stops"
    assert [each.real for each in held] == [B]


def test_the_only_one_is_drained_too() -> None:
    aim, (held,) = hold_back(table(a=NAT), table(a=DR), {})
    assert rows(aim) == {A: idle(NAT)}, "a connection may come between this look and the change"
    assert held.ready


def test_one_that_serves_on_follows_its_effective_weight() -> None:
    desired = table(a=DR, b=replace(DR, weight=0, upper_threshold=9))
    aim, _ = hold_back(table(a=idle(NAT), b=NAT), desired, carrying(a=1, b=1))
    assert rows(aim) == {A: idle(NAT), B: RealRow(Forward.NAT, 0, 9)}


@given(st.data())
def test_every_handover_ends_and_nothing_changes_while_it_carries(data: st.DataObject) -> None:
    row = st.builds(RealRow, st.sampled_from([Forward.NAT, Forward.DR]), st.integers(0, 2))
    current = table(**data.draw(st.dictionaries(st.sampled_from("abcd"), row)))
    desired = table(**data.draw(st.dictionaries(st.sampled_from("abcd"), row)))
    carried = carrying(**data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1))))
    for _ in range(20):
        aim, held = hold_back(current, desired, carried)
        assert bool(held) == (aim != desired)
        before = current.entries[WEB].reals
        changes = diff(current, aim)
        anew = {change.real for change in changes if isinstance(change, AddReal)}
        for change in changes:
            if isinstance(change, RemoveReal) and change.real in anew:
                assert before[change.real].weight == 0
                assert carried.get((WEB, change.real)) is None
        current = apply(changes, current)
        # Connections end only where no new ones come.
        carried = {key: each for key, each in carried.items() if current.entries[WEB].reals.get(key[1], NAT).weight}
    assert current == desired
