"""The director's role on a bare machine: installed, again, broken, removed. Each test goes on from the one before.

By itself it takes 100 s.
"""

from __future__ import annotations

import re

import pytest

from tests.deploy import snapshot
from tests.deploy.director import WEIGHTS, config, install, wait_until_serving
from tests.deploy.snapshot import Snapshot
from tests.deploy.stage import BACKENDS, VIP, Stage, journal

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

WHEELS = ("0.1.0",)


@pytest.fixture(scope="module")
def before(stage: Stage) -> Snapshot:
    """The machine before anything was installed."""
    return snapshot.take(stage.machine)


def test_a_bare_machine_becomes_a_director(before: Snapshot, stage: Stage) -> None:
    assert not any("director" in path for path in before["files"])
    install(stage, "0.1.0").check()
    assert stage.property("director", "ActiveState") == "active"
    assert stage.property("director", "UnitFileState") == "enabled"
    wait_until_serving(stage)
    assert stage.weights() == WEIGHTS
    sent = stage.ask()
    assert sent.by_server.keys() == BACKENDS.keys()
    assert sent.lost == ()


def test_the_unit_is_as_closed_as_it_says_and_has_nothing_to_complain_of(stage: Stage) -> None:
    told = stage.shell("systemd-analyze security --no-pager director.service | tail -1")
    score = re.search(r"director.service: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) < 4
    assert journal(stage.machine, "director.service") == ""
    assert stage.shell("systemctl --failed --no-legend") == ""
    status = stage.machine.read(f"/proc/{stage.property('director', 'MainPID')}/status")
    assert "CapEff:\t0000000000003000" in status  # net_admin and net_raw
    assert "Uid:\t0\t" not in status


def test_a_second_run_changes_nothing(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    played = install(stage, "0.1.0").check()
    assert played.counts["changed"] == 0, played.changed
    assert stage.property("director", "MainPID") == pid


def test_a_broken_configuration_is_refused_and_the_old_one_serves_on(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    file = stage.machine.read("/etc/director/director.yaml")
    traffic = stage.traffic()
    played = install(stage, "0.1.0", config(scheduler="roundabout"))
    assert played.counts["failed"] == 1, str(played.result)
    assert "roundabout" in played.result.stdout
    assert stage.machine.read("/etc/director/director.yaml") == file
    assert stage.property("director", "MainPID") == pid
    sent = stage.stop(traffic)
    assert sent.lost == ()
    assert sent.by_server.total() > 20
    assert stage.weights() == WEIGHTS


def test_uninstall_leaves_nothing_behind(before: Snapshot, stage: Stage) -> None:
    assert f" {VIP}/" in stage.shell("ip -o address")
    stage.play("director", director_state="absent").check()
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)
    assert stage.play("director", director_state="absent").check().counts["changed"] == 0
