"""An apply without a director, on a fake kernel: all of it or nothing, wherever it ends."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from director.core.before import Before
from director.core.config import parse_config
from director.core.table import Forward, RealRow, Table, VirtualEntry, VirtualRow
from director.journal import Journal
from director.kit.errors import KernelError
from director.once import inputs_once, undo
from director.terms import Inputs
from director.undertaking import NotAppliedError, begin
from tests.director.once.world import (
    BUSY,
    MAIL,
    MAIL_VIP,
    NEW,
    NEW_CONFIG,
    OLD,
    OLD_CONFIG,
    TLS,
    WEB,
    A,
    B,
    C,
    DeathError,
    World,
)

pytestmark = pytest.mark.unit


def test_it_ends_as_the_file_says_and_leaves_no_journal(world: World) -> None:
    world.apply()
    assert world.has(NEW_CONFIG)
    assert world.journal.load() is None
    world.apply(OLD_CONFIG)
    assert {MAIL}.isdisjoint(world.kernel.table.entries), "it became ours with the file that declared it"


def test_nothing_is_removed_before_all_else_agrees(world: World) -> None:
    once = world.once()
    changed = once.change()
    assert [step.subject for step in changed.later if step.sign == "-"] == [
        "address 192.0.2.11 on eth0",
        "real server web/10.0.0.2:80",
        "real server web/10.0.0.3:80",
        "real server mail/10.0.0.2:80",
        f"virtual server {TLS}",
    ]
    reals = world.kernel.table.entries[WEB].reals
    assert [reals[real].weight for real in (B, C)] == [0, 0]
    assert reals[A] == RealRow(Forward.NAT, 50), "another method cannot be undone either"
    assert [row.weight for row in world.kernel.table.entries[TLS].reals.values()] == [0]
    assert set(OLD_CONFIG.vips()) <= world.addresses.held
    assert not [step for step in changed.steps if "weight 7" in str(step)], "what leaves is told when it goes"
    once.undo()
    assert world.seen() == world.before


def test_without_a_change_nothing_is_written_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "save", lambda *_: pytest.fail("there is nothing to put back"))
    world.apply(OLD_CONFIG)
    assert world.seen() == world.before


@pytest.mark.parametrize("fails", ["the table", "an address", "an address that goes", "the kernel's silence"])
def test_whatever_fails_everything_is_as_it_was(world: World, fails: str) -> None:
    world.kernel.carried = dict(BUSY)
    config = NEW_CONFIG
    told = f"could not add {NEW_CONFIG.vips()[1]}"
    if fails == "the table":
        web, dns, mail = config.virtual_servers
        config = replace(config, virtual_servers=(web, replace(dns, row=VirtualRow("nosuch")), mail))
        told = "scheduler 'nosuch' is not in this kernel"
    elif fails == "an address":
        world.addresses.broken = {NEW_CONFIG.vips()[1]}
    elif fails == "an address that goes":
        world.addresses.broken = {OLD_CONFIG.vips()[1]}
        told = f"could not remove {OLD_CONFIG.vips()[1]}"
    else:
        told = "no answer"
        world.kernel.before_write = iter(_silent_once(world)).__next__
    with pytest.raises(NotAppliedError) as caught:
        world.apply(config)
    lines = str(caught.value).splitlines()
    assert told in lines[0]
    assert lines[1:] == ["nothing of new is applied: what was there before is back"]
    assert world.seen() == world.before
    assert world.journal.load() is None


def _silent_once(world: World) -> Iterable[None]:
    yield
    yield
    world.kernel.before_write = lambda: None
    raise KernelError("no answer")


def test_what_cannot_be_put_back_is_told_and_the_journal_stays(world: World) -> None:
    writes = iter(range(100))

    def silent() -> None:
        if next(writes):
            raise KernelError("no answer")

    world.addresses.broken = {NEW_CONFIG.vips()[1]}
    world.kernel.before_write = silent
    with pytest.raises(NotAppliedError) as caught:
        world.apply()
    assert str(caught.value).splitlines()[-2:] == [
        "could not be put back: no answer",
        "new is not applied, and not all that was there before is back: `director undo` tries again",
    ]
    world.kernel.before_write = lambda: None
    left = world.journal.load()
    assert left is not None
    world.begin()
    undo(world.reconciler, world.journal, left, Inputs(NEW_CONFIG))
    assert world.seen() == world.before


def test_an_interruption_is_a_failure_like_another(world: World) -> None:
    def interrupted() -> None:
        world.kernel.before_write = lambda: None
        raise KeyboardInterrupt

    world.kernel.before_write = interrupted
    with pytest.raises(NotAppliedError, match="interrupted\nnothing of new is applied: what was there before is back"):
        world.apply()
    assert world.seen() == world.before


def test_a_death_after_any_message_converges_with_the_next_apply_and_can_be_undone(tmp_path: Path) -> None:
    deaths = 0
    for lives in count(1):
        ends: set[str] = set()
        for then in ("apply new", "apply old", "undo", "undo, cut short itself"):
            world = World(tmp_path / f"{lives} {then}")
            world.kernel.carried = dict(BUSY) if lives % 2 else {}
            world.kernel.lives = lives
            try:
                world.apply()
                ends.add("lived")
            except DeathError:
                ends.add("died")
            world.kernel.lives = 10**9
            world.begin()
            left = world.journal.load()
            if then.startswith("apply"):
                world.apply(NEW_CONFIG if then == "apply new" else OLD_CONFIG)
                assert world.has(NEW_CONFIG) if then == "apply new" else _is_old(world), (lives, then)
            elif left is not None:
                if "cut short" in then:
                    world.kernel.lives = 3
                    with suppress(DeathError):
                        undo(world.reconciler, world.journal, left, Inputs(NEW_CONFIG))
                    world.kernel.lives = 10**9
                    world.begin()
                undo(world.reconciler, world.journal, left, Inputs(NEW_CONFIG))
                assert world.seen() == world.before, (lives, then)
            assert world.journal.load() is None
        if ends == {"lived"}:
            break
        assert ends == {"died"}
        deaths += 1
    assert deaths > 15, "every message was tried"


def _is_old(world: World) -> bool:
    """As the old file says; a checked server that the dead one had lowered is not taken for one that is down."""
    table = {key: entry for key, entry in world.kernel.table.entries.items() if key != MAIL}
    return table == {key: entry for key, entry in world.before[0].entries.items() if key != MAIL}


def test_an_apply_that_follows_one_that_died_puts_back_what_that_one_found(world: World) -> None:
    world.kernel.lives = 4
    with pytest.raises(DeathError):
        world.apply()
    world.kernel.lives = 10**9
    assert world.seen() != world.before
    world.begin()
    world.addresses.broken = {NEW_CONFIG.vips()[1]}
    with pytest.raises(NotAppliedError, match="what was there before is back"):
        world.apply()
    assert world.seen() == world.before


def test_the_journal_holds_what_may_be_touched_and_no_more(world: World) -> None:
    stranger = VirtualEntry(VirtualRow("rr"))
    (key,) = parse_config(OLD.replace("443", "444"), "f").virtual_servers[1].keys
    world.kernel.table = Table({**world.kernel.table.entries, key: stranger})
    inputs = inputs_once(NEW_CONFIG, world.kernel.table, {})
    entry = begin(world.reconciler, world.journal, inputs, "new", NEW)
    keys = OLD_CONFIG.keys() | NEW_CONFIG.keys()
    vips = frozenset(OLD_CONFIG.vips())
    found = world.kernel.read()[0]
    table = replace(found, entries={each: found.entries[each] for each in (WEB, TLS, MAIL)})
    assert entry.before == Before(
        keys, table, vips | set(NEW_CONFIG.vips()), vips | {MAIL_VIP}, OLD_CONFIG.keys(), vips
    )
    assert world.journal.load() == entry
    everything = replace(inputs, config=replace(NEW_CONFIG, exclusive=True))
    assert begin(world.reconciler, world.journal, everything, "new", NEW).before.keys == keys | {key}


def test_a_plan_promises_no_verdict_that_nobody_will_give(world: World) -> None:
    told = {weight.reason for weight in inputs_once(OLD_CONFIG, Table(), {}).weights().values()}
    assert told == {""}
