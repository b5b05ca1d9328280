"""What the operator wants is on disk before it holds, and is taken back whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from director.core.model import ServerRef
from director.core.weight import Wish
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
