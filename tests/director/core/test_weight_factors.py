"""What lowers a weight on its way, and what nothing may raise: asks, shares, slow start, panic, Maglev, on_start."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.model import RealServer, RealState
from director.core.policy import DEFAULT_POLICY, OnStart, Policy
from director.core.weight import (
    NO_WISH,
    Facts,
    Maintenance,
    Weight,
    Wish,
    effective_weight,
    next_ramp_s,
    ramp_percent,
)
from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import Asks, HealthState, ProbeResult, Status, observe
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

TARGET = Endpoint(ip_address("10.0.0.1"), 80)
CHECKED = RealServer("a", TARGET.address, 100, check=Check(TARGET, TcpProbe()))
UNCHECKED = replace(CHECKED, check=None)
GOOD, BAD = ProbeResult(True, "connected"), ProbeResult(False, "connection refused")
PENDING = HealthState()
UP = HealthState(Status.UP, last=GOOD)
DOWN = HealthState(Status.DOWN, last=BAD)
SLOW = Policy(slow_start_s=60.0)
ONCE = Timing(rise=1, fall=3)


def up(result: ProbeResult) -> HealthState:
    return HealthState(Status.UP, last=result)


def back(now: float) -> HealthState:
    """Up again since `now`."""
    return HealthState(Status.UP, since_at=now, last=GOOD, was_down=True)


def told(weight: Weight) -> list[tuple[str, int]]:
    return [(factor.what, factor.value) for factor in weight.factors]


@pytest.mark.parametrize(
    ("state", "last", "reason"),
    [
        (Status.UP, GOOD, "up: connected"),
        (Status.UP, BAD, "up: connection refused, not often enough to be down"),
        (Status.DOWN, BAD, "down: connection refused"),
        (Status.DOWN, GOOD, "down: connected, not often enough to be up"),
    ],
)
def test_a_reason_does_not_contradict_itself(state: Status, last: ProbeResult, reason: str) -> None:
    assert effective_weight(CHECKED, Facts(HealthState(state, last=last), NO_WISH)).reason == reason


def test_what_flapping_holds_down_says_so() -> None:
    held = HealthState(Status.DOWN, last=GOOD, held=True)
    found = effective_weight(CHECKED, Facts(held, NO_WISH))
    assert (found.value, found.reason) == (0, "down: connected, held down: it went up and down too often")


@pytest.mark.parametrize(
    ("check", "load", "value", "whats"),
    [
        (replace(GOOD, percent=50), None, 50, ["50% by its check"]),
        (replace(GOOD, percent=1), None, 1, ["1% by its check"]),
        (replace(GOOD, weight=7), None, 7, ["weight 7 by its check"]),
        (replace(GOOD, weight=0), None, 0, ["weight 0 by its check"]),
        (replace(GOOD, weight=7, percent=50), None, 4, ["weight 7 by its check", "50% by its check"]),
        (GOOD, replace(GOOD, percent=33), 33, ["33% by its load"]),
        (replace(GOOD, percent=50), replace(GOOD, percent=50), 25, ["50% by its check", "50% by its load"]),
        (GOOD, replace(BAD, percent=33), 100, []),
        (replace(GOOD, asks=Asks.DRAIN), None, 0, ["up: connected, and it asks to be drained"]),
        (replace(GOOD, asks=Asks.MAINTENANCE), None, 0, ["up: connected, and it asks for maintenance"]),
        (GOOD, replace(GOOD, asks=Asks.DRAIN), 0, ["up: connected, and it asks to be drained"]),
    ],
)
def test_a_server_may_ask_for_less(check: ProbeResult, load: ProbeResult | None, value: int, whats: list[str]) -> None:
    found = effective_weight(CHECKED, Facts(up(check), NO_WISH, load=load))
    assert found.value == value
    assert not found.is_down
    assert [factor.what for factor in found.factors][-len(whats) or len(found.factors) :] == whats
    assert all(what in found.reason for what in whats)


def test_factors_lead_from_the_configured_weight_to_the_effective_one() -> None:
    state = replace(back(100.0), last=replace(GOOD, percent=50))
    found = effective_weight(CHECKED, Facts(state, NO_WISH, now=115.0, load=replace(GOOD, percent=10)), SLOW)
    assert told(found) == [
        ("configured weight", 100),
        ("up: connected", 100),
        ("50% by its check", 50),
        ("10% by its load", 5),
        ("30% by slow start", 2),
    ]
    assert found.reason == "up: connected, 50% by its check, 10% by its load, 30% by slow start"


def test_a_server_without_a_check_may_be_asked_for_its_load() -> None:
    assert effective_weight(UNCHECKED, Facts(PENDING, NO_WISH, load=replace(GOOD, percent=10))).value == 10
    assert effective_weight(UNCHECKED, Facts(PENDING, NO_WISH, load=replace(GOOD, asks=Asks.DRAIN))).value == 0


@pytest.mark.parametrize(
    ("asked", "value"),
    [(replace(GOOD, percent=10), 10), (replace(GOOD, weight=3), 3), (replace(GOOD, asks=Asks.DRAIN), 0)],
)
def test_what_a_server_asked_for_holds_while_its_probes_fail_and_it_is_still_up(asked: ProbeResult, value: int) -> None:
    state = observe(HealthState(), asked, ONCE, 1.0)
    for now in (2.0, 3.0):
        state = observe(state, BAD, ONCE, now)
        assert state.status is Status.UP
        assert effective_weight(CHECKED, Facts(state, NO_WISH)).value == value
    assert effective_weight(CHECKED, Facts(observe(state, BAD, ONCE, 4.0), NO_WISH)).is_down
    assert effective_weight(CHECKED, Facts(observe(state, GOOD, ONCE, 4.0), NO_WISH)).value == 100


def test_the_operators_weight_stands_against_shares_but_not_against_a_server_that_wants_out() -> None:
    seven = Wish(weight=7)
    state = replace(back(100.0), last=replace(GOOD, percent=50))
    assert effective_weight(CHECKED, Facts(state, seven, now=100.0), SLOW).value == 7
    asks = replace(state, last=replace(GOOD, asks=Asks.MAINTENANCE))
    assert effective_weight(CHECKED, Facts(asks, seven, now=100.0), SLOW).value == 0


def test_panic_uses_who_is_down_but_nobody_who_was_taken_out() -> None:
    assert effective_weight(CHECKED, Facts(DOWN, NO_WISH, panic=True)).value == 100
    assert effective_weight(CHECKED, Facts(DOWN, NO_WISH, panic=True)).is_down is False
    assert "connection refused" in effective_weight(CHECKED, Facts(DOWN, NO_WISH, panic=True)).reason
    assert effective_weight(CHECKED, Facts(DOWN, Wish(weight=7), panic=True)).value == 7
    assert effective_weight(CHECKED, Facts(DOWN, Wish(drain=True), panic=True)).value == 0
    asks = replace(GOOD, asks=Asks.DRAIN)
    assert effective_weight(CHECKED, Facts(DOWN, NO_WISH, panic=True, load=asks)).value == 0


@pytest.mark.parametrize(
    ("wish", "adopted", "value", "reason"),
    [
        (Wish(weight=7), 100, 7, "no verdict yet: weight 7 by the operator"),
        (Wish(weight=0), 100, 0, "no verdict yet: weight 0 by the operator"),
        (Wish(weight=200), 100, 100, "no verdict yet: keeps the kernel's weight"),
    ],
)
def test_before_its_verdict_the_operator_may_lower_a_server_and_not_raise_it(
    wish: Wish, adopted: int, value: int, reason: str
) -> None:
    found = effective_weight(CHECKED, Facts(PENDING, wish, adopted=adopted))
    assert (found.value, found.reason) == (value, reason)


ON_START: list[tuple[OnStart, Status | None, bool, int, bool]] = [
    (OnStart.UP, None, False, 100, False),
    (OnStart.UP, None, True, 100, False),
    (OnStart.UP, Status.DOWN, True, 100, False),
    (OnStart.UP, Status.UP, True, 100, False),
    (OnStart.DOWN, None, False, 0, True),
    (OnStart.DOWN, None, True, 0, True),
    (OnStart.DOWN, Status.UP, False, 0, True),
    (OnStart.DOWN, Status.DOWN, False, 0, True),
    (OnStart.LAST, None, False, 100, False),
    (OnStart.LAST, None, True, 0, False),
    (OnStart.LAST, Status.UP, False, 100, False),
    (OnStart.LAST, Status.UP, True, 100, False),
    (OnStart.LAST, Status.DOWN, False, 0, True),
    (OnStart.LAST, Status.DOWN, True, 0, True),
]


@pytest.mark.parametrize(("on_start", "presumed", "unproven", "value", "is_down"), ON_START)
def test_what_a_new_server_counts_as(
    on_start: OnStart, presumed: Status | None, unproven: bool, value: int, is_down: bool
) -> None:
    policy, facts = Policy(on_start=on_start), Facts(PENDING, NO_WISH, presumed=presumed, unproven=unproven)
    found = effective_weight(CHECKED, facts, policy)
    assert (found.value, found.is_down) == (value, is_down)
    assert effective_weight(CHECKED, facts._replace(adopted=42), policy).value == 42, "one that was there keeps its own"
    assert effective_weight(CHECKED, facts._replace(health=UP), policy).value == 100, "a verdict decides"
    assert effective_weight(CHECKED, facts._replace(health=DOWN), policy).value == 0


@given(st.floats(0, 1e9), st.floats(0.001, 1e6), st.lists(st.floats(0, 2), min_size=2))
def test_slow_start_grows_with_time_up_to_the_whole(since_at: float, slow_start_s: float, shares: list[float]) -> None:
    policy, state = Policy(slow_start_s=slow_start_s), back(since_at)
    percents = [ramp_percent(state, policy, since_at + share * slow_start_s) for share in sorted(shares)]
    assert percents == sorted(percents)
    assert all(1 <= percent <= 100 for percent in percents)
    assert ramp_percent(state, policy, since_at + 1.001 * slow_start_s + 1e-3) == 100
    assert ramp_percent(state, policy, since_at - 1000.0) == ramp_percent(state, policy, since_at) == 5


@given(st.floats(0, 1e6), st.floats(0.001, 1e5), st.floats(0, 1.2))
def test_the_next_step_of_a_slow_start_is_told_when_it_comes(since_at: float, slow_start_s: float, at: float) -> None:
    policy, state = Policy(slow_start_s=slow_start_s), back(since_at)
    now = since_at + at * slow_start_s
    percent, next_s = ramp_percent(state, policy, now), next_ramp_s(state, policy, now)
    if next_s is None:
        assert percent == 100
        return
    assert 0 <= next_s <= slow_start_s / 20 + 1e-9
    assert ramp_percent(state, policy, now + next_s + 1e-6) > percent


@pytest.mark.parametrize(
    ("now", "value"),
    [(100.0, 5), (99.0, 5), (0.0, 5), (103.1, 10), (130.0, 55), (159.9, 100), (160.0, 100), (1e12, 100)],
)
def test_a_recovered_server_comes_back_in_steps_whichever_way_the_clock_jumps(now: float, value: int) -> None:
    assert effective_weight(CHECKED, Facts(back(100.0), NO_WISH, now=now), SLOW).value == value


def test_who_has_never_been_down_does_not_start_slowly() -> None:
    first = HealthState(Status.UP, since_at=100.0, last=GOOD)
    assert effective_weight(CHECKED, Facts(first, NO_WISH, now=100.0), SLOW).value == 100
    assert next_ramp_s(first, SLOW, 100.0) is None
    assert effective_weight(CHECKED, Facts(back(100.0), NO_WISH, now=100.0), DEFAULT_POLICY).value == 100
    assert next_ramp_s(back(100.0), DEFAULT_POLICY, 100.0) is None
    assert next_ramp_s(replace(DOWN, was_down=True), SLOW, 100.0) is None


def test_a_scheduler_that_wants_whole_weights_gets_them_and_the_rest_is_told() -> None:
    state = replace(back(100.0), last=replace(GOOD, percent=50))
    found = effective_weight(CHECKED, Facts(state, NO_WISH, now=100.0, whole=True), SLOW)
    assert found.value == 100
    assert "what its check asks for is left out: the scheduler wants whole weights" in found.reason
    assert "slow start is left out: the scheduler wants whole weights" in found.reason
    zero = up(replace(GOOD, weight=0))
    assert effective_weight(CHECKED, Facts(zero, NO_WISH, whole=True)).value == 0, "none at all is whole, too"


RESULTS = st.builds(
    ProbeResult,
    st.booleans(),
    st.just("seen"),
    weight=st.none() | st.integers(0, 65535),
    percent=st.none() | st.integers(1, 100),
    asks=st.none() | st.sampled_from(Asks),
)
TIMES = st.floats(0, 1e6)
STATES = st.builds(
    HealthState,
    st.sampled_from(Status),
    since_at=TIMES,
    last=st.none() | RESULTS,
    held=st.booleans(),
    was_down=st.booleans(),
)
WEIGHTS = st.integers(0, 65535)
WISHES = st.builds(Wish, st.booleans(), st.none() | WEIGHTS, st.none() | st.just(Maintenance("work")))
SERVERS = st.builds(
    lambda weight, state, checked: replace(CHECKED if checked else UNCHECKED, weight=weight, state=state),
    WEIGHTS,
    st.sampled_from(RealState),
    st.booleans(),
)
POLICIES = st.builds(Policy, st.sampled_from(OnStart), slow_start_s=st.just(0.0) | st.floats(0.001, 1e5))
FACTS = st.builds(
    Facts,
    STATES,
    WISHES,
    now=TIMES,
    adopted=st.none() | WEIGHTS,
    unproven=st.booleans(),
    presumed=st.none() | st.sampled_from([Status.UP, Status.DOWN]),
    probed=st.booleans(),
    load=st.none() | RESULTS,
    panic=st.booleans(),
    whole=st.booleans(),
)


@given(SERVERS, FACTS, POLICIES)
def test_whatever_is_known_the_weight_is_one_and_its_factors_lead_there(
    server: RealServer, facts: Facts, policy: Policy
) -> None:
    found = effective_weight(server, facts, policy)
    assert 0 <= found.value <= 65535
    assert found.factors[0] == ("configured weight", server.weight)
    assert found.factors[-1].value == found.value
    assert not (found.is_down and found.value)
    assert found == effective_weight(server, facts, policy)


@given(SERVERS, FACTS, POLICIES)
def test_who_was_taken_out_never_gets_weight(server: RealServer, facts: Facts, policy: Policy) -> None:
    wish = facts.wish
    is_out = server.state is not RealState.ENABLED or wish.drain or wish.maintenance is not None or wish.weight == 0
    if is_out:
        assert effective_weight(server, facts, policy).value == 0


@given(SERVERS, FACTS, POLICIES)
def test_down_is_0_without_panic(server: RealServer, facts: Facts, policy: Policy) -> None:
    checked = replace(server, check=CHECKED.check)
    down = facts._replace(health=replace(facts.health, status=Status.DOWN), panic=False)
    found = effective_weight(checked, down, policy)
    assert found.value == 0
    assert found.is_down or server.state is not RealState.ENABLED or facts.wish.drain or facts.wish.maintenance


@given(SERVERS, FACTS, POLICIES)
def test_shares_take_from_a_weight_and_never_all_of_it(server: RealServer, facts: Facts, policy: Policy) -> None:
    state = replace(facts.health, status=Status.UP, last=replace(facts.health.last or GOOD, weight=None, asks=None))
    load = replace(facts.load, weight=None, asks=None) if facts.load else None
    known = Facts(state, NO_WISH, facts.now, load=load)
    found = effective_weight(replace(server, state=RealState.ENABLED), known, policy)
    assert (found.value > 0) is (server.weight > 0)
    assert found.value <= server.weight


@given(SERVERS, FACTS, POLICIES)
def test_with_whole_weights_it_is_the_nominal_one_or_none(server: RealServer, facts: Facts, policy: Policy) -> None:
    found = effective_weight(server, facts._replace(whole=True, adopted=None), policy)
    nominal = server.weight if facts.wish.weight is None else facts.wish.weight
    assert found.value in {0, nominal}


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e3, 1e3)), max_size=40), st.booleans(), st.integers(0, 65535))
def test_no_sequence_of_results_and_clock_jumps_gets_past_the_nominal_weight(
    steps: list[tuple[bool, float]], drained: bool, nominal: int
) -> None:
    server, now, state = replace(CHECKED, weight=nominal), 1e6, HealthState(since_at=1e6)
    row = 0
    for ok, passed_s in steps:
        now = max(0.0, now + passed_s)
        was = state.status
        state = observe(state, GOOD if ok else BAD, Timing(rise=3, fall=2), now)
        row = row + 1 if ok else 0
        found = effective_weight(server, Facts(state, Wish(drain=drained), now=now), SLOW)
        assert 0 <= found.value <= nominal
        assert not (drained and found.value)
        if was is Status.DOWN and found.value:
            assert row >= 3, "a success after failures never skips rise"


def test_load_that_is_not_heard_says_so_beside_what_it_said() -> None:
    facts = Facts(HealthState(), NO_WISH, load=ProbeResult(True, "37%", percent=37), silent="connection refused")
    found = effective_weight(RealServer("a", ip_address("10.0.0.1"), 100), facts)
    assert found.value == 37
    assert found.reason == "not checked, 37% by its load, which is not heard now (connection refused)"
