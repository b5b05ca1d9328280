"""Turns by weight."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.balance import RoundRobin

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
