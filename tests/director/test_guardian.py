"""Whoever waits for a confirmation: by its own socket, in a thread; and its own process, for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from director.core.table import RealCounters
from director.guardian import NAME, Guardian, ask, listening
from director.kit.errors import DirectorError, HostError
from tests.director.once.world import BUSY, NEW_CONFIG, OLD_CONFIG, WEB, B, World

pytestmark = pytest.mark.unit


class Watch:
    """A guardian of a changed `World`, in a thread."""

    def __init__(self, directory: Path, wait_s: float = 60.0, drain_s: float | None = None) -> None:
        self.world = World(directory)
        self.world.kernel.carried = dict(BUSY)
        self.once = self.world.once()
        self.once.change()
        self.changed = self.world.seen()
        self.here, self.stop = socket.socketpair()
        self.guardian = Guardian(self.once, "/etc/new.yaml", time.monotonic() + wait_s, "12:34:56", drain_s)
        self.directory = directory
        self.outcome: Future[str]

    def __enter__(self) -> Watch:
        self.stack = ExitStack()
        for each in (self.here, self.stop):
            self.stack.enter_context(each)
        listener = self.stack.enter_context(listening(self.directory))
        pool = self.stack.enter_context(ThreadPoolExecutor(1))
        self.outcome = pool.submit(self.guardian.guard, listener, self.here)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.send(b"x")
        self.stack.close()


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory whose name alone is longer than a socket's path may be."""
    return tmp_path / ("a" * 100) / "state"


def test_its_socket_is_for_root_alone_and_goes_with_it(deep: Path) -> None:
    with Watch(deep):
        found = (deep / NAME).stat().st_mode
        assert (stat.S_ISSOCK(found), stat.S_IMODE(found)) == (True, 0o600)
    assert not (deep / NAME).exists()
    assert list(ask(deep, "status")) == []
    assert list(ask(deep / "nowhere", "status")) == []


def test_one_that_was_killed_leaves_nobody_to_ask_and_the_next_takes_its_place(deep: Path) -> None:
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        descriptor = os.open(deep, os.O_RDONLY)
        dead.bind(f"/proc/self/fd/{descriptor}/{NAME}")
        os.close(descriptor)
    assert list(ask(deep, "status")) == []
    with Watch(deep):
        assert list(ask(deep, "status")) == [{"source": "/etc/new.yaml", "until": "12:34:56"}]


def test_a_confirmation_removes_what_was_held(deep: Path) -> None:
    with Watch(deep) as watch:
        assert list(ask(deep, "status")) == [{"source": "/etc/new.yaml", "until": "12:34:56"}]
        assert watch.world.seen() == watch.changed
        (answer,) = ask(deep, "confirm")
        assert [step["sign"] for step in answer["steps"]].count("-") == 5
        assert watch.outcome.result(10) == "confirmed"
    assert watch.world.has(NEW_CONFIG)
    assert watch.world.journal.load() is None


def test_undo_puts_back_what_was_there(deep: Path) -> None:
    with Watch(deep) as watch:
        (answer,) = ask(deep, "undo")
        assert (answer["failures"], bool(answer["steps"])) == ([], True)
        assert watch.outcome.result(10) == "undone on request: what was there before is back"
    assert watch.world.seen() == watch.world.before


def test_its_deadline_and_its_end_put_back_what_was_there(deep: Path) -> None:
    with Watch(deep, wait_s=0.05) as watch:
        assert watch.outcome.result(10) == "not confirmed until 12:34:56: what was there before is back"
    assert watch.world.seen() == watch.world.before
    with Watch(deep / "other") as watch:
        watch.stop.send(b"x")
        assert watch.outcome.result(10) == "told to stop: what was there before is back"
    assert watch.world.seen() == watch.world.before


def test_a_drain_is_told_as_it_goes_on_and_ends_without_a_listener(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.once.LOOK_EVERY_S", 0.01)
    with Watch(deep, drain_s=60.0) as watch:
        answers = ask(deep, "confirm")
        first = next(answers)
        assert (first["draining"], 59 < first["left_s"] <= 60) == ([["web/10.0.0.2:80", 4]], True)
        assert isinstance(answers, Iterator)
        watch.world.kernel.carried = {(WEB, B): RealCounters(1)}
        assert next(each for each in answers if each["draining"] == [["web/10.0.0.2:80", 1]])
        answers.close()  # type: ignore[attr-defined] # a generator: whoever listened has gone
        watch.world.kernel.carried = {}
        assert watch.outcome.result(10) == "confirmed"
    assert watch.world.has(NEW_CONFIG)


def test_what_fails_after_the_confirmation_is_told(deep: Path) -> None:
    with Watch(deep) as watch:
        watch.world.addresses.broken = {OLD_CONFIG.vips()[1]}
        with pytest.raises(DirectorError, match=r"could not remove .*\nnothing of new is applied"):
            list(ask(deep, "confirm"))
        assert watch.outcome.result(10).startswith("confirmed, and then: could not remove")
    assert watch.world.seen() == watch.world.before


def test_what_cannot_be_put_back_is_told(deep: Path) -> None:
    with Watch(deep) as watch:
        added = NEW_CONFIG.vips()[1]
        watch.world.addresses.broken = {added}
        (answer,) = ask(deep, "undo")
        assert answer["failures"] == [f"could not remove {added}"]
        told = f"undone on request: not all is back: could not remove {added}"
        assert watch.outcome.result(10) == told
    assert watch.world.journal.load() is not None


@pytest.mark.parametrize("request_", [b"", b"{\n", b"[]\n", b'{"do": "dance"}\n', b"x" * 5000])
def test_nonsense_does_not_end_it(deep: Path, request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.guardian.TALK_S", 0.2)
    with Watch(deep):
        descriptor = os.open(deep, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"/proc/self/fd/{descriptor}/{NAME}")
            peer.sendall(request_)
            assert json.loads(peer.recv(1000)) == {"error": "ask for confirm, undo or status"}
        os.close(descriptor)
        assert list(ask(deep, "status"))


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(HostError, match=r"could not listen for a confirmation on .*confirm.sock"), listening(tmp_path):
        pass


DETACHED = """
import os, sys, time
from director.guardian import detach
from director.kit.errors import DirectorError
def work(tell):
    if sys.argv[1] == "refuses":
        raise DirectorError("no")
    if sys.argv[1] == "breaks":
        raise RuntimeError("a defect")
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), 9)
    tell({"pid": os.getpid(), "session": os.getsid(0), "leads": os.getsid(0) == os.getpid(), "cwd": os.getcwd(),
          "stdio": [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]})
    time.sleep(60)
print(detach(work))
"""


def detached(how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", DETACHED, how], capture_output=True, text=True, check=False)


def test_its_process_belongs_to_no_shell_and_no_terminal() -> None:
    done = detached("goes on")  # and this ends, although that one holds on: not to its output
    told = eval(done.stdout, {}, {})  # noqa: S307 -- our own words
    try:
        assert told["session"] not in {os.getsid(0), told["pid"]}
        assert (told["leads"], told["cwd"], told["stdio"]) == (False, "/", ["/dev/null"] * 3)
        status = Path(f"/proc/{told['pid']}/status").read_text()
        ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1], 16)
        assert all(ignored >> (number - 1) & 1 for number in (signal.SIGHUP, signal.SIGINT))
    finally:
        os.kill(told["pid"], signal.SIGTERM)


@pytest.mark.parametrize(("how", "told"), [("refuses", "no"), ("breaks", "internal error: RuntimeError('a defect')")])
def test_what_its_process_meets_is_told_to_whoever_started_it(how: str, told: str) -> None:
    assert eval(detached(how).stdout, {}, {}) == {"error": told}  # noqa: S307 -- our own words


def test_a_process_that_ends_without_a_word_is_told() -> None:
    done = detached("dies")
    assert "HostError: the process that was to apply it and wait ended without a word: `director undo`" in done.stderr
