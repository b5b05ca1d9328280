"""The reconciler on a fake kernel that refuses, changes under it, does not answer, or sees it die."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.diff import AddVirtual, Change, RemoveVirtual, apply
from director.core.model import ServerRef
from director.core.table import Table, TableCounters, VirtualRow
from director.ipvs.failure import Failure
from director.kit.errors import DirectorError, HostError, KernelError
from director.memory import Owned
from director.reconcile import PASSES
from tests.contract.fake_kernel import FakeKernel
from tests.director.reconcile.world import CONFIG, DOWN, FILE, TLS, TLS_VIP, WEB, WEB_VIP, World, inputs, wanted

pytestmark = pytest.mark.unit


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
