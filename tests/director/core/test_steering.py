"""Probes through the forwarding path: their marks, their entries, and what they are called."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import AddReal, EditReal, RemoveVirtual, diff
from director.core.drift import Drift
from director.core.driftlines import drift_lines, sentence
from director.core.foreign import obstacles, set_aside
from director.core.handover import hold_back
from director.core.model import Config, RealServer, VirtualServer
from director.core.plan import Plan
from director.core.removal import Removal, hold_removals
from director.core.serving import Known, serving
from director.core.steering import FIRST_MARK, LAST_MARK, Path, allot, probe_paths, with_marks, without
from director.core.steps import steps
from director.core.table import Foreign, Forward, RealCounters, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.doctor.situation import of_config
from director.kit.checks.base import Route
from director.kit.checks.check import Check, Combination, leaves
from director.kit.checks.tcp import TcpProbe
from director.kit.net import Endpoint, parse_endpoint

pytestmark = pytest.mark.unit

TEXT = """
virtual_servers:
  web:
    address: [192.0.2.10, "2001:db8::10"]
    port: [80, 443]
    forward: dr
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, forward: tun}
      c: {address: 10.0.0.3}
""".replace('[192.0.2.10, "2001:db8::10"]', "192.0.2.10")
PORT = Endpoint(ip_address("10.0.0.1"), 0)


def through(target: str, real: str, source: str | None = None) -> Check:
    route = Route(IPv4Address(source) if source else None, 0, ip_address(real))
    return Check(parse_endpoint(target), TcpProbe(), route=route)


def with_checks(text: str = TEXT, **targets: str) -> Config:
    """`text` where some real servers are probed through their VIP: `a="192.0.2.10:80"`."""
    config = parse_config(text, "f")

    def checked(virtual: VirtualServer, real: RealServer) -> RealServer:
        return replace(real, check=through(targets[real.name], str(real.address))) if real.name in targets else real

    virtuals = (
        replace(virtual, real_servers=tuple(checked(virtual, real) for real in virtual.real_servers))
        for virtual in config.virtual_servers
    )
    return with_marks(replace(config, virtual_servers=tuple(virtuals)))


CONFIG = with_checks(a="192.0.2.10:80", b="192.0.2.10:8080")
TO_A, TO_B = CONFIG.steerings
TABLE = desired_table(CONFIG, serving(CONFIG, Known()).weights)

paths = st.builds(
    Path,
    st.sampled_from(("web", "shop")),
    st.integers(1, 60).map(lambda number: IPv4Address(f"10.0.0.{number}")),
    st.none(),
    st.sampled_from((Forward.DR, Forward.TUN)),
)


@given(st.lists(paths, max_size=40).flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))), st.data())
def test_marks_differ_avoid_what_is_taken_and_know_no_order(
    both: tuple[list[Path], list[Path]], data: st.DataObject
) -> None:
    some, shuffled = both
    marks = allot(some)
    assert allot(shuffled) == marks
    assert len(set(marks.values())) == len(set(some))
    assert all(FIRST_MARK <= mark <= LAST_MARK for mark in marks.values())
    if marks:
        taken = data.draw(st.sets(st.sampled_from(sorted(marks.values()))))
        avoiding = allot(some, taken)
        assert taken.isdisjoint(avoiding.values())
        assert len(set(avoiding.values())) == len(set(some))


def test_a_mark_stays_when_others_come_and_changes_with_the_way() -> None:
    path = Path("web", ip_address("10.0.0.1"))
    mark = allot([path])[path]
    assert allot([path, *(Path("web", IPv4Address(f"10.0.1.{number}")) for number in range(200))])[path] == mark
    others = [Path("shop", path.address), replace(path, port=80), replace(path, forward=Forward.TUN)]
    assert mark not in {allot([other])[other] for other in others}


def test_only_checks_through_the_vip_get_a_mark_and_an_entry() -> None:
    reals = CONFIG.virtual_servers[0].real_servers
    assert [check.route.mark for real in reals for check in leaves(real.check)] == [TO_A.mark, TO_B.mark]
    assert (str(TO_A), str(TO_B)) == ("probe path to web/a", "probe path to web/b")
    assert dict(TABLE.entries[TO_B.key].reals) == {Endpoint(ip_address("10.0.0.2"), 0): RealRow(Forward.TUN, 1)}
    assert CONFIG.keys() == frozenset(TABLE) == {*CONFIG.virtual_servers[0].keys, TO_A.key, TO_B.key}
    plain = parse_config(TEXT, "f")
    assert with_marks(plain) is plain
    assert plain.steerings == ()


def test_a_mark_that_the_file_gives_away_is_nobodys_path() -> None:
    more = f"  marked: {{fwmark: {TO_A.mark}, forward: nat, real_servers: {{x: {{address: 10.9.9.9}}}}}}\n"
    config = with_checks(TEXT + more, a="192.0.2.10:80")
    (path,) = config.steerings
    assert path.mark == TO_A.mark + 1
    assert probe_paths(Table(TABLE.entries), (config, None)) == {TO_B.key}, "the operator's own is no path"
    assert probe_paths(TABLE, (None,)) == {TO_A.key, TO_B.key}


def test_probes_are_not_waited_for() -> None:
    carried = {(TO_A.key, real): RealCounters(3, 3) for real in TO_A.entry.reals}
    keys = frozenset(TABLE)
    rest = Table(MappingProxyType({key: TABLE.entries[key] for key in TABLE if key != TO_A.key}))
    for removal in Removal:
        aim, leaving = hold_removals(TABLE, rest, keys, carried, removal, exempt=probe_paths(TABLE, (CONFIG,)))
        assert (aim, leaving) == (rest, ())
    other = VirtualEntry(VirtualRow("rr"), MappingProxyType({PORT: RealRow(Forward.NAT, 1)}))
    strange = Table(MappingProxyType({**TABLE.entries, TO_A.key: other}))
    assert hold_back(strange, TABLE, carried, probe_paths(TABLE, (CONFIG,))) == (TABLE, ())
    assert hold_back(strange, TABLE, carried)[1] != ()


def test_a_path_is_one_line_of_a_plan_and_never_a_virtual_server() -> None:
    weights = serving(CONFIG, Known()).weights
    empty = Table(MappingProxyType({key: TABLE.entries[key] for key in CONFIG.virtual_servers[0].keys}))
    made = steps(Plan(changes=diff(empty, TABLE)), CONFIG, weights)
    assert [(each.sign, each.subject, each.detail) for each in made] == [
        ("+", "probe path to web/a", f"fwmark {TO_A.mark} to 10.0.0.1 by dr"),
        ("+", "probe path to web/b", f"fwmark {TO_B.mark} to 10.0.0.2 by tun"),
    ]
    gone = Plan(changes=(RemoveVirtual(TO_A.key, TO_A.entry),))
    for former, subject in ((CONFIG, "probe path to web/a"), (None, "probe path")):
        (line,) = steps(gone, Config(), {}, {(TO_A.key, PORT): RealCounters(9)}, former)
        assert (line.sign, line.subject, line.detail, line.effect) == (
            *("-", subject, f"fwmark {TO_A.mark} to 10.0.0.1"),
            "",
        )
    (edited,) = steps(
        Plan(changes=(EditReal(TO_A.key, PORT, RealRow(Forward.DR, 0), RealRow(Forward.DR, 1)),)), CONFIG, weights
    )
    assert (edited.subject, edited.detail) == ("probe path to web/a", "dr, weight 0 -> dr, weight 1")
    # An operator's own mark out of that range is a virtual server as any other.
    own = with_checks(f"virtual_servers: {{own: {{fwmark: {FIRST_MARK}, forward: nat, real_servers: {{}}}}}}")
    (line,) = steps(Plan(changes=(AddReal(own.virtual_servers[0].keys[0], PORT, RealRow(Forward.NAT, 1)),)), own, {})
    assert line.subject.startswith("real server own/")


def test_drift_and_obstacles_name_the_path_and_no_virtual_server() -> None:
    (line,) = drift_lines([Drift(TO_A.key, PORT, RealRow(Forward.DR, 1), None)], CONFIG)
    assert (line["virtual_server"], line["real_server"][:8]) == ("", "10.0.0.1")
    assert sentence(line).startswith(
        f"probe path to web/a (fwmark {TO_A.mark}): was dr, weight 1, is absent; put right"
    )
    taken = Foreign("it", "its persistence mask has holes", TO_A.key)
    _, in_the_way = set_aside(Table(), TABLE, [taken])
    (said,) = obstacles(in_the_way, CONFIG)
    assert said.startswith(f"probe path to web/a (fwmark {TO_A.mark}) cannot be made: ")


def test_neither_an_export_nor_the_doctor_takes_a_path_for_a_virtual_server() -> None:
    assert set(without(TABLE, CONFIG.keys())) == set(CONFIG.virtual_servers[0].keys)
    assert set(without(TABLE, frozenset())) == set(TABLE), "somebody else's is left in"
    assert of_config(CONFIG, "f").keys[TO_A.key] == "probe path to web/a"


def test_a_wish_of_the_operator_and_health_leave_the_path_alone() -> None:
    drained = parse_config(TEXT.replace("{address: 10.0.0.1}", "{address: 10.0.0.1, weight: 0}"), "f")
    real = replace(drained.virtual_servers[0].real_servers[0], check=through("192.0.2.10:80", "10.0.0.1"))
    config = with_marks(replace(drained, virtual_servers=(replace(drained.virtual_servers[0], real_servers=(real,)),)))
    table = desired_table(config, serving(config, Known()).weights)
    key = VirtualKey(4, mark=TO_A.mark)
    assert [row.weight for row in table.entries[key].reals.values()] == [1]


def test_parts_of_a_combination_share_the_path_and_others_go_their_own_way() -> None:
    config = parse_config(TEXT, "f")
    virtual = config.virtual_servers[0]
    direct = Check(parse_endpoint("10.0.0.1:80"), TcpProbe(), route=Route(mark=TO_A.mark))
    parts = (direct, through("192.0.2.10:80", "10.0.0.1"), through("192.0.2.10:443", "10.0.0.1", "10.0.0.99"))
    real = replace(virtual.real_servers[0], check=Combination(True, parts))
    found = with_marks(replace(config, virtual_servers=(replace(virtual, real_servers=(real,)),)))
    (path,) = found.steerings
    assert path.mark == TO_A.mark + 1, "another probe's packets have that mark already"
    assert [(str(way.target), str(way.source)) for way in path.ways] == [
        ("192.0.2.10:80", "None"),
        ("192.0.2.10:443", "10.0.0.99"),
    ]
    marks = [check.route.mark for check in leaves(found.virtual_servers[0].real_servers[0].check)]
    assert marks == [TO_A.mark, path.mark, path.mark]
