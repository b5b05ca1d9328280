"""The whole director with a real server that is given by name, while the name moves, fails and comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner

from director.cli.root import cli
from director.core.event import Event
from director.core.table import RealCounters
from director.eventfile import read
from director.kit.configfile import InvalidConfigError
from director.kit.errors import ConfigError, DirectorError
from director.kit.net import Answer, Endpoint, IPAddress, parse_unicast
from tests.director.daemon.world import FILE, WEB, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit

HOST = "db1.internal.example"
NAMED = "resolve_interval: 20ms" + FILE.replace("10.0.0.1}", f"{HOST}}}")
C = Endpoint(parse_unicast("10.0.0.3"), 80)
FAILS = "Temporary failure in name resolution"
MOVED = "a name has another address"


@dataclass
class NameServer:
    """Says what `said` holds; counts how often it was asked."""

    said: dict[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    asked: int = 0

    def __call__(self, host: str) -> Answer:
        self.asked += 1
        return self.said.get(host, FAILS)

    def say(self, *endpoints: Endpoint) -> None:
        self.said[HOST] = tuple(endpoint.address for endpoint in endpoints)

    async def twice(self) -> None:
        """Wait until an answer that is given from now on has been seen to the end."""
        asked = self.asked
        await until(lambda: self.asked > asked + 1)


def typed(world: World, command: str, *words: str) -> str:
    """What `director` prints."""
    ended = CliRunner().invoke(cli, [command, *words, "--socket", str(world.socket)])
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.fixture
def dns(world: World, monkeypatch: pytest.MonkeyPatch) -> NameServer:
    monkeypatch.setattr("director.core.schema.LEAST_RESOLVE_S", 0.001)
    server = NameServer()
    server.say(A)
    world.resolve = server
    return server


def told(world: World) -> list[Event]:
    return [event for event in read(world.directory / "state") if event.kind.value == "resolution"]


def transitions(world: World) -> list[tuple[str, str, str]]:
    return [(event.place, event.was, event.now) for event in told(world)]


def test_a_name_that_moves_is_followed(world: World, dns: NameServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        assert world.weights() == {A: 100, B: 100}
        writes = world.kernel.writes
        await dns.twice()
        assert world.kernel.writes == writes, "a name that says the same changes nothing"
        dns.say(C)
        await until(lambda: world.weights() == {C: 100, B: 100})
        reals = (await world.status())["virtual_servers"][0]["real_servers"]
        assert sorted((real["name"], real["address"], real["host"]) for real in reals) == [
            ("a", "10.0.0.3", HOST),
            ("b", "10.0.0.2", ""),
        ]
        await until(lambda: bool(told(world)))

    world.run(story, NAMED)
    assert transitions(world) == [("web/a", "10.0.0.1", "10.0.0.3")]
    assert told(world)[0].reason == HOST
    assert len(said(caplog, MOVED)) == 1
    applied = [event for event in read(world.directory / "state") if event.kind.value == "configuration"]
    assert [(event.now, event.reason) for event in applied] == [("applied", f"{world.file}, asked by name resolution")]


def test_connections_to_the_old_address_are_waited_for(world: World, dns: NameServer) -> None:
    async def story() -> None:
        world.kernel.carried[WEB, A] = RealCounters(active=3)
        dns.say(C)
        await until(lambda: world.weights() == {A: 0, C: 100, B: 100})
        daemon = (await world.status())["daemon"]
        assert [leaving["connections"] for leaving in daemon["leaving"]] == [3]
        assert daemon["drain_left_s"] is not None
        assert 50 < daemon["drain_left_s"] <= 60
        world.kernel.carried.clear()
        await until(lambda: world.weights() == {C: 100, B: 100})

    world.run(story, NAMED)


def test_a_longer_drain_that_is_on_its_way_is_not_cut_short(world: World, dns: NameServer) -> None:
    async def story() -> None:
        world.kernel.carried[WEB, B] = RealCounters(active=1)
        without_b = NAMED.replace("      b: {address: 10.0.0.2}\n", "")
        await world.ask(lambda client: client.apply(without_b, "other", drain_s=500.0))
        dns.say(C)
        await until(lambda: world.weights() == {C: 100, B: 0})
        left_s = (await world.status())["daemon"]["drain_left_s"]
        assert left_s is not None
        assert left_s > 400

    world.run(story, NAMED)


def test_several_addresses_do_not_move_a_server(world: World, dns: NameServer) -> None:
    async def story() -> None:
        for answer in ((C, A), (A, C), (C, A)):
            dns.say(*answer)
            await dns.twice()
            assert world.weights() == {A: 100, B: 100}
        dns.say(C)
        await until(lambda: world.weights() == {C: 100, B: 100})
        dns.say(A, C)
        await dns.twice()
        assert world.weights() == {C: 100, B: 100}

    world.run(story, NAMED)


def test_a_name_that_fails_keeps_its_last_address_and_is_told_once(
    world: World, dns: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        dns.said.clear()
        await until(lambda: bool(said(caplog, "a name is not resolved")))
        await dns.twice()
        await dns.twice()
        assert world.weights() == {A: 100, B: 100}
        (note,) = (await world.status())["daemon"]["notes"]
        assert note == f"name not resolved, the last address is kept: web/a 10.0.0.1 ({HOST}): {FAILS}"
        (real,) = (await world.ask(lambda client: client.explain("web", "a")))["real_servers"]
        assert real["host"] == HOST
        assert real["resolution"] == f"{HOST} is not resolved, and its last address is kept: {FAILS}"
        dns.say(A)
        await until(lambda: bool(said(caplog, "names are resolved again")))
        assert (await world.status())["daemon"]["notes"] == []
        (real,) = (await world.ask(lambda client: client.explain("web", "a")))["real_servers"]
        assert real["resolution"] == f"{HOST} has 10.0.0.1"
        assert f"  name: {HOST} has 10.0.0.1\n" in await asyncio.to_thread(typed, world, "explain", "web", "a")
        assert f" 10.0.0.1:80 ({HOST}) " in await asyncio.to_thread(typed, world, "status")

    world.run(story, NAMED)
    assert transitions(world) == [("web/a", "", "failing"), ("web/a", "failing", "resolved")]
    assert len(said(caplog, "a name is not resolved")) == 1


def test_a_director_starts_without_name_servers_by_what_the_last_one_knew(
    world: World, dns: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing() -> None:
        await until((world.directory / "state" / "names.json").exists)

    world.run(nothing, NAMED)
    dns.said.clear()

    async def story() -> None:
        assert world.weights() == {A: 100, B: 100}
        await until(lambda: bool(said(caplog, "a name is not resolved")))
        assert len((await world.status())["daemon"]["notes"]) == 1
        dns.say(C)
        await until(lambda: world.weights() == {C: 100, B: 100})

    world.run(story, NAMED)


def test_a_director_that_never_knew_the_name_does_not_start_and_says_why(world: World, dns: NameServer) -> None:
    dns.said.clear()
    with pytest.raises(InvalidConfigError) as caught:
        world.daemon(NAMED)
    (line,) = caught.value.lines()
    assert line.startswith(f"{world.file}:10:20: virtual_servers.web.real_servers.a.address: {HOST} cannot be resolved")


def test_while_a_change_awaits_confirmation_nobody_moves(world: World, dns: NameServer) -> None:
    async def story() -> None:
        other = NAMED.replace("10.0.0.2}", "10.0.0.2, weight: 5}")
        await world.ask(lambda client: client.apply(other, "other", confirm_s=60.0))
        dns.say(C)
        await dns.twice()
        await dns.twice()
        assert world.weights() == {A: 100, B: 5}
        assert (await world.status())["daemon"]["notes"] == [
            f"another address is not taken over: web/a from 10.0.0.1 to 10.0.0.3 ({HOST}): a change awaits confirmation"
        ]
        await world.ask(lambda client: client.confirm())
        await until(lambda: world.weights() == {C: 100, B: 5})
        assert (await world.status())["daemon"]["notes"] == []

    world.run(story, NAMED)


def test_what_was_undone_follows_its_name_as_well(world: World, dns: NameServer) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.apply(FILE, str(world.file), confirm_s=60.0))
        dns.say(C)
        await world.ask(lambda client: client.undo())
        await until(lambda: world.weights() == {C: 100, B: 100})
        assert any("still holds what was undone" in note for note in (await world.status())["daemon"]["notes"])

    world.run(story, NAMED)


def test_an_address_that_cannot_be_is_refused_once_and_the_last_one_outlives_a_restart(
    world: World, dns: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    message = "a name's other address was not taken over"

    async def story() -> None:
        dns.say(B)
        await until(lambda: bool(said(caplog, message)))
        await dns.twice()
        await dns.twice()
        assert world.weights() == {A: 100, B: 100}
        (note,) = (await world.status())["daemon"]["notes"]
        assert "10.0.0.2:80 is a duplicate of real server 'a'" in note
        assert len(said(caplog, message)) == 1

    world.run(story, NAMED)
    assert transitions(world) == [("web/a", "10.0.0.1", "refused")]
    caplog.clear()
    world.run(story, NAMED)


def test_what_the_kernel_refuses_is_tried_again(
    world: World, dns: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        world.kernel.broken = True
        dns.say(C)
        await until(lambda: bool(said(caplog, "a name's other address was not taken over")))
        world.kernel.broken = False
        await until(lambda: world.weights() == {C: 100, B: 100})

    world.run(story, NAMED)


def test_an_apply_and_a_reload_look_names_up(world: World, dns: NameServer) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match="nosuch cannot be resolved"):
            await world.ask(lambda client: client.plan(NAMED.replace(HOST, "nosuch"), "other"))
        await world.ask(lambda client: client.apply(NAMED, "other"))
        await until((world.directory / "state" / "names.json").exists)
        found = json.loads((world.directory / "state" / "names.json").read_text())
        assert found["names"] == {HOST: ["10.0.0.1"]}
        await world.ask(lambda client: client.apply(FILE, "other"))
        await until(lambda: "db1" not in (world.directory / "state" / "names.json").read_text())

    world.run(story, FILE)


def test_a_file_read_anew_never_replaces_another_one(world: World, dns: NameServer) -> None:
    async def story() -> None:
        control, config = daemon._control, daemon._control.config
        await control.change(config, str(world.file), NAMED, in_place_of=config)
        with pytest.raises(DirectorError, match="another configuration has come into force"):
            await control.change(config, str(world.file), NAMED, in_place_of=world.daemon()._control.config)

    daemon = world.daemon(NAMED)

    async def main() -> None:
        with daemon._control.worker:
            await daemon._control.start()
            await story()

    asyncio.run(main())


def test_a_name_server_that_hangs_delays_neither_the_director_nor_its_end(world: World, dns: NameServer) -> None:
    hanging, done = threading.Event(), threading.Event()

    def hang(host: str) -> Answer:
        hanging.set()
        assert done.wait(60)
        return dns(host)

    async def story() -> None:
        world.resolve = hang
        await until(hanging.is_set)
        await world.ask(lambda client: client.weight("web", "b", 7))
        assert world.weights() == {A: 100, B: 7}

    began = time.monotonic()
    world.run(story, NAMED)
    assert time.monotonic() - began < 8
    done.set()
