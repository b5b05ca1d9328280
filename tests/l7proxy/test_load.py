"""What the agent says: the line, and how the share in it is made."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l7proxy.core import load
from l7proxy.core.load import LATEST_S, LONGEST_REASON, MARGIN, STEP, Load, answer, observe, stepped

pytestmark = pytest.mark.unit

PERIOD_S = 0.5


def test_the_examples_hold() -> None:
    assert doctest.testmod(load).failed == 0


@pytest.mark.parametrize(
    ("left", "said", "says"),
    [
        (100.0, 100, 100),
        (99.9, 95, 100),  # an idle process has all of it, whatever it said before
        (95.1, 100, 100),
        (93.1, 100, 100),
        (93.0, 100, 95),
        (96.9, 95, 95),
        (50.0, 100, 50),
        (50.1, 100, 55),
        (0.1, 100, 5),
        (0.0, 100, 1),
        (0.0, 5, 1),  # full is said at once, there is no margin to it
        (-1.0, 1, 1),
        (3.0, 1, 1),
        (3.1, 1, 5),
    ],
)
def test_a_share_moves_in_steps(left: float, said: int, says: int) -> None:
    assert stepped(left, said) == says


@given(st.floats(-50, 100), st.sampled_from([1, *range(5, 101, 5)]))
@example(5e-324, 10)
def test_a_share_is_1_to_100_and_near_what_is_left(left: float, said: int) -> None:
    says = stepped(left, said)
    assert 1 <= says <= 100
    assert says == 1 or left - MARGIN <= says <= left + STEP + MARGIN
    assert stepped(left, says) == says


@given(st.floats(MARGIN, 100 - MARGIN), st.lists(st.floats(-MARGIN / 2, MARGIN / 2), max_size=20))
def test_a_share_does_not_flutter(left: float, noise: list[float]) -> None:
    said = stepped(left, 100)
    heard = {said := stepped(left + part, said) for part in noise}
    assert len(heard) <= 2  # one move at most, and never back


@pytest.mark.parametrize(
    ("clients", "most", "late_s", "looks", "percent"),
    [
        (0, 1000, 0.0, 1, 100),
        (1, 1000, 0.0, 1, 100),
        (250, 1000, 0.0, 1, 75),
        (251, 1000, 0.0, 1, 75),
        (999, 1000, 0.0, 1, 5),
        (1000, 1000, 0.0, 1, 1),
        (1003, 1000, 0.0, 1, 1),  # a reload has lowered the limit
        (1, 1, 0.0, 1, 1),
        (0, 1000, 0.001, 100, 100),  # a timer of milliseconds is always as late as that
        (0, 1000, 0.05, 1, 100),  # one look is not much
        (0, 1000, 0.05, 100, 55),  # 50.0001 by then: steps round up
        (0, 1000, 9.0, 1, 90),  # LATEST_S is the most that counts
        (0, 1000, 9.0, 1000, 5),  # 1 is for clients only: it says that the next one is refused
        (0, 1000, -1.0, 1, 100),
        (600, 1000, 0.05, 100, 40),  # the more used of the two
        (300, 1000, 0.05, 100, 55),
    ],
)
def test_what_is_left(clients: int, most: int, late_s: float, looks: int, percent: int) -> None:
    seen = Load()
    for _ in range(looks):
        seen = observe(seen, clients, most, late_s, PERIOD_S)
    assert seen.percent == percent


def test_a_process_that_was_late_recovers_all_of_it() -> None:
    seen = Load(LATEST_S, 1)
    shares = [(seen := observe(seen, 0, 1000, 0.0, PERIOD_S)).percent for _ in range(40)]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_how_often_it_is_looked_at_does_not_matter() -> None:
    seldom = often = Load()
    for _ in range(4):
        seldom = observe(seldom, 0, 1000, 0.08, 0.5)
    for _ in range(40):
        often = observe(often, 0, 1000, 0.08, 0.05)
    assert often.late_s == pytest.approx(seldom.late_s)


@pytest.mark.parametrize(
    ("draining", "trouble", "running_s", "line"),
    [
        (False, "", 61.0, b"up 85%\n"),
        (False, "", 0.0, b"up ready 85%\n"),
        (False, "no backend: a is down", 0.0, b"down#no backend: a is down\n"),
        (False, "a\nup 100%", 61.0, b"down#a?up 100%\n"),
        (False, "é\x00\x7f", 61.0, b"down#???\n"),
        (True, "", 61.0, b"drain\n"),
        (True, "no backend", 0.0, b"drain\n"),
    ],
)
def test_the_line(draining: bool, trouble: str, running_s: float, line: bytes) -> None:
    assert answer(Load(percent=85), draining=draining, trouble=trouble, running_s=running_s) == line


def test_a_long_reason_is_cut() -> None:
    line = answer(Load(), draining=False, trouble="x" * 500, running_s=0.0)
    assert line == b"down#" + b"x" * (LONGEST_REASON - 3) + b"...\n"
