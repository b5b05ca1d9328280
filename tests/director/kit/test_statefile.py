"""What a state file promises: whole or not at all, private, and errors that say what to do."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_version_in_the_data_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    statefile.save(path, 1, {"version": 9, "a": 1})
    assert statefile.load(path, 1) == {"a": 1}


def test_only_the_last_directory_is_private(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "director" / "state.json"
    statefile.save(path, 1, {})
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) & 0o500 == 0o500
    path.parent.chmod(0o755)
    statefile.save(path, 1, {})
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755  # what the operator has set stays


def test_new_name_is_on_disk_when_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its name, then the directory that holds the name, and those that were made for it."""
    order: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_sync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    path = tmp_path / "new" / "state.json"
    statefile.save(path, 1, {})
    assert order == [str(tmp_path), str(tmp_path / "new" / ".state.json.new"), "rename", str(tmp_path / "new")]


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "fsync of the directory"])
def test_death_at_any_step_leaves_the_old_or_the_new_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class PowerCutError(BaseException):
        pass

    def cut(*_: object, **__: object) -> int:
        raise PowerCutError

    path = tmp_path / "state.json"
    statefile.save(path, 1, {"a": "old"})
    places = {
        "open": "os.open",
        "write": "io.TextIOWrapper.write",
        "fsync": "os.fsync",
        "rename": "pathlib.Path.rename",
        "fsync of the directory": "director.kit.statefile._sync_directory",
    }
    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr("os.fdopen", cut)
        else:
            patch.setattr(places[step], cut)
        with pytest.raises(PowerCutError):
            statefile.save(path, 1, {"a": "new"})
    assert statefile.load(path, 1) in ({"a": "old"}, {"a": "new"})
    statefile.save(path, 1, {"a": "after"})
    assert statefile.load(path, 1) == {"a": "after"}
    assert list(tmp_path.iterdir()) == [path]


def test_path_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"could not save .*: run as root, with room on that disk"):
        statefile.save(tmp_path / "file" / "x" / "state.json", 1, {})


def test_removed_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    statefile.save(path, 1, {})
    assert statefile.remove(path)
    assert statefile.load(path, 1) is None
    assert not statefile.remove(path)


JSON: st.SearchStrategy[statefile.Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=20)  # each one syncs the disk five times
@given(st.dictionaries(st.text().filter(lambda key: key != "version"), JSON))
def test_what_is_saved_loads_the_same(data: dict[str, statefile.Json]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "state.json"
        statefile.save(path, 3, data)
        assert statefile.load(path, 3) == data
