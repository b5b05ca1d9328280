"""Events keep their shape, on the way to JSON and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from director.core.event import (
    LATEST,
    MOST_OUTPUT,
    Event,
    EventAnswer,
    EventKind,
    event_from_plain,
    printable,
    sentence,
)

pytestmark = pytest.mark.unit

DOWN = Event(
    1769860800.1234,
    EventKind.HEALTH,
    "web",
    "a",
    "up",
    "down",
    "connection refused",
    100,
    0,
    "tcp 10.0.0.1:80",
    "",
    "ECONNREFUSED",
    0.41,
)


def test_the_shape_that_receivers_know_stays() -> None:
    assert DOWN.plain() == {
        "at": 1769860800.123,
        "time": "2026-01-31T12:00:00.123Z",
        "kind": "health",
        "virtual_server": "web",
        "real_server": "a",
        "was": "up",
        "now": "down",
        "reason": "connection refused",
        "weight_before": 100,
        "weight_after": 0,
        "check": "tcp 10.0.0.1:80",
        "output": "",
        "errno": "ECONNREFUSED",
        "duration_ms": 0.41,
    }
    assert set(DOWN.plain()) == set(EventAnswer.__annotations__)


TEXTS = st.text(max_size=3000)
WEIGHTS = st.none() | st.integers(0, 65535)
TIMES = st.floats(0, LATEST, allow_nan=False).map(lambda at: round(at, 3))
EVENTS = st.builds(
    Event,
    TIMES,
    st.sampled_from(EventKind),
    *[TEXTS] * 5,
    WEIGHTS,
    WEIGHTS,
    *[TEXTS] * 3,
    st.none() | st.floats(0, 1e9).map(lambda ms: round(ms, 3)),
)


@given(EVENTS)
def test_an_event_comes_back_from_json_as_it_was(event: Event) -> None:
    assert event_from_plain(json.loads(json.dumps(event.plain()))) == event


@given(st.floats(0, LATEST))
@example(1795377421.3015)
def test_what_is_read_back_is_written_alike(at: float) -> None:
    plain = Event(at, EventKind.DAEMON).plain()
    assert event_from_plain(plain).plain() == plain


@given(EVENTS)
def test_a_sentence_is_one_line_that_steers_nothing(event: Event) -> None:
    assert sentence(event).isprintable()
    assert len(event.output) <= MOST_OUTPUT


@given(st.text() | st.binary(), st.integers(3, 40))
def test_what_was_seen_is_bounded_and_printable(seen: str | bytes, most: int) -> None:
    shown = printable(seen, most)
    assert len(shown) <= most
    assert shown.isprintable()
    assert printable(shown, most) == shown


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event(0, EventKind.DAEMON, now="started"), "director: daemon started"),
        (
            Event(0, EventKind.QUORUM, "web", was="kept", now="lost", reason="1 of 3"),
            "web: quorum kept -> lost: 1 of 3",
        ),
        (
            Event(0, EventKind.WEIGHT, "web", "a", weight_before=100, weight_after=0, reason="drained"),
            "web/a: weight: drained; weight 100 -> 0",
        ),
        (Event(0, EventKind.HEALTH, "web", "a", now="up", output="220\r\n"), 'web/a: health up; it said "220\\r\\n"'),
    ],
)
def test_a_sentence_leaves_out_what_does_not_apply(event: Event, told: str) -> None:
    assert sentence(event) == told


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"at": 1.0},
        {"at": 1.0, "kind": "of the future"},
        {"at": True, "kind": "daemon"},
        {"at": -1, "kind": "daemon"},
        {"at": float("nan"), "kind": "daemon"},
        {"at": 1e300, "kind": "daemon"},
        {"at": 1, "kind": ["daemon"]},
        {"at": 1, "kind": "daemon", "reason": 1},
        {"at": 1, "kind": "daemon", "weight_after": 1.5},
        {"at": 1, "kind": "daemon", "duration_ms": "1"},
    ],
)
def test_what_is_no_event_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        event_from_plain(plain)
