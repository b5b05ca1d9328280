"""What is typed where a director runs: it is asked, and its answer is printed."""

from __future__ import annotations

import pytest

from director.core.answers import Applied, Step
from director.core.drift import Drift
from director.core.driftlines import drift_lines
from director.core.model import Config, ServerRef
from director.core.table import Timeouts
from director.kit.errors import ConfigError, HostError, KernelError
from tests.director.cli.shell import FILE, Shell
from tests.director.fakes import Stub

pytestmark = pytest.mark.unit


def test_a_running_director_is_asked_and_told_the_whole_path(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.directory)
    ended = shell("plan", "director.yaml")
    assert (ended.code, ended.out) == (2, "+ virtual server web: wlc\n1 change to make.\n")
    assert shell("apply", "director.yaml").code == 0
    assert director.asked == [("plan", FILE, str(shell.file)), ("apply", FILE, str(shell.file))]


def test_what_a_director_made_failed_and_waits_for_is_all_told(shell: Shell, director: Stub) -> None:
    director.applied = Applied((Step("+", "virtual server web", "wlc"),), ("no scheduler", "no interface"), ("for a",))
    ended = shell("apply", shell.file)
    assert (ended.code, ended.out) == (1, "+ virtual server web: wlc\n1 change made.\n")
    assert ended.err == "note: for a\ndirector: no scheduler\ndirector: no interface\n"
    director.applied = Applied((), (), ("for a",))
    assert (shell("apply", shell.file).code, shell("apply", shell.file).err) == (0, "note: for a\n")


def test_drain_enable_and_weight_ask_the_director(shell: Shell, director: Stub) -> None:
    assert shell("drain", "web", "a").out == "web/a is drained; `director enable` takes it back.\n"
    assert shell("enable", "web", "a").out == "web/a follows the file and its check again.\n"
    assert shell("weight", "web", "a", "0").code == 0
    ref = ServerRef("web", "a")
    assert director.asked == [("drain", ref), ("enable", ref), ("weight", ref, 0)]


def test_a_real_server_may_be_named_as_lines_name_it(shell: Shell, director: Stub) -> None:
    for words in (("drain", "web/a"), ("enable", "web/a"), ("weight", "web/a", "7"), ("weight", "web", "a", "7")):
        assert shell(*words).code == 0, words
    ref = ServerRef("web", "a")
    assert director.asked == [("drain", ref), ("enable", ref), ("weight", ref, 7), ("weight", ref, 7)]
    for words in (("drain", "web"), ("drain", "web", "a", "b"), ("weight", "web", "7"), ("enable", "web/")):
        ended = shell(*words)
        assert ended.code == 64, words
        assert "name the virtual server and its real server: `web a` or `web/a`" in ended.err, words


def test_a_negative_weight_is_out_of_range_and_no_option(shell: Shell, director: Stub) -> None:
    ended = shell("weight", "web", "a", "-1")
    assert (ended.code, director.asked) == (64, [])
    assert "-1 is not in the range 0<=x<=65535" in ended.err
    assert "No such option" in shell("weight", "web", "a", "7", "--nosuch").err


def test_what_a_drain_means_is_told(shell: Shell, director: Stub) -> None:
    director.notes = ["no real server of web takes connections now"]
    for words in (("drain", "web", "a"), ("weight", "web", "a", "0")):
        ended = shell(*words)
        assert (ended.code, ended.err) == (0, "note: no real server of web takes connections now\n")


@pytest.mark.parametrize("error", [ConfigError("f:1:1: no\nf:2:1: nor this"), KernelError("no answer"), HostError("x")])
def test_what_the_director_refuses_is_said_with_exit_1(shell: Shell, director: Stub, error: Exception) -> None:
    director.error = error
    ended = shell("drain", "web", "a")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "".join(f"director: {line}\n" for line in str(error).splitlines())


def test_drift_asks_a_running_director(shell: Shell, director: Stub) -> None:
    drifts = [Drift(None, None, Timeouts(900, 120, 300), Timeouts(60, 120, 300))]
    director.drifts = tuple(drift_lines(drifts, Config()))
    ended = shell("drift", shell.file)
    assert ended.code == 2
    assert ended.out.splitlines()[0].startswith("~ timeouts: was tcp 15m")
    assert "was not looked at" in ended.err
    director.drifts = ()
    assert shell("drift", "--json") == (0, '{"drift": []}\n', "")
