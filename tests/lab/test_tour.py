"""What docs/tour.md has people type in the lab's shell does there what the page says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from director.lab.hosts import Lab, Process
from tests.docs.pages import blocks

pytestmark = pytest.mark.lab


def _lines() -> list[tuple[str, str]]:
    [block] = [each for each in blocks() if each.kind == "lab-shell"]
    pairs = (line.partition(": ") for line in block.text.splitlines())
    return [(host, command) for host, _, command in pairs]


@pytest.fixture(scope="module")
def said(lab: Lab) -> Iterator[dict[str, str]]:
    """What each command printed, by the command."""
    found: dict[str, str] = {}
    started: list[Process] = []
    for name, command in _lines():
        host = lab.host(name)
        before, _, last = command.rpartition("; ")
        is_ours = last.startswith("director ")  # forked from a Python that has it: the same, and sooner
        if command.endswith("&"):
            words = shlex.split(command.removesuffix("&")) if is_ours else ["bash", "-c", f"exec {command[:-1]}"]
            started.append(host.start(*words, fresh=not is_ours))
        elif is_ours:
            host.run("bash", "-c", before or ":").check()
            found[command] = host.run(*shlex.split(last)).check().stdout
        else:
            found[command] = host.run("bash", "-c", command).check().stdout
    yield found
    for process in started:
        process.kill()


def _of(said: dict[str, str], part: str) -> str:
    [text] = [text for command, text in said.items() if part in command]
    return text


def test_the_client_is_answered(said: dict[str, str]) -> None:
    assert _of(said, "curl") == "200\n"


def test_the_drained_server_has_weight_0_and_explain_says_who_did_it(said: dict[str, str]) -> None:
    rows = {line.split()[1]: line.split()[3] for line in _of(said, "ipvsadm").splitlines() if "10.9.1.1" in line}
    assert rows == {"10.9.1.11:8080": "0", "10.9.1.12:8080": "100"}
    assert "drained" in _of(said, "director explain")
    assert "director enable web" in _of(said, "director explain")
