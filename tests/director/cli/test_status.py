"""What `director status` shows of a running director."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.drift import Drift
from director.core.driftlines import drift_lines, sentence
from director.core.serving import Known, serving
from director.core.status import Status
from director.core.table import Forward, RealRow, Table, VirtualEntry, VirtualKey
from tests.director.cli.shell import FILE, Shell
from tests.director.fakes import Stub

pytestmark = pytest.mark.unit

NOBODY_LEAVES: dict[str, object] = {"unconfirmed": None, "leaving": [], "drain_left_s": None}


def status_of(text: str, table: Table | None = None, **daemon: object) -> Status:
    from director.core.serving import Known, serving
    from director.core.status import virtual_servers
    from director.core.table import TableCounters

    config = parse_config(text, "f")
    found = virtual_servers(
        config, table or Table(), TableCounters({}, {}), frozenset(), serving(config, Known()), {}, {}, 0.0
    )
    told = {"pid": 7, "version": "1", "config": "f", "uptime_s": 0.0, "converged": True, **daemon}
    told = {"drift": [], "drift_repaired": 0, "notes": [], **told}
    told = {"namespace": 1, "failures": [], "reload_refused": [], "waiting": [], **NOBODY_LEAVES, **told}
    return {"daemon": told, "virtual_servers": found}  # type: ignore[typeddict-item] # the keys are right by the line above


def test_status_tells_all_that_a_virtual_server_listens_on_and_which_of_it_is_there(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE.replace("port: 80\n", "port: [80, 8000-8002]\n    persistence: {timeout: 10m}\n", 1) + (
        "  mark:\n    fwmark: 7\n    forward: dr\n    real_servers:\n      a: {address: 10.0.0.1}\n"
    )
    config = parse_config(text, "f")
    right = desired_table(config, serving(config, Known()).weights)
    keys = config.virtual_servers[0].keys
    differs = next(iter(right.entries[keys[1]].reals))
    cases: tuple[tuple[dict[VirtualKey, VirtualEntry | None], str, str], ...] = (
        ({}, "", "100"),
        ({keys[2]: None}, " ONLY 3 of 4 entries in the kernel", "absent in 1 of 4"),
        ({keys[1]: replace(right.entries[keys[1]], reals={differs: RealRow(Forward.NAT, 9)})}, "", "9 in 1 of 4"),
    )
    for changed, said, weight in cases:
        entries = {key: entry for key, entry in (dict(right.entries) | changed).items() if entry}
        status = status_of(text, Table(entries))

        async def answer(status: Status = status) -> Status:
            return status

        monkeypatch.setattr(director, "status", answer)
        lines = [" ".join(line.split()) for line in shell("status").out.splitlines()]
        told = "web tcp 192.0.2.10:80,8000-8002 nat wlc persistence 10m"
        assert lines[0] == f"{told}{said} vip NOT on eth0"
        assert lines[2] == f"a 10.0.0.1:80 100 {weight} 0 0 not checked"
        assert lines[4] == "mark fwmark 7 dr wlc"


def test_drift_that_is_left_is_not_passed_over(shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FILE.replace("port: 80\n", "port: [80, 81]\n", 1)
    config = parse_config(text, "f")
    place = config.virtual_servers[0].placements[1]
    drifts = [Drift(place.key, place.endpoint, RealRow(Forward.NAT, 100), RealRow(Forward.NAT, 3), kept=True)]
    lines = drift_lines(drifts, config)
    assert lines[0]["subject"] == "real server web/a (10.0.0.1:81) of tcp 192.0.2.10:81"
    status = status_of(text)
    status["virtual_servers"][0]["drift"] = [sentence(line) for line in lines]

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    assert shell("status").out.splitlines()[-1].endswith(": the kernel agrees, but for the drift above")
    status["virtual_servers"][0]["drift"] = []
    assert shell("status").out.splitlines()[-1].endswith(": the kernel agrees")


def test_status_shows_every_server_and_why(shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FILE + (
        '  six:\n    address: "fd00::10"\n    port: 80\n    forward: nat\n    real_servers:\n'
        '      a: {address: "fd00::1", check: {type: tcp}}\n'
    )
    status = status_of(text, converged=False, failures=["no [bold]scheduler[/bold]"], config="/etc/[x]/d.yaml")

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    ended = shell("status")
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines == [
        "web tcp 192.0.2.10:80 nat wlc NOT IN THE KERNEL vip NOT on eth0",
        "real server address weight kernel active inactive why",
        "a 10.0.0.1:80 100 absent 0 0 not checked",
        "",
        "six tcp [fd00::10]:80 nat wlc NOT IN THE KERNEL",
        "real server address weight kernel active inactive why",
        "a [fd00::1]:80 100 absent 0 0 no verdict yet: the file's weight",
        "",
        "could not change: no [bold]scheduler[/bold]",
        "director 1, pid 7, /etc/[x]/d.yaml: the kernel does NOT agree yet",
    ]
    assert json.loads(shell("status", "--json").out) == status


def test_status_shows_who_leaves_and_what_is_not_confirmed(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = [{"name": "web/b", "connections": 12}]
    unconfirmed = {"until": "2026-01-02 03:04:05+00:00", "left_s": 41.7}
    status = status_of(FILE, leaving=leaving, unconfirmed=unconfirmed, drain_left_s=24.2)

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    assert shell("status").out.splitlines()[-3:-1] == [
        "web/b leaves: 12 connections, removed in 24s at the latest",
        "NOT CONFIRMED: undone at 2026-01-02 03:04:05+00:00 (in 42s) unless `director confirm` comes",
    ]


def test_status_shows_drift_and_what_else_there_is(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = status_of(FILE, drift=["timeouts: was"], drift_repaired=3, notes=["the kernel also holds esp"])
    status["virtual_servers"][0]["drift"] = ["real server web/a: was"]

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    lines = [line.strip() for line in shell("status").out.splitlines()]
    assert lines[3] == "drift: real server web/a: was"
    assert lines[5:8] == [
        "drift: timeouts: was",
        "the kernel also holds esp",
        "changed by somebody else and put right since the start: 3",
    ]
