"""What has changed between two looks: each difference once, with the weights before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.event import Event, EventKind, sentence
from director.core.model import Config, ServerRef
from director.core.serving import Known, serving
from director.core.transitions import Seen, transitions
from director.core.weight import Maintenance, Wish
from director.kit.health import HealthState, ProbeResult, Status

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    check: {type: tcp}
    quorum: {up: 2}
    sorry_server: {address: 10.0.0.99}
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
  panicky:
    address: 192.0.2.11
    port: 80
    forward: nat
    check: {type: tcp}
    panic_threshold: 50%
    real_servers:
      a: {address: 10.0.1.1}
      b: {address: 10.0.1.2}
"""
CONFIG = parse_config(FILE, "f")
A, B, SORRY = (ServerRef("web", name) for name in ("a", "b", "sorry_server"))
PA, PB = (ServerRef("panicky", name) for name in "ab")
GOOD = ProbeResult(True, "connected", 0.002)
BAD = ProbeResult(False, "connection refused", 0.001, errno=111, output=b"bye\n")
UP, DOWN, PENDING = HealthState(Status.UP, last=GOOD), HealthState(Status.DOWN, last=BAD), HealthState()
NOW, AT = 1000.0, 1.7e9
Line = tuple[str, str, str, str, int | None, int | None]


def seen(
    health: Mapping[ServerRef, HealthState],
    wishes: Mapping[ServerRef, Wish] | None = None,
    config: Config = CONFIG,
    before: Seen | None = None,
) -> Seen:
    """One look, after `before`; servers that are not named are up."""
    states = {ref: health.get(ref, UP) for virtual in config.virtual_servers for ref in virtual.refs if ref != SORRY}
    quorate = {name: each.quorate for name, each in before.serving.standings.items()} if before else {}
    known = Known(states, wishes or {}, quorate=quorate)
    return Seen(config, serving(config, known), states, wishes or {})


def events(before: Seen | None, after: Seen) -> list[Event]:
    return list(transitions(before, after, NOW, AT))


def lines(before: Seen | None, after: Seen) -> list[Line]:
    return [
        (event.kind.value, event.place, event.was, event.now, event.weight_before, event.weight_after)
        for event in events(before, after)
    ]


ALL_UP = seen({})


def test_nothing_changed_is_nothing_told() -> None:
    for look in (ALL_UP, seen({A: DOWN}), seen({A: DOWN, B: DOWN, PA: DOWN, PB: DOWN}, {A: Wish(drain=True)})):
        assert events(look, look) == []
        assert events(look, seen(look.health, look.wishes)) == []


def test_a_verdict_is_told_with_its_probe_its_time_and_the_weights() -> None:
    after = seen({PA: replace(DOWN, since_at=NOW - 3.0)})
    (event,) = events(ALL_UP, after)
    assert event == Event(
        AT - 3.0,
        EventKind.HEALTH,
        "panicky",
        "a",
        "up",
        "down",
        "connection refused",
        100,
        0,
        "tcp 10.0.1.1:80",
        "bye\n",
        "ECONNREFUSED",
        1.0,
    )
    assert "weight 100 -> 0" in sentence(event)


def test_a_time_that_lies_ahead_is_now() -> None:
    (event,) = events(ALL_UP, seen({PA: replace(DOWN, since_at=NOW + 50.0)}))
    assert event.at == AT


def test_first_verdicts_are_told_of_servers_that_nothing_was_known_of() -> None:
    assert lines(None, ALL_UP) == [
        ("health", str(each), "pending", "up", None, 0 if each == SORRY else 100) for each in (A, B, PA, PB)
    ]
    assert lines(None, seen(dict.fromkeys((A, B, PA, PB), PENDING))) == []


def test_quorum_lost_and_held_tell_of_the_sorry_server_once() -> None:
    lost = seen({A: DOWN}, before=ALL_UP)
    assert lines(ALL_UP, lost) == [
        ("health", "web/a", "up", "down", 100, 0),
        ("quorum", "web", "held", "lost", None, None),
        ("sorry", "web/sorry_server", "stands by", "serves", 0, 1),
        ("weight", "web/b", "", "", 100, 0),
    ]
    held = seen({}, before=lost)
    assert lines(lost, held) == [
        ("health", "web/a", "down", "up", 0, 100),
        ("quorum", "web", "lost", "held", None, None),
        ("sorry", "web/sorry_server", "serves", "stands by", 1, 0),
        ("weight", "web/b", "", "", 0, 100),
    ]
    reasons = {event.kind: event.reason for event in events(ALL_UP, lost)}
    assert reasons[EventKind.QUORUM] == "1 real server takes connections, 2 needed"
    assert reasons[EventKind.SORRY] == "quorum is lost"
    assert reasons[EventKind.WEIGHT] == "quorum is lost (1 of 2): the sorry server serves; up: connected"
    assert {event.reason for event in events(lost, held) if event.kind is EventKind.SORRY} == {"quorum is held"}


def test_a_sorry_server_that_was_taken_out_does_not_serve() -> None:
    out = {SORRY: Wish(drain=True)}
    calm = seen({}, out)
    assert lines(calm, seen({A: DOWN}, out, before=calm)) == [
        ("health", "web/a", "up", "down", 100, 0),
        ("quorum", "web", "held", "lost", None, None),
    ]
    serves = seen({A: DOWN}, before=ALL_UP)
    drained = seen({A: DOWN}, out, before=serves)
    assert lines(serves, drained) == [
        ("sorry", "web/sorry_server", "serves", "stands by", 1, 0),
        ("weight", "web/b", "", "", 0, 100),
    ]
    assert events(serves, drained)[0].reason == "drained by the operator"


def test_panic_comes_and_goes() -> None:
    half, panic = seen({PA: DOWN}), seen({PA: DOWN, PB: DOWN})
    assert lines(half, panic) == [
        ("health", "panicky/b", "up", "down", 100, 100),
        ("panic", "panicky", "trusts its probes", "panics", None, None),
        ("weight", "panicky/a", "", "", 0, 100),
    ]
    assert events(half, panic)[1].reason == "more than 50% are down (2: a, b): all are used"
    (back,) = [event for event in events(panic, half) if event.kind is EventKind.PANIC]
    assert (back.now, back.reason) == ("trusts its probes", "no more than 50% are down")


def test_panic_that_ends_with_its_threshold_says_so() -> None:
    down = {PA: DOWN, PB: DOWN}
    never = parse_config(FILE.replace("    panic_threshold: 50%\n", ""), "f")
    (ended,) = [each for each in events(seen(down), seen(down, config=never)) if each.kind is EventKind.PANIC]
    assert (ended.now, ended.reason) == ("trusts its probes", "it has no panic_threshold any more")


def test_maintenance_has_its_reason_and_the_weights_and_is_told_once() -> None:
    work = {PA: Wish(maintenance=Maintenance("new disk", AT + 60))}
    begun = seen({}, work)
    assert lines(ALL_UP, begun) == [("maintenance", "panicky/a", "in service", "in maintenance", 100, 0)]
    assert events(ALL_UP, begun)[0].reason == "new disk"
    assert lines(begun, ALL_UP) == [("maintenance", "panicky/a", "in maintenance", "in service", 0, 100)]
    assert events(begun, ALL_UP)[0].reason == "the operator has ended it"
    over = seen({}, {PA: Wish(maintenance=Maintenance("new disk", AT))})
    assert events(over, ALL_UP)[0].reason == "its time is over"
    drained = events(begun, seen({}, {PA: Wish(drain=True)}))
    assert [event.now for event in drained if event.kind is EventKind.MAINTENANCE] == ["drained"]
    again = seen({}, {PA: Wish(maintenance=Maintenance("newer disk"))})
    assert events(begun, again) == []


def test_a_verdict_during_maintenance_is_told_and_changes_no_weight() -> None:
    work = {PA: Wish(maintenance=Maintenance("new disk"))}
    assert lines(seen({}, work), seen({PA: DOWN}, work)) == [("health", "panicky/a", "up", "down", 0, 0)]


def test_both_at_once_are_both_told() -> None:
    work = {PA: Wish(maintenance=Maintenance("new disk"))}
    assert lines(ALL_UP, seen({PA: DOWN}, work)) == [
        ("health", "panicky/a", "up", "down", 100, 0),
        ("maintenance", "panicky/a", "in service", "in maintenance", 100, 0),
    ]


def test_another_weight_is_told_with_its_reason() -> None:
    (event,) = events(ALL_UP, seen({PA: replace(UP, last=replace(GOOD, percent=10))}))
    assert (event.kind, event.place) == (EventKind.WEIGHT, "panicky/a")
    assert (event.weight_before, event.weight_after) == (100, 10)
    assert event.reason == "up: connected, 10% by its check"


def test_a_certificates_warning_is_told_when_it_comes_or_changes() -> None:
    soon = seen({PA: replace(UP, last=replace(GOOD, warning="ends in 9 days"))})
    (event,) = events(ALL_UP, soon)
    assert (event.kind, event.now, event.reason) == (EventKind.CERTIFICATE, "warning", "ends in 9 days")
    assert events(soon, seen(soon.health)) == []
    sooner = seen({PA: replace(UP, last=replace(GOOD, warning="ends in 8 days"))})
    assert [each.reason for each in events(soon, sooner)] == ["ends in 8 days"]
    assert events(sooner, ALL_UP) == []


def test_one_failed_probe_does_not_make_a_warning_news_again() -> None:
    warned = HealthState(Status.UP, last=replace(GOOD, warning="ends in 9 days"))
    failing = replace(warned, last=BAD, good=warned.last)
    assert events(seen({PA: warned}), seen({PA: failing})) == []
    assert events(seen({PA: failing}), seen({PA: warned})) == []


def test_what_left_and_what_is_new() -> None:
    fewer = parse_config(FILE[: FILE.index("  panicky:")], "f")
    smaller = seen({}, config=fewer)
    assert events(ALL_UP, smaller) == []
    assert lines(smaller, seen({PA: PENDING, PB: DOWN})) == [("health", "panicky/b", "pending", "down", None, 0)]


STATE = st.sampled_from((UP, DOWN, PENDING, replace(UP, last=replace(GOOD, percent=10))))
WISH = st.sampled_from((Wish(), Wish(drain=True), Wish(maintenance=Maintenance("x")), Wish(weight=3)))
ALL = (A, B, PA, PB)
LOOKS = st.tuples(
    st.fixed_dictionaries(dict.fromkeys(ALL, STATE)), st.fixed_dictionaries(dict.fromkeys((*ALL, SORRY), WISH))
)


@given(LOOKS, LOOKS)
def test_every_difference_is_one_event_and_nothing_is_told_twice(
    one: tuple[dict[ServerRef, HealthState], dict[ServerRef, Wish]],
    other: tuple[dict[ServerRef, HealthState], dict[ServerRef, Wish]],
) -> None:
    before = seen(*one)
    after = seen(*other, before=before)
    told = events(before, after)
    found = {(event.kind, event.place) for event in told}
    assert len(found) == len(told)
    due = set()
    for ref in (*ALL, SORRY):
        was, now = before.serving.weights[ref].value, after.serving.weights[ref].value
        kinds = set()
        if ref in ALL and before.health[ref].status is not after.health[ref].status:
            kinds.add(EventKind.HEALTH)
        if (before.wishes[ref].maintenance is None) is not (after.wishes[ref].maintenance is None):
            kinds.add(EventKind.MAINTENANCE)
        if ref == SORRY and bool(was) is not bool(now):
            kinds.add(EventKind.SORRY)
        due |= {(kind, str(ref)) for kind in kinds or ({EventKind.WEIGHT} if was != now else set())}
        for event in told:
            if event.place == str(ref):
                assert (event.weight_before, event.weight_after) == (was, now)
    for name, standing in after.serving.standings.items():
        former = before.serving.standings[name]
        due |= {(EventKind.QUORUM, name)} if former.quorate is not standing.quorate else set()
        due |= {(EventKind.PANIC, name)} if former.panic is not standing.panic else set()
    assert found == due


def test_load_that_is_not_heard_is_told_though_the_weight_stays() -> None:
    silent = replace(ALL_UP, silent={PA: "connection refused"})
    silent = replace(silent, serving=seen({}).serving)
    (event,) = events(ALL_UP, silent)
    assert (event.place, event.was, event.now) == ("panicky/a", "load answers", "load fails")
    assert event.reason == "connection refused: its last good answer holds"
    (event,) = events(silent, replace(ALL_UP, serving=seen({}).serving))
    assert event.now == "load answers"
