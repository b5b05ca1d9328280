"""A failed probe through the VIP, and the look at the server itself that follows."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from director.kit.checks.base import Route
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.attempt import Done, Outcome
from director.kit.probes.secondlook import SecondLook, direct_check

pytestmark = pytest.mark.unit

VIP, REAL = Endpoint(ip_address("192.0.2.10"), 80), Endpoint(ip_address("10.0.0.11"), 80)
THROUGH = Check(VIP, TcpProbe(), route=Route(mark=7, real=REAL.address), sentinel=True)
GOOD, BAD = ProbeResult(True, "connected"), ProbeResult(False, "no answer within 1s", percent=None)


class Runs:
    """Hands out probes whose outcomes the test gives."""

    def __init__(self) -> None:
        self.begun: list[tuple[Check, Done]] = []
        self.cancelled = 0
        self.outcomes: list[Outcome] = []
        self.failing: set[Check] = set()

    def begin(self, check: Check, done: Done, now: float) -> Runs:
        self.begun.append((check, done))
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def look(self) -> SecondLook:
        return SecondLook(self.begin, THROUGH, lambda outcome, now: self.outcomes.append(outcome), 0.0, self.failing)

    def answer(self, outcome: Outcome, index: int = -1) -> None:
        self.begun[index][1](outcome, 1.0)


def test_the_second_look_goes_to_the_server_itself_without_the_mark() -> None:
    direct = direct_check(THROUGH)
    assert direct is not None
    assert (direct.target, direct.route, direct.sentinel) == (REAL, Route(), False)
    assert direct_check(direct) is None


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (GOOD, "the server itself answers (connected): its VIP or the way there is broken"),
        (ProbeResult(False, "connection refused"), "the server itself is down, too (connection refused)"),
        (ProbeError("too many open files"), "the server itself could not be probed (too many open files)"),
    ],
)
def test_a_failure_is_told_with_what_the_server_itself_says(second: Outcome, words: str) -> None:
    runs = Runs()
    runs.look()
    runs.answer(BAD)
    assert not runs.outcomes
    runs.answer(second)
    (told,) = runs.outcomes
    assert isinstance(told, ProbeResult)
    assert (told.ok, told.reason) == (False, f"through the VIP: no answer within 1s; {words}")


@pytest.mark.parametrize("outcome", [GOOD, ProbeError("no address"), RuntimeError("a defect")])
def test_what_is_no_failure_needs_no_second_look(outcome: Outcome) -> None:
    runs = Runs()
    runs.look()
    runs.answer(outcome)
    assert (runs.outcomes, len(runs.begun)) == ([outcome], 1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_after_a_failure_both_begin_at_once(order: tuple[int, int]) -> None:
    runs = Runs()
    runs.failing.add(THROUGH)
    runs.look()
    assert [check.route.mark for check, _ in runs.begun] == [0, 7]
    for index in order:
        assert not runs.outcomes
        runs.answer((GOOD, BAD)[index], index)
    (told,) = runs.outcomes
    assert isinstance(told, ProbeResult)
    assert told.reason.endswith("its VIP or the way there is broken")


def test_a_success_ends_the_other_and_the_haste() -> None:
    runs = Runs()
    runs.failing.add(THROUGH)
    runs.look()
    runs.answer(GOOD, 1)
    runs.answer(GOOD, 0)
    assert (runs.outcomes, runs.failing) == ([GOOD], set())


def test_a_cancelled_look_tells_nothing_whichever_probe_runs() -> None:
    runs = Runs()
    runs.look().cancel()
    runs.answer(BAD)
    assert (runs.cancelled, len(runs.begun), runs.outcomes) == (1, 1, [])
    look = runs.look()
    runs.answer(BAD)
    look.cancel()
    runs.answer(GOOD)
    assert (runs.cancelled, runs.outcomes) == (2, [])
