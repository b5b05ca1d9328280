"""What a director sees at each look: hooks once for each change, events, and what the next director begins with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.desired import adopted_weights, desired_table, unproven_servers
from director.core.event import Event, EventKind
from director.core.model import Config, ServerRef
from director.core.policy import Hook
from director.core.table import Table
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.lastknown import LastKnown
from director.terms import Inputs
from director.witness import HookDue, Witness

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    check: {type: tcp}
    quorum: {up: 2, down: 1}
    quorum_up: {command: [/bin/up, it]}
    quorum_down: {command: [/bin/down], user: root, timeout: 3s}
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
      c: {address: 10.0.0.3}
"""
CONFIG = parse_config(FILE, "f")
ON_UP, ON_DOWN = Hook(("/bin/up", "it"), "nobody", 10.0), Hook(("/bin/down",), "root", 3.0)
STATES = {
    "U": HealthState(Status.UP, last=ProbeResult(True, "connected")),
    "D": HealthState(Status.DOWN, last=ProbeResult(False, "refused")),
    "?": HealthState(),
}


class Director:
    """One director's witness, what it told, and the kernel's table, which outlives it."""

    def __init__(self, directory: Path, table: Table | None = None, config: Config = CONFIG) -> None:
        self.hooks: list[HookDue] = []
        self.events: list[Event] = []
        self.witness = Witness(LastKnown(directory), self.events.append, self.hooks.append, lambda: 1.7e9)
        self.table = table or Table()
        self.take(config)

    def take(self, config: Config) -> None:
        """`config` is in force from now on."""
        self.config = config
        self.adopted, self.unproven = adopted_weights(config, self.table), unproven_servers(config, self.table)

    def inputs(self, states: str, *, ready: bool = True) -> Inputs:
        refs = [ref for virtual in self.config.virtual_servers for ref in virtual.refs]
        health = {ref: STATES[state] for ref, state in zip(refs, states, strict=True)}
        return Inputs(
            self.config,
            health,
            adopted=self.adopted,
            unproven=self.unproven,
            ready=frozenset(virtual.name for virtual in self.config.virtual_servers if ready),
            presumed=self.witness.presumed(self.config),
            quorate=self.witness.quorate,
        )

    def look(self, states: str, *, ready: bool = True) -> list[bool]:
        """Real servers of these states (U up, D down, ? none yet); which hooks are to run."""
        self.hooks.clear()
        inputs = self.inputs(states, ready=ready)
        self.table = desired_table(self.config, inputs.weights())
        self.witness.look(inputs)()
        return [due.held for due in self.hooks]

    def weights(self) -> dict[str, int]:
        (entry,) = self.table.entries.values()
        names = {real.address: real.name for real in self.config.virtual_servers[0].real_servers}
        return {names[endpoint.address]: row.weight for endpoint, row in entry.reals.items()}


def looks(director: Director, each: Iterable[str]) -> list[list[bool]]:
    return [director.look(states) for states in each]


def test_hooks_run_once_for_each_change(tmp_path: Path) -> None:
    director = Director(tmp_path)
    told = looks(director, ("UUU", "UUU", "UUD", "UDD", "DDD", "DDD", "UDD", "UUD", "UUU"))
    assert told == [[True], [], [], [], [False], [], [], [True], []]


def test_a_hook_is_the_one_of_the_file_with_what_it_is_told(tmp_path: Path) -> None:
    director = Director(tmp_path)
    director.look("UUU")
    assert director.hooks == [HookDue("web", True, ON_UP, 3)]
    director.look("DDD")
    assert director.hooks == [HookDue("web", False, ON_DOWN, 0)]


def test_no_hook_runs_before_the_virtual_server_is_ready(tmp_path: Path) -> None:
    director = Director(tmp_path)
    assert director.look("???", ready=False) == []
    assert director.look("DD?", ready=False) == []
    assert director.look("DDD") == [False]


def test_hooks_do_not_run_again_after_a_restart(tmp_path: Path) -> None:
    first = Director(tmp_path)
    assert looks(first, ("UUU", "DDD")) == [[True], [False]]
    second = Director(tmp_path, first.table)
    assert second.look("???", ready=False) == []
    assert second.look("DDD") == []
    third = Director(tmp_path, second.table)
    assert third.look("UUU") == [True]
    fourth = Director(tmp_path, third.table)
    assert fourth.look("UUU") == []


def test_quorum_between_its_bounds_survives_a_restart(tmp_path: Path) -> None:
    first = Director(tmp_path)
    looks(first, ("UUU", "DDD"))
    second = Director(tmp_path, first.table)
    assert looks(second, ("UDD", "UDD", "UUD")) == [[], [], [True]]
    third = Director(tmp_path, second.table)
    assert looks(third, ("UDD", "DDD")) == [[], [False]]


def test_without_hooks_quorum_is_remembered_all_the_same(tmp_path: Path) -> None:
    plain = parse_config(FILE[: FILE.index("    quorum_up")] + FILE[FILE.index("    real_servers") :], "f")
    director = Director(tmp_path, config=plain)
    assert looks(director, ("UUU", "DDD")) == [[], []]
    assert LastKnown(tmp_path).quorate == {"web": False}


def test_what_left_the_file_is_forgotten(tmp_path: Path) -> None:
    director = Director(tmp_path)
    director.look("DDD")
    director.take(Config())
    director.look("")
    assert director.witness.quorate == LastKnown(tmp_path).quorate == {}


def test_a_look_does_not_change_what_an_earlier_one_decided_by(tmp_path: Path) -> None:
    director = Director(tmp_path)
    director.look("UUU")
    held = director.inputs("UDD")
    director.look("DDD")
    assert held.quorate == {"web": True}
    assert held.serving().standings["web"].quorate


def test_whoever_fails_to_listen_stops_nobody_and_is_told_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []

    def deaf(event: Event) -> None:
        told.append(event)
        raise RuntimeError("deaf")

    def lame(due: HookDue) -> None:
        raise RuntimeError(f"lame {due.held}")

    director = Director(tmp_path)
    witness = Witness(LastKnown(tmp_path), deaf, lame)
    for _ in range(2):
        witness.look(director.inputs("UUU"))()
    assert [event.real_server for event in told] == ["a", "b", "c"]
    assert LastKnown(tmp_path).quorate == {"web": True}
    assert sum(each.getMessage() == "a change was not taken in" for each in caplog.records) == 4


def test_a_restart_revives_no_dead_server_and_drops_no_live_one(tmp_path: Path) -> None:
    first = Director(tmp_path)
    looks(first, ("UUU", "UDU"))
    second = Director(tmp_path)  # as after a reboot: the kernel's table is empty
    second.look("???", ready=False)
    assert second.weights() == {"a": 100, "b": 0, "c": 100}
    third = Director(tmp_path, second.table)
    third.look("?U?", ready=False)
    assert third.weights() == {"a": 100, "b": 100, "c": 100}


def test_a_restart_that_remembers_nothing_lets_all_serve_until_verdicts_come(tmp_path: Path) -> None:
    looks(Director(tmp_path), ("UUU", "UDU"))
    (tmp_path / "health.json").write_text("{}")
    second = Director(tmp_path)
    second.look("???", ready=False)
    assert second.weights() == {"a": 100, "b": 100, "c": 100}


def test_another_server_of_the_same_name_is_a_new_one(tmp_path: Path) -> None:
    first = Director(tmp_path)
    looks(first, ("UUU", "UDU"))
    moved = parse_config(FILE.replace("10.0.0.2", "10.0.0.22").replace("10.0.0.3}", "10.0.0.3, port: 81}"), "f")
    first.take(moved)
    first.look("U??", ready=False)
    refs = {ref.real_server: weight for ref, weight in first.inputs("U??").weights().items()}
    assert first.weights() == {"a": 100, "b": 0, "c": 0}
    assert {refs[name].reason for name in "bc"} == {"no verdict yet: waits for one while others serve"}


def test_a_disk_that_is_full_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "state"
    state.touch()
    director = Director(state)
    assert looks(director, ("UUU", "DDD", "UUU")) == [[True], [False], [True]]
    told = [each for each in caplog.records if each.getMessage() == "a restart will not know what is up and down"]
    assert len(told) == 1


def test_changes_are_logged_by_how_bad_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    director = Director(tmp_path)
    looks(director, ("UUU", "UUU", "DDD"))
    levels = [(each.levelno, each.getMessage()) for each in caplog.records]
    assert levels == [
        *[(logging.INFO, "real server is up")] * 3,
        *[(logging.WARNING, "real server is down")] * 3,
        (logging.WARNING, "virtual server changed"),
    ]
    assert caplog.records[3].__dict__["reason"] == "refused"
    assert "quorum held -> lost" in caplog.records[-1].__dict__["what"]
    assert [event.weight_after for event in director.events] == [100] * 3 + [0] * 3 + [None]


def test_a_hook_hears_of_a_change_of_the_file(tmp_path: Path) -> None:
    director = Director(tmp_path)
    director.look("UUD")
    (virtual,) = CONFIG.virtual_servers
    three = replace(virtual.policy, quorum=replace(virtual.policy.quorum, up=3, down=3))
    director.take(Config((replace(virtual, policy=three),)))
    assert director.look("UUD") == [False]
    assert Endpoint(ip_address("10.0.0.1"), 80) in next(iter(director.table.entries.values())).reals
    assert director.witness.presumed(director.config)[ServerRef("web", "c")] is Status.DOWN


def test_a_restart_tells_only_what_is_another_than_the_last_director_knew(tmp_path: Path) -> None:
    told: list[Event] = []
    first = Witness(LastKnown(tmp_path), told.append)
    up = HealthState(Status.UP, last=ProbeResult(True, "connected"))
    config = parse_config(
        "virtual_servers: {web: {address: 192.0.2.1, port: 80, forward: nat, check: {type: tcp}, "
        "real_servers: {a: {address: 10.0.0.1}, b: {address: 10.0.0.2}}}}",
        "f",
    )
    refs = config.virtual_servers[0].refs
    first.look(Inputs(config, health=dict.fromkeys(refs, up)))()
    assert len([event for event in told if event.kind is EventKind.HEALTH]) == 2
    told.clear()
    second = Witness(LastKnown(tmp_path), told.append)
    down = HealthState(Status.DOWN, last=ProbeResult(False, "connection refused"))
    second.look(Inputs(config, health={refs[0]: up, refs[1]: down}, presumed=second.presumed(config)))()
    assert [(event.real_server, event.now) for event in told if event.kind is EventKind.HEALTH] == [("b", "down")]
