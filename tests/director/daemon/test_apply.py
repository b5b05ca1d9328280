"""A running director that is given a file: what it answers, and that it is all or nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from director.core.config import parse_config
from director.core.table import Forward, RealCounters, RealRow, Table, VirtualEntry, VirtualRow
from director.journal import Journal
from director.kit.errors import ConfigError, DirectorError
from director.memory import Memory
from director.once import Once, inputs_once
from director.reconcile import Reconciler
from tests.director.daemon.world import BAD, FILE, MORE, OTHER_VIP, VIP, WEB, WITHOUT_B, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit


def test_apply_of_a_bad_file_is_refused_with_all_its_lines(world: World) -> None:
    async def story() -> None:
        writes = world.kernel.writes
        with pytest.raises(ConfigError) as caught:
            await world.ask(lambda client: client.apply(BAD, "/etc/x.yaml"))
        lines = str(caught.value).splitlines()
        assert len(lines) == 3
        assert all(line.startswith("/etc/x.yaml:1:") for line in lines)
        assert world.kernel.writes == writes
        with pytest.raises(ConfigError):
            await world.ask(lambda client: client.plan(BAD, "/etc/x.yaml"))
        assert (await world.status())["daemon"]["config"] == str(world.file)

    world.run(story)


def test_plan_says_what_apply_then_does(world: World) -> None:
    changed = FILE.replace("scheduler: rr", "scheduler: wlc").replace("      b: {address: 10.0.0.2}\n", "")
    changed = changed.replace("192.0.2.10", "192.0.2.20")

    async def story() -> None:
        before = world.kernel.table
        planned = await asyncio.to_thread(world.client.plan, changed, "g")
        assert world.kernel.table == before
        applied = await asyncio.to_thread(world.client.apply, changed, "g")
        assert planned["steps"] == applied["steps"]
        assert [step["sign"] for step in planned["steps"]] == ["+", "+", "+", "-", "-"]
        again = await asyncio.to_thread(world.client.apply, changed, "g")
        assert (again["steps"], again["failures"], again["waiting"], again["later"]) == ([], [], [], [])
        assert (await world.status())["daemon"]["config"] == "g"

    world.run(story)


def test_an_apply_that_fails_in_a_part_leaves_everything_as_it_was(world: World) -> None:
    async def story() -> None:
        world.addresses.broken = {OTHER_VIP}
        table, held = world.kernel.table, set(world.addresses.held)
        with pytest.raises(DirectorError) as caught:
            await world.ask(lambda client: client.apply(MORE, "g"))
        assert str(caught.value).splitlines() == [
            "could not add 192.0.2.11 on eth0",
            "nothing of g is applied: what was there before is back",
        ]
        assert (world.kernel.table, world.addresses.held) == (table, held)
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["converged"], daemon["failures"]) == (str(world.file), True, [])
        world.addresses.broken = set()
        await world.ask(lambda client: client.apply(MORE, "g"))
        assert world.addresses.held == {VIP, OTHER_VIP}

    world.run(story)
    assert not (world.directory / "state" / "journal.json").exists()


def test_a_removal_that_fails_at_the_end_takes_all_of_it_back(world: World) -> None:
    async def story() -> None:
        world.addresses.broken = {OTHER_VIP}
        table = world.kernel.table
        with pytest.raises(DirectorError, match=r"could not remove 192.0.2.11 on eth0\nnothing of g is applied"):
            await world.ask(lambda client: client.apply(FILE.replace("scheduler: rr", "scheduler: lc"), "g"))
        assert world.kernel.table == table
        assert world.weights() == {A: 100, B: 100}

    world.run(story, MORE)


def test_what_fails_already_does_not_stop_another_change(world: World) -> None:
    """One interface that is down must not keep an operator from changing anything at all."""
    world.addresses.broken = {OTHER_VIP}

    async def story() -> None:
        assert (await world.status())["daemon"]["failures"] == ["could not add 192.0.2.11 on eth0"]
        applied = await asyncio.to_thread(world.client.apply, MORE.replace("rr", "lc"), "g")
        assert applied["failures"] == []
        assert applied["waiting"] == ["as before: could not add 192.0.2.11 on eth0"]
        assert len(applied["steps"]) == 2
        await world.ask(lambda client: client.drain("web", "a"))  # what fails elsewhere is no answer to this
        world.addresses.broken = set()
        await until(lambda: len(world.addresses.held) == 2)

    world.run(story, MORE)


def test_what_others_made_comes_back_with_a_failed_apply(world: World) -> None:
    """The new file takes over a virtual server of somebody else's: taken back, it is theirs again, as it was."""
    (tls,) = parse_config(MORE, "f").virtual_servers[1].keys
    foreign = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})

    async def story() -> None:
        world.kernel.table = Table({**world.kernel.table.entries, tls: foreign})
        world.addresses.broken = {OTHER_VIP}
        with pytest.raises(DirectorError, match="what was there before is back"):
            await world.ask(lambda client: client.apply(MORE, "g"))
        assert world.kernel.table.entries[tls] == foreign
        await world.ask(lambda client: client.apply(FILE, "f"))
        assert world.kernel.table.entries[tls] == foreign, "nobody remembers it as the director's"

    world.run(story)


def test_a_plan_says_what_a_removal_breaks(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(12, 1)}
        (step,) = (await asyncio.to_thread(world.client.plan, WITHOUT_B, "g"))["steps"]
        assert step == {
            "sign": "-",
            "subject": "real server web/b (10.0.0.2:80)",
            "detail": "nat, weight 100",
            "effect": "12 active connections would break; drain first?",
        }

    world.run(story)


def test_an_apply_that_was_cut_short_is_dropped_at_the_start(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Killed in the middle: what it had lowered serves again at once, and what was others' is as they had it."""
    (tls,) = parse_config(MORE, "f").virtual_servers[1].keys
    foreign = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})
    checked = FILE.replace("10.0.0.2}", "10.0.0.2, check: {type: tcp, interval: 1h}}")

    async def begin() -> None:
        pass

    world.run(begin, checked)
    world.kernel.table = Table({**world.kernel.table.entries, tls: foreign})
    state = world.directory / "state"
    reconciler, journal = Reconciler(world.kernel, world.addresses, Memory(state)), Journal(state)
    config = parse_config(MORE.replace("      b: {address: 10.0.0.2}\n", "", 1), "g")
    Once(reconciler, journal, inputs_once(config, world.kernel.table, {}), "g", "").change()
    assert world.weights() == {A: 100, B: 0}
    assert world.kernel.table.entries[tls] != foreign

    async def again() -> None:
        assert world.weights() == {A: 100, B: 100}
        assert world.kernel.table.entries[tls] == foreign
        assert world.addresses.held == {VIP}

    world.run(again, checked)
    (record,) = said(caplog, "an apply was cut short, and this configuration takes its place")
    assert record.__dict__["apply"].startswith("the apply of g by process")
    assert journal.load() is None


def test_apply_tells_what_it_changed_also_when_the_loop_looks_at_that_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: object) -> tuple[str, ...]:
        time.sleep(0.15)  # in the worker; the loop looks every 100 ms
        return ()

    monkeypatch.setattr("director.daemon.advice", slow)
    text = "drift_interval: 100ms\n" + FILE

    async def story() -> None:
        for scheduler in ("lc", "wlc", "rr") * 3:
            changed = text.replace("scheduler: rr", f"scheduler: {scheduler}")
            applied = await asyncio.to_thread(world.client.apply, changed, "g")
            assert [step["sign"] for step in applied["steps"]] == ["~"]

    world.run(story, text)


def test_a_change_of_method_waits_and_is_told_and_made_when_the_connections_end(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, A): RealCounters(1), (WEB, B): RealCounters(2)}
        applied = await asyncio.to_thread(world.client.apply, FILE.replace("forward: nat", "forward: dr"), "g")
        assert applied["failures"] == []
        assert applied["waiting"][0] == "waiting for 1 connection of web/a under nat to end before it changes to dr"
        status = await world.status()
        assert status["daemon"]["waiting"] == applied["waiting"]
        assert not status["daemon"]["converged"]
        assert world.weights() == {A: 0, B: 100}
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await until(lambda: world.weights() == {A: 100, B: 0})
        world.kernel.carried = {}
        await until(lambda: world.weights() == {A: 100, B: 100})
        assert {row.forward for row in world.kernel.table.entries[WEB].reals.values()} == {Forward.DR}

    world.run(story)
