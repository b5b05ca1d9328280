"""What cannot be done is told before a bare machine is touched: check mode, contradictions, a kernel without ip_vs.

By itself it takes 95 s.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy import l7proxy, snapshot
from tests.deploy.director import config, install, of_release
from tests.deploy.snapshot import Snapshot
from tests.deploy.stage import Played, Stage

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(900)]

WHEELS = ("0.1.0",)


@pytest.fixture(scope="module")
def before(stage: Stage) -> Snapshot:
    """The machine before anything was tried."""
    return snapshot.take(stage.machine)


def refused(played: Played, *words: str) -> None:
    assert played.counts["failed"] == 1, str(played.result)
    assert played.counts["changed"] == 0, played.changed
    for word in words:
        assert word in played.result.stdout


def test_contradictory_variables_are_named(before: Snapshot, stage: Stage) -> None:
    assert before["files"]
    refused(install(stage, "0.1.0", director_config_file="/root/director.yaml"), "director_config_file")
    closed: dict[str, Any] = {"l7proxy_firewall": "none", "l7proxy_firewall_open": [{"port": "80"}]}
    refused(l7proxy.install(stage, "0.1.0", **closed), "l7proxy_firewall_open")
    both = {**of_release("0.1.0"), "program_archive": "/root/release.tar.gz"}
    refused(stage.play("director", director_config=config(), **both), "program_archive")


def test_a_kernel_without_ip_vs_is_told_in_the_first_minute(before: Snapshot, stage: Stage) -> None:
    hidden = "/lib/modules/$(uname -r)/kernel/net/netfilter/ipvs"
    stage.shell(f"test ! -e /proc/net/ip_vs; mount -t tmpfs none {hidden}")
    played = install(stage, "0.1.0")
    stage.shell(f"umount {hidden}")
    refused(played, "has no ip_vs")
    assert played.result.duration_s < 60
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)


def test_check_mode_on_a_bare_machine_changes_nothing(before: Snapshot, stage: Stage) -> None:
    played = install(stage, "0.1.0", check=True).check()
    assert played.counts["changed"] > 1
    left = snapshot.differences(before, snapshot.take(stage.machine), stage.client)
    assert left == [], "\n".join(left)
