"""An apply without a director, on a fake kernel: all of it or nothing, wherever it ends."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import sleep

import pytest

from director.core.before import Before
from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import AddReal, AddVirtual, Change, apply
from director.core.model import Config
from director.core.table import Forward, RealCounters, RealRow, Table, VirtualEntry, VirtualRow
from director.core.vip import Vip
from director.ipvs.failure import Failure
from director.journal import Journal
from director.kit.errors import KernelError
from director.memory import Memory, Owned
from director.once import Once, inputs_once, undo
from director.reconcile import Reconciler
from director.terms import Inputs
from director.undertaking import NotAppliedError, begin
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses

pytestmark = pytest.mark.unit

OLD = """
defaults: {interface: eth0, check: {type: tcp}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, weight: 7}
      c: {address: 10.0.0.3}
  tls:
    address: 192.0.2.11
    port: 443
    forward: dr
    real_servers:
      a: {address: 10.0.0.1}
"""
NEW = """
defaults: {interface: eth0, check: {type: tcp}}
timeouts: {tcp: 10m, tcpfin: 1m, udp: 2m}
sync: {master: {interface: lan, maxlen: 1400}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: dr
    scheduler: lc
    real_servers:
      a: {address: 10.0.0.1, weight: 50}
      d: {address: 10.0.0.4}
  dns:
    address: 192.0.2.12
    port: 53
    forward: nat
    real_servers:
      a: {address: 10.0.0.1, port: 5353}
  mail:
    address: 192.0.2.13
    port: 25
    forward: nat
    real_servers:
      a: {address: 10.0.0.5}
"""
OLD_CONFIG, NEW_CONFIG = parse_config(OLD, "old"), parse_config(NEW, "new")
(WEB,), (TLS,) = (virtual.keys for virtual in OLD_CONFIG.virtual_servers)
(MAIL,) = NEW_CONFIG.virtual_servers[2].keys
A, B, C = (place.endpoint for place in OLD_CONFIG.virtual_servers[0].placements)
MAIL_VIP = Vip(NEW_CONFIG.virtual_servers[2].vips[0].address, "eth0")
FOREIGN = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})
BUSY = {(WEB, B): RealCounters(3, 1)}


class _DeathError(BaseException):
    """The process ends here."""


class MortalKernel(FakeKernel):
    """Dies after so many messages; `counts` a message, also one that is about an address."""

    lives = 10**9

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        made = super().write(changes[: self.lives])
        for _ in changes:
            self.counts()
        return made

    def counts(self, _: str = "") -> None:
        self.lives -= 1
        if self.lives <= 0:
            raise _DeathError


class World:
    """A host that has OLD applied, and beside it what somebody else made at the place of NEW's `mail`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = MortalKernel()
        self.addresses = FakeAddresses(self.kernel.counts)
        self.begin()
        self.apply(OLD_CONFIG)
        self.kernel.table = apply(
            [AddVirtual(MAIL, FOREIGN.row), *(AddReal(MAIL, real, row) for real, row in FOREIGN.reals.items())],
            self.kernel.table,
        )
        self.addresses.held.add(MAIL_VIP)
        self.before = self.seen()

    def begin(self) -> None:
        """A process that knows nothing but what is on disk."""
        self.memory, self.journal = Memory(self.directory), Journal(self.directory)
        self.reconciler = Reconciler(self.kernel, self.addresses, self.memory)

    def once(self, config: Config = NEW_CONFIG) -> Once:
        left, table = self.journal.load(), self.reconciler.read_table()
        return Once(
            *(self.reconciler, self.journal, inputs_once(config, left.before.over(table) if left else table, {})),
            *("new", NEW),
        )

    def apply(self, config: Config = NEW_CONFIG) -> None:
        once = self.once(config)
        once.change()
        once.remove()

    def seen(self) -> tuple[Table, frozenset[Vip], Owned]:
        return self.kernel.read()[0], frozenset(self.addresses.held), Memory(self.directory).load()

    def has(self, config: Config) -> bool:
        """All of `config`, and nothing of the other one."""
        wanted = desired_table(config, Inputs(config).weights()).entries
        others = {} if config is NEW_CONFIG else {MAIL: FOREIGN}
        vips = {*config.vips(), MAIL_VIP}
        found = self.kernel.read()[0]
        agrees = config.timeouts in {None, found.timeouts} and config.sync in {None, found.sync}
        return found.entries == {**wanted, **others} and self.addresses.held == vips and agrees


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


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
            except _DeathError:
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
                    with suppress(_DeathError):
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
    with pytest.raises(_DeathError):
        world.apply()
    world.kernel.lives = 10**9
    assert world.seen() != world.before
    world.begin()
    world.addresses.broken = {NEW_CONFIG.vips()[1]}
    with pytest.raises(NotAppliedError, match="what was there before is back"):
        world.apply()
    assert world.seen() == world.before


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
