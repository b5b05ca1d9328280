"""Turns by weight."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.balance import Lots, RoundRobin, better, least
from l7proxy.core.latency import DECAY_S, Latency

pytestmark = pytest.mark.unit

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1)


@given(WEIGHTS, st.integers(1, 4))
def test_each_gets_its_weights_share(weights: dict[str, int], rounds: int) -> None:
    turns = RoundRobin()
    total = sum(weights.values())
    picked = Counter(turns.pick(weights) for _ in range(total * rounds))
    assert picked == Counter({name: weight * rounds for name, weight in weights.items() if weight})


def test_a_heavy_one_is_spread_out() -> None:
    turns = RoundRobin()
    assert "".join(str(turns.pick({"a": 5, "b": 1, "c": 1})) for _ in range(7)) == "aabacaa"


def test_weight_zero_gets_nothing() -> None:
    turns = RoundRobin()
    assert {turns.pick({"a": 0, "b": 1}) for _ in range(10)} == {"b"}
    assert turns.pick({"a": 0}) is None
    assert turns.pick({}) is None


def test_one_that_was_away_gets_no_burst() -> None:
    turns = RoundRobin()
    for _ in range(100):
        turns.pick({"a": 1, "b": 1})
    for _ in range(100):
        turns.pick({"a": 1})
    after = Counter(turns.pick({"a": 1, "b": 1}) for _ in range(10))
    assert after == {"a": 5, "b": 5}


def test_who_is_forgotten_begins_anew() -> None:
    turns = RoundRobin()
    assert turns.pick({"a": 1, "b": 1}) == "a"
    turns.keep([])
    assert turns.pick({"a": 1, "b": 1}) == "a"


# the least


@given(WEIGHTS, st.integers(1, 200))
def test_requests_that_last_are_shared_by_weight(weights: dict[str, int], count: int) -> None:
    """None ends: nobody ever has more than one beyond its share."""
    turns, busy = RoundRobin(), Counter[str]()
    total = sum(weights.values())
    for _ in range(count):
        name = least(weights, lambda name: busy[name], turns)
        assert (name is None) == (total == 0)
        if name is not None:
            busy[name] += 1
    for name, weight in weights.items():
        assert busy[name] <= count * weight / max(total, 1) + max(weight, 1)


def test_idle_ones_take_turns_by_weight() -> None:
    turns = RoundRobin()
    assert Counter(least({"a": 3, "b": 1}, lambda _: 0, turns) for _ in range(8)) == {"a": 6, "b": 2}


def test_the_one_with_fewest_for_its_weight_is_taken() -> None:
    busy = {"a": 2, "b": 3, "c": 0}
    assert least({"a": 1, "b": 2, "c": 0}, busy.__getitem__, RoundRobin()) == "b"
    assert least({"c": 0}, busy.__getitem__, RoundRobin()) is None


# by lot


def test_lots_follow_weights() -> None:
    lots, random = Lots({"a": 6, "b": 3, "c": 1, "d": 0}), Random(7)  # noqa: S311
    drawn = Counter(lots.draw(random.random) for _ in range(10_000))
    assert set(drawn) == {"a", "b", "c"}
    assert abs(drawn["a"] - 6000) < 250
    assert abs(drawn["c"] - 1000) < 150


@given(WEIGHTS, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_two_are_never_the_same(weights: dict[str, int], one: float, other: float) -> None:
    values = iter([one, other])
    two = Lots(weights).draw_two(lambda: next(values))
    able = {name for name, weight in weights.items() if weight}
    if len(able) < 2:
        assert two is None
    else:
        assert two is not None
        assert two[0] != two[1]
        assert set(two) <= able


def test_of_two_the_second_is_drawn_by_weight_too() -> None:
    lots, random = Lots({"a": 1, "b": 2, "c": 1}), Random(7)  # noqa: S311
    seconds = Counter(two[1] for _ in range(20_000) if (two := lots.draw_two(random.random)) and two[0] == "a")
    assert abs(seconds["b"] / sum(seconds.values()) - 2 / 3) < 0.03


def test_two_choices_keep_the_longest_queue_short() -> None:
    """Power of two choices: with as many balls as bins, the fullest has log log n, and not log n / log log n."""
    weights = {str(number): 1 for number in range(500)}
    lots, random, busy = Lots(weights), Random(7), Counter[str]()  # noqa: S311
    for _ in range(500):
        two = lots.draw_two(random.random)
        assert two is not None
        busy[better(*two, weights, lambda name: busy[name] + 1)] += 1
    blind = Counter(lots.draw(random.random) for _ in range(500))
    assert max(busy.values()) <= 3 < max(blind.values())


def test_of_two_the_heavier_may_have_more() -> None:
    busy = {"a": 3, "b": 2}
    assert better("a", "b", {"a": 2, "b": 1}, busy.__getitem__) == "a"
    assert better("b", "a", {"a": 2, "b": 1}, busy.__getitem__) == "a"
    assert better("a", "b", {"a": 1, "b": 1}, busy.__getitem__) == "b"


# the least time


def test_what_was_seen_is_forgotten_with_time() -> None:
    latency = Latency()
    latency.observe(1.0, 0.0)
    assert latency.estimate(0.0, 0.1) == 1.0
    assert latency.estimate(DECAY_S, 0.1) == pytest.approx(0.1 + 0.9 / 2.71828, abs=1e-3)
    assert latency.estimate(100 * DECAY_S, 0.1) == pytest.approx(0.1)


def test_new_times_count_more_the_longer_it_was_quiet() -> None:
    soon, late = Latency(), Latency()
    for latency, at in ((soon, 0.1), (late, 3 * DECAY_S)):
        latency.observe(1.0, 0.0)
        latency.observe(0.0, at)
    assert 0.9 < soon.estimate(0.1, 0.5) < 1.0
    assert late.estimate(3 * DECAY_S, 0.5) < 0.1


def test_many_at_one_time_count() -> None:
    latency = Latency()
    latency.observe(0.0, 0.0)
    for _ in range(500):
        latency.observe(1.0, 0.0)
    assert latency.estimate(0.0, 0.0) > 0.9


def test_who_is_not_known_is_taken_for_average() -> None:
    latency = Latency()
    assert latency.estimate(5.0, 0.3) == 0.3
    latency.observe(1.0, 5.0)
    latency.forget()
    assert latency.estimate(5.0, 0.3) == 0.3
    assert latency.known_s is None
