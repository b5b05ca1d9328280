"""What is known of names: kept through every failure, and for the next director."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from director.core.config import parse_config
from director.core.model import Config
from director.core.naming import Named
from director.kit.net import Answer, parse_unicast
from director.kit.resolver import Resolver
from director.names import NOT_YET, Names
from tests.director.core.test_naming import FILE

pytestmark = pytest.mark.unit

ONE, TWO, SIX = (parse_unicast(text) for text in ("10.0.0.1", "10.0.0.3", "2001:db8::1"))
HOST = "db1.example"


class World:
    """Names in one directory, and what is said of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "state"
        self.file = self.directory / "names.json"
        self.said: dict[str, Answer] = {}

    def names(self) -> Names:
        return Names(self.directory, Resolver(lambda host: self.said.get(host, "down")))

    def config(self, names: Names | None = None) -> Config:
        return parse_config(FILE, "f", (names or self.names()).look_up)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.said[HOST] = (ONE,)
    return world


def test_the_next_one_knows_the_last_address(world: World) -> None:
    world.names().remember(world.config())
    world.said.clear()
    names = world.names()
    assert names.look_up([HOST, "other"]) == {HOST: Named(HOST, (ONE,), why="down"), "other": "down"}
    assert names.presumed([HOST]) == {HOST: Named(HOST, (ONE,), why="down")}
    assert world.config() == parse_config(FILE.replace(HOST, str(ONE)), "f")


def test_what_was_in_use_is_preferred_by_the_next_one(world: World) -> None:
    world.said[HOST] = (TWO,)
    world.names().remember(world.config())
    world.said[HOST] = (ONE, TWO)
    assert world.config().virtual_servers[0].real_servers[-1].address == TWO


def test_presumed_asks_for_what_is_not_known_only(world: World) -> None:
    world.names().remember(world.config())
    world.said = {HOST: (TWO,), "other": (SIX,)}
    assert world.names().presumed([HOST, "other"]) == {
        HOST: Named(HOST, (ONE,), why=NOT_YET),
        "other": Named("other", (SIX,)),
    }


def test_only_what_is_in_use_is_kept(world: World) -> None:
    names = world.names()
    config = world.config(names)
    world.said["other"] = (TWO,)
    names.look_up(["other"])
    names.renew(config)
    assert set(names.known) == {HOST}
    names.remember(config)
    assert json.loads(world.file.read_text()) == {"names": {HOST: ["10.0.0.1"]}, "version": 1}
    names.remember(Config())
    assert json.loads(world.file.read_text())["names"] == {}


def test_what_is_not_confirmed_is_kept_beside_what_it_replaces(world: World) -> None:
    world.names().remember(world.config())
    other = parse_config(FILE.replace(HOST, "other"), "f", lambda hosts: {host: Named(host, (TWO,)) for host in hosts})
    world.names().remember(other, keep=True)
    assert set(json.loads(world.file.read_text())["names"]) == {HOST, "other"}


def test_nothing_is_written_where_there_is_nothing_new(world: World) -> None:
    world.names().remember(Config())
    assert not world.directory.exists()
    names = world.names()
    names.remember(world.config())
    before = world.file.stat().st_ino
    names.remember(world.config())
    world.names().remember(world.config())
    assert world.file.stat().st_ino == before


def test_a_renewal_that_fails_keeps_what_is_in_use(world: World) -> None:
    config = world.config()
    world.said.clear()
    names = world.names()  # it never had an answer itself
    names.renew(config)
    assert names.known == {HOST: Named(HOST, (ONE,), why="down")}
    world.said[HOST] = (TWO,)
    names.renew(config)
    assert names.known == {HOST: Named(HOST, (TWO,))}


def test_the_last_ones_are_as_they_were(world: World) -> None:
    world.names().remember(world.config())
    names = world.names()
    last = names.last()
    world.said[HOST] = (TWO,)
    names.look_up([HOST])
    assert last([HOST, "other"]) == {HOST: Named(HOST, (ONE,), why=NOT_YET), "other": NOT_YET}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"version": 2, "names": {}}', '{"version": 1}', '{"version": 1, "names": []}'),
        *('{"version": 1, "names": {"a": []}}', '{"version": 1, "names": {"a": [1]}}'),
        *('{"version": 1, "names": {"a b": ["10.0.0.1"]}}', '{"version": 1, "names": {"a": ["224.0.0.1"]}}'),
        *('{"version": 1, "names": {"a": "10.0.0.1"}}', '{"version": 1, "names": {"10.0.0.1": ["10.0.0.1"]}}'),
    ],
)
def test_damage_means_that_nothing_is_known_and_is_mended(world: World, content: str) -> None:
    world.directory.mkdir()
    world.file.write_text(content)
    names = world.names()
    assert names.known == {}
    assert str(world.file) in names.unreadable
    names.remember(world.config(names))
    assert world.names().known[HOST].addresses == (ONE,)


def test_a_disk_that_does_not_take_it_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.directory.write_text("a file where the directory should be")
    names = world.names()
    config = world.config(names)
    names.remember(config)
    names.remember(config)
    found: list[Any] = [record for record in caplog.records if "will not know" in record.getMessage()]
    assert len(found) == 1
