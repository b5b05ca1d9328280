"""The command line: what it prints, where, and the exit code it ends with; never a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from director.cli import exits
from director.cli.root import cli
from director.core.answers import Applied, Step
from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import AddReal, EditReal
from director.core.drift import Drift
from director.core.driftlines import drift_lines, sentence
from director.core.model import Config, ServerRef
from director.core.serving import Known, serving
from director.core.status import Status
from director.core.table import (
    Foreign,
    Forward,
    Reading,
    RealCounters,
    RealRow,
    Table,
    Timeouts,
    VirtualEntry,
    VirtualKey,
)
from director.core.vip import Vip
from director.host.lockfile import NamespaceLock, StateLock
from director.kit.errors import ConfigError, HostError, KernelError
from director.kit.net import parse_endpoint
from director.memory import Memory
from director.overrides import Overrides
from director.reconcile import Reconciler
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses, FakeAnnouncer, Stub

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    interface: eth0
    real_servers:
      a: {address: 10.0.0.1}
"""
COMMANDS = [
    "check",
    "plan",
    "apply",
    "confirm",
    "undo",
    "drift",
    "export",
    "run",
    "status",
    "drain",
    "enable",
    "weight",
    "doctor",
]


NOBODY_LEAVES: dict[str, object] = {"unconfirmed": None, "leaving": [], "drain_left_s": None}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs `director` in this process, with its socket and state in `directory`."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.file = directory / "director.yaml"
        self.socket = directory / "d.sock"
        self.state = directory / "state"
        self.capsys = capsys

    def __call__(self, *words: str | Path) -> Ended:
        code = exits.run(cli, "director", [str(word) for word in words])
        return Ended(code, *self.capsys.readouterr())


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path, capsys)
    monkeypatch.setenv("DIRECTOR_SOCKET", str(made.socket))
    monkeypatch.setenv("DIRECTOR_STATE_DIR", str(made.state))
    monkeypatch.setattr("director.advice.advice", lambda config: ())
    monkeypatch.setattr("director.kit.logs.configure", lambda level: None)
    made.file.write_text(FILE)
    return made


class ClosingAnnouncer(FakeAnnouncer):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Host:
    """The kernel, the addresses and the lock of a host that only the test has."""

    def __init__(self, directory: Path) -> None:
        self.kernel = FakeKernel()
        self.addresses = FakeAddresses()
        self.announcer = ClosingAnnouncer()
        self.directory = directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> Self:
        return self

    def survey(self) -> Reading:
        return self.kernel.survey()

    def version(self) -> str:
        return "1.2.1"

    def reconciler(
        self, _: object, state_directory: Path, announce: Callable[[Vip], None] = lambda vip: None
    ) -> Reconciler:
        return Reconciler(self.kernel, self.addresses, Memory(state_directory), announce)

    def lock(self, purpose: str) -> NamespaceLock:
        return NamespaceLock(purpose, directory=self.directory)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "lock")
    monkeypatch.setattr("director.ipvs.client.IpvsClient.open", made.open)
    monkeypatch.setattr("director.host.lockfile.NamespaceLock", made.lock)
    monkeypatch.setattr("director.cli.alone._reconciler", made.reconciler)
    monkeypatch.setattr("director.host.announce.Announcer", lambda: made.announcer)
    monkeypatch.setattr("director.cli.alone.ANNOUNCE_EVERY_S", 0.0)
    return made


@pytest.fixture
def director(shell: Shell) -> Iterator[Stub]:
    """A director that answers on the shell's socket."""
    from director.api.server import listening, serve

    stub = Stub()
    begun, end = threading.Event(), threading.Event()

    async def main() -> None:
        async with serve(stub, listener):
            begun.set()
            await asyncio.to_thread(end.wait)

    with listening(shell.socket) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert begun.wait(10)
        yield stub
        end.set()
        thread.join()


def test_help_names_the_exit_codes_and_every_command(shell: Shell) -> None:
    ended = shell("--help")
    assert ended.code == 0
    words = " ".join(ended.out.split())
    assert "Exit codes: 0 done, 1 an error that the message explains, 2 `plan` or `drift` found something, " in words
    assert "`export` left something out or `doctor` has only warnings, 64 the command line is wrong." in words
    for command in COMMANDS:
        assert f"\n  {command} " in ended.out
        told = shell(command, "--help")
        assert (told.code, told.err) == (0, "")
        assert "xits" in told.out, command


@pytest.mark.parametrize(
    "words",
    [
        ("nosuch",),
        ("--nosuch",),
        ("check",),
        ("check", "a", "b"),
        ("plan", "--nosuch", "f"),
        ("weight", "web", "a", "70000"),
        ("weight", "web", "a", "-1"),
        ("weight", "web", "a", "ten"),
        ("drain", "web"),
        ("run", "f", "--log-level", "loud"),
        ("realserver", "apply"),
        ("realserver", "apply", "--undo", "--vip", "192.0.2.1"),
        ("realserver", "apply", "--vip", "192.0.2.256"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--tunnel", "gre"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--forward", "tun", "--tunnel-port", "6080"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--forward", "tun", "--director", "224.0.0.1"),
        ("realserver", "apply", "--undo", "--director", "192.0.2.2"),
        ("realserver", "apply", "f", "--forward", "tun"),
        ("realserver", "check"),
        ("realserver", "check", "--director", "192.0.2.2", "--client", "2001:db8::1"),
    ],
)
def test_a_wrong_command_line_exits_64(shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell(*words)
    assert (ended.code, ended.out) == (64, "")
    assert "Error: " in ended.err


def test_check_of_a_good_file(shell: Shell) -> None:
    assert shell("check", shell.file) == (
        0,
        f"{shell.file}: ok: 1 virtual server, 1 real server, 0 of them checked\n",
        "",
    )


@pytest.mark.parametrize("command", ["check", "plan", "apply", "run"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "1:1: no such file: check the path"),
        ("directory", "1:1: this is a directory: give the path of a YAML file"),
        (b"", "1:1: the file is empty"),
        (b"\x7fELF\x02\x01\x01\x00\xff", "1:9: byte 0xff is not UTF-8"),
        (b"a: \x00\n", "1:4: control character"),
        (b"a: [\n", "2:1: "),
        (b"virtual_servers: {web: {}, web: {}}\n", "1:28: virtual_servers.web: duplicate key 'web'"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_exits_1(
    shell: Shell, host: Host, command: str, content: bytes | str | None, told: str
) -> None:
    shell.file.unlink()
    if content == "directory":
        shell.file.mkdir()
    elif isinstance(content, bytes):
        shell.file.write_bytes(content)
    ended = shell(command, shell.file)
    assert (ended.code, ended.out) == (1, "")
    assert f"{shell.file}:{told}" in ended.err
    assert all(line.startswith(f"{shell.file}:") for line in ended.err.splitlines())
    assert host.kernel.writes == 0
    assert not shell.state.exists()


def test_a_file_that_may_not_be_read_is_told(shell: Shell) -> None:
    shell.file.chmod(0)
    # Root reads everything: without these two it does not.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*drop, sys.executable, "-m", "director", "check", shell.file], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"{shell.file}:1:1: permission denied: run as root")


def test_a_name_that_is_no_text_is_no_traceback(shell: Shell) -> None:
    odd = shell.directory / os.fsdecode(b"\xff\xfe.yaml")
    odd.write_text(FILE)
    ended = subprocess.run([sys.executable, "-m", "director", "check", odd], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b": ok: 1 virtual server" in ended.stdout


def test_plan_exits_2_while_something_would_change_and_apply_makes_it(shell: Shell, host: Host) -> None:
    lines = [
        "+ virtual server web (tcp 192.0.2.10:80): wlc",
        "+ real server web/a (10.0.0.1:80): nat, weight 100 (not checked)",
        "+ address 192.0.2.10 on eth0",
    ]
    planned = shell("plan", shell.file)
    assert (planned.code, planned.err) == (2, "")
    assert planned.out.splitlines() == [*lines, "3 changes to make."]
    assert host.kernel.writes == 0
    applied = shell("apply", shell.file)
    assert (applied.code, applied.err) == (0, "")
    assert applied.out.splitlines() == [*lines, "3 changes made."]
    same = "Nothing to change: the kernel agrees with the file.\n"
    assert shell("apply", shell.file) == (0, same, "")
    assert shell("plan", shell.file) == (0, same, "")
    assert shell("plan", shell.file, "--json") == (0, '{"steps": []}\n', "")


def test_json_of_a_plan(shell: Shell, host: Host) -> None:
    ended = shell("plan", "--json", shell.file)
    assert ended.code == 2
    assert json.loads(ended.out)["steps"][2] == {
        "sign": "+",
        "subject": "address 192.0.2.10 on eth0",
        "detail": "",
        "effect": "",
    }
    assert host.kernel.writes == 0


def test_apply_keeps_a_drain_and_a_weight_of_0_that_a_director_left(shell: Shell, host: Host) -> None:
    shell.file.write_text(FILE + "      b: {address: 10.0.0.2, check: {type: tcp}}\n")
    Overrides(shell.state).drain(ServerRef("web", "a"))
    assert shell("apply", shell.file).code == 0
    (entry,) = host.kernel.table.entries.values()
    assert [row.weight for row in entry.reals.values()] == [0, 100]


def test_what_the_host_refuses_is_told_and_nothing_is_applied(shell: Shell, host: Host) -> None:
    host.addresses.broken = {Vip(ip_address("192.0.2.10"), "eth0")}
    ended = shell("apply", shell.file)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == [
        "director: could not add 192.0.2.10 on eth0",
        f"director: nothing of {shell.file} is applied: what was there before is back",
    ]
    assert host.kernel.table == Table()
    assert host.announcer.sent == []


def test_a_new_address_is_announced_as_often_as_a_director_does(shell: Shell, host: Host) -> None:
    shell("apply", shell.file)
    assert host.announcer.sent == [Vip(ip_address("192.0.2.10"), "eth0")] * 5
    shell("apply", shell.file)
    assert len(host.announcer.sent) == 5


def test_a_change_of_method_that_waits_is_to_be_applied_again(shell: Shell, host: Host) -> None:
    checked = FILE.replace("10.0.0.1}", "10.0.0.1, check: {type: tcp}}")
    shell.file.write_text(checked)
    shell("apply", shell.file)
    (key,) = host.kernel.table
    (real,) = host.kernel.table.entries[key].reals
    host.kernel.carried = {(key, real): RealCounters(1)}
    shell.file.write_text(checked.replace("forward: nat", "forward: dr"))
    for lines in (2, 0):
        ended = shell("apply", shell.file)
        assert ended.code == 1
        told = "waiting for 1 connection of web/a under nat to end before it changes to dr: run apply again then"
        assert ended.err == f"director: {told}\n"
        assert len(ended.out.splitlines()) == lines
    host.kernel.carried.clear()
    assert shell("apply", shell.file).code == 0
    assert host.kernel.table.entries[key].reals == {real: RealRow(Forward.DR, 100)}


def test_a_directory_of_state_serves_one_director(shell: Shell, host: Host) -> None:
    with StateLock("director run y", shell.state):
        ended = shell("apply", shell.file)
    assert ended.code == 1
    assert f"process {os.getpid()} (director run y) keeps its state in {shell.state}" in ended.err
    assert "--state-dir" in ended.err
    assert host.kernel.writes == 0


def test_a_hangup_while_a_director_begins_does_not_kill_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up(*_: object) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # others of the run do not block it
        raise HostError("no socket")

    monkeypatch.setattr("director.daemon.run", hung_up)
    assert shell("run", shell.file) == (1, "", "director: no socket\n")
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_second_writer_is_told_who_is_at_it(shell: Shell, host: Host) -> None:
    with host.lock("director run x"):
        ended = shell("apply", shell.file)
    assert ended.code == 1
    assert f"process {os.getpid()} (director run x) already manages" in ended.err
    assert host.kernel.writes == 0


def test_a_setting_that_does_not_fit_is_a_note(shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.advice.advice", lambda config: ("net.ipv4.ip_forward is 0",))
    assert shell("plan", shell.file).err == "note: net.ipv4.ip_forward is 0\n"
    ended = shell("apply", shell.file, "--json")
    assert (ended.code, ended.err) == (0, "note: net.ipv4.ip_forward is 0\n")
    assert len(json.loads(ended.out)["steps"]) == 3


@pytest.mark.parametrize(
    "words", [("status",), ("drain", "web", "a"), ("enable", "web", "a"), ("weight", "web", "a", "1")]
)
def test_without_a_director_the_command_says_so(shell: Shell, words: tuple[str, ...]) -> None:
    told = f"director: no director is running (nothing answers on {shell.socket}): start one with `director run FILE`\n"
    assert shell(*words) == (1, "", told)


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


def status_of(text: str, table: Table | None = None, **daemon: object) -> Status:
    from director.core.serving import Known, serving
    from director.core.status import virtual_servers
    from director.core.table import TableCounters

    config = parse_config(text, "f")
    found = virtual_servers(
        config, table or Table(), TableCounters({}, {}), frozenset(), serving(config, Known()).weights, {}, {}, 0.0
    )
    told = {"pid": 7, "version": "1", "config": "f", "uptime_s": 0.0, "converged": True, **daemon}
    told = {"drift": [], "drift_repaired": 0, "notes": [], **told}
    told = {"namespace": 1, "failures": [], "reload_refused": [], "waiting": [], **NOBODY_LEAVES, **told}
    return {"daemon": told, "virtual_servers": found}  # type: ignore[typeddict-item] # the keys are right by the line above


def test_status_tells_all_that_a_virtual_server_listens_on_and_which_of_it_is_there(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE.replace("port: 80\n", "port: [80, 8000-8002]\n    persistence: {timeout: 10m}\n", 1) + (
        "  mark:\n    fwmark: 7\n    forward: dr\n    real_servers:\n      a: {address: 10.0.0.1}\n"
    )
    config = parse_config(text, "f")
    right = desired_table(config, serving(config, Known()).weights)
    keys = config.virtual_servers[0].keys
    differs = next(iter(right.entries[keys[1]].reals))
    cases: tuple[tuple[dict[VirtualKey, VirtualEntry | None], str, str], ...] = (
        ({}, "", "100"),
        ({keys[2]: None}, " ONLY 3 of 4 entries in the kernel", "absent in 1 of 4"),
        ({keys[1]: replace(right.entries[keys[1]], reals={differs: RealRow(Forward.NAT, 9)})}, "", "9 in 1 of 4"),
    )
    for changed, said, weight in cases:
        entries = {key: entry for key, entry in (dict(right.entries) | changed).items() if entry}
        status = status_of(text, Table(entries))

        async def answer(status: Status = status) -> Status:
            return status

        monkeypatch.setattr(director, "status", answer)
        lines = [" ".join(line.split()) for line in shell("status").out.splitlines()]
        told = "web tcp 192.0.2.10:80,8000-8002 nat wlc persistence 10m"
        assert lines[0] == f"{told}{said} vip NOT on eth0"
        assert lines[2] == f"a 10.0.0.1:80 100 {weight} 0 0 not checked"
        assert lines[4] == "mark fwmark 7 dr wlc"


def test_drift_that_is_left_is_not_passed_over(shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FILE.replace("port: 80\n", "port: [80, 81]\n", 1)
    config = parse_config(text, "f")
    place = config.virtual_servers[0].placements[1]
    drifts = [Drift(place.key, place.endpoint, RealRow(Forward.NAT, 100), RealRow(Forward.NAT, 3), kept=True)]
    lines = drift_lines(drifts, config)
    assert lines[0]["subject"] == "real server web/a (10.0.0.1:81) of tcp 192.0.2.10:81"
    status = status_of(text)
    status["virtual_servers"][0]["drift"] = [sentence(line) for line in lines]

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    assert shell("status").out.splitlines()[-1].endswith(": the kernel agrees, but for the drift above")
    status["virtual_servers"][0]["drift"] = []
    assert shell("status").out.splitlines()[-1].endswith(": the kernel agrees")


def test_status_shows_every_server_and_why(shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FILE + (
        '  six:\n    address: "fd00::10"\n    port: 80\n    forward: nat\n    real_servers:\n'
        '      a: {address: "fd00::1", check: {type: tcp}}\n'
    )
    status = status_of(text, converged=False, failures=["no [bold]scheduler[/bold]"], config="/etc/[x]/d.yaml")

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    ended = shell("status")
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines == [
        "web tcp 192.0.2.10:80 nat wlc NOT IN THE KERNEL vip NOT on eth0",
        "real server address weight kernel active inactive why",
        "a 10.0.0.1:80 100 absent 0 0 not checked",
        "",
        "six tcp [fd00::10]:80 nat wlc NOT IN THE KERNEL",
        "real server address weight kernel active inactive why",
        "a [fd00::1]:80 100 absent 0 0 no verdict yet: the file's weight",
        "",
        "could not change: no [bold]scheduler[/bold]",
        "director 1, pid 7, /etc/[x]/d.yaml: the kernel does NOT agree yet",
    ]
    assert json.loads(shell("status", "--json").out) == status


def test_status_shows_who_leaves_and_what_is_not_confirmed(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = [{"name": "web/b", "connections": 12}]
    unconfirmed = {"until": "2026-01-02 03:04:05+00:00", "left_s": 41.7}
    status = status_of(FILE, leaving=leaving, unconfirmed=unconfirmed, drain_left_s=24.2)

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    assert shell("status").out.splitlines()[-3:-1] == [
        "web/b leaves: 12 connections, removed in 24s at the latest",
        "NOT CONFIRMED: undone at 2026-01-02 03:04:05+00:00 (in 42s) unless `director confirm` comes",
    ]


@pytest.mark.parametrize(
    "words", [("check", "director.yaml"), ("status",), ("status", "--json"), ("plan", "director.yaml"), ("--help",)]
)
def test_a_reader_that_leaves_is_no_error(shell: Shell, director: Stub, words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        ended = subprocess.run(
            [sys.executable, "-m", "director", *words],
            stdout=nobody,
            stderr=subprocess.PIPE,
            cwd=shell.directory,
            text=True,
            check=False,
            timeout=30,
        )
    assert (ended.returncode, [line for line in ended.stderr.splitlines() if not line.startswith("note: ")]) == (0, [])


def test_output_that_cannot_be_written_is_told(shell: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "director", "check", shell.file],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "director: input or output failed: No space left on device\n")


def test_plan_tells_what_else_the_kernel_holds_and_what_cannot_be_made(shell: Shell, host: Host) -> None:
    web = parse_config(FILE, "f").virtual_servers[0].keys[0]
    host.kernel.foreign = (Foreign("esp 192.0.2.1:0", "esp cannot be managed"),)
    ended = shell("plan", shell.file)
    assert (ended.code, ended.out.splitlines()[-1]) == (2, "3 changes to make.")
    assert ended.err == (
        "note: the kernel also holds esp 192.0.2.1:0, which director leaves alone: esp cannot be managed\n"
    )
    host.kernel.foreign = (Foreign(str(web), "its persistence mask has holes", web),)
    ended = shell("plan", shell.file)
    assert ended.code == 1
    assert ended.err.startswith("director: virtual server web (tcp 192.0.2.10:80) cannot be made: the kernel holds it")
    assert json.loads(shell("plan", shell.file, "--json").out)["failures"]
    refused = shell("apply", shell.file)
    assert refused.code == 1
    assert "remove it with `ipvsadm -D -t 192.0.2.10:80`" in refused.err
    assert "nothing of" in refused.err


def test_drift_without_a_director_is_what_differs_from_the_file_that_was_applied(shell: Shell, host: Host) -> None:
    nothing = "No drift: the virtual servers in the kernel are as director left them.\n"
    assert shell("drift", shell.file) == (0, nothing, ""), "it was never applied: that is a plan's matter"
    shell("apply", shell.file)
    later = shell.directory / "later.yaml"
    later.write_text(FILE + FILE.partition("virtual_servers:\n")[2].replace("web", "tls").replace("80", "443"))
    assert shell("check", later).code == 0
    assert shell("drift", later) == (0, nothing, ""), "what was not applied yet is no drift"
    (web,) = host.kernel.table.entries
    (real,) = host.kernel.table.entries[web].reals
    other = parse_endpoint("10.0.0.9:80")
    nat = RealRow(Forward.NAT, 100)
    host.kernel.write([EditReal(web, real, nat, RealRow(Forward.NAT, 5)), AddReal(web, other, nat)])
    ended = shell("drift", shell.file)
    assert (ended.code, ended.err) == (2, "")
    assert ended.out.splitlines() == [
        "~ real server web/a (10.0.0.1:80): was nat, weight 100, is nat, weight 5; `director apply` puts it right",
        "+ real server web/10.0.0.9:80: was absent, is nat, weight 100; `director apply` puts it right",
        "2 things changed by somebody else.",
    ]
    (line, _) = json.loads(shell("drift", shell.file, "--json").out)["drift"]
    expected = {"sign": "~", "virtual_server": "web", "real_server": "a", "was": "nat, weight 100", "kept": False}
    assert expected.items() <= line.items()
    shell("apply", shell.file)
    assert shell("drift", shell.file).code == 0
    ended = shell("drift")
    assert (ended.code, ended.out) == (1, "")
    assert "name the FILE" in ended.err


def test_drift_asks_a_running_director(shell: Shell, director: Stub) -> None:
    drifts = [Drift(None, None, Timeouts(900, 120, 300), Timeouts(60, 120, 300))]
    director.drifts = tuple(drift_lines(drifts, Config()))
    ended = shell("drift", shell.file)
    assert ended.code == 2
    assert ended.out.splitlines()[0].startswith("~ timeouts: was tcp 15m")
    assert "was not looked at" in ended.err
    director.drifts = ()
    assert shell("drift", "--json") == (0, '{"drift": []}\n', "")


def test_export_prints_a_file_that_check_takes(shell: Shell, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.host.addresses.present", host.addresses.present)
    shell("apply", shell.file)
    exported = shell("export")
    assert (exported.code, exported.err) == (0, "")
    assert "    interface: eth0\n" in exported.out, "the address that apply raised stays director's"
    file = shell.directory / "exported.yaml"
    assert shell("export", "--output", file) == (0, "", "")
    assert shell("check", file).code == 0
    assert shell("plan", file).code == 0
    again = shell("export", "--output", file)
    assert again == (1, "", f"director: {file} exists: give a new file, or remove that one first\n")
    nowhere = shell("export", "--output", shell.directory / "no" / "where.yaml")
    assert nowhere.code == 1
    assert "No such file or directory" in nowhere.err
    host.kernel.foreign = (Foreign("esp 192.0.2.1:0", "esp cannot be managed"),)
    exported = shell("export")
    assert (exported.code, exported.err) == (2, "not exported: esp 192.0.2.1:0: esp cannot be managed\n")
    assert "# not exported: esp 192.0.2.1:0: esp cannot be managed\n" in exported.out


def test_status_shows_drift_and_what_else_there_is(
    shell: Shell, director: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = status_of(FILE, drift=["timeouts: was"], drift_repaired=3, notes=["the kernel also holds esp"])
    status["virtual_servers"][0]["drift"] = ["real server web/a: was"]

    async def answer() -> Status:
        return status

    monkeypatch.setattr(director, "status", answer)
    lines = [line.strip() for line in shell("status").out.splitlines()]
    assert lines[3] == "drift: real server web/a: was"
    assert lines[5:8] == [
        "drift: timeouts: was",
        "the kernel also holds esp",
        "changed by somebody else and put right since the start: 3",
    ]
