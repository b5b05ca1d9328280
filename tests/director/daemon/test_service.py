"""The whole director and its service manager: ready, reloading, alive, stopping, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from director.api.client import Client
from director.kit.errors import ConfigError
from director.kit.service import ServiceManager
from tests.director.daemon.world import BAD, FILE, A, B, World
from tests.director.fakes import until

pytestmark = pytest.mark.unit

ALIVE = "WATCHDOG=1"


class Ear:
    """What was heard so far."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.said: list[str] = []

    def hear(self) -> list[str]:
        while True:
            try:
                self.said.append(self._listener.recv(4096).decode())
            except BlockingIOError:
                return self.said

    def has(self, start: str, since: int = 0) -> bool:
        return any(line.startswith(start) for line in self.hear()[since:])

    def states(self) -> list[str]:
        return [line.partition("\n")[0] for line in self.hear() if line.split("=")[0] in _STATES]


_STATES = {"READY", "RELOADING", "STOPPING"}


@pytest.fixture
def ear(tmp_path: Path, world: World) -> Iterator[Ear]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        world.manager = ServiceManager({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"})
        yield Ear(listener)


def test_life_is_told_from_ready_to_stopping(world: World, ear: Ear) -> None:
    async def story() -> None:
        await until(lambda: ear.has("READY=1\nSTATUS=1 virtual server, 2 of 2 real servers serve"))
        await world.ask(lambda client: client.drain("web", "a"))
        await until(lambda: ear.has("STATUS=1 virtual server, 1 of 2 real servers serve"))

    world.run(story)
    assert ear.hear()[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert ear.states() == ["READY=1", "STOPPING=1"]


def test_reload_is_told_and_a_refused_one_too(world: World, ear: Ear) -> None:
    async def story() -> None:
        await until(lambda: ear.has("READY=1"))
        world.file.write_text(BAD)
        os.kill(os.getpid(), signal.SIGHUP)
        refused = "READY=1\nSTATUS=1 virtual server, 2 of 2 real servers serve; reload refused, the old configuration"
        await until(lambda: ear.has(refused))
        world.file.write_text(FILE)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: ear.states() == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1"])
        assert "refused" not in [line for line in ear.said if line.startswith("READY")][-1]

    world.run(story)


def test_reload_that_is_asked_for_has_an_outcome(world: World, ear: Ear) -> None:
    async def story() -> None:
        world.file.write_text(FILE.replace("10.0.0.2}", "10.0.0.2, weight: 5}"))
        answer = await world.ask(lambda client: client.reload())
        assert [step["subject"] for step in answer["steps"]] == ["real server web/b (10.0.0.2:80)"]
        assert world.weights() == {A: 100, B: 5}
        world.file.write_text(BAD)
        with pytest.raises(ConfigError, match=r":1:34: virtual_servers\.web\.address: '10\.0\.0\.256' is not"):
            await world.ask(lambda client: client.reload())
        assert world.weights() == {A: 100, B: 5}
        assert len((await world.status())["daemon"]["reload_refused"]) == 3

    world.run(story)
    assert ear.states() == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_reload_that_takes_its_time_is_waited_for(world: World) -> None:
    world.client = Client(world.socket, timeout_s=0.2)

    async def story() -> None:
        world.file.write_text(FILE.replace("10.0.0.2}", "10.0.0.2, weight: 5}"))
        world.kernel.open.clear()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(world.ask(lambda client: client.reload()))
            await asyncio.wait([asking], timeout=0.5)
            assert not asking.done()
            world.kernel.open.set()
        assert world.weights() == {A: 100, B: 5}

    world.run(story)


def test_idle_director_is_alive_and_one_whose_look_is_stuck_is_not(
    world: World, ear: Ear, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("director.heartbeat.LONGEST_ACT_S", 0.2)

    async def story() -> None:
        await until(lambda: ear.hear().count(ALIVE) > 3)  # nothing happens, and nothing is due for 10 minutes
        world.kernel.open.clear()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(world.status())
            await until(lambda: ear.has("STATUS=NOT HEALTHY: a look at the kernel or a change of it has not ended"))
            fed = ear.hear().count(ALIVE)
            await asyncio.sleep(0.3)
            assert ear.hear().count(ALIVE) == fed
            world.kernel.open.set()
            await asking
        await until(lambda: ear.hear().count(ALIVE) > fed)

    world.run(story, f"drift_interval: 10m\n{FILE}")
    assert any(record.getMessage().startswith("not healthy") for record in caplog.records)


def test_without_a_service_manager_nothing_is_told(world: World) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.reload())

    world.run(story)
