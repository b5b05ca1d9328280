"""Ejection, breaker, retry budget and slow start, on a clock of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.breaker import CLOSED, OPEN, TRIAL, TRIAL_S, Gate
from l7proxy.core.cells import LocalCell
from l7proxy.core.outlier import MOST_TIMES, Ejection
from l7proxy.core.retrybudget import SPAN_S, Budget
from l7proxy.core.settings.resilience import Breaker, Outlier, RetryBudget, share_of
from l7proxy.core.slowstart import LEAST, SCALE, scaled
from l7proxy.core.window import MOST, PARTS, Window

pytestmark = pytest.mark.unit


def ejections(count: int, rule: Outlier) -> list[Ejection]:
    return [Ejection(rule, LocalCell(), LocalCell()) for _ in range(count)]


RULE = Outlier(failures=3, ejection_s=10.0, at_most=0.5)


def fail(one: Ejection, all_: list[Ejection], now: float, times: int = 3) -> bool:
    return sum(one.saw(True, now, all_) for _ in range(times)) > 0


def test_backend_is_left_out_after_failures_in_a_row() -> None:
    all_ = ejections(4, RULE)
    assert not fail(all_[0], all_, 100.0, 2)
    all_[0].saw(False, 100.0, all_)
    assert not fail(all_[0], all_, 100.0, 2)
    assert all_[0].saw(True, 100.0, all_)
    assert all_[0].is_out(109.9)
    assert not all_[0].is_out(110.1)


def test_never_more_are_left_out_than_the_share_allows() -> None:
    all_ = ejections(4, RULE)
    assert [fail(each, all_, 100.0) for each in all_] == [True, True, False, False]
    assert fail(all_[2], all_, 111.0)


def test_the_only_backend_stays() -> None:
    all_ = ejections(1, RULE)
    assert not fail(all_[0], all_, 100.0, 50)


def test_each_time_is_longer_until_it_was_long_in_order() -> None:
    all_ = ejections(2, RULE)
    now, spans = 0.0, []
    for _ in range(MOST_TIMES + 2):
        assert fail(all_[0], all_, now)
        spans.append(all_[0].until - now)
        now = all_[0].until + 1
    assert spans == [10.0 * min(times, MOST_TIMES) for times in range(1, MOST_TIMES + 3)]
    now += MOST_TIMES * RULE.ejection_s + 1
    assert fail(all_[0], all_, now)
    assert all_[0].until - now == 10.0


def test_what_counts_as_failure() -> None:
    one = ejections(1, RULE)[0]
    assert [one.is_failure(status) for status in (0, 200, 404, 500, 502, 503, 504)] == [
        *(True, False, False, False, True, True, True)
    ]


# windows


@given(
    st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60),
    st.floats(0, 40),
)
def test_window_counts_what_was_within_it(seen: list[tuple[float, bool]], later: float) -> None:
    window = Window([LocalCell() for _ in range(PARTS)], 10.0)
    seen.sort()
    for at, some in seen:
        window.count(at, some)
    now = (seen[-1][0] if seen else 0.0) + later
    within = [some for at, some in seen if int(now) - int(at) < 10]
    assert window.sums(now) == (len(within), sum(within))


def test_window_is_never_overrun() -> None:
    cells = [LocalCell() for _ in range(PARTS)]
    window = Window(cells, 10.0)
    window.count(0.0, True)
    cells[0].value += (MOST - 1) * ((1 << 20) + 1)
    for _ in range(3):
        window.count(0.0, True)
    assert window.sums(0.0) == (MOST, MOST)


# breaker


def gate(rule: Breaker = Breaker(errors=0.5, of=4, window_s=10.0, open_s=5.0)) -> Gate:  # noqa: B008 -- frozen
    return Gate(rule, LocalCell(), Window([LocalCell() for _ in range(PARTS)], rule.window_s))


def test_breaker_opens_when_enough_of_enough_failed() -> None:
    one = gate()
    assert [one.saw(failed, False, 1.0) for failed in (True, False, True)] == [None, None, None]
    assert one.ask(1.0) == CLOSED
    assert one.saw(True, False, 1.0) is True
    assert one.ask(1.0) == OPEN
    assert one.opens_in_s(2.0) == 4.0


def test_breaker_lets_one_at_a_time_try_and_closes_by_it() -> None:
    one = gate()
    for _ in range(4):
        one.saw(True, False, 1.0)
    assert [one.ask(6.5), one.ask(6.5)] == [TRIAL, OPEN]
    assert one.saw(False, False, 6.6) is None  # what was on its way before
    assert one.ask(6.6) == OPEN
    assert one.saw(True, True, 6.7) is True
    assert one.ask(6.8) == OPEN
    assert one.ask(12.0) == TRIAL
    assert one.saw(False, True, 12.1) is False
    assert one.ask(12.1) == CLOSED
    assert one.saw(True, False, 12.2) is None  # its past is forgotten


def test_trial_that_is_lost_does_not_keep_the_breaker_open() -> None:
    one = gate()
    for _ in range(4):
        one.saw(True, False, 1.0)
    assert one.ask(7.0) == TRIAL
    assert one.ask(7.0 + TRIAL_S - 1) == OPEN
    assert one.ask(7.0 + TRIAL_S + 1) == TRIAL
    one.trial_is_void()
    assert one.ask(7.0 + TRIAL_S + 1) == TRIAL


# retry budget


def test_attempts_are_a_share_of_requests_and_some() -> None:
    budget = Budget(RetryBudget(share=0.2, minimum=3), Window([LocalCell() for _ in range(PARTS)], SPAN_S))
    for _ in range(50):
        budget.asked(1.0)
    assert sum(budget.allows(1.0) for _ in range(40)) == 13
    assert sum(budget.allows(1.0 + SPAN_S) for _ in range(40)) == 3


def test_no_attempts_at_all_can_be_asked_for() -> None:
    budget = Budget(RetryBudget(share=0.0, minimum=0), Window([LocalCell() for _ in range(PARTS)], SPAN_S))
    budget.asked(1.0)
    assert not budget.allows(1.0)


# slow start


@pytest.mark.parametrize(
    ("age_s", "expected"), [(0.0, round(SCALE * LEAST)), (5.0, SCALE // 2), (9.9, SCALE), (10.0, 1)]
)
def test_share_grows_with_time(age_s: float, expected: int) -> None:
    assert scaled({"a": 1, "b": 1}, {"a": 100.0 - age_s}, 10.0, 100.0)["a"] == expected


def test_nobody_is_slowed_where_all_came_back() -> None:
    assert scaled({"a": 1, "b": 3}, {"a": 99.0, "b": 99.0}, 10.0, 100.0) == {"a": 1, "b": 3}


@pytest.mark.parametrize("text", ["50", 50, "101%", "-1%", "half", None, True])
def test_what_is_no_share(text: object) -> None:
    with pytest.raises(ValueError, match="is no share"):
        share_of(text)
