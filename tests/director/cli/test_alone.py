"""What is typed where no director runs: plan, apply, drift and export do it themselves."""

from __future__ import annotations

import json
import os
import signal
import threading
from ipaddress import ip_address

import pytest

from director.core.config import parse_config
from director.core.diff import AddReal, EditReal
from director.core.model import ServerRef
from director.core.table import Foreign, Forward, RealCounters, RealRow, Table
from director.core.vip import Vip
from director.host.lockfile import StateLock
from director.kit.errors import HostError
from director.kit.net import parse_endpoint
from director.overrides import Overrides
from tests.director.cli.shell import FILE, Host, Shell

pytestmark = pytest.mark.unit


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
