"""What several checks amount to: the truth table, since when, whose reason, and what they ask for together."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import product

import pytest

from director.core.policy import Policy
from director.core.verdict import verdict
from director.core.weight import ramp_percent
from director.kit.checks.base import Timing
from director.kit.checks.check import Check, Combination
from director.kit.checks.tcp import TcpProbe
from director.kit.health import Asks, HealthState, ProbeResult, Status, observe
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

PARTS = tuple(Check(Endpoint(ip_address("10.0.0.1"), port), TcpProbe()) for port in range(81, 87))
U, D, P = Status.UP, Status.DOWN, Status.PENDING


def judge(every: bool, *states: HealthState) -> HealthState:
    by_part = dict(zip(PARTS, states, strict=False))
    return verdict(Combination(every, PARTS[: len(states)]), by_part.__getitem__)


def state(status: Status, since_at: float = 0.0, **says: object) -> HealthState:
    ok = status is U
    result = ProbeResult(ok, "connected" if ok else "refused", **says)  # type: ignore[arg-type]  # what a case names
    return HealthState(status, since_at=since_at, last=None if status is P else result)


def test_one_check_is_its_own_verdict() -> None:
    one = state(U, 5.0)
    assert verdict(PARTS[0], {PARTS[0]: one}.__getitem__) is one


@pytest.mark.parametrize("statuses", [each for count in (1, 2, 3) for each in product((U, D, P), repeat=count)])
def test_all_and_any_of_up_to_three(statuses: tuple[Status, ...]) -> None:
    states = [state(status) for status in statuses]
    all_of = D if D in statuses else P if P in statuses else U
    any_of = U if U in statuses else P if P in statuses else D
    for every, expected in ((True, all_of), (False, any_of)):
        found = judge(every, *states)
        assert found.status is expected
        if found.last is not None:
            assert found.last.ok is (expected is U)
        else:
            assert expected is P


@pytest.mark.parametrize(
    ("every", "states", "since_at"),
    [
        (True, (state(U, 3.0), state(U, 7.0), state(U, 5.0)), 7.0),  # all are up since the last one came
        (True, (state(D, 3.0), state(U, 7.0), state(D, 5.0)), 3.0),  # one was enough
        (False, (state(U, 3.0), state(D, 1.0), state(U, 5.0)), 3.0),  # one was enough
        (False, (state(D, 3.0), state(D, 7.0), state(D, 5.0)), 7.0),  # all are down since the last one went
    ],
)
def test_since_when(every: bool, states: tuple[HealthState, ...], since_at: float) -> None:
    assert judge(every, *states).since_at == since_at


def test_the_reason_names_the_parts_that_fail() -> None:
    found = judge(True, state(U), state(D), state(D))
    assert found.last is not None
    assert found.last.reason == "refused (tcp 10.0.0.1:82); refused (tcp 10.0.0.1:83)"
    assert found.seen == found.last.reason
    many = judge(True, *(state(D) for _ in range(5))).last
    assert many is not None
    assert many.reason.endswith("refused (tcp 10.0.0.1:83) and 2 more")


def test_a_part_that_is_down_although_it_answered_just_now_says_so() -> None:
    found = judge(True, state(U), HealthState(D, last=ProbeResult(True, "connected")))
    assert found.seen == "connected, not often enough to be up (tcp 10.0.0.1:82)"


def test_the_reason_of_any_names_who_is_up_and_that_of_all_says_it_once() -> None:
    one = judge(False, state(D), state(U)).last
    assert one is not None
    assert one.reason == "connected (tcp 10.0.0.1:82)"
    alike = judge(True, *(state(U) for _ in range(5))).last
    assert alike is not None
    assert alike.reason == "connected"
    result = ProbeResult(True, "status 200")
    other = judge(True, state(U), HealthState(U, last=result), *(state(U) for _ in range(3))).last
    assert other is not None
    assert other.reason == "connected; status 200"


@pytest.mark.parametrize(
    ("every", "percents", "expected"),
    [
        (True, (50, 30, None), 30),
        (True, (None, None, None), None),
        (True, (100, 100, 100), None),
        (False, (50, 30, 40), 50),
        (False, (50, 30, None), None),
    ],
)
def test_shares_together(every: bool, percents: tuple[int | None, ...], expected: int | None) -> None:
    found = judge(every, *(state(U, percent=percent) for percent in percents)).last
    assert found is not None
    assert found.percent == expected


@pytest.mark.parametrize(("every", "expected"), [(True, 3), (False, 9)])
def test_weights_together(every: bool, expected: int) -> None:
    found = judge(every, state(U, weight=3), state(U), state(U, weight=9)).last
    assert found is not None
    assert found.weight == expected


@pytest.mark.parametrize(
    ("every", "asks", "expected"),
    [
        (True, (Asks.DRAIN, None), Asks.DRAIN),
        (True, (Asks.DRAIN, Asks.MAINTENANCE), Asks.MAINTENANCE),
        (True, (None, None), None),
        (False, (Asks.DRAIN, None), None),
        (False, (Asks.DRAIN, Asks.DRAIN), Asks.DRAIN),
        (False, (Asks.MAINTENANCE, Asks.DRAIN), Asks.MAINTENANCE),
    ],
)
def test_who_wants_out(every: bool, asks: tuple[Asks | None, ...], expected: Asks | None) -> None:
    found = judge(every, *(state(U, asks=each) for each in asks)).last
    assert found is not None
    assert found.asks is expected


@pytest.mark.parametrize("every", [True, False])
def test_what_a_part_asked_for_holds_while_its_probes_fail(every: bool) -> None:
    timing = Timing(rise=1, fall=3)
    asked = observe(HealthState(), ProbeResult(True, "10%", percent=10, asks=Asks.DRAIN), timing, 1.0)
    failing = observe(asked, ProbeResult(False, "refused"), timing, 2.0)
    found = judge(every, failing).last
    assert found is not None
    assert (found.ok, found.percent, found.asks) == (True, 10, Asks.DRAIN)


def test_warnings_of_all_parts_are_kept() -> None:
    found = judge(False, state(U), state(D, warning="ends soon"), state(D, warning="ends soon")).last
    assert found is not None
    assert found.warning == "ends soon"


def test_a_part_that_comes_back_starts_nothing_slowly_where_any_other_has_been_up() -> None:
    slow = Policy(slow_start_s=60.0)
    been = state(U, 0.0)
    came = replace(state(U, 30.0), was_down=True)
    assert ramp_percent(judge(False, been, came), slow, 31.0) == 100
    assert ramp_percent(judge(True, been, came), slow, 31.0) == 5
    was_down = judge(True, replace(been, was_down=True), state(U, 30.0))
    assert ramp_percent(was_down, slow, 31.0) == 5


@pytest.mark.parametrize("every", [True, False])
def test_a_part_that_is_held_down_holds_the_whole_down(every: bool) -> None:
    held = replace(HealthState(D, last=ProbeResult(True, "connected")), held=True)
    assert judge(every, held).held
    assert judge(True, held, state(U)).held
    assert not judge(False, held, state(U)).held
