"""Rise and fall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.base import Flapping, Timing
from director.kit.health import HealthState, ProbeResult, Status, observe

pytestmark = pytest.mark.unit

NAMES = {Status.PENDING: "p", Status.UP: "U", Status.DOWN: "D"}


def _run(results: str, rise: int, fall: int) -> tuple[str, list[HealthState]]:
    """Statuses after each of `results`, `+` or `-`."""
    timing, states = Timing(rise=rise, fall=fall), [HealthState(since_at=100.0)]
    for index, each in enumerate(results):
        states.append(observe(states[-1], ProbeResult(each == "+", each), timing, 101.0 + index))
    return "".join(NAMES[state.status] for state in states[1:]), states


@pytest.mark.parametrize(
    ("results", "rise", "fall", "statuses"),
    [
        ("+", 1, 1, "U"),
        ("-", 1, 1, "D"),
        ("+-+-", 1, 1, "UDUD"),
        ("++", 2, 3, "pU"),
        ("---", 2, 3, "ppD"),
        ("+-+-+-+-", 2, 2, "pppppppp"),
        ("+--+--++", 2, 3, "pppppppU"),
        ("++--+--+---", 2, 3, "pUUUUUUUUUD"),
        ("---+-+-+--++", 2, 3, "ppDDDDDDDDDU"),
        ("+++++-", 5, 1, "ppppUD"),
        ("--++++", 3, 2, "pDDDUU"),
    ],
)
def test_status_changes_after_equal_results_in_a_row(results: str, rise: int, fall: int, statuses: str) -> None:
    assert _run(results, rise, fall)[0] == statuses


def test_state_tells_since_when_and_why() -> None:
    _, states = _run("++-+", 2, 1)
    assert [state.since_at for state in states] == [100, 100, 102, 103, 103]
    assert [state.streak for state in states] == [0, 1, 2, 1, 1]
    assert states[-1].last == ProbeResult(True, "+")
    assert states[-1].last_at == 104


@pytest.mark.parametrize(
    ("results", "suspect"),
    [("", True), ("+", True), ("++", False), ("++-", True), ("++-+", False), ("---", False), ("---+", True)],
)
def test_state_is_suspect_while_it_may_change(results: str, suspect: bool) -> None:
    assert _run(results, 2, 3)[1][-1].suspect is suspect


def _end_of_last(history: str, row: str) -> int:
    start = history.rfind(row)
    return 0 if start < 0 else start + len(row)


COUNTS = st.integers(1, 5)
RESULTS = st.text("+-", max_size=60)


@given(RESULTS, COUNTS, COUNTS)
def test_status_is_that_of_the_last_long_enough_row(results: str, rise: int, fall: int) -> None:
    """The reference looks at the whole history: the latest row that was long enough decides."""
    for end in range(1, len(results) + 1):
        history = results[:end]
        ends = {_end_of_last(history, "+" * rise): "U", _end_of_last(history, "-" * fall): "D"}
        assert _run(history, rise, fall)[0][-1] == (ends[max(ends)] if max(ends) > 0 else "p")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=20), st.sampled_from(list(Status)))
def test_rows_that_are_too_short_never_change_anything(rows: list[tuple[bool, int]], status: Status) -> None:
    state = HealthState(status=status)
    ok = False
    for _, length in rows:
        ok = not ok  # neighbours differ, or two short rows would make a long one
        for _ in range(length):
            state = observe(state, ProbeResult(ok, ""), Timing(rise=4, fall=4), now=1.0)
            assert state.status is status
            assert state.since_at == 0.0


FLAPS = Timing(rise=1, fall=1, flapping=Flapping(changes=3, within_s=100.0, hold_s=50.0))


def _seen(pairs: list[tuple[float, bool]], timing: Timing = FLAPS) -> HealthState:
    state = HealthState()
    for now, ok in pairs:
        state = observe(state, ProbeResult(ok, ""), timing, now)
    return state


def test_target_that_changes_too_often_is_held_down_until_it_has_been_good_for_long_enough() -> None:
    wavering = [(0.0, True), (10.0, False), (20.0, True), (30.0, False), (40.0, True)]
    held = _seen(wavering)
    assert (held.status, held.held, held.suspect) == (Status.DOWN, True, False)
    assert _seen([*wavering, (89.0, True)]).held
    assert _seen([*wavering, (90.0, True)]).status is Status.UP
    broken = _seen([*wavering, (60.0, False), (70.0, True), (95.0, True)])
    assert (broken.status, broken.held) == (Status.DOWN, True)  # the time begins anew


def test_changes_that_are_far_apart_hold_nothing() -> None:
    assert _seen([(0.0, True), (10.0, False), (80.0, True), (120.0, False), (130.0, True)]).status is Status.UP


def test_first_verdict_is_no_change_and_memory_of_changes_is_bounded() -> None:
    assert _seen([(0.0, False), (1.0, True), (2.0, False), (3.0, True)]).status is Status.UP
    state = _seen([(float(i * 60), i % 2 == 0) for i in range(40)])
    assert len(state.changes) == 3


@given(st.lists(st.tuples(st.floats(0, 500), st.booleans()), max_size=50), COUNTS, COUNTS)
def test_damping_holds_back_only_what_goes_up(steps: list[tuple[float, bool]], rise: int, fall: int) -> None:
    damped = Timing(rise=rise, fall=fall, flapping=Flapping(2, 300.0, 200.0))
    plain = Timing(rise=rise, fall=fall)
    now, first, second = 0.0, HealthState(), HealthState()
    for pause, ok in steps:
        now += pause
        before = first
        first = observe(first, ProbeResult(ok, ""), damped, now)
        second = observe(second, ProbeResult(ok, ""), plain, now)
        if second.status is Status.DOWN:
            assert first.status is Status.DOWN
        if before.status is Status.DOWN and first.status is Status.UP:
            assert first.streak >= rise  # whatever the clock did, a success never skips `rise`


def test_the_last_good_result_is_kept_while_others_fail() -> None:
    _, states = _run("-+--+-", 1, 9)
    assert [state.said and state.said.reason for state in states] == [None, None, "+", "+", "+", "+", "+"]
    first, second = states[2], states[5]
    assert (states[4].said, states[6].said) == (first.last, second.last)


@pytest.mark.parametrize(
    ("results", "seen"),
    [
        ("", ""),
        ("+", "+"),
        ("-", "-"),
        ("++", "+"),
        ("++-", "-, not often enough to be down"),
        ("++-+", "+"),
        ("---", "-"),
        ("---+", "+, not often enough to be up"),
    ],
)
def test_what_was_seen_against_the_status_says_why_that_stands(results: str, seen: str) -> None:
    assert _run(results, 2, 3)[1][-1].seen == seen
