"""One holder at a time, who is named, and whose death frees the lock."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from director.host.lockfile import Holder, NamespaceLock, StateLock
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

HOLD = """
import sys
from pathlib import Path
from director.host.lockfile import NamespaceLock
with NamespaceLock("director run", directory=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_holder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    purpose = "director run /etc/director/director.yaml"
    with NamespaceLock(purpose, directory=tmp_path) as lock:
        assert lock.path.name == f"ipvs-{os.stat('/proc/self/ns/net').st_ino}.lock"  # noqa: PTH116
        assert lock.path.stat().st_mode & 0o777 == 0o600
        other = NamespaceLock("director apply", directory=tmp_path)
        assert other.holder() == Holder(os.getpid(), purpose)
        with pytest.raises(HostError, match=rf"process {os.getpid()} \({purpose}\).*kill {os.getpid()}"):
            other.acquire()
    assert other.holder() is None
    with other:
        assert other.holder() == Holder(os.getpid(), "director apply")


def test_asking_creates_nothing(tmp_path: Path) -> None:
    assert NamespaceLock("", directory=tmp_path / "run").holder() is None
    assert list(tmp_path.iterdir()) == []


def test_death_of_the_holder_frees_the_lock(tmp_path: Path) -> None:
    lock = NamespaceLock("second", directory=tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert lock.holder() == Holder(process.pid, "director run")
        process.kill()
        process.wait()
    assert lock.holder() is None
    with lock:
        pass


def test_locks_of_other_names_do_not_meet(tmp_path: Path) -> None:
    with NamespaceLock("a", directory=tmp_path), NamespaceLock("b", name="realserver", directory=tmp_path):
        pass


def test_taking_it_twice_is_refused_and_releasing_twice_is_not(tmp_path: Path) -> None:
    lock = NamespaceLock("a", directory=tmp_path)
    with lock:
        with pytest.raises(HostError, match="already held by this very process"):
            lock.acquire()
        lock.release()


def test_unusable_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="could not open the lock"):
        NamespaceLock("a", directory=tmp_path / "file").acquire()


def test_a_state_directory_has_one_holder_in_whatever_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    with StateLock("director run a", state):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        monkeypatch.setattr("director.host.lockfile.namespace_inode", lambda: 7)
        with pytest.raises(HostError, match=rf"process {os.getpid()} \(director run a\) keeps its state in {state}"):
            StateLock("director run b", state).acquire()
    StateLock("director run b", state).acquire()
