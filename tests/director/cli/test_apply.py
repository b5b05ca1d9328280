"""apply, confirm and undo as an operator types them: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from director.cli.lines import Draining
from director.core.answers import Applied, Step
from director.core.status import Status
from director.core.table import RealCounters
from director.guardian import Guardian
from director.journal import Journal
from director.kit.errors import ConfigError
from director.memory import Memory
from director.once import Once, inputs_once
from director.reconcile import Reconciler
from tests.director.cli.shell import FILE, Host, Shell
from tests.director.fakes import Stub
from tests.director.test_guardian import Watch

pytestmark = pytest.mark.unit

TWO = FILE + "      b: {address: 10.0.0.2}\n"
GONE = Step(
    "-", "real server web/b (10.0.0.2:80)", "nat, weight 100", "12 active connections would break; drain first?"
)
GONE_LINE = "- real server web/b (10.0.0.2:80): nat, weight 100; 12 active connections would break; drain first?"
DONE_LINE = "- real server web/b (10.0.0.2:80): nat, weight 100"
ADDED = Step("+", "virtual server web", "wlc")


@pytest.mark.parametrize("value", ["60", "soon", "0s", "-1s", "99d"])
def test_a_wrong_duration_exits_64(shell: Shell, value: str) -> None:
    ended = shell("apply", shell.file, "--confirm", value)
    assert (ended.code, ended.out) == (64, "")
    assert "Invalid value for '--confirm': " in ended.err


def test_a_plan_says_what_a_removal_breaks(shell: Shell, host: Host) -> None:
    shell.file.write_text(TWO)
    shell("apply", shell.file)
    (key,) = host.kernel.table
    (_, b) = host.kernel.table.entries[key].reals
    host.kernel.carried = {(key, b): RealCounters(12)}
    shell.file.write_text(FILE)
    told = "- real server web/10.0.0.2:80: nat, weight 100; 12 active connections would break; drain first?"
    assert shell("plan", shell.file).out.splitlines()[0] == told
    (step,) = json.loads(shell("plan", shell.file, "--json").out)["steps"]
    assert step["effect"] == "12 active connections would break; drain first?"


def test_a_drain_without_a_director_is_followed_to_its_end(
    shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.file.write_text(TWO)
    shell("apply", shell.file)
    (key,) = host.kernel.table
    (_, b) = host.kernel.table.entries[key].reals
    host.kernel.carried = {(key, b): RealCounters(2)}
    monkeypatch.setattr("director.once.LOOK_EVERY_S", 0.0)
    looks = iter([2, 2, 1, 1, 0])
    read = host.kernel.read

    def fewer() -> object:
        left = next(looks, 0)
        host.kernel.carried = {(key, b): RealCounters(left)} if left else {}
        return read()

    shell.file.write_text(FILE)
    once = Once.drain

    def drain(self: Once, *words: object) -> Applied:
        monkeypatch.setattr(host.kernel, "read", fewer)
        return once(self, *words)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr(Once, "drain", drain)
    ended = shell("apply", shell.file, "--drain", "24s")
    assert ended.code == 0
    assert ended.err.splitlines()[:2] == [
        "draining web/10.0.0.2:80: 2 connections, 24s left",
        "draining web/10.0.0.2:80: 1 connection, 24s left",
    ]
    assert ended.out == "- real server web/10.0.0.2:80: nat, weight 0\n1 change made.\n"


def test_an_interrupted_drain_says_what_it_leaves(shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.file.write_text(TWO)
    shell("apply", shell.file)
    (key,) = host.kernel.table
    (_, b) = host.kernel.table.entries[key].reals
    host.kernel.carried = {(key, b): RealCounters(2)}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Draining, "tell", interrupted)
    shell.file.write_text(FILE)
    ended = shell("apply", shell.file, "--drain", "24s")
    assert ended.code == 130
    assert ended.err == (
        f"interrupted: what drains stays at weight 0: `director apply {shell.file}` removes it, "
        f"`director undo --state-dir {shell.state}` takes all of it back\n"
    )
    assert host.kernel.table.entries[key].reals[b].weight == 0
    assert "was cut short: `director undo` puts back" in shell("plan", shell.file).err
    assert shell("undo").code == 0
    assert host.kernel.table.entries[key].reals[b].weight == 100


class Cut:
    """An apply of TWO, without b, that was killed in the middle."""

    def __init__(self, shell: Shell, host: Host) -> None:
        from director.core.config import parse_config

        shell.file.write_text(TWO)
        shell("apply", shell.file)
        self.before = host.kernel.table
        self.journal = Journal(shell.state)
        self.reconciler = Reconciler(host.kernel, host.addresses, Memory(shell.state))
        config = parse_config(FILE, "cut.yaml")
        self.once = Once(
            self.reconciler, self.journal, inputs_once(config, host.kernel.table, {}), "/etc/cut.yaml", FILE
        )
        self.once.change()


def test_an_apply_that_was_cut_short_is_told_with_the_ways_out(shell: Shell, host: Host) -> None:
    Cut(shell, host)
    told = shell("plan", shell.file).err
    assert told.startswith("note: the apply of /etc/cut.yaml by process ")
    assert told.endswith(
        " was cut short: `director undo` puts back what was there before, `director confirm` finishes it, and another "
        "apply takes its place\n"
    )
    with host.lock("director apply x"):
        assert shell("plan", shell.file).err.endswith(" is on its way\n")
    ended = shell("apply", shell.file)
    assert ended.code == 0
    assert "was cut short" in ended.err
    assert shell("plan", shell.file).err == ""


def test_undo_after_a_crash_puts_back_what_was_there(shell: Shell, host: Host) -> None:
    cut = Cut(shell, host)
    ended = shell("undo")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "~ real server web/10.0.0.2:80: weight 0 -> 100\n1 change made.\n"
    assert host.kernel.table == cut.before
    told = "director: nothing awaits confirmation and no apply was cut short: "
    for command in ("undo", "confirm"):
        ended = shell(command)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(told)


def test_confirm_after_a_crash_finishes_it(shell: Shell, host: Host) -> None:
    Cut(shell, host)
    ended = shell("confirm")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "- real server web/10.0.0.2:80: nat, weight 0\n1 change made.\n"
    assert shell("plan", shell.file).out.startswith("+ real server web/b (10.0.0.2:80)")


def test_who_waits_for_a_confirmation_is_asked(shell: Shell, host: Host) -> None:
    with Watch(shell.state) as watch:
        told = "/etc/new.yaml awaits confirmation until 12:34:56: `director confirm` "
        ended = shell("plan", shell.file)
        assert ended.err == f"note: {told}keeps it, `director undo` takes it back now\n"
        for words in ((), ("--confirm", "1m"), ("--drain", "1m")):
            ended = shell("apply", shell.file, *words)
            assert (ended.code, ended.err) == (1, f"director: {told}or `director undo` comes first\n")
        ended = shell("confirm")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.splitlines()[-1].endswith(" changes made.")
        assert watch.outcome.result(10) == "confirmed"
    with Watch(shell.state / "other") as watch:
        ended = shell("undo", "--state-dir", shell.state / "other", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert json.loads(ended.out)["steps"]
        assert watch.outcome.result(10).startswith("undone on request")


def test_a_drain_after_the_confirmation_is_followed(shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.once.LOOK_EVERY_S", 0.01)
    tell = Draining.tell

    with Watch(shell.state, drain_s=60.0) as watch:

        def told(self: Draining, *words: object) -> None:
            watch.world.kernel.carried = {}
            tell(self, *words)  # type: ignore[arg-type] # passed on as it came

        monkeypatch.setattr(Draining, "tell", told)
        ended = shell("confirm")
    assert ended.code == 0
    assert ended.err.splitlines()[0] == "draining web/10.0.0.2:80: 4 connections, 60s left"


def test_a_director_is_given_the_durations_and_says_until_when(shell: Shell, director: Stub) -> None:
    director.applied = Applied((ADDED,), (), (), (GONE,), 60.0)
    ended = shell("apply", shell.file, "--confirm", "1m", "--drain", "1500ms")
    assert director.asked[-1] == ("apply", FILE, str(shell.file), 60.0, 1.5)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[:4] == ["+ virtual server web: wlc", "1 change made.", "Once confirmed:", GONE_LINE]
    options = f"--socket {shell.socket} --state-dir {shell.state}"
    assert lines[4].startswith("Not confirmed: undone at ")
    assert lines[4].endswith(f" (in 60s) unless you type: director confirm {options}")
    assert lines[5] == f"To take it back now: director undo {options}"
    as_json = shell("apply", shell.file, "--confirm", "1m", "--json")
    assert json.loads(as_json.out) == {"steps": [ADDED.plain()], "later": [GONE.plain()], "confirm_s": 60.0}
    assert "director confirm" in as_json.err


def statuses(stub: Stub, leaving: list[int], **daemon: object) -> Callable[[], object]:
    """The director's answers, one after the other: so many connections of web/b."""
    left = iter(leaving)

    async def answer() -> Status:
        status = await Stub.status(stub)
        connections = next(left)
        if connections:
            status["daemon"]["leaving"] = [{"name": "web/b", "connections": connections}]
            status["daemon"]["drain_left_s"] = 24.4
        status["daemon"].update(daemon)  # type: ignore[typeddict-item] # what the trial names is there
        return status

    return answer


@pytest.mark.parametrize("words", [("apply", "FILE", "--drain", "30s"), ("confirm",)])
def test_a_directors_drain_is_followed(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("director.cli.apply.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(director, "status", statuses(director, [12, 12, 3, 0]))
    director.applied = Applied((ADDED,), (), ("waiting for web/b",), (GONE,))
    ended = shell(*(str(shell.file) if word == "FILE" else word for word in words))
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "draining web/b: 12 connections, 24s left",
        "draining web/b: 3 connections, 24s left",
        "web/b has drained",
    ]
    assert ended.out.splitlines() == ["+ virtual server web: wlc", DONE_LINE, "2 changes made."]


def test_what_a_directors_deadline_cuts_is_told(shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.cli.apply.LOOK_EVERY_S", 0.0)
    answers = statuses(director, [3, 0])

    async def at_the_deadline() -> object:
        status = await answers()  # type: ignore[misc] # it is a coroutine
        if status["daemon"]["leaving"]:
            status["daemon"]["drain_left_s"] = 0.0
        return status

    monkeypatch.setattr(director, "status", at_the_deadline)
    director.applied = Applied((ADDED,), (), (), (GONE,))
    ended = shell("apply", shell.file, "--drain", "30s")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "draining web/b: 3 connections, 0s left",
        "web/b: 3 connections were cut at the deadline",
    ]


def test_a_drain_that_a_director_could_not_end_is_an_error(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(director, "status", statuses(director, [0], failures=["could not remove it"]))
    director.applied = Applied((ADDED,), (), (), (GONE,))
    ended = shell("apply", shell.file, "--drain", "30s")
    assert (ended.code, ended.err.splitlines()[-1]) == (1, "director: could not remove it")


def test_an_interrupted_look_at_a_director_says_that_it_goes_on(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Draining, "tell", interrupted)
    monkeypatch.setattr(director, "status", statuses(director, [12]))
    director.applied = Applied((ADDED,), (), (), (GONE,))
    ended = shell("apply", shell.file, "--drain", "30s")
    told = "interrupted: the director goes on, and removes what drains in time: `director status` shows it\n"
    assert (ended.code, ended.out, ended.err) == (130, "", told)


def test_confirm_and_undo_ask_the_director(shell: Shell, director: Stub) -> None:
    assert shell("confirm").out == "Confirmed: there was nothing left to change.\n"
    assert shell("undo").out == "Nothing had to be put back.\n"
    director.applied = Applied((ADDED,), ("no answer",), ("for a",))
    ended = shell("undo")
    assert (ended.code, ended.out) == (1, "+ virtual server web: wlc\n1 change made.\n")
    assert ended.err == "note: for a\ndirector: no answer\n"
    director.error = ConfigError("nothing awaits confirmation")
    assert (shell("confirm").code, shell("confirm").err) == (1, "director: nothing awaits confirmation\n")
    assert [asked for asked in director.asked if asked not in {("confirm",), ("undo",)}] == []


def test_a_guardian_that_nobody_waits_for_changes_nothing(
    shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its process does, in this one: with nothing to confirm it does not wait."""
    told: list[object] = []
    monkeypatch.setattr("director.guardian.detach", lambda work: _worked(work, told))
    monkeypatch.setattr(Guardian, "guard", lambda *_: pytest.fail("there is nothing to wait for"))
    shell("apply", shell.file)
    ended = shell("apply", shell.file, "--confirm", "1m")
    assert (ended.code, ended.out) == (0, "Nothing to change: the kernel agrees with the file.\n")


def _worked(work: Callable[[Callable[[object], None]], None], told: list[object]) -> object:
    work(told.append)
    return told[0]


def test_an_interruption_does_not_reach_the_guardian_and_that_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("director.guardian.detach", interrupted)
    ended = shell("apply", shell.file, "--confirm", "1m")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == (
        "interrupted: the apply goes on by itself, and awaits confirmation, "
        f"`director undo --state-dir {shell.state}` takes all of it back\n"
    )


def test_what_the_guardians_process_is_refused_is_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.guardian.detach", lambda work: {"error": "could not add it\nnothing is applied"})
    ended = shell("apply", shell.file, "--confirm", "1m")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "director: could not add it\ndirector: nothing is applied\n"
