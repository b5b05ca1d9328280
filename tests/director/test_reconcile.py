"""The reconciler on a fake kernel: what the table, the addresses and the memory are afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.desired import adopted_weights, desired_table
from director.core.diff import AddReal, AddVirtual, Change, RemoveVirtual, apply
from director.core.model import Config, ServerRef
from director.core.table import (
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    Table,
    TableCounters,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.core.weight import Wish
from director.host.sysctl import Epoch
from director.ipvs.failure import Failure
from director.kit.errors import DirectorError, HostError, KernelError
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.memory import Memory, Owned
from director.reconcile import PASSES, Reconciler
from director.terms import Inputs, Outcome
from director.undertaking import planned
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses

pytestmark = pytest.mark.unit

FILE = """
defaults: {check: {type: tcp}, interface: eth0}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
  tls:
    address: 192.0.2.11
    port: 443
    forward: dr
    real_servers:
      a: {address: 10.0.0.1}
"""
CONFIG = parse_config(FILE, "f")
WEB_ONLY = parse_config(FILE[: FILE.index("  tls:")], "f")
WEB, TLS = (virtual.keys[0] for virtual in CONFIG.virtual_servers)
WEB_VIP, TLS_VIP = CONFIG.vips()
A, B = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2))
FOREIGN = VirtualKey.of(Protocol.TCP, ip_address("198.51.100.1"), 80)
BOTH = frozenset({"web", "tls"})
UP = HealthState(Status.UP, last=ProbeResult(True, "connected"))
DOWN = HealthState(Status.DOWN, last=ProbeResult(False, "refused"))


class World:
    """A kernel, its addresses and the director's memory on disk; `begin` is a director that starts anew."""

    def __init__(self, directory: Path, table: Table | None = None) -> None:
        self.directory = directory
        self.events: list[str] = []
        self.kernel = FakeKernel(table)
        self.addresses = FakeAddresses(self.events.append)
        self.kernel.before_write = lambda: self.events.append("write")
        self.announced: list[Vip] = []
        self.begin()

    def begin(self) -> None:
        self.memory = Memory(self.directory)
        self.reconciler = Reconciler(self.kernel, self.addresses, self.memory, self.announced.append)

    def run(self, inputs: Inputs) -> Outcome:
        return self.reconciler.reconcile(inputs)

    def on_disk(self) -> Owned:
        return Memory(self.directory).load()

    def weights(self, key: VirtualKey = WEB) -> dict[Endpoint, int]:
        return {real: row.weight for real, row in self.kernel.table.entries[key].reals.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def inputs(config: Config = CONFIG, ready: frozenset[str] = BOTH) -> Inputs:
    return Inputs(config, ready=ready)


def wanted(config: Config = CONFIG) -> Table:
    return desired_table(config, Inputs(config).weights())


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


def test_an_address_comes_last_and_goes_first(world: World) -> None:
    world.run(inputs())
    assert world.events == ["write", f"add {WEB_VIP}", f"add {TLS_VIP}"]
    world.events.clear()
    world.run(inputs(WEB_ONLY))
    assert world.events == [f"remove {TLS_VIP}", "write"]


def test_an_address_waits_until_its_virtual_server_is_ready(world: World) -> None:
    outcome = world.run(inputs(ready=frozenset({"tls"})))
    assert outcome.converged
    assert world.addresses.held == {TLS_VIP}
    plan = world.reconciler.plan(inputs(ready=frozenset()), outcome.observed)
    assert plan.waiting == (WEB_VIP,)
    world.run(inputs())
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_a_shared_address_waits_for_all_who_use_it(world: World) -> None:
    config = parse_config(FILE.replace("192.0.2.11", "192.0.2.10"), "f")
    world.run(inputs(config, frozenset({"web"})))
    assert not world.addresses.held
    world.run(inputs(config))
    assert world.addresses.held == {WEB_VIP}


def test_an_address_once_raised_stays_when_its_virtual_server_waits_again(world: World) -> None:
    world.run(inputs())
    world.run(inputs(ready=frozenset()))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_an_address_that_moves_leaves_its_old_interface_last(world: World) -> None:
    world.run(inputs())
    moved = parse_config(FILE.replace("interface: eth0", "interface: eth1"), "f")
    web, tls = moved.vips()
    world.addresses.broken = {web}
    world.run(inputs(moved, ready=frozenset()))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}, "it waits for verdicts"
    outcome = world.run(inputs(moved))
    assert outcome.failures == (f"could not add {web}",)
    assert world.addresses.held == {WEB_VIP, tls}, "an interface that is not there stops nothing"
    assert [str(step) for step in outcome.steps] == [f"+ address {tls}", f"- address {TLS_VIP}"]
    world.addresses.broken.clear()
    assert world.run(inputs(moved)).converged
    assert world.addresses.held == {web, tls}
    assert world.on_disk().vips == {web, tls}


def test_an_address_that_was_there_before_us_is_not_taken_away(world: World) -> None:
    world.addresses.held = {TLS_VIP}
    world.run(inputs())
    world.run(inputs(WEB_ONLY))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}
    assert TLS not in world.kernel.table.entries


def test_an_address_that_somebody_adds_while_we_do_is_not_ours(world: World) -> None:
    def race() -> None:
        world.addresses.held.add(TLS_VIP)

    world.kernel.before_write = race
    world.run(inputs())
    assert world.on_disk().vips == {WEB_VIP}


def test_an_address_that_could_not_be_added_is_not_ours_when_somebody_else_adds_it(world: World) -> None:
    world.addresses.broken = {TLS_VIP}
    world.run(inputs())
    assert world.on_disk().vips == {WEB_VIP}
    world.addresses.broken.clear()
    world.addresses.held.add(TLS_VIP)
    world.run(inputs())
    world.run(inputs(WEB_ONLY))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_an_address_of_what_could_not_be_made_is_not_ours(world: World) -> None:
    broken = replace(CONFIG.virtual_servers[0], row=VirtualRow("nosuch"))
    world.run(inputs(replace(CONFIG, virtual_servers=(broken, CONFIG.virtual_servers[1]))))
    assert world.on_disk().vips == {TLS_VIP}


def test_an_address_of_ours_that_went_while_it_waits_is_not_ours_any_more(world: World) -> None:
    world.run(inputs())
    world.addresses.held.discard(WEB_VIP)
    world.run(inputs(ready=frozenset({"tls"})))
    assert world.on_disk().vips == {TLS_VIP}


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


def test_one_virtual_servers_failure_does_not_stop_the_others(world: World) -> None:
    broken = replace(CONFIG.virtual_servers[0], row=VirtualRow("nosuch"))
    config = replace(CONFIG, virtual_servers=(broken, CONFIG.virtual_servers[1]))
    outcome = world.run(inputs(config))
    assert not outcome.converged
    (failure,) = outcome.failures
    assert "scheduler 'nosuch' is not in this kernel" in failure
    assert world.kernel.table.entries.keys() == {TLS}
    assert world.addresses.held == {TLS_VIP}, "no address for what nobody would answer"
    assert [step for step in outcome.steps if "web" in step.subject] == []


def test_one_that_shares_its_address_with_a_failed_one_is_served(world: World) -> None:
    config = parse_config(FILE.replace("192.0.2.11", "192.0.2.10"), "f")
    broken = replace(config.virtual_servers[0], row=VirtualRow("nosuch"))
    outcome = world.run(inputs(replace(config, virtual_servers=(broken, config.virtual_servers[1]))))
    assert len(outcome.failures) == 1
    assert world.addresses.held == {WEB_VIP}


def test_an_address_that_cannot_be_added_does_not_stop_the_rest(world: World) -> None:
    world.addresses.broken = {WEB_VIP}
    outcome = world.run(inputs())
    assert outcome.failures == (f"could not add {WEB_VIP}",)
    assert world.kernel.table == wanted()
    assert world.addresses.held == {TLS_VIP}
    assert world.kernel.writes == 1, "nothing stale: the next try is the caller's"
    world.addresses.broken.clear()
    assert world.run(inputs()).converged


def test_an_address_that_cannot_be_removed_stays_remembered(world: World) -> None:
    world.run(inputs())
    world.addresses.broken = {TLS_VIP}
    assert world.run(inputs(WEB_ONLY)).failures == (f"could not remove {TLS_VIP}",)
    world.begin()
    world.addresses.broken.clear()
    assert world.run(inputs(WEB_ONLY)).converged
    assert world.addresses.held == {WEB_VIP}


def test_a_stale_refusal_means_read_again(world: World) -> None:
    def somebody_is_faster() -> None:
        world.kernel.before_write = lambda: None
        world.kernel.table = apply([AddVirtual(WEB, VirtualRow("lc"))], world.kernel.table)

    world.kernel.before_write = somebody_is_faster
    outcome = world.run(inputs())
    assert (outcome.converged, outcome.failures) == (True, ())
    assert world.kernel.table == wanted()
    assert world.kernel.writes == 2


def test_a_stale_refusal_is_settled_beside_one_that_lasts(world: World) -> None:
    world.run(inputs())
    gone = RemoveVirtual(TLS, world.kernel.table.entries[TLS])

    def somebody_is_faster() -> None:
        world.kernel.before_write = lambda: None
        world.kernel.table = apply([gone], world.kernel.table)

    world.kernel.before_write = somebody_is_faster
    broken = replace(CONFIG.virtual_servers[0], row=VirtualRow("nosuch"))
    config = replace(CONFIG, virtual_servers=(broken, CONFIG.virtual_servers[1]))
    outcome = world.run(replace(inputs(config), health={ServerRef("tls", "a"): DOWN}))
    assert len(outcome.failures) == 1
    assert list(world.weights(TLS).values()) == [0]


def test_a_table_that_keeps_changing_is_told_after_three_passes(world: World) -> None:
    world.run(inputs())
    world.kernel.writes = 0

    def undone_after_every_write(changes: Iterable[Change]) -> list[Failure]:
        failures = FakeKernel.write(world.kernel, changes)
        world.kernel.table = apply([RemoveVirtual(WEB, world.kernel.table.entries[WEB])], world.kernel.table)
        return failures

    world.kernel.write = undone_after_every_write  # type: ignore[method-assign] # another program, in one line
    world.kernel.table = Table({TLS: world.kernel.table.entries[TLS]})
    outcome = world.run(inputs())
    assert world.kernel.writes == PASSES == 3
    assert outcome.failures == ("the table keeps changing under us: is another program writing it?",)


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def logged() -> list[tuple[str, object]]:
        found = [(record.getMessage(), getattr(record, "reason", "")) for record in caplog.records]
        caplog.clear()
        return [entry for entry in found if entry[0] != "changed"]

    caplog.set_level(logging.INFO)
    world.addresses.broken = {WEB_VIP}
    world.run(inputs())
    assert logged() == [("could not change", f"could not add {WEB_VIP}")]
    world.run(inputs())
    assert logged() == []
    world.addresses.broken = set()
    world.run(inputs())
    assert logged() == [("the kernel agrees again", "")]


class _DeathError(Exception):
    """The process ends here."""


class _Mortal(FakeKernel):
    """Dies at the call whose number `lives` is, half of its changes made."""

    lives = 10**9

    def read(self) -> tuple[Table, TableCounters]:
        self.live()
        return super().read()

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        if self.lives == 1:
            super().write(changes[: len(changes) // 2])
        self.live()
        return super().write(changes)

    def live(self, _: str = "") -> None:
        self.lives -= 1
        if self.lives == 0:
            raise _DeathError


@pytest.mark.parametrize("death", range(1, 12))
def test_a_death_at_any_call_leaves_nothing_that_the_next_start_does_not_settle(tmp_path: Path, death: int) -> None:
    old = parse_config(FILE.replace("192.0.2.11", "192.0.2.12").replace("10.0.0.2}", "10.0.0.9}"), "f")
    world = World(tmp_path)
    world.kernel = _Mortal()
    world.begin()
    world.run(inputs(old))
    world.kernel.lives = death
    world.addresses.log = world.kernel.live
    died = 0
    try:
        world.run(inputs())
    except _DeathError:
        died = 1
    world.kernel.lives = 10**9
    world.begin()
    assert world.run(inputs()).converged
    assert world.kernel.table == wanted()
    assert world.addresses.held == {WEB_VIP, TLS_VIP}
    assert world.on_disk() == Owned(frozenset({WEB, TLS}), frozenset({WEB_VIP, TLS_VIP}))
    assert died or death > 5, "each of the calls was tried"


def _lost_kernel() -> None:
    raise KernelError("no answer")


def _lost_host() -> None:
    raise HostError("no answer")


@pytest.mark.parametrize("lost", [_lost_kernel, _lost_host])
def test_a_kernel_that_does_not_answer_is_the_callers_to_hear(world: World, lost: Callable[[], None]) -> None:
    world.kernel.before_write = lost
    with pytest.raises(DirectorError, match="no answer"):
        world.run(inputs())
    world.kernel.before_write = lambda: None
    assert world.run(inputs()).converged


def test_an_interface_that_does_not_exist_is_told_once_and_not_for_each_address(world: World) -> None:
    world.addresses.absent = {"eth0"}
    asked = inputs()
    shown = planned(world.reconciler, asked, world.reconciler.observe(CONFIG))
    assert shown.failures == ("interface eth0 does not exist",)
    outcome = world.run(asked)
    assert outcome.failures == ("interface eth0 does not exist",)
    assert world.addresses.held == set()
    assert world.on_disk().vips == frozenset()
    world.addresses.absent = set()
    assert world.run(asked).converged
    assert world.addresses.held == {WEB_VIP, TLS_VIP}
