"""Turns by weight, and when a request may be sent again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.balance import RoundRobin
from l7proxy.core.head import RequestHead, read_head
from l7proxy.core.retry import Failure, Retry, repeatable, retry

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


def head(method: str, length: int | None = None, chunked: bool = False) -> RequestHead:
    fields = [(b"Host", b"h")]
    if chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    if length is not None:
        fields.append((b"Content-Length", b"%d" % length))
    found = read_head(method, "/", (1, 1), fields)
    assert isinstance(found, RequestHead)
    return found


@pytest.mark.parametrize(
    ("failure", "request_head", "expected"),
    [
        (Failure.NOT_CONNECTED, head("GET"), Retry.OTHER_BACKEND),
        (Failure.NOT_CONNECTED, head("POST", 5), Retry.OTHER_BACKEND),
        (Failure.STALE, head("GET"), Retry.SAME_BACKEND),
        (Failure.STALE, head("HEAD"), Retry.SAME_BACKEND),
        (Failure.STALE, head("OPTIONS"), Retry.SAME_BACKEND),
        (Failure.STALE, head("GET", 0), Retry.SAME_BACKEND),
        (Failure.STALE, head("GET", 5), Retry.NO),
        (Failure.STALE, head("GET", chunked=True), Retry.NO),
        (Failure.STALE, head("POST"), Retry.NO),
        (Failure.STALE, head("PUT", 0), Retry.NO),
        (Failure.STALE, head("DELETE"), Retry.NO),
        (Failure.BROKEN, head("GET"), Retry.NO),
        (Failure.TIMED_OUT, head("GET"), Retry.NO),
        (Failure.TIMED_OUT, head("POST", 5), Retry.NO),
    ],
)
def test_what_comes_after_a_failure(failure: Failure, request_head: RequestHead, expected: Retry) -> None:
    assert retry(failure, request_head) is expected


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "FOO"])
def test_changing_methods_are_not_repeated(method: str) -> None:
    assert not repeatable(head(method))
