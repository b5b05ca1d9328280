"""The machine itself, which the tests of the deployment stand on.

By itself it takes 11 s.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from director.lab.folder import processes_of
from director.lab.hosts import Lab, LabHost
from tests.deploy.machine import Machine

pytestmark = pytest.mark.deploy


def test_systemd_is_up_within_20_s(machine: Machine, debian: LabHost) -> None:
    uptime_s = float(debian.read("/proc/uptime").split()[0])
    assert machine.boot_s < 20
    assert uptime_s < 20
    assert debian.run("systemctl", "--failed", "--plain", "--no-legend").check().stdout == ""
    assert debian.read("/proc/1/comm").strip() == "systemd"


def test_hosts_around_reach_each_other_through_it(debian: LabHost, around: Lab) -> None:
    debian.run("sysctl", "-q", "net.ipv4.ip_forward=1").check()
    around.host("client").run("ip", "route", "add", "10.8.1.0/24", "via", "10.8.0.2").check()
    around.host("client").run("ping", "-c1", "-W5", "10.8.1.11").check()


def test_what_it_writes_stays_in_its_memory(debian: LabHost, tree: Path, machine: Machine) -> None:
    debian.run("sh", "-ec", "echo new >/etc/new; rm /etc/os-release; ! touch /run/lab/project/new").check()
    assert not (tree / "etc/new").exists()
    assert (tree / "etc/os-release").exists()
    assert machine.folder.exists()


def test_two_at_a_time_are_strangers_and_leave_nothing(debian: LabHost, tree: Path) -> None:
    debian.write("/run/mine", "first")
    with Machine(tree, {}) as other:
        folder = other.folder
        session = int((folder / "session").read_text())
        assert other.lay_out(Path(__file__).with_name("topology.yaml")).host("machine").run("ls", "/run/mine").exit_code
    assert debian.read("/run/mine") == "first"
    assert not folder.exists()
    until = time.monotonic() + 5
    while processes_of(session) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(session) == []
