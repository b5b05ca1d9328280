"""Files with names where no director runs: looked up at once, and remembered by who applies them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.director.cli.shell import FILE, Host, Shell

pytestmark = pytest.mark.unit

HOST = "db1.example"
NAMED = FILE.replace("10.0.0.1", HOST)
DOWN = "Temporary failure in name resolution"
NOTE = f"note: name not resolved, the last address is kept: web/a 10.0.0.7 ({HOST}): {DOWN}\n"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> dict[str, str]:
    """What name servers know."""
    found = {HOST: "10.0.0.7"}

    def getaddrinfo(host: str, *_: object, **__: object) -> list[Any]:
        if host not in found:
            raise socket.gaierror(socket.EAI_AGAIN, DOWN)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[host], 0))]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    shell.file.write_text(NAMED)
    return found


def remembered(state: Path) -> object:
    return json.loads((state / "names.json").read_text())["names"]


def test_check_looks_names_up_and_writes_nothing(shell: Shell, known: dict[str, str]) -> None:
    assert shell("check", shell.file).code == 0
    assert not shell.state.exists()
    known.clear()
    ended = shell("check", shell.file)
    assert ended.code == 1
    assert ended.err.startswith(f"{shell.file}:9:20: virtual_servers.web.real_servers.a.address: {HOST} cannot be res")
    assert DOWN in ended.err


def test_an_apply_remembers_what_a_plan_without_name_servers_needs(
    shell: Shell, host: Host, known: dict[str, str]
) -> None:
    assert "web/a (10.0.0.7:80)" in shell("apply", shell.file).out
    assert remembered(shell.state) == {HOST: ["10.0.0.7"]}
    known.clear()
    assert shell("check", shell.file)[::2] == (0, NOTE)
    assert shell("plan", shell.file)[::2] == (0, NOTE)
    assert shell("apply", shell.file)[::2] == (0, NOTE)
    assert remembered(shell.state) == {HOST: ["10.0.0.7"]}


def test_a_plan_shows_the_move_and_drift_compares_with_what_was_applied(
    shell: Shell, host: Host, known: dict[str, str]
) -> None:
    shell("apply", shell.file)
    known[HOST] = "10.0.0.8"
    planned = shell("plan", shell.file)
    assert planned.code == 2
    assert "10.0.0.8:80" in planned.out
    assert shell("drift", shell.file).code == 0
    shell("apply", shell.file)
    assert remembered(shell.state) == {HOST: ["10.0.0.8"]}
    shell.file.write_text(FILE)
    shell("apply", shell.file)
    assert remembered(shell.state) == {}


def test_a_memory_that_cannot_be_read_is_no_obstacle(shell: Shell, known: dict[str, str]) -> None:
    shell.state.write_text("a file where the directory should be")
    assert shell("check", shell.file)[::2] == (0, "")
