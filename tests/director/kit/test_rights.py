"""Whose files are that root makes for another user, and what a process without rights is told."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from director.eventfile import EventFile
from director.host.lockfile import NamespaceLock, StateLock
from director.kit import rights, statefile

pytestmark = pytest.mark.unit

SOMEBODY, SOME_GROUP = 4711, 4712


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_files_that_root_makes_belong_to_the_directorys_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, SOMEBODY, SOME_GROUP)
    statefile.save(tmp_path / "memory.json", 1, {})
    with NamespaceLock("a test", directory=tmp_path), StateLock("a test", tmp_path):
        EventFile(tmp_path).append([])
    found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
    assert len(found) == 4
    assert set(found.values()) == {(SOMEBODY, SOME_GROUP)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_file_that_has_another_name_is_not_given_away(tmp_path: Path) -> None:
    """Where fs.protected_hardlinks is 0, the directory's owner could have root give them any file."""
    theirs, secret = tmp_path / "theirs", tmp_path / "shadow"
    theirs.mkdir()
    secret.write_text("root's")
    (theirs / "events.jsonl").hardlink_to(secret)
    os.chown(theirs, SOMEBODY, SOME_GROUP)
    EventFile(theirs).append([])
    assert secret.stat().st_uid == 0


def test_group_of_what_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = grp.getgrgid(os.getegid()).gr_name
    expected = "run as root" if owner == "root" else f"run as root, or as a member of group {owner}"
    assert rights.in_group(tmp_path) == expected
    monkeypatch.setattr(Path, "group", lambda path: "director" if path == tmp_path else os.strerror(path.stat().st_uid))
    assert rights.in_group(tmp_path / "not there.sock") == "run as root, or as a member of group director"


def test_group_without_a_name_is_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody_knows(path: Path) -> str:
        raise KeyError(str(path))

    monkeypatch.setattr(Path, "group", nobody_knows)
    assert rights.in_group(tmp_path / "d.sock") == "run as root"
