"""Removals that wait: who leaves gets nothing new and loses nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.diff import EditReal, RemoveReal, RemoveVirtual, apply, diff
from director.core.removal import Leaving, Removal, hold_removals, keep_methods
from director.core.table import (
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    Tunnel,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

WEB, TLS = (VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), port) for port in (80, 443))
BOTH = frozenset({WEB, TLS})
A, B, C = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3))
FULL, NONE = RealRow(Forward.NAT, 100), RealRow(Forward.NAT, 0)
RR = VirtualRow("rr")


def table(**entries: dict[Endpoint, RealRow]) -> Table:
    keys = {"web": WEB, "tls": TLS}
    return Table(MappingProxyType({keys[name]: VirtualEntry(RR, reals) for name, reals in entries.items()}))


def test_at_once_holds_nothing() -> None:
    aim = table(web={A: FULL})
    assert hold_removals(table(web={A: FULL, B: FULL}), aim, BOTH, {}, Removal.AT_ONCE) == (aim, ())


def test_held_keeps_all_that_goes_at_weight_0() -> None:
    current = table(web={A: FULL, B: FULL}, tls={A: FULL, C: NONE})
    carried = {(WEB, B): RealCounters(2, 1)}
    aim, leaving = hold_removals(current, table(web={A: FULL}), BOTH, carried, Removal.HELD)
    assert aim == table(web={A: FULL, B: NONE}, tls={A: NONE, C: NONE})
    assert leaving == (Leaving(WEB, B, 3, False), Leaving(TLS, A, 0, False), Leaving(TLS, C, 0, False))
    assert not any(isinstance(change, RemoveReal | RemoveVirtual) for change in diff(current, aim, BOTH))


def test_held_keeps_a_virtual_server_without_real_servers() -> None:
    aim, leaving = hold_removals(table(web={}), Table(), BOTH, {}, Removal.HELD)
    assert (aim, leaving) == (table(web={}), (Leaving(WEB, None, 0, False),))


def test_what_is_somebody_elses_is_left_alone() -> None:
    aim, leaving = hold_removals(table(tls={A: FULL}), Table(), frozenset({WEB}), {}, Removal.HELD)
    assert (aim, leaving) == (Table(), ())


def test_a_connected_one_waits_at_weight_0_and_goes_with_its_last_connection() -> None:
    current, aim = table(web={A: FULL, B: FULL}), table(web={A: FULL})
    lowered, leaving = hold_removals(current, aim, BOTH, {}, Removal.WHILE_CONNECTED)
    assert lowered == table(web={A: FULL, B: NONE}), "it carries nothing yet, and could at any moment"
    assert leaving == (Leaving(WEB, B, 0, True),)
    for counters, held in ((RealCounters(1), 1), (RealCounters(0, 1), 1), (RealCounters(persistent=1), 0)):
        found, leaving = hold_removals(lowered, aim, BOTH, {(WEB, B): counters}, Removal.WHILE_CONNECTED)
        assert (found == lowered, len(leaving)) == (bool(held), held), counters


def test_a_virtual_server_leaves_with_its_last_real_server() -> None:
    current = table(tls={A: NONE, B: NONE})
    found, leaving = hold_removals(current, Table(), BOTH, {(TLS, B): RealCounters(1)}, Removal.WHILE_CONNECTED)
    assert (found, leaving) == (current, (Leaving(TLS, B, 1, True),))
    assert hold_removals(current, Table(), BOTH, {}, Removal.WHILE_CONNECTED) == (Table(), ())


def test_some_real_servers_are_never_held() -> None:
    aim, leaving = hold_removals(table(web={A: FULL, B: FULL}), table(web={}), BOTH, {}, Removal.HELD, {(WEB, A)})
    assert (aim, leaving) == (table(web={B: NONE}), (Leaving(WEB, B, 0, False),))


def test_a_sync_daemon_waits_for_a_real_server_of_the_other_version() -> None:
    six = Endpoint(ip_address("fd00::1"), 80)
    master = frozenset({SyncDaemon(SyncRole.MASTER, "eth0")})
    current = replace(table(web={A: FULL, six: RealRow(Forward.TUN, 1)}), sync=frozenset())
    wanted = replace(table(web={}), sync=master)
    held, _ = hold_removals(current, wanted, BOTH, {}, Removal.HELD)
    assert held.sync is None
    alone, _ = hold_removals(table(web={A: FULL}), wanted, BOTH, {}, Removal.HELD)
    assert alone.sync == master


def test_one_that_drains_for_another_method_is_not_raised_again() -> None:
    low = table(web={A: NONE})
    assert keep_methods(low, table(web={A: RealRow(Forward.DR, 7)})) == low


def test_methods_and_tunnels_stay_and_the_rest_changes() -> None:
    gue = Tunnel(TunnelKind.GUE, 6080)
    current = table(web={A: FULL, B: RealRow(Forward.TUN, 1), C: RealRow(Forward.NAT, 1)})
    rows = {A: RealRow(Forward.DR, 7), B: RealRow(Forward.TUN, 5, tunnel=gue), C: RealRow(Forward.NAT, 9, 8)}
    desired = replace(table(web=rows, tls={A: FULL}), timeouts=Timeouts(1, 2, 3))
    kept = table(web={A: RealRow(Forward.NAT, 7), B: RealRow(Forward.TUN, 5), C: rows[C]}, tls={A: FULL})
    assert keep_methods(current, desired) == replace(kept, timeouts=Timeouts(1, 2, 3))


ROWS = st.builds(RealRow, st.sampled_from([Forward.NAT, Forward.DR]), st.integers(0, 2))
REALS = st.dictionaries(st.sampled_from([A, B, C]), ROWS)
TABLES = st.dictionaries(st.sampled_from([WEB, TLS]), REALS.map(lambda reals: VirtualEntry(RR, reals))).map(Table)


@given(TABLES, TABLES)
def test_held_takes_nothing_away_and_can_be_undone_and_ends_where_it_should(current: Table, desired: Table) -> None:
    aim, _ = hold_removals(current, keep_methods(current, desired), BOTH, {}, Removal.HELD)
    changes = diff(current, aim, BOTH)
    assert not any(isinstance(change, RemoveReal | RemoveVirtual) for change in changes)
    held = apply(changes, current)
    for key, entry in current.entries.items():
        for real in entry.reals:
            want = desired.get(key)
            if want is None or real not in want.reals:
                assert held.entries[key].reals[real].weight == 0
    back = diff(held, current, BOTH)
    assert apply(back, held) == current
    for key, entry in current.entries.items():
        touched = [change for change in back if change.key == key and not isinstance(change, EditReal)]  # type: ignore[union-attr] # no timeouts here
        assert all(isinstance(change, RemoveReal) and change.real not in entry.reals for change in touched)
    assert apply(diff(held, desired, BOTH), held) == desired
