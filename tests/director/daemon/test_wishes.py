"""What an operator wishes of a running director for one real server."""

from __future__ import annotations

import pytest

from director.core.table import Table
from director.kit.errors import ConfigError
from tests.director.daemon.world import FILE, A, B, World

pytestmark = pytest.mark.unit


def test_draining_the_last_that_takes_connections_is_told(world: World) -> None:
    async def story() -> None:
        told = "no real server of web takes connections now"
        assert await world.ask(lambda client: client.drain("web", "a")) == []
        assert await world.ask(lambda client: client.weight("web", "b", 0)) == [told]
        assert await world.ask(lambda client: client.drain("web", "b")) == [told]
        assert await world.ask(lambda client: client.enable("web", "b")) == []

    world.run(story)


def test_a_drain_survives_a_restart_until_it_is_enabled(world: World) -> None:
    async def drain() -> None:
        await world.ask(lambda client: client.drain("web", "a"))
        await world.ask(lambda client: client.weight("web", "b", 7))
        assert world.weights() == {A: 0, B: 7}

    async def enable() -> None:
        assert world.weights() == {A: 0, B: 7}
        await world.ask(lambda client: client.enable("web", "a"))
        await world.ask(lambda client: client.enable("web", "b"))
        assert world.weights() == {A: 100, B: 100}

    world.run(drain)
    world.kernel.table = Table()
    world.run(enable)


def test_a_wish_for_a_server_that_left_the_file_can_be_taken_back(world: World) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.drain("web", "b"))
        await world.ask(lambda client: client.apply(FILE.replace("      b: {address: 10.0.0.2}\n", ""), "g"))
        await world.ask(lambda client: client.enable("web", "b"))
        with pytest.raises(ConfigError):
            await world.ask(lambda client: client.enable("web", "b"))
        await world.ask(lambda client: client.apply(FILE, "f"))
        assert world.weights() == {A: 100, B: 100}

    world.run(story)


@pytest.mark.parametrize(
    ("virtual", "real", "told"),
    [
        ("wbe", "a", "no virtual server 'wbe' in the configuration in force: did you mean 'web'?"),
        ("web", "x", "virtual server 'web' has no real server 'x': use one of a, b"),
    ],
)
def test_an_unknown_server_is_told_with_those_that_are_there(world: World, virtual: str, real: str, told: str) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError) as caught:
            await world.ask(lambda client: client.drain(virtual, real))
        assert str(caught.value) == told

    world.run(story)


def test_without_servers_an_unknown_one_is_told_plainly(world: World) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match=r"^no virtual server 'web' in the configuration in force$"):
            await world.ask(lambda client: client.drain("web", "a"))

    world.run(story, "virtual_servers: {}\n")
