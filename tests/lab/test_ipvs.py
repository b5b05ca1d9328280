"""director.ipvs against a real kernel. The trials run inside of the lab: tests/lab/guest/ipvs_trials.py."""

from __future__ import annotations

import json
from typing import cast

import pytest

from director.lab.hosts import Lab

pytestmark = pytest.mark.lab


def trial(lab: Lab, name: str) -> dict[str, object]:
    """Run one trial on the lab's director; what it measured goes to the test's output."""
    done = lab.host("director").run("python", "-m", "tests.lab.guest.ipvs_trials", name, timeout_s=90).check()
    print(done.stdout)  # noqa: T201 -- pytest shows it with -rP or on failure
    return cast("dict[str, object]", json.loads(done.stdout))


def test_tables_read_back_as_written_and_as_ipvsadm_reads_them(lab: Lab) -> None:
    assert trial(lab, "tables")["tables"] == 60


def test_errors_name_their_change_in_the_middle_of_thousands(lab: Lab) -> None:
    assert trial(lab, "errors")["wrong"] == 13


def test_lost_answers_are_reported_for_their_changes(lab: Lab) -> None:
    assert 0 < int(str(trial(lab, "lost-answers")["lost"])) < 3000


def test_ten_thousand_real_servers_are_written_and_read_in_time(lab: Lab) -> None:
    took = {name: float(str(took_ms)) for name, took_ms in trial(lab, "scale").items()}
    assert took["write"] < 2000  # a tenth of this is usual in a user-mode kernel
    assert took["read"] < 2000


def test_edits_keep_connections_and_counters(lab: Lab) -> None:
    assert trial(lab, "traffic")["packets"] == 5


def test_what_the_model_cannot_hold_is_named(lab: Lab) -> None:
    assert len(cast("list[str]", trial(lab, "foreign")["foreign"])) == 1


def test_timeouts_and_sync_daemons_are_as_ipvsadm_shows_them(lab: Lab) -> None:
    assert len(cast("list[str]", trial(lab, "namespace")["daemons"])) == 2


def test_refusals_say_what_which_and_what_to_do(lab: Lab) -> None:
    assert len(cast("list[str]", trial(lab, "refusals")["said"])) == 34


def test_without_privileges_the_message_says_what_to_do(lab: Lab) -> None:
    assert "run as root" in str(trial(lab, "privileges")["says"])
