"""An apply without a director that waits for the connections of what leaves."""

from __future__ import annotations

from collections.abc import Iterable
from time import sleep

import pytest

from director.core.table import RealCounters
from director.once import undo
from director.terms import Inputs
from director.undertaking import NotAppliedError
from tests.director.once.world import BUSY, NEW_CONFIG, WEB, B, World

pytestmark = pytest.mark.unit


def test_a_drain_waits_tells_and_removes(world: World) -> None:
    told: list[tuple[str, int]] = []
    left: list[float] = []

    def tell(who: Iterable[tuple[str, int]], left_s: float) -> None:
        told.extend(who)
        left.append(left_s)

    def wait(_: float) -> None:
        connections = world.kernel.carried.pop((WEB, B)).active - 1
        if connections:
            world.kernel.carried[WEB, B] = RealCounters(connections)

    world.kernel.carried = {(WEB, B): RealCounters(2)}
    once = world.once()
    once.change()
    applied = once.drain(60.0, tell, wait)
    assert told == [("web/10.0.0.2:80", 2), ("web/10.0.0.2:80", 1)]
    assert left.pop() == 0, "and nobody was cut"
    assert all(59 < left_s <= 60 for left_s in left)
    assert [step.sign for step in applied.steps].count("-") == 5
    assert world.has(NEW_CONFIG)


def test_a_drain_ends_at_its_deadline(world: World) -> None:
    world.kernel.carried = dict(BUSY)
    once = world.once()
    once.change()
    last: list[object] = []
    once.drain(0.05, lambda who, left_s: last.__setitem__(slice(None), [list(who), left_s]))
    assert last == [[("web/10.0.0.2:80", 4)], 0.0], "who was cut"
    assert world.has(NEW_CONFIG)
    assert world.journal.load() is None


def test_a_drain_that_is_interrupted_leaves_weight_0_and_the_journal(world: World) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    world.kernel.carried = dict(BUSY)
    once = world.once()
    once.change()
    with pytest.raises(KeyboardInterrupt):
        once.drain(60.0, lambda who, left_s: None, interrupted)
    assert world.kernel.table.entries[WEB].reals[B].weight == 0
    left = world.journal.load()
    assert left is not None
    undo(world.reconciler, world.journal, left, Inputs(NEW_CONFIG))
    assert world.seen() == world.before


def test_what_interrupts_the_deletions_after_a_drain_puts_all_back(world: World) -> None:
    once = world.once()
    once.change(drains=True)

    def interrupted() -> None:
        world.kernel.before_write = lambda: None
        raise KeyboardInterrupt

    def wait(seconds: float) -> None:
        sleep(seconds)
        world.kernel.before_write = interrupted

    world.kernel.carried = dict(BUSY)
    with pytest.raises(NotAppliedError, match="interrupted\nnothing of new is applied"):
        once.drain(0.05, lambda who, left_s: None, wait)
    assert world.seen() == world.before
    assert world.journal.load() is None


def test_what_is_to_come_asks_for_no_drain_where_one_follows(world: World) -> None:
    world.kernel.carried = dict(BUSY)
    once = world.once()
    assert "3 active connections would break; drain first?" in {step.effect for step in once.change().later}
    once.undo()
    once = world.once()
    assert {step.effect for step in once.change(drains=True).later if step.sign == "-"} == {""}
