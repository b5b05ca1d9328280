"""What a state file promises: whole or not at all, private, and errors that say what to do."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from director.kit import statefile
from director.kit.errors import HostError

pytestmark = pytest.mark.unit


def test_saved_state_loads_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "director" / "state.json"
    statefile.save(path, 1, {"vips": ["192.0.2.10"]})
    assert statefile.load(path, 1) == {"vips": ["192.0.2.10"]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_draft_of_a_crashed_save_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.new").write_text('{"half')
    assert statefile.load(path, 1) is None
    statefile.save(path, 1, {"a": 1})
    assert statefile.load(path, 1) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_save_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    statefile.save(path, 1, {"a": 1})

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(HostError, match=r"could not save .*No space left"):
            statefile.save(path, 1, {"a": 2})
    assert statefile.load(path, 1) == {"a": 1}


def test_missing_file_is_none_and_removing_it_is_no_change(tmp_path: Path) -> None:
    assert statefile.load(tmp_path / "state.json", 1) is None
    assert not statefile.remove(tmp_path / "absent" / "state.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "not JSON"),
        (b'{"version": 1, "vips": [', "not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "says version null"),
        (b'{"version": 2}', "says version 2 and this program writes version 1"),
    ],
)
def test_damaged_file_is_told_with_the_way_out(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(HostError, match=found) as caught:
        statefile.load(path, 1)
    assert f"mv {path} {path}.bad" in str(caught.value)


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not read"):
        statefile.load(tmp_path, 1)
