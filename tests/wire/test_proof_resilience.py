"""Limits, queue, breaker and outliers: what one worker finds, or counts, holds for the other one at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.wire.outside import Answered, Back, Gate, Line, Program, its_name, until, upstreams

pytestmark = pytest.mark.unit

FAILS = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Place:
    """Backends `a` and `b`, and a program of two workers before them, with connections to each worker."""

    proxy: Program
    a: Back
    b: Back
    one: list[Line]
    other: list[Line]


TEXT = """\
access_log: none
workers: 2
routes:
  - {match: {host: rate}, upstream: plain, limits: {rate: {limit: 2/h, burst: 7, by: route}}}
  - {match: {host: keyed}, upstream: plain, limits: {rate: {limit: 2/h, burst: 2, by: "header X-Key"}}}
  - {match: {host: busy}, upstream: plain, limits: {concurrency: 3}}
  - {match: {host: full}, upstream: full}
  - {match: {host: queued}, upstream: queued}
  - {match: {host: breaker}, upstream: breaker}
  - {match: {host: outlier}, upstream: outlier}
  - {match: {host: checked}, upstream: checked}
  - {match: {host: sorry}, upstream: sorry}
"""
KEYS = {
    "full": "max_connections: 3",
    "queued": "max_connections: 1, queue: {length: 6, timeout: 30s}",
    "breaker": "breaker: {errors: 50%, of: 4, window: 60s, open: 60s}",
    "outlier": "outlier: {failures: 3, ejection: 60s, at_most: 50%}",
    "checked": "check: {type: http, path: /healthz, interval: 100ms, timeout: 5s, rise: 1, fall: 1}",
    "sorry": 'sorry: {status: 503, body: "We are sorry.", retry_after: 1m}',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    a, b, gone = Back("a"), Back("b"), Back("gone")
    gone.stop()
    members = {"plain": [a], "full": [a], "queued": [a], "breaker": [a], "outlier": [a, b], "checked": [b]}
    with (
        Program(
            tmp_path_factory.mktemp("resilience") / "run", TEXT + upstreams(members | {"sorry": [gone]}, KEYS)
        ) as proxy,
        proxy.lines(4) as (one, other),
    ):
        yield Place(proxy, a, b, one, other)
    a.stop()
    b.stop()


@pytest.fixture(autouse=True)
def anew(place: Place) -> None:
    for back in (place.a, place.b):
        back.says = its_name
        back.heads.clear()
        back.most = 0


class Asking(threading.Thread):
    """A request that is on its way."""

    def __init__(self, line: Line, target: str, host: str) -> None:
        super().__init__(daemon=True)
        self._asked = (line, target, host)
        self.answer: Answered | None = None
        self.start()

    def run(self) -> None:
        line, target, host = self._asked
        self.answer = line.ask(target, host=host)

    def ends(self) -> int:
        """Its status."""
        self.join(30)
        assert self.answer is not None
        return self.answer.status


def statuses(lines: list[Line], count: int, host: str, *more: str) -> list[int]:
    """Of so many requests, on these connections in turn."""
    return [lines[number % len(lines)].ask("/", *more, host=host).status for number in range(count)]


def came(gate: Gate, count: int) -> None:
    until(lambda: len(gate.order) == count)


def waits(place: Place, count: int) -> None:
    until(lambda: place.proxy.metric('l7proxy_queue_waiting{upstream="queued"}') == count)


def test_a_rate_is_one_for_both_workers(place: Place) -> None:
    both = [place.one[0], place.other[0]]
    assert statuses(both, 20, "rate") == [200] * 7 + [429] * 13
    assert len(place.a.heads) == 7
    for line in both:
        answer = line.ask(host="rate")
        assert answer.status == 429
        assert 0 < int(answer.one("retry-after")) <= 1800
        assert "rate_limited" in answer.cause
    for key in ("k1", "k2"):
        assert statuses(both, 4, "keyed", f"X-Key: {key}") == [200, 200, 429, 429]
    assert statuses(both, 3, "keyed") == [200, 200, 429], "those without the header share one"
    place.proxy.reload()
    assert statuses(both, 2, "rate") == [429, 429], "it survives a reload"


@pytest.mark.parametrize(("host", "cause"), [("busy", "route_busy"), ("full", "connection_limit_reached")])
def test_requests_at_one_time_are_counted_over_both_workers(place: Place, host: str, cause: str) -> None:
    gate = Gate()
    place.a.says = gate.says
    asking = []
    for line in (place.one[0], place.other[0], place.one[1]):
        asking.append(Asking(line, "/", host))
        came(gate, len(asking))
    for line in (place.one[2], place.other[2]):
        answer = line.ask(host=host)
        assert answer.status == 503
        assert cause in answer.cause
    gate.let(1)
    until(lambda: not all(each.is_alive() for each in asking))
    upstream = "full" if host == "full" else "plain"
    until(lambda: place.proxy.metric(f'l7proxy_backend_in_flight{{backend="a",upstream="{upstream}"}}') == 2)
    asking.append(Asking(place.other[2], "/", host))
    until(lambda: len(gate.order) == 4)
    gate.let(3)
    assert [each.ends() for each in asking] == [200] * 4
    assert place.a.most == 3


def test_who_waits_goes_in_turn_over_both_workers(place: Place) -> None:
    gate = Gate()
    place.a.says = gate.says
    asking = [Asking(place.one[0], "/0", "queued")]
    until(lambda: len(gate.order) == 1)
    for number, line in enumerate(
        [place.other[0], place.one[1], place.one[2], place.other[1], place.one[3], place.other[2]]
    ):
        asking.append(Asking(line, f"/{number + 1}", "queued"))
        waits(place, number + 1)
        time.sleep(0.03)  # what comes within 20 ms has no order between workers
    answer = place.other[3].ask("/7", host="queued")
    assert (answer.status, "connection_limit_reached" in answer.cause) == (503, True), "the queue is full"
    for count in range(2, 8):
        gate.let()
        came(gate, count)
    gate.let()
    assert [each.ends() for each in asking] == [200] * 7
    assert gate.order == [f"/{number}" for number in range(7)]
    assert place.a.most == 1


def test_a_breaker_that_one_worker_opens_spares_the_upstream_in_the_other(place: Place) -> None:
    place.a.says = lambda back, head: FAILS
    assert statuses([place.one[0]], 4, "breaker") == [503] * 4
    assert len(place.a.heads) == 4
    for line in (place.one[0], place.other[0], place.one[1], place.other[1]):
        answer = line.ask(host="breaker")
        assert answer.status == 503
        assert "breaker_open" in answer.cause
    assert len(place.a.heads) == 4, "nobody has asked it"
    assert place.proxy.metric('l7proxy_breaker_open{upstream="breaker"}') == 1
    place.proxy.reload()
    assert "breaker_open" in place.other[0].ask(host="breaker").cause, "it survives a reload"


def test_a_backend_that_one_worker_has_found_failing_is_left_out_by_the_other(place: Place) -> None:
    place.a.says = lambda back, head: FAILS
    while len(place.a.heads) < 3:
        place.one[0].ask(host="outlier")
    assert {place.one[0].ask(host="outlier").text for _ in range(6)} == {"b"}, "at once where it was found"
    until(lambda: {place.other[0].ask(host="outlier").text for _ in range(4)} == {"b"}, "and soon in the other one")
    seen = len(place.a.heads)
    for line in (place.other[0], place.one[1], place.other[1]):
        assert {line.ask(host="outlier").text for _ in range(6)} == {"b"}
    assert len(place.a.heads) == seen
    assert place.proxy.status()["upstreams"]["outlier"]["left_out_for_s"]["a"] > 0
    place.b.says = lambda back, head: FAILS
    for _ in range(6):
        place.other[0].ask(host="outlier")
    assert len(place.b.heads) >= 6, "never more than at_most: the last one serves"


def test_one_prober_serves_both_workers(place: Place) -> None:
    def is_up(line: Line) -> bool:
        return line.ask(host="checked").status == 200

    until(lambda: is_up(place.one[0]) and is_up(place.other[0]))
    place.b.says = lambda back, head: FAILS if b"/healthz" in head else its_name(back, head)
    until(lambda: not is_up(place.one[0]) and not is_up(place.other[0]), "a check takes it out for both")
    assert "no_backend" in place.other[0].ask(host="checked").cause
    before, began = len(place.b.heads), time.monotonic()
    until(lambda: len(place.b.heads) >= before + 10)
    one_prober = (time.monotonic() - began) / 0.1 + 3
    assert len(place.b.heads) - before <= one_prober, "two would have asked twice as often"
    place.b.says = its_name
    until(lambda: is_up(place.one[0]) and is_up(place.other[0]), "and brings it back")


def test_sorry_is_said_where_nobody_answers_and_the_cause_is_told(place: Place) -> None:
    for line in (place.one[0], place.other[0]):
        answer = line.ask(host="sorry")
        assert (answer.status, answer.text, answer.one("retry-after")) == (503, "We are sorry.", "60")
        assert "connection_refused" in answer.cause
