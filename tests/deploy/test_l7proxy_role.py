"""The role of l7proxy on a bare machine: installed, again, broken, restarted, upgraded, removed, in this order.

By itself it takes 130 s.
"""

from __future__ import annotations

import re

import pytest

from director.lab.demo.scene import wait_until
from tests.deploy import snapshot
from tests.deploy.l7proxy import ADDRESS, config, install
from tests.deploy.snapshot import Snapshot
from tests.deploy.stage import BACKENDS, Stage, journal

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(900)]

WHEELS = ("0.1.0", "0.2.0")
LISTENS = "ss -Hltn sport = :80 | grep -q ."


@pytest.fixture(scope="module")
def before(stage: Stage) -> Snapshot:
    """The machine before anything was installed."""
    return snapshot.take(stage.machine)


def test_a_bare_machine_becomes_a_proxy(before: Snapshot, stage: Stage) -> None:
    assert not any("l7proxy" in path for path in before["files"])
    install(stage, "0.1.0").check()
    assert stage.property("l7proxy.service", "ActiveState") == "active"
    assert stage.property("l7proxy.socket", "UnitFileState") == "enabled"
    sent = stage.ask(address=ADDRESS)
    assert sent.lost == ()
    assert sent.by_server.keys() == BACKENDS.keys()


def test_the_unit_has_no_privileges_and_nothing_to_complain_of(stage: Stage) -> None:
    told = stage.shell("systemd-analyze security --no-pager l7proxy.service | tail -1")
    score = re.search(r"l7proxy.service: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) < 2.5
    assert journal(stage.machine, "l7proxy.service", "l7proxy.socket") == ""
    status = stage.machine.read(f"/proc/{stage.property('l7proxy', 'MainPID')}/status")
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t0\t" not in status


def test_a_second_run_changes_nothing(stage: Stage) -> None:
    pid = stage.property("l7proxy", "MainPID")
    played = install(stage, "0.1.0").check()
    assert played.counts["changed"] == 0, played.changed
    assert stage.property("l7proxy", "MainPID") == pid


def test_what_a_run_that_broke_off_has_left_undone_is_done_by_the_next(stage: Stage) -> None:
    """It has written a unit or a secret, or its reload has failed. There is nothing to copy then."""
    pid = stage.property("l7proxy", "MainPID")
    stage.shell("sleep 1.1; install -m 0640 -o root -g l7proxy /dev/null /etc/l7proxy/key")
    served = ("lvs.director.program : Have it run as it should: l7proxy",)
    assert install(stage, "0.1.0").check().changed == served
    assert stage.property("l7proxy", "MainPID") == pid
    stage.shell(
        "mkdir -p /run/systemd/system/l7proxy.service.d; cd /run/systemd/system/l7proxy.service.d;"
        "printf '[Service]\\nExecReload=\\nExecReload=/bin/false\\n' >no.conf; systemctl daemon-reload;"
        "systemctl reload l7proxy && exit 1; rm -r $PWD; systemctl daemon-reload"
    )
    assert install(stage, "0.1.0").check().changed == served
    stage.shell("sleep 1.1; touch /etc/systemd/system/l7proxy.service; rm /etc/l7proxy/key")
    played = install(stage, "0.1.0").check()
    assert played.counts["changed"] == 2, played.changed
    assert stage.property("l7proxy", "MainPID") != pid


def test_a_broken_configuration_is_refused_and_the_old_one_serves_on(stage: Stage) -> None:
    file = stage.machine.read("/etc/l7proxy/l7proxy.yaml")
    traffic = stage.traffic(address=ADDRESS)
    played = install(stage, "0.1.0", config(routes=[{"name": "all", "upstream": "nowhere"}]))
    assert played.counts["failed"] == 1, str(played.result)
    assert "nowhere" in played.result.stdout
    assert stage.machine.read("/etc/l7proxy/l7proxy.yaml") == file
    sent = stage.stop(traffic)
    assert sent.lost == ()
    assert sent.by_server.total() > 20


def test_a_restart_under_traffic_refuses_nobody(stage: Stage) -> None:
    pid = stage.property("l7proxy", "MainPID")
    traffic = stage.traffic(address=ADDRESS)
    wait_until("the client is served", lambda: traffic.output().count("\n") > 10)
    stage.shell("systemctl restart l7proxy.service", timeout_s=90)
    already = traffic.output().count("\n")
    wait_until("the client is served again", lambda: traffic.output().count("\n") > already + 10)
    sent = stage.stop(traffic)
    assert sent.lost == ()
    assert stage.property("l7proxy", "MainPID") != pid


def test_an_upgrade_under_traffic_loses_nothing_and_keeps_the_process(stage: Stage) -> None:
    pid = stage.property("l7proxy", "MainPID")
    traffic = stage.traffic(address=ADDRESS)
    install(stage, "0.2.0").check()
    already = traffic.output().count("\n")
    wait_until("the client is served by it", lambda: traffic.output().count("\n") > already + 10)
    sent = stage.stop(traffic)
    assert sent.lost == ()
    assert sent.by_server.total() > 100
    assert stage.property("l7proxy", "MainPID") == pid
    assert "/releases/0.2.0/" in stage.machine.read(f"/proc/{pid}/cmdline")


def test_uninstall_leaves_nothing_behind(before: Snapshot, stage: Stage) -> None:
    stage.shell(LISTENS)
    stage.play("l7proxy", l7proxy_state="absent").check()
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)
    assert stage.machine.run("bash", "-euc", LISTENS).exit_code != 0
