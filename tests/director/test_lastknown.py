"""What the next director knows of the last one's verdicts: only of the same servers, and never by guessing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.model import Config, ServerRef
from director.kit.health import HealthState, Status
from director.lastknown import Known, LastKnown

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    check: {type: tcp}
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, port: 8080}
      c: {address: 10.0.0.3, check: {type: none}}
"""
CONFIG = parse_config(FILE, "f")
A, B = (ServerRef("web", name) for name in "ab")
BOTH = {A: Status.UP, B: Status.DOWN}


def states(statuses: dict[ServerRef, Status]) -> dict[ServerRef, HealthState]:
    return {ref: HealthState(status) for ref, status in statuses.items()}


def remember(directory: Path, statuses: dict[ServerRef, Status] = BOTH, config: Config = CONFIG) -> LastKnown:
    known = LastKnown(directory)
    known.save(known.updated(config, states(statuses), {"web": False}))
    return known


def test_the_next_one_knows_what_the_last_one_knew(tmp_path: Path) -> None:
    remember(tmp_path / "state")
    found = LastKnown(tmp_path / "state")
    assert found.presumed(CONFIG) == BOTH
    assert found.quorate == {"web": False}


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert LastKnown(tmp_path).presumed(CONFIG) == {}
    assert LastKnown(tmp_path).quorate == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("was", "now", "known"),
    [
        ("10.0.0.1", "10.0.0.9", {B}),
        ("port: 8080", "port: 8081", {A}),
        (", port: 8080", "", {A}),
        ("port: 80\n", "port: 81\n", {B}),
        ("web:", "web2:", set()),
        ("      a:", "      d:", {B}),
        ("forward: nat", "forward: nat\n    scheduler: rr", {A, B}),
    ],
)
def test_a_server_with_another_address_or_port_is_another_server(
    tmp_path: Path, was: str, now: str, known: set[ServerRef]
) -> None:
    changed = parse_config(FILE.replace(was, now), "f")
    assert remember(tmp_path).presumed(changed).keys() == known


def test_a_server_without_a_verdict_is_what_it_was(tmp_path: Path) -> None:
    known = remember(tmp_path)
    pending = known.updated(CONFIG, states({A: Status.PENDING}), {})
    known.save(pending)
    assert LastKnown(tmp_path).presumed(CONFIG) == BOTH
    known.save(known.updated(CONFIG, states({A: Status.DOWN}), {}))
    assert LastKnown(tmp_path).presumed(CONFIG) == {A: Status.DOWN, B: Status.DOWN}


def test_what_left_the_file_is_forgotten(tmp_path: Path) -> None:
    known = remember(tmp_path)
    fewer = parse_config(FILE.replace("      b: {address: 10.0.0.2, port: 8080}\n", ""), "f")
    known.save(known.updated(fewer, states({A: Status.UP}), {}))
    assert LastKnown(tmp_path).presumed(CONFIG) == {A: Status.UP}


def test_what_is_no_news_is_not_written(tmp_path: Path) -> None:
    known = remember(tmp_path)
    (tmp_path / "health.json").unlink()
    known.save(known.updated(CONFIG, states(BOTH), {"web": False}))
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_written_is_told_once_and_written_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    state.touch()  # a file where the directory should be
    known = LastKnown(state)
    caplog.clear()
    news = known.updated(CONFIG, states(BOTH), {"web": True})
    for _ in range(3):
        known.save(news)
    (told,) = caplog.records
    assert (told.levelno, told.getMessage()) == (logging.WARNING, "a restart will not know what is up and down")
    assert known.presumed(CONFIG) == BOTH
    state.unlink()
    known.save(news)
    assert LastKnown(state).presumed(CONFIG) == BOTH, "no change comes, and it is on disk none the less"
    known.save(Known())
    state.joinpath("health.json").unlink()
    state.rmdir()
    state.touch()
    known.save(news)
    assert len(caplog.records) == 2, "it had gone well in between"


GOOD = {"version": 1, "up": [["web", "a", "10.0.0.1:80"]], "down": [], "quorum": {"web": True}}


def test_the_files_form(tmp_path: Path) -> None:
    (tmp_path / "health.json").write_text(json.dumps(GOOD))
    found = LastKnown(tmp_path)
    assert (found.presumed(CONFIG), found.quorate) == ({A: Status.UP}, {"web": True})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[1]",
        '{"version": 1',
        "\udcff",
        json.dumps({**GOOD, "version": 2}),
        json.dumps({key: value for key, value in GOOD.items() if key != "up"}),
        json.dumps({key: value for key, value in GOOD.items() if key != "quorum"}),
        json.dumps({**GOOD, "up": {}}),
        json.dumps({**GOOD, "up": [["web", "a"]]}),
        json.dumps({**GOOD, "up": [["web", "a", 1]]}),
        json.dumps({**GOOD, "down": [["web", "a", "10.0.0.1:80"]]}),
        json.dumps({**GOOD, "quorum": []}),
        json.dumps({**GOOD, "quorum": {"web": "no"}}),
    ],
)
def test_a_damaged_file_means_that_nothing_is_known_and_is_replaced(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    known = LastKnown(tmp_path)
    assert (known.presumed(CONFIG), known.quorate) == ({}, {})
    (told,) = caplog.records
    assert told.getMessage() == "what was up and down is not known"
    assert told.__dict__["file"] == str(path)
    known.save(known.updated(CONFIG, {}, {}))
    assert json.loads(path.read_text()) == {"version": 1, "up": [], "down": [], "quorum": {}}
