"""A director that is killed, that hangs, that is upgraded: clients notice nothing. In this order.

By itself it takes 230 s.
"""

from __future__ import annotations

import pytest

from tests.deploy.director import WEIGHTS, config, install, wait_until_serving
from tests.deploy.stage import Sent, Stage

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(900)]

WHEELS = ("0.1.0", "0.2.0")
ANSWERS = "director status --json >/dev/null"


@pytest.fixture(scope="module")
def stage(stage: Stage) -> Stage:
    """A machine that the role has made a director of."""
    install(stage, "0.1.0").check()
    wait_until_serving(stage)
    return stage


def nothing_lost(sent: Sent, at_least: int) -> None:
    assert sent.lost == ()
    assert sent.by_server.total() >= at_least
    assert len(sent.by_server) == len(WEIGHTS)


def test_killed_it_comes_back_and_the_kernel_forwards_meanwhile(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    traffic = stage.traffic()
    stage.shell(f"kill -9 {pid}")
    stage.wait_for("another director runs", f"{ANSWERS}; ! kill -0 {pid} 2>/dev/null", 60.0)
    nothing_lost(stage.stop(traffic), 20)
    assert stage.property("director", "NRestarts") == "1"
    assert stage.weights() == WEIGHTS


def test_one_that_hangs_is_restarted_by_the_watchdog(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    traffic = stage.traffic(0.3)
    stage.shell(f"kill -STOP {pid}")
    stage.wait_for("the watchdog has ended it", f"! kill -0 {pid} 2>/dev/null", 90.0)
    stage.wait_for("another director runs", ANSWERS, 60.0)
    nothing_lost(stage.stop(traffic), 50)
    assert stage.property("director", "NRestarts") == "2"
    assert "Watchdog timeout" in stage.shell("journalctl -q -o cat -u director.service --no-pager")
    assert stage.weights() == WEIGHTS


def test_check_mode_tells_and_changes_nothing(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    newer = "find /etc /opt/lvs-director /usr/local -newer /etc/director/director.yaml -type f | wc -l"
    kept = stage.shell(newer)
    played = install(stage, "0.1.0", config(scheduler="wlc"), check=True).check()
    assert played.counts["changed"] >= 1
    assert "scheduler: rr" in stage.machine.read("/etc/director/director.yaml")
    assert kept == stage.shell(newer)
    assert stage.property("director", "MainPID") == pid


def test_another_configuration_is_reloaded(stage: Stage) -> None:
    pid = stage.property("director", "MainPID")
    traffic = stage.traffic()
    install(stage, "0.1.0", config(scheduler="wlc")).check()
    assert stage.property("director", "MainPID") == pid
    assert " wlc" in stage.machine.read("/proc/net/ip_vs")
    nothing_lost(stage.stop(traffic), 50)


def test_an_upgrade_under_traffic_loses_nothing(stage: Stage) -> None:
    assert "0.1.0" in stage.shell("director --version")
    pid = stage.property("director", "MainPID")
    traffic = stage.traffic()
    install(stage, "0.2.0", config(scheduler="wlc")).check()
    stage.wait_for("the new one answers", ANSWERS, 60.0)
    nothing_lost(stage.stop(traffic), 100)
    assert "0.2.0" in stage.shell("director --version")
    assert "/releases/0.2.0/" in stage.machine.read(f"/proc/{stage.property('director', 'MainPID')}/cmdline")
    assert stage.property("director", "MainPID") != pid
    assert stage.weights() == WEIGHTS
    assert sorted(stage.shell("ls /opt/lvs-director/releases").split()) == ["0.1.0", "0.2.0"]
