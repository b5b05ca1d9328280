"""Both tiers on one machine, as at home, by the playbooks for an inventory: site, rolling with drain, uninstall.

The director sends to l7proxy on its own machine and to one backend, so that clients are served while l7proxy is rolled.

By itself it takes 220 s.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from director.lab.demo.scene import wait_until
from tests.deploy import l7proxy, snapshot
from tests.deploy.director import config, of_release
from tests.deploy.snapshot import Snapshot
from tests.deploy.stage import PROJECT, Played, Stage, journal

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(900)]

WHEELS = ("0.1.0", "0.2.0")
REAL_SERVERS = {
    "l7": {"address": l7proxy.ADDRESS, "port": 80, "check": {"type": "agent", "port": 9181, "interval": "1s"}},
    "web-1": {"address": "10.8.1.11", "port": 8080},
}


def play(stage: Stage, playbook: str, version: str, **more: object) -> Played:
    """One of the collection's playbooks, for an inventory in which the machine is all there is."""
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "rolling_real_server": "l7",
        "rolling_drain_s": 30,
        "director_config": config(real_servers=REAL_SERVERS),
        "l7proxy_config": l7proxy.config(),
        **of_release(version),
        **more,
    }
    hosts: dict[str, Any] = {"hosts": {"localhost": {}}}
    inventory = {"all": {"vars": variables, "children": {"directors": hosts, "l7proxies": hosts}}}
    stage.machine.write("/root/inventory.json", json.dumps(inventory))
    return stage.playbook(f"{PROJECT}/deploy/ansible/playbooks/{playbook}.yml", "/root/inventory.json")


@pytest.fixture(scope="module")
def before(stage: Stage) -> Snapshot:
    """The machine before anything was installed."""
    return snapshot.take(stage.machine)


def test_one_playbook_makes_both_tiers(before: Snapshot, stage: Stage) -> None:
    assert before["files"]
    play(stage, "site", "0.1.0").check()
    want = {f"{l7proxy.ADDRESS}:80", "10.8.1.11:8080"}
    wait_until("both are sent to", lambda: {at for at, weight in stage.weights().items() if weight} == want, 60.0, 0.5)
    sent = stage.ask()
    assert sent.lost == ()
    assert sent.by_server.keys() == {"web-1", "web-2"}
    assert journal(stage.machine, "director.service", "l7proxy.service") == ""


def test_rolling_drains_nothing_that_no_director_knows(stage: Stage) -> None:
    """Nobody could tell when it takes clients again, and the next one would be drained at once."""
    played = play(stage, "rolling", "0.2.0", rolling_real_server="nobody")
    assert played.counts["failed"] == 1, str(played.result)
    assert "no director has a real server nobody: name it in rolling_real_server" in played.result.stdout
    assert played.counts["changed"] == 0, played.changed


def test_rolling_drains_upgrades_and_loses_nothing(stage: Stage) -> None:
    traffic = stage.traffic(0.2)
    play(stage, "rolling", "0.2.0").check()
    sent = stage.stop(traffic)
    assert sent.lost == ()
    assert sent.by_server.total() > 50
    assert stage.weights()[f"{l7proxy.ADDRESS}:80"] > 0  # the agent tells how busy it is
    assert "/releases/0.2.0/" in stage.machine.read(f"/proc/{stage.property('l7proxy', 'MainPID')}/cmdline")
    drained = stage.shell("journalctl -q -o cat -u director.service --no-pager | grep -ic 'drain'")
    assert int(drained) > 0


def test_uninstall_leaves_nothing_of_either_behind(before: Snapshot, stage: Stage) -> None:
    play(stage, "uninstall", "0.2.0").check()
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)
