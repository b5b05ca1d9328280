"""The reconciler on a fake kernel: what the table and the memory are afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.desired import adopted_weights
from director.core.diff import AddReal, AddVirtual, Change, apply
from director.core.model import ServerRef
from director.core.table import Forward, Protocol, RealCounters, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.core.weight import Wish
from director.host.sysctl import Epoch
from director.ipvs.failure import Failure
from director.kit.errors import HostError
from director.memory import Memory, Owned
from director.reconcile import Reconciler
from tests.director.reconcile.world import (
    CONFIG,
    DOWN,
    FILE,
    TLS,
    TLS_VIP,
    UP,
    WEB,
    WEB_ONLY,
    WEB_VIP,
    A,
    B,
    World,
    inputs,
    wanted,
)

pytestmark = pytest.mark.unit

FOREIGN = VirtualKey.of(Protocol.TCP, ip_address("198.51.100.1"), 80)


def test_an_empty_kernel_gets_everything_and_a_second_run_does_nothing(world: World) -> None:
    outcome = world.run(inputs())
    assert outcome.converged
    assert world.kernel.table == wanted()
    assert outcome.observed.table.entries == wanted().entries
    assert world.addresses.held == outcome.observed.vips == {WEB_VIP, TLS_VIP}
    assert world.announced == [WEB_VIP, TLS_VIP]
    assert [str(step) for step in outcome.steps][-1] == "+ address 192.0.2.11 on eth0"
    world.events.clear()
    again = world.run(inputs())
    assert (again.converged, again.steps, world.events) == (True, (), [])


def test_what_is_there_is_adopted_without_a_change(tmp_path: Path) -> None:
    world = World(tmp_path, wanted())
    world.addresses.held = {WEB_VIP, TLS_VIP}
    outcome = world.run(inputs())
    assert (outcome.converged, outcome.steps, world.events) == (True, (), [])
    assert world.on_disk() == Owned(frozenset({WEB, TLS}), frozenset()), "the table is ours now, the addresses are not"


def test_before_a_verdict_the_kernels_weight_stays(tmp_path: Path) -> None:
    entry = VirtualEntry(VirtualRow("rr"), {A: RealRow(Forward.NAT, 0)})
    world = World(tmp_path, Table({WEB: entry}))
    asked = replace(inputs(), adopted=adopted_weights(CONFIG, world.reconciler.read_table()))
    world.run(asked)
    assert world.weights() == {A: 0, B: 100}
    world.run(replace(asked, health={ServerRef("web", "a"): UP}))
    assert world.weights() == {A: 100, B: 100}


def test_health_and_wishes_reach_the_table(world: World) -> None:
    asked = replace(
        inputs(),
        health={ServerRef("web", "a"): DOWN, ServerRef("web", "b"): UP},
        wishes={ServerRef("web", "b"): Wish(weight=7)},
    )
    world.run(asked)
    assert world.weights() == {A: 0, B: 7}


def test_what_is_ours_and_no_longer_declared_goes_and_what_is_others_stays(world: World) -> None:
    other = VirtualEntry(VirtualRow("wlc"), {A: RealRow(Forward.TUN, 5)})
    world.run(inputs())
    world.kernel.table = apply([AddVirtual(FOREIGN, other.row), *_reals(FOREIGN, other)], world.kernel.table)
    world.begin()
    outcome = world.run(inputs(WEB_ONLY))
    assert world.kernel.table.entries == {**wanted(WEB_ONLY).entries, FOREIGN: other}
    assert world.addresses.held == {WEB_VIP}
    assert [step.sign for step in outcome.steps] == ["-", "-"]
    assert world.on_disk() == Owned(frozenset({WEB}), frozenset({WEB_VIP}))


def _reals(key: VirtualKey, entry: VirtualEntry) -> list[Change]:
    return [AddReal(key, real, row) for real, row in entry.reals.items()]


AS_DR = parse_config(FILE.replace("forward: nat", "forward: dr"), "f")


def test_another_method_without_connections_is_one_call(world: World) -> None:
    world.run(inputs())
    outcome = world.run(inputs(AS_DR))
    assert (outcome.converged, outcome.waiting) == (True, ())
    assert world.kernel.table == wanted(AS_DR)


def test_another_method_waits_for_connections_and_somebody_serves(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.run(inputs())
    world.kernel.carried = {(WEB, A): RealCounters(2, 1), (WEB, B): RealCounters(4, 1)}
    outcome = world.run(inputs(AS_DR))
    nat = RealRow(Forward.NAT, 100)
    assert world.kernel.table.entries[WEB].reals == {A: replace(nat, weight=0), B: nat}
    assert (outcome.converged, outcome.failures) == (False, ())
    assert outcome.waiting[0] == "waiting for 3 connections of web/a under nat to end before it changes to dr"
    (step,) = outcome.steps
    assert step.detail.startswith("nat -> dr drains it first: its 3 connections end")
    again = world.run(inputs(AS_DR))
    assert (again.steps, len(again.waiting)) == ((), 2)
    del world.kernel.carried[WEB, A]
    world.begin()  # it remembers nothing: what is, decides
    world.run(inputs(AS_DR))
    assert world.kernel.table.entries[WEB].reals == {A: replace(nat, forward=Forward.DR), B: replace(nat, weight=0)}
    world.kernel.carried.clear()
    assert world.run(inputs(AS_DR)).converged
    assert world.kernel.table == wanted(AS_DR)
    assert len([record for record in caplog.records if record.getMessage() == "not changed yet"]) == 3


def test_maglevs_table_is_that_of_a_server_lowered_later(world: World) -> None:
    config = parse_config(FILE.replace("scheduler: rr", "scheduler: mh"), "f")
    seen: list[Change] = []
    write = world.kernel.write

    def watched(changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        seen.extend(changes)
        return write(changes)

    world.kernel.write = watched  # type: ignore[method-assign] # to see the order
    wishes = {ServerRef("web", "a"): Wish(drain=True), ServerRef("web", "b"): Wish(drain=True, weight=7)}
    outcome = world.run(replace(inputs(config), wishes=wishes))
    assert [
        (change.real, change.row.weight) for change in seen if isinstance(change, AddReal) and change.key == WEB
    ] == [
        (A, 100),
        (B, 7),
    ]
    assert world.weights() == {A: 0, B: 0}
    assert [str(step) for step in outcome.steps if "web/" in step.subject] == [
        "+ real server web/a (10.0.0.1:80): nat, weight 0 (drained by the operator)",
        "+ real server web/b (10.0.0.2:80): nat, weight 0 (drained by the operator)",
    ]


def test_it_is_remembered_before_it_is_made(world: World) -> None:
    seen: list[Owned] = []
    world.kernel.before_write = lambda: seen.append(world.on_disk())
    world.run(inputs())
    assert seen == [Owned(frozenset({WEB, TLS}), frozenset({WEB_VIP, TLS_VIP}))]


def test_nothing_is_made_when_it_cannot_be_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    world = World(tmp_path / "file" / "state")
    with pytest.raises(HostError):
        world.run(inputs())
    assert world.events == []


def test_memory_is_written_only_when_it_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saves: list[object] = []
    world.run(inputs())
    monkeypatch.setattr("director.kit.statefile.save", lambda *what: saves.append(what))
    world.run(inputs())
    world.run(replace(inputs(), health={ServerRef("web", "a"): DOWN}))
    assert saves == []


def test_what_was_ours_in_another_boot_is_not_ours_now(world: World) -> None:
    world.run(inputs())
    rebooted = Memory(world.directory, lambda: Epoch("another", 1))
    reconciler = Reconciler(world.kernel, world.addresses, rebooted)
    reconciler.reconcile(inputs(WEB_ONLY))
    assert TLS in world.kernel.table.entries
    assert TLS_VIP in world.addresses.held
