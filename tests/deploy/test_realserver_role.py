"""The role of a real server behind direct routing, in this order: VIPs without ARP, again, removed.

By itself it takes 85 s.
"""

from __future__ import annotations

import pytest

from director.lab.hosts import Lab
from tests.deploy import snapshot
from tests.deploy.director import of_release
from tests.deploy.snapshot import Snapshot
from tests.deploy.stage import VIP, Played, Stage, journal

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(900)]

WHEELS = ("0.1.0",)


@pytest.fixture(scope="module")
def before(stage: Stage) -> Snapshot:
    """The machine before anything was installed."""
    return snapshot.take(stage.machine)


def install(stage: Stage) -> Played:
    return stage.play("realserver", realserver_vips=[VIP], **of_release("0.1.0"))


def test_it_holds_the_vip_and_answers_no_arp_for_it(before: Snapshot, stage: Stage, around: Lab) -> None:
    assert not any("director" in path for path in before["files"])
    install(stage).check()
    assert stage.property("director-realserver", "ActiveState") == "active"
    assert f" {VIP}/32" in stage.shell("ip -o address show dev lo")
    client = around.host("client")
    assert client.run("arping", "-I", "lan", "-c", "2", "-w", "3", "10.8.0.2").exit_code == 0
    assert client.run("arping", "-I", "lan", "-c", "2", "-w", "3", VIP).exit_code == 1
    assert journal(stage.machine, "director-realserver.service") == ""


def test_what_a_director_sends_it_is_answered(stage: Stage, around: Lab) -> None:
    stage.machine.start("python3", "-m", "http.server", "80", "--bind", VIP, "--directory", "/srv", name="web server")
    mac = around.host("machine").link("lan").mac
    stage.client.run("ip", "neighbour", "replace", VIP, "lladdr", mac, "dev", "lan").check()
    stage.client.run("curl", "-sS", "--retry", "20", "--retry-connrefused", "--fail", f"http://{VIP}/").check()


def test_a_second_run_changes_nothing(stage: Stage) -> None:
    played = install(stage).check()
    assert played.counts["changed"] == 0, played.changed


def test_uninstall_leaves_nothing_behind(before: Snapshot, stage: Stage) -> None:
    stage.play("realserver", realserver_state="absent").check()
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)
