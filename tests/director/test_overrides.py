"""What the operator wants is on disk before it holds, and is taken back whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from director.core.model import ServerRef
from director.core.weight import Maintenance, Wish
from director.kit import statefile
from director.kit.errors import HostError
from director.overrides import Overrides

pytestmark = pytest.mark.unit

A, B = ServerRef("web", "a"), ServerRef("web", "b")


def test_wishes_survive_a_restart(tmp_path: Path) -> None:
    first = Overrides(tmp_path / "state")
    first.drain(A)
    first.weight(A, 7)
    first.weight(B, 0)
    assert first.wishes == {A: Wish(True, 7), B: Wish(False, 0)}
    assert Overrides(tmp_path / "state").wishes == first.wishes


def test_enable_takes_back_drain_and_weight(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path)
    overrides.drain(A)
    overrides.weight(A, 7)
    overrides.enable(A)
    assert overrides.wishes == {}
    assert Overrides(tmp_path).wishes == {}


def test_asking_again_for_the_same_writes_nothing(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path)
    overrides.enable(A)
    assert list(tmp_path.iterdir()) == []
    overrides.drain(A)
    (tmp_path / "overrides.json").unlink()
    overrides.drain(A)
    assert list(tmp_path.iterdir()) == []


def test_a_wish_that_cannot_be_saved_does_not_hold(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path / "state")
    (tmp_path / "state").touch()
    with pytest.raises(HostError, match="could not save"):
        overrides.drain(A)
    assert overrides.wishes == {}


def test_a_snapshot_does_not_change(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path)
    before = overrides.wishes
    overrides.drain(A)
    assert before == {}


ENTRY = {"virtual_server": "web", "real_server": "a", "drain": True, "weight": None}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        json.dumps({"version": 9, "real_servers": []}),
        json.dumps({"version": 1}),
        json.dumps({"version": 1, "real_servers": {}}),
        json.dumps({"version": 1, "real_servers": [{**ENTRY, "drain": "yes"}]}),
        json.dumps({"version": 1, "real_servers": [{**ENTRY, "weight": 65536}]}),
        json.dumps({"version": 1, "real_servers": [{**ENTRY, "weight": -1}]}),
        json.dumps({"version": 1, "real_servers": [{"virtual_server": "web"}]}),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "overrides.json"
    path.write_text(content)
    with pytest.raises(HostError, match=rf"mv {path} {path}.bad"):
        Overrides(tmp_path)
    assert path.read_text() == content


class Clock:
    """Seconds since the epoch, as a test says."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


def test_maintenance_ends_when_its_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    wish = overrides.maintenance(A, "new disk", 60.0)
    assert wish == Maintenance("new disk", clock.at + 60.0)
    assert overrides.wishes == {A: Wish(maintenance=wish)}
    clock.at += 59.9
    assert overrides.wishes == {A: Wish(maintenance=wish)}
    clock.at += 0.1
    assert overrides.wishes == {}


def test_maintenance_without_an_end_lasts_until_the_server_is_enabled(tmp_path: Path) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    overrides.maintenance(A, "", None)
    clock.at += 1e9
    assert overrides.wishes == {A: Wish(maintenance=Maintenance())}
    overrides.enable(A)
    assert overrides.wishes == Overrides(tmp_path, clock).wishes == {}


def test_a_restart_knows_when_maintenance_ends(tmp_path: Path) -> None:
    clock = Clock()
    Overrides(tmp_path, clock).maintenance(A, "new disk", 60.0)
    assert Overrides(tmp_path, clock).wishes == {A: Wish(maintenance=Maintenance("new disk", clock.at + 60.0))}
    clock.at += 61.0
    assert Overrides(tmp_path, clock).wishes == {}


def test_what_else_was_wished_outlives_maintenance(tmp_path: Path) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    overrides.weight(A, 7)
    overrides.maintenance(A, "new disk", 60.0)
    overrides.maintenance(B, "new fan", 30.0)
    clock.at += 60.0
    assert overrides.wishes == {A: Wish(weight=7)}
    overrides.drain(B)
    assert Overrides(tmp_path, clock).wishes == {A: Wish(weight=7), B: Wish(drain=True)}
    clock.at -= 60.0
    assert Overrides(tmp_path, clock).wishes == {A: Wish(weight=7), B: Wish(drain=True)}, "what is over is written out"


def test_a_longer_maintenance_takes_the_place_of_a_shorter_one(tmp_path: Path) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    overrides.maintenance(A, "new disk", 60.0)
    overrides.maintenance(A, "newer disk", 120.0)
    clock.at += 60.0
    assert overrides.wishes == {A: Wish(maintenance=Maintenance("newer disk", clock.at + 60.0))}


def test_the_next_end_is_told_until_somebody_has_seen_it(tmp_path: Path) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    assert overrides.next_expiry_s(clock.at) is None
    overrides.maintenance(A, "", None)
    assert overrides.next_expiry_s(clock.at) is None
    overrides.maintenance(A, "", 60.0)
    overrides.maintenance(B, "", 30.0)
    assert overrides.next_expiry_s(clock.at) == 30.0
    clock.at += 30.0
    assert overrides.next_expiry_s(clock.at) == 0.0
    assert overrides.wishes.keys() == {A}
    assert overrides.next_expiry_s(clock.at) == 30.0
    clock.at += 40.0
    assert overrides.next_expiry_s(clock.at) == 0.0
    assert overrides.wishes == {}
    assert overrides.next_expiry_s(clock.at) is None


def test_looking_at_wishes_does_not_undo_what_is_being_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    overrides = Overrides(tmp_path, clock)
    overrides.maintenance(A, "", 60.0)
    clock.at += 60.0
    save = statefile.save

    def slow(*words: Any) -> None:
        assert overrides.wishes == {}  # the loop looks while another thread waits for the disk
        save(*words)

    monkeypatch.setattr(statefile, "save", slow)
    overrides.drain(B)
    assert overrides.wishes == Overrides(tmp_path, clock).wishes == {B: Wish(drain=True)}


def test_a_file_from_before_maintenance_is_read(tmp_path: Path) -> None:
    (tmp_path / "overrides.json").write_text(json.dumps({"version": 1, "real_servers": [ENTRY]}))
    assert Overrides(tmp_path).wishes == {A: Wish(drain=True)}


@pytest.mark.parametrize(
    "maintenance", [1, {}, {"reason": ""}, {"reason": 1, "until": None}, {"reason": "", "until": "soon"}]
)
def test_damaged_maintenance_is_refused(tmp_path: Path, maintenance: object) -> None:
    content = json.dumps({"version": 1, "real_servers": [{**ENTRY, "maintenance": maintenance}]})
    (tmp_path / "overrides.json").write_text(content)
    with pytest.raises(HostError, match="cannot be used"):
        Overrides(tmp_path)
