"""export on a real kernel: the table comes back exactly, what cannot is named, and commands go together in pipes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from director.lab.hosts import Lab

pytestmark = pytest.mark.lab

FILE = """\
virtual_servers:
  fwmark-7:
    fwmark: 7
    forward: nat
    scheduler: sh
    scheduler_flags: [sh-port]
    persistence: {timeout: 5m, prefix: 24}
    real_servers:
      a: {address: 10.9.1.11, weight: 1, upper_threshold: 500, lower_threshold: 100}
  http:
    address: 10.9.0.100
    port: [80, 443]
    interface: lan
    forward: dr
    scheduler: wrr
    real_servers:
      a: {address: 10.9.0.21, weight: 3}
      b: {address: 10.9.0.22}
"""
WITH_HOLES = """\
-A -t 10.9.0.100:81 -s rr -p 60 -M 255.0.255.0
-a -t 10.9.0.100:81 -r 10.9.0.21:81 -g -w 1
-a -t 10.9.0.100:81 -r 10.9.0.22:80 -m -w 1
"""


@pytest.fixture(scope="module")
def outcomes(lab: Lab) -> dict[str, Any]:
    """All trials, in one process."""
    done = lab.host("director").run("python", "-m", "tests.lab.guest.export_trials", timeout_s=90, fresh=False).check()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_a_file_can_say_comes_back_after_a_flush(outcomes: dict[str, Any]) -> None:
    assert outcomes["file"]["virtual_servers"] > 90
    assert outcomes["file"]["entries"] > outcomes["file"]["virtual_servers"] + 50, "ports were joined"


def test_what_a_kernel_may_hold_is_exported_or_named(outcomes: dict[str, Any]) -> None:
    assert min(outcomes["kernel"].values()) > 10


def test_a_real_server_on_the_director_itself_is_no_endless_change(outcomes: dict[str, Any]) -> None:
    assert outcomes["local"] == {}


def test_what_nobody_but_netlink_makes_is_named(outcomes: dict[str, Any]) -> None:
    said = "\n".join(outcomes["netlink"]["left_out"])
    for expected in ("method local", "method bypass", "one-packet scheduling is for udp", "70000 is too large"):
        assert expected in said
    assert "tcp 10.0.0.2:80: its persistence mask has holes" in said


def test_export_goes_into_check_and_plan_and_says_what_it_leaves_out(lab: Lab) -> None:
    director = lab.host("director")
    director.write("/etc/director/director.yaml", FILE)
    director.run("director", "apply", "/etc/director/director.yaml").check()
    director.run("ipvsadm", "-R", stdin=WITH_HOLES).check()
    exported = director.run(
        "bash", "-c", "set -o pipefail; director export | tee /tmp/exported.yaml | director check -"
    )
    said = "not exported: tcp 10.9.0.100:81: its persistence mask has holes"
    assert exported.exit_code == 2
    assert exported.stdout == "-: ok: 2 virtual servers, 3 real servers, 0 of them checked\n"
    assert exported.stderr.startswith(said)
    head, found, rest = director.read("/tmp/exported.yaml").partition("virtual_servers:")
    assert head.startswith("# The IPVS table of ")
    assert f"# {said}" in head
    assert found + rest == FILE, "with the interface: an address that director keeps must not go with the next apply"
    planned = director.run("director", "plan", "/tmp/exported.yaml")
    assert (planned.exit_code, planned.stdout.splitlines()) == (
        0,
        ["Nothing to change: the kernel agrees with the file."],
    )


AROUND = """\
dead_connections: expire
timeouts: {tcp: 900s, tcpfin: 120s, udp: 300s}
virtual_servers:
  web: {address: 10.9.0.110, port: [80, 443], forward: fullnat, real_servers: {a: {address: 10.9.1.11, port: 8080}}}
  own: {address: 10.9.0.111, port: 80, forward: fullnat, source: 10.9.1.1, real_servers: {a: {address: 10.9.1.11}}}
  marked: {fwmark: 9, traffic: [{address: 10.9.0.112, port: 81}], forward: nat, real_servers: {a: {address: 10.9.1.11}}}
"""
UNFIT = """\
-A -t 10.9.0.120:80 -s rr
-a -t 10.9.0.120:80 -r 10.9.1.11:80 -m -w 1
"""


def test_an_export_leaves_what_is_around_the_table_as_it_is(lab: Lab) -> None:
    director = lab.host("director")
    nothing = "Nothing to change: the kernel agrees with the file.\n"
    director.run("director", "down").check()
    director.run("ipvsadm", "-C").check()
    director.run("ipvsadm", "--set", "800", "100", "250").check()
    director.write("/tmp/around.yaml", AROUND)
    director.run("director", "apply", "/tmp/around.yaml").check()
    exported = director.run("director", "export").check().stdout
    assert director.run("director", "plan", "-", stdin=exported).stdout == nothing
    director.run("director", "down").check()
    director.run("sysctl", "-qw", "net.ipv4.ip_forward=0").check()
    director.run("ipvsadm", "-R", stdin=UNFIT).check()
    exported = director.run("director", "export").check().stdout
    assert "settings: report" in exported
    assert director.run("director", "plan", "-", stdin=exported).stdout == nothing
