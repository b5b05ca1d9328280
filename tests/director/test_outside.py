"""The reconciler and what others do to the table meanwhile: drift, an exclusive table, what the model cannot hold."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    apply,
)
from director.core.drift import Drift
from director.core.model import Config, ServerRef
from director.core.table import (
    Foreign,
    Forward,
    RealCounters,
    RealRow,
    Table,
    Timeouts,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.weight import Wish
from director.driftlog import DriftLog
from director.ipvs.failure import Failure, failure
from director.kit.net import Endpoint, parse_endpoint
from director.terms import Inputs, Outcome
from tests.contract.fake_kernel import TIMEOUTS
from tests.director.reconcile.world import World

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    on_drift: ON_DRIFT
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
"""
REPAIR, REPORT = (parse_config(FILE.replace("ON_DRIFT", each), "f") for each in ("repair", "report"))
EXCLUSIVE = parse_config("exclusive: true\n" + FILE.replace("ON_DRIFT", "report"), "f")
WEB = VirtualKey.parse("tcp 192.0.2.10:80")
STRANGER = VirtualKey.parse("tcp 198.51.100.1:80")
A, B, C = (parse_endpoint(f"10.0.0.{number}:80") for number in (1, 2, 3))
NAT = RealRow(Forward.NAT, 100)
RR, LC = VirtualRow("rr"), VirtualRow("lc")
LOWERED = EditReal(WEB, A, NAT, RealRow(Forward.NAT, 3, 50))


class Looks:
    """A director's looks at the kernel, one after the other; `changed` are those that wrote."""

    def __init__(self, world: World, config: Config) -> None:
        self.world = world
        self.config = config
        self.agreed: Table | None = None
        self.look()

    def others(self, *changes: Change) -> None:
        self.world.kernel.table = apply(changes, self.world.kernel.table)

    def look(self, **wishes: int) -> Outcome:
        wished = {ServerRef("web", name): Wish(weight=weight) for name, weight in wishes.items()}
        outcome = self.world.run(Inputs(self.config, wishes=wished, ready=frozenset({"web"}), agreed=self.agreed))
        self.agreed = outcome.agreed
        return outcome

    def reals(self) -> dict[Endpoint, RealRow]:
        return dict(self.world.kernel.table.entries[WEB].reals)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


OTHERS: dict[str, tuple[list[Change], list[Drift]]] = {
    "weight and threshold": ([LOWERED], [Drift(WEB, A, NAT, LOWERED.row)]),
    "scheduler": ([EditVirtual(WEB, RR, LC)], [Drift(WEB, None, RR, LC)]),
    "a real server goes": ([RemoveReal(WEB, B, NAT)], [Drift(WEB, B, NAT, None)]),
    "a real server comes": ([AddReal(WEB, C, NAT)], [Drift(WEB, C, None, NAT)]),
    "all goes": ([RemoveVirtual(WEB, VirtualEntry(RR))], [Drift(WEB, None, RR, None)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_drift_is_put_right_and_told_once(world: World, name: str) -> None:
    changes, drifts = OTHERS[name]
    looks = Looks(world, REPAIR)
    looks.others(*changes)
    outcome = looks.look()
    assert outcome.converged
    assert list(outcome.drifts) == drifts
    assert world.kernel.table.entries[WEB] == VirtualEntry(RR, {A: NAT, B: NAT})
    assert looks.look().drifts == ()


@pytest.mark.parametrize("name", OTHERS)
def test_reported_drift_stays_and_is_told_at_every_look(world: World, name: str) -> None:
    changes, drifts = OTHERS[name]
    looks = Looks(world, REPORT)
    looks.others(*changes)
    left, world.kernel.writes = world.kernel.table, 0
    for _ in range(3):
        outcome = looks.look()
        assert (outcome.converged, outcome.steps) == (True, ())
        assert list(outcome.drifts) == [replace(drift, kept=True) for drift in drifts]
    assert (world.kernel.table, world.kernel.writes) == (left, 0)
    looks.agreed = None  # an apply
    looks.look()
    assert world.kernel.table.entries[WEB] == VirtualEntry(RR, {A: NAT, B: NAT})
    assert looks.look().drifts == ()


def test_reported_drift_gives_way_where_ours_changes(world: World) -> None:
    looks = Looks(world, REPORT)
    looks.others(LOWERED, EditReal(WEB, B, NAT, RealRow(Forward.NAT, 7)))
    looks.look()
    outcome = looks.look(a=50)
    assert looks.reals() == {A: RealRow(Forward.NAT, 50), B: RealRow(Forward.NAT, 7)}
    assert {(drift.real, drift.kept) for drift in outcome.drifts} == {(A, False), (B, True)}
    assert [drift.real for drift in looks.look(a=50).drifts] == [B]
    looks.look()
    assert looks.reals()[A] == NAT


def test_drift_that_others_undo_is_none(world: World) -> None:
    looks = Looks(world, REPORT)
    looks.others(LOWERED)
    assert looks.look().drifts
    looks.others(EditReal(WEB, A, LOWERED.row, NAT))
    assert looks.look().drifts == ()


def test_timeouts_are_put_right_where_the_file_names_them(world: World) -> None:
    looks = Looks(world, parse_config("timeouts: {tcp: 10m}\n" + FILE.replace("ON_DRIFT", "report"), "f"))
    named, other = Timeouts(600, 120, 300), Timeouts(60, 120, 300)
    looks.others(SetTimeouts(named, other))
    assert looks.look().drifts == (Drift(None, None, named, other),)
    assert world.kernel.table.timeouts == named
    without = Looks(world, REPORT)
    without.others(SetTimeouts(named, TIMEOUTS))
    assert without.look().drifts == ()


def test_our_own_changes_are_no_drift_whichever_of_them_fail(world: World) -> None:
    write = world.kernel.write

    def every_other(changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        return [*write(changes[::2]), *(failure(change, errno.ENOMEM) for change in changes[1::2])]

    looks = Looks(world, REPORT)
    world.kernel.write = every_other  # type: ignore[method-assign] # a kernel with little memory, in one line
    assert looks.look(a=1, b=2).drifts == ()
    assert looks.look(a=3, b=4).drifts == ()
    world.kernel.write = write  # type: ignore[method-assign]
    outcome = looks.look(a=5, b=6)
    assert (outcome.drifts, outcome.converged) == ((), True)
    assert looks.reals() == {A: RealRow(Forward.NAT, 5), B: RealRow(Forward.NAT, 6)}


def test_a_server_that_drains_for_another_method_is_no_drift(world: World) -> None:
    looks = Looks(world, REPAIR)
    world.kernel.carried = {(WEB, real): RealCounters(active=1) for real in (A, B)}
    looks.config, looks.agreed = parse_config(FILE.replace("nat", "dr").replace("ON_DRIFT", "repair"), "f"), None
    outcome = looks.look()
    assert {row.weight for row in looks.reals().values()} == {0, 100}, "one drains, the other serves meanwhile"
    assert outcome.drifts == ()
    assert looks.look().drifts == ()


def test_drift_that_cannot_be_put_right_is_told_once(world: World) -> None:
    looks = Looks(world, REPAIR)
    looks.others(LOWERED)
    world.kernel.write = lambda changes: [failure(change, errno.ENOMEM) for change in changes]  # type: ignore[method-assign] # in one line
    assert [drift.real for drift in looks.look().drifts] == [A]
    again = looks.look()
    assert again.drifts == ()
    assert again.failures, "it is tried again, and is a failure now"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from((REPAIR, REPORT)))
def test_it_ends_whatever_others_and_checks_do(world: World, data: st.DataObject, config: Config) -> None:
    world.kernel.table = Table()
    looks = Looks(world, config)
    rows = st.builds(RealRow, st.just(Forward.NAT), st.sampled_from((0, 3, 100)))
    entries = st.builds(VirtualEntry, st.sampled_from((RR, LC)), st.dictionaries(st.sampled_from((A, B, C)), rows))
    weights = st.sampled_from((100, 3, 0))
    wished = (100, 100)
    for _ in range(3):
        if data.draw(st.booleans()):
            found = data.draw(st.one_of(st.none(), entries))
            world.kernel.table = Table({} if found is None else {WEB: found})
        else:
            wished = data.draw(weights), data.draw(weights)
        assert looks.look(a=wished[0], b=wished[1]).converged
        world.kernel.writes = 0
        again = looks.look(a=wished[0], b=wished[1])
        assert (again.converged, again.steps, world.kernel.writes) == (True, (), 0)
        assert all(drift.kept for drift in again.drifts)
        if config is REPAIR:
            assert world.kernel.table.entries[WEB].reals[A].weight == wished[0]
    looks.agreed = None
    looks.look(a=wished[0], b=wished[1])
    assert {real: row.weight for real, row in looks.reals().items()} == {A: wished[0], B: wished[1]}


def test_the_log_tells_each_change_once_and_that_it_is_gone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "director.driftlog")
    log, looks = DriftLog(), Looks(world, REPORT)
    looks.others(LOWERED)
    for _ in range(3):
        log.tell(looks.look().drifts, REPORT)
    (told,) = caplog.records
    assert (told.levelname, told.getMessage()) == ("WARNING", "drift, left as it is")
    fields = {key: vars(told)[key] for key in ("vs", "rs", "was", "is")}
    assert fields == {
        "vs": "web",
        "rs": "a",
        "was": "nat, weight 100",
        "is": "nat, weight 3, at most 50 connections",
    }
    looks.others(EditReal(WEB, A, LOWERED.row, NAT))
    log.tell(looks.look().drifts, REPORT)
    assert caplog.records[1].getMessage() == "drift is gone"
    assert log.repaired == {}
    repairing = Looks(world, REPAIR)
    repairing.others(LOWERED, RemoveReal(WEB, B, NAT))
    log.tell(repairing.look().drifts, REPAIR)
    assert [record.getMessage() for record in caplog.records[2:]] == ["drift, put right"] * 2
    assert log.repaired == {"web": 2}


def test_an_exclusive_table_has_nothing_but_what_is_declared(world: World) -> None:
    world.kernel.table = Table({STRANGER: VirtualEntry(LC, {C: NAT})})
    Looks(world, REPORT)
    assert set(world.kernel.table.entries) == {STRANGER, WEB}
    looks = Looks(world, EXCLUSIVE)
    assert set(world.kernel.table.entries) == {WEB}
    looks.others(AddVirtual(STRANGER, LC))
    outcome = looks.look()
    assert [str(step) for step in outcome.steps] == ["- virtual server tcp 198.51.100.1:80: with 0 real servers"]
    assert set(world.kernel.table.entries) == {WEB}


def test_what_stands_in_the_way_is_told_once_and_all_else_is_made(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.kernel.foreign = (Foreign(f"{WEB} -> {B}", "its tunnel is type 9", WEB, B),)
    looks = Looks(world, REPAIR)
    world.kernel.writes = 0
    outcome = looks.look()
    assert not outcome.converged
    assert looks.reals() == {A: NAT}
    (failure,) = outcome.failures
    assert failure.startswith("real server web/b (10.0.0.2:80) cannot be made: the kernel holds it in a form that")
    assert world.kernel.writes == 0, "nothing is tried that cannot succeed"
    assert len([record for record in caplog.records if record.getMessage() == "could not change"]) == 1
    world.kernel.foreign = ()
    assert looks.look().converged
    assert looks.reals() == {A: NAT, B: NAT}


def test_a_virtual_server_that_stands_in_the_way_is_told_by_its_name(world: World) -> None:
    world.kernel.foreign = (Foreign(str(WEB), "its persistence mask has holes", WEB),)
    looks = Looks(world, EXCLUSIVE)
    assert WEB not in world.kernel.table.entries
    (failure,) = looks.look().failures
    assert "`ipvsadm -D -t 192.0.2.10:80`" in failure
