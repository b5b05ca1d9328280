"""A running director that waits: for a confirmation, or for the connections of what leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from ipaddress import ip_address

import pytest

from director.core.table import RealCounters, VirtualRow
from director.journal import Entry, Journal
from director.kit.errors import ConfigError, DirectorError, HostError
from director.kit.net import Endpoint
from tests.director.daemon.world import FILE, OTHER_VIP, VIP, WEB, WITHOUT_B, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit


def test_an_apply_that_is_not_confirmed_undoes_itself(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        table = world.kernel.table
        applied = await asyncio.to_thread(world.client.apply, WITHOUT_B.replace("rr", "lc"), "g", 0.3)
        assert applied["confirm_s"] == 0.3
        assert [step["subject"] for step in applied["steps"]] == ["virtual server web (tcp 192.0.2.10:80)"]
        assert [(step["sign"], step["subject"]) for step in applied["later"]] == [
            ("-", "real server web/b (10.0.0.2:80)")
        ]
        assert world.weights() == {A: 100, B: 0}
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["leaving"]) == ("g", [{"name": "web/b", "connections": 0}])
        assert daemon["unconfirmed"] is not None
        assert 0 < daemon["unconfirmed"]["left_s"] <= 0.3
        with pytest.raises(ConfigError, match=r"g awaits confirmation until .*comes first"):
            await world.ask(lambda client: client.apply(FILE, "h"))
        await until(lambda: world.kernel.table == table)
        await until(lambda: bool(said(caplog, "taken back")))
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["unconfirmed"], daemon["leaving"]) == (str(world.file), None, [])
        with pytest.raises(ConfigError, match="nothing awaits confirmation"):
            await world.ask(lambda client: client.confirm())

    world.run(story)
    assert not (world.directory / "state" / "journal.json").exists()


def test_what_cannot_be_noted_for_a_confirmation_is_not_applied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = iter(range(10))
    save = Journal.save

    def full(journal: Journal, entry: Entry) -> None:
        if next(saves):
            raise HostError("no room on that disk")
        save(journal, entry)

    async def story() -> None:
        monkeypatch.setattr(Journal, "save", full)
        with pytest.raises(DirectorError, match=r"no room on that disk\nnothing of g is applied: what was there"):
            await world.ask(lambda client: client.apply(WITHOUT_B, "g", 60.0))
        assert world.weights() == {A: 100, B: 100}
        assert (await world.status())["daemon"]["unconfirmed"] is None

    world.run(story)


def test_a_confirmation_removes_what_was_held(world: World) -> None:
    async def story() -> None:
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", 60.0)
        assert world.weights() == {A: 100, B: 0}
        confirmed = await asyncio.to_thread(world.client.confirm)
        assert [step["subject"] for step in confirmed["steps"]] == ["real server web/b (10.0.0.2:80)"]
        assert world.weights() == {A: 100}
        assert (await world.status())["daemon"]["unconfirmed"] is None

    world.run(story)


@pytest.mark.parametrize("how", ["undo", "stop"])
def test_undo_and_the_directors_end_take_back_what_is_not_confirmed(world: World, how: str) -> None:
    async def story() -> None:
        await asyncio.to_thread(world.client.apply, WITHOUT_B.replace("192.0.2.10", "192.0.2.11"), "g", 60.0)
        assert world.addresses.held == {VIP, OTHER_VIP}, "an address that goes breaks connections too"
        if how == "undo":
            undone = await asyncio.to_thread(world.client.undo)
            assert undone["failures"] == []
            assert world.weights() == {A: 100, B: 100}

    world.run(story)
    assert world.weights() == {A: 100, B: 100}
    assert world.addresses.held == {VIP}


def test_nothing_waits_for_a_confirmation_at_a_director_that_stops(world: World) -> None:
    """One that is asked for in the last moment would stay, unconfirmed, with nobody to take it back."""

    async def main() -> None:
        daemon = world.daemon()
        await daemon._control.start()
        await daemon._control.stop()
        with pytest.raises(DirectorError, match="the director is stopping"):
            await daemon._requests.apply(WITHOUT_B, "g", 60.0)
        await daemon._requests.apply(WITHOUT_B, "g")
        daemon._control.worker.shutdown()

    asyncio.run(main())
    assert world.weights() == {A: 100}


def test_health_counts_while_a_confirmation_is_awaited_and_after_it_is_taken_back(world: World) -> None:
    async def main() -> None:
        doors = [await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) for _ in "ab"]
        ports = [door.sockets[0].getsockname()[1] for door in doors]
        check = "check: {type: tcp, interval: 20ms, fast_interval: 10ms, timeout: 1s}"
        lines = [f"      {n}: {{address: 127.0.0.1, port: {p}}}\n" for n, p in zip("ab", ports, strict=True)]
        text = f"defaults: {{{check}}}\n" + FILE[: FILE.index("      a:")] + "".join(lines)
        a, b = (Endpoint(ip_address("127.0.0.1"), port) for port in ports)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(world.daemon(text).run(world.socket))
            await until(world.socket.exists)
            await until(lambda: world.addresses.held == {VIP})
            await world.ask(lambda client: client.apply(text.replace(lines[1], ""), "g", 60.0))
            assert world.weights() == {a: 100, b: 0}
            for door in doors:
                door.close()
                await door.wait_closed()
            await until(lambda: world.weights() == {a: 0, b: 0})
            again = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ports[0])
            await until(lambda: world.weights() == {a: 100, b: 0})
            await world.ask(lambda client: client.undo())
            assert world.weights() == {a: 100, b: 0}, "b has died meanwhile, and that is known"
            again.close()
            await again.wait_closed()
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    asyncio.run(main())


def test_a_drain_removes_with_the_last_connection(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        applied = await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", None, 60.0)
        assert applied["waiting"] == ["waiting for 2 connections of web/b to end before it is removed"]
        assert [step["subject"] for step in applied["later"]] == ["real server web/b (10.0.0.2:80)"]
        assert world.weights() == {A: 100, B: 0}
        daemon = (await world.status())["daemon"]
        assert daemon["leaving"] == [{"name": "web/b", "connections": 2}]
        assert 50 < (daemon["drain_left_s"] or 0.0) <= 60
        world.file.write_text(WITHOUT_B.replace("rr", "lc"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: world.kernel.table.entries[WEB].row == VirtualRow("lc"))
        assert world.weights() == {A: 100, B: 0}, "a change that comes meanwhile does not end it"
        world.kernel.carried = {}
        await until(lambda: world.weights() == {A: 100})
        assert (await world.status())["daemon"]["drain_left_s"] is None

    world.run(story)


def test_a_drain_ends_at_its_deadline(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", None, 0.3)
        assert world.weights() == {A: 100, B: 0}
        await until(lambda: world.weights() == {A: 100})

    world.run(story, "drift_interval: 60s\n" + FILE)


def test_a_drain_begins_when_it_is_confirmed(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", 60.0, 0.3)
        confirmed = await asyncio.to_thread(world.client.confirm)
        assert (confirmed["steps"], len(confirmed["later"])) == ([], 1)
        assert world.weights() == {A: 100, B: 0}
        await until(lambda: world.weights() == {A: 100})

    world.run(story)


def test_who_is_undone_and_who_applies_another_file_is_told_what_a_reload_does(world: World) -> None:
    own = str(world.file)
    other = FILE.replace("10.0.0.2", "10.0.0.3")

    async def story() -> None:
        applied = await asyncio.to_thread(world.client.apply, other, "/elsewhere/g", None, None)
        assert applied.get("notes") == [f"the director's next reload or restart goes back to {own}"]
        again = await asyncio.to_thread(world.client.apply, FILE, own, None, None)
        assert "notes" not in again

        await asyncio.to_thread(world.client.apply, other, "/elsewhere/g", 60.0, None)
        assert "notes" not in await asyncio.to_thread(world.client.undo), "it is not what a reload reads"

        await asyncio.to_thread(world.client.apply, other, own, 60.0, None)
        undone = await asyncio.to_thread(world.client.undo)
        said = f"{own} still holds what was undone: a reload or restart applies it again"
        assert undone.get("notes") == [said]
        assert (await world.status())["daemon"]["notes"] == [said]

        await asyncio.to_thread(world.client.apply, FILE, own, None, None)
        assert (await world.status())["daemon"]["notes"] == []

    world.run(story)


def test_an_own_file_that_nobody_confirms_is_told_by_status(world: World) -> None:
    async def story() -> None:
        other = FILE.replace("10.0.0.2", "10.0.0.3")
        await asyncio.to_thread(world.client.apply, other, str(world.file), 0.1, None)
        async with asyncio.timeout(10):
            while not (await world.status())["daemon"]["notes"]:  # noqa: ASYNC110 -- nobody announces it
                await asyncio.sleep(0.02)

    world.run(story)
