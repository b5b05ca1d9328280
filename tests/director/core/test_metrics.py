"""What Prometheus is told, from a status and from what was counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from director.core.metrics import Delivery, Family, Looks, Work, families
from director.core.model import ServerRef
from director.core.status import RealServerStatus, Status, VirtualServerStatus
from director.kit.health import Tally

pytestmark = pytest.mark.unit

REAL = {
    "name": "a",
    "health": "up",
    "weight": 50,
    "configured_weight": 100,
    "kernel_weight": 50,
    "entries_wrong": 0,
    "operator_weight": None,
    "drained": False,
    "maintenance": None,
    "warning": "",
    **dict.fromkeys(("active", "inactive", "connections", "in_packets", "out_packets", "in_bytes", "out_bytes"), 1),
}
VIRTUAL = {
    "name": "web",
    "in_kernel": True,
    "keys": ["k"],
    "keys_in_kernel": 1,
    "vip_present": None,
    "quorum": "held",
    "alive": 1,
    "panic": False,
    "drift": [],
    "drift_repaired": 0,
    **dict.fromkeys(("connections", "in_packets", "out_packets", "in_bytes", "out_bytes"), 1),
}
DAEMON = {
    "version": "1",
    "converged": True,
    "failures": [],
    "waiting": [],
    "leaving": [],
    "drift": [],
    "drift_repaired": 0,
    "reload_refused": [],
    "unconfirmed": None,
}


NOTHING: Mapping[str, object] = {}
IDLE = Work()


def _told(
    virtual: Mapping[str, object] = NOTHING, real: Mapping[str, object] = NOTHING, work: Work = IDLE
) -> dict[str, object]:
    """By family: its one number, or all by their labels."""
    server = cast("RealServerStatus", {**REAL, **real})
    servers = cast("VirtualServerStatus", {**VIRTUAL, **virtual, "real_servers": [server]})
    status = cast("Status", {"daemon": DAEMON, "virtual_servers": [servers]})
    found: dict[str, object] = {}
    for family, samples in families(status, 5.0, work):
        numbers = dict(samples)
        found[family.name] = next(iter(numbers.values())) if len(numbers) == 1 else numbers
    return found


@pytest.mark.parametrize(
    ("virtual", "real", "up"),
    [
        ({}, {}, True),
        ({"in_kernel": False}, {}, False),  # of several ports, one is missing
        ({}, {"kernel_weight": 0}, False),
        ({}, {"kernel_weight": None}, False),
        ({}, {"weight": 0, "health": "down", "kernel_weight": 50}, True),  # not written yet: it is still served
    ],
)
def test_a_virtual_server_is_up_where_a_connection_finds_somebody(
    virtual: Mapping[str, object], real: Mapping[str, object], up: bool
) -> None:
    assert _told(virtual, real)["director_virtual_server_up"] == up


@pytest.mark.parametrize(("health", "up"), [("up", True), ("down", False), ("unchecked", True), ("pending", {})])
def test_before_a_verdict_nobody_says_up_or_down(health: str, up: object) -> None:
    assert _told(real={"health": health})["director_real_server_up"] == up


def test_what_there_is_not_has_no_number() -> None:
    told = _told(real={"kernel_weight": None})
    for name in ("virtual_server_vip_present", "real_server_kernel_weight", "real_server_operator_weight"):
        assert told[f"director_{name}"] == {}
    assert "director_reconcile_last_success_timestamp_seconds" not in told
    assert _told(virtual={"vip_present": False})["director_virtual_server_vip_present"] == 0


def test_work_is_told() -> None:
    ref = ServerRef("web", "a")
    work = Work(
        Looks().another(3.0).another(None),
        {ref: Tally(9, 4, 0.25)},
        hooks={"web": (3, 1)},
        deliveries={"pager": Delivery(2, True, 7, 1)},
    )
    told = _told(work=work)
    expected = {
        "reconciles": 2,
        "reconcile_failures": 1,
        "reconcile_last_success_timestamp_seconds": 3.0,
        "real_server_probes": 9,
        "real_server_probe_failures": 4,
        "real_server_probe_duration_seconds": 0.25,
        "hook_runs": 3,
        "hook_failures": 1,
        "notification_failing": True,
        "notification_events_waiting": 2,
        "notification_events_delivered": 7,
        "notification_events_lost": 1,
    }
    assert {name: told[f"director_{name}"] for name in expected} == expected


def test_names_follow_the_conventions() -> None:
    """promtool's linter: no `_total` of what is not counted, base units, a help text."""
    status = cast("Status", {"daemon": DAEMON, "virtual_servers": []})
    found: list[Family] = [family for family, _ in families(status, 0.0, Work())]
    assert len({family.name for family in found}) == len(found) > 40
    for family in found:
        assert re.fullmatch(r"director(_[a-z]+)+", family.name)
        assert not family.name.endswith(("_total", "_ms", "_count", "_sum"))
        assert family.help.endswith(".")


def test_the_page_names_every_metric() -> None:
    page = (Path(__file__).parents[3] / "docs" / "director.md").read_text()
    metrics = page[page.index("## Metrics") : page.index("## From a table")]
    status = cast("Status", {"daemon": DAEMON, "virtual_servers": []})
    for family, _ in families(status, 0.0, Work(Looks().another(1.0))):
        name = family.name + "_total" * family.is_counter
        parts = [name, *("_" + name.split("_", depth)[-1] for depth in range(2, 5)), "..._" + name.split("_", 3)[-1]]
        assert any(f"`{part}`" in metrics for part in parts), name
