"""The effective weight: one table of everything that decides."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from director.core.model import RealServer, RealState
from director.core.weight import NO_WISH, Facts, Wish, effective_weight
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

TARGET = Endpoint(ip_address("10.0.0.1"), 80)
CHECKED = RealServer("a", TARGET.address, 100, check=Check(TARGET, TcpProbe()))
UNCHECKED = RealServer("a", TARGET.address, 100)
PENDING = HealthState()
UP = HealthState(Status.UP, last=ProbeResult(True, "connected"))
DOWN = HealthState(Status.DOWN, last=ProbeResult(False, "connection refused"))
DRAIN = Wish(drain=True)
SEVEN = Wish(weight=7)

CASES: list[tuple[RealServer, HealthState, Wish, int | None, int, str]] = [
    (UNCHECKED, PENDING, NO_WISH, None, 100, "not checked"),
    (UNCHECKED, PENDING, NO_WISH, 5, 100, "not checked"),
    (UNCHECKED, PENDING, SEVEN, None, 7, "not checked, weight 7 by the operator"),
    (UNCHECKED, PENDING, DRAIN, None, 0, "drained by the operator"),
    (CHECKED, PENDING, NO_WISH, None, 100, "no verdict yet: the file's weight"),
    (CHECKED, PENDING, NO_WISH, 0, 0, "no verdict yet: keeps the kernel's weight"),
    (CHECKED, PENDING, NO_WISH, 42, 42, "no verdict yet: keeps the kernel's weight"),
    (CHECKED, PENDING, SEVEN, None, 7, "no verdict yet: weight 7 by the operator"),
    (CHECKED, PENDING, SEVEN, 0, 0, "no verdict yet: keeps the kernel's weight"),
    (CHECKED, PENDING, DRAIN, 42, 0, "drained by the operator"),
    (CHECKED, UP, NO_WISH, None, 100, "up: connected"),
    (CHECKED, UP, NO_WISH, 0, 100, "up: connected"),
    (CHECKED, UP, SEVEN, None, 7, "up: connected, weight 7 by the operator"),
    (CHECKED, UP, Wish(weight=0), None, 0, "up: connected, weight 0 by the operator"),
    (CHECKED, UP, DRAIN, None, 0, "drained by the operator"),
    (CHECKED, UP, Wish(drain=True, weight=7), None, 0, "drained by the operator"),
    (CHECKED, DOWN, NO_WISH, None, 0, "down: connection refused"),
    (CHECKED, DOWN, NO_WISH, 42, 0, "down: connection refused"),
    (CHECKED, DOWN, SEVEN, None, 0, "down: connection refused"),
    (CHECKED, DOWN, DRAIN, None, 0, "drained by the operator"),
    (replace(CHECKED, state=RealState.DRAINED), UP, SEVEN, None, 0, "drained in the file"),
    (replace(CHECKED, state=RealState.DISABLED), UP, DRAIN, None, 0, "disabled in the file: not in the table"),
]


@pytest.mark.parametrize(("server", "health", "wish", "adopted", "value", "reason"), CASES)
def test_the_first_rule_that_applies_decides(
    server: RealServer, health: HealthState, wish: Wish, adopted: int | None, value: int, reason: str
) -> None:
    found = effective_weight(server, Facts(health, wish, adopted=adopted))
    assert (found.value, found.reason) == (value, reason)
    assert found.is_down is reason.startswith("down: ")


@pytest.mark.parametrize(
    ("wish", "adopted", "value", "reason"),
    [
        (NO_WISH, None, 100, ""),
        (SEVEN, None, 7, "weight 7 by the operator"),
        (NO_WISH, 0, 0, "keeps the kernel's weight"),
    ],
)
def test_where_nobody_probes_no_verdict_is_promised(wish: Wish, adopted: int | None, value: int, reason: str) -> None:
    found = effective_weight(CHECKED, Facts(PENDING, wish, adopted=adopted, probed=False))
    assert (found.value, found.reason) == (value, reason)


def test_new_server_beside_serving_ones_waits_for_its_verdict() -> None:
    assert effective_weight(CHECKED, Facts(PENDING, NO_WISH, unproven=True)).value == 0
    assert effective_weight(CHECKED, Facts(UP, NO_WISH, unproven=True)).value == 100
