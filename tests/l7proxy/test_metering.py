"""What is counted, added up over processes, and shown to Prometheus."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from l7proxy.core.metering import BOUNDS_S, FAMILIES, GAUGES, Counts, Kind, Meters, key_of, merged, read_key
from l7proxy.core.model import Route
from l7proxy.core.proxystatus import Cause
from l7proxy.metrics import exposition

pytestmark = pytest.mark.unit

SHOP, BLOG, API = Route("shop.example.org /a/b", "web"), Route('"bl\\og"\n', "web"), Route("api", "api")
Shown = dict[tuple[str, tuple[str, ...]], float]


def shown(counts: Counts) -> Shown:
    """What Prometheus reads: values by name and labels' values."""
    read: Shown = {}
    for family in text_string_to_metric_families(exposition(counts).decode()):
        for sample in family.samples:
            names = (*FAMILIES[family.name].labels, "le")
            read[sample.name, tuple(sample.labels[name] for name in names if name in sample.labels)] = sample.value
    return read


def account(
    meters: Meters, route: Route | None, status: int = 200, *, total_s: float = 0.02, first_s: float | None = 0.01,
    cause: Cause | None = None, retries: int = 0,
) -> None:  # fmt: skip
    first_byte_at = 0.0 if first_s is None else 100 + first_s
    meters.account(route, status, cause, retries, 3, 1000, 100.0, first_byte_at, 100 + total_s)


def test_exchanges_are_counted_by_route_and_upstream() -> None:
    meters = Meters()
    account(meters, SHOP)
    account(meters, SHOP, 301)
    account(meters, BLOG, 502, cause=Cause.CONNECTION_REFUSED, retries=2, first_s=None)
    account(meters, API, 101, total_s=3000)
    account(meters, None, 404, cause=Cause.NO_ROUTE, first_s=None)
    said = shown(meters.counts())
    requests = {labels: value for (name, labels), value in said.items() if name == "l7proxy_requests_total" and value}
    assert requests == {
        ("shop.example.org /a/b", "web", "2xx"): 1,
        ("shop.example.org /a/b", "web", "3xx"): 1,
        ('"bl\\og" ', "web", "5xx"): 1,
        ("api", "api", "1xx"): 1,
        ("", "", "4xx"): 1,
    }
    assert said["l7proxy_requests_total", ("api", "api", "5xx")] == 0  # before there is one
    assert said["l7proxy_errors_total", ("web", "connection_refused")] == 1
    assert said["l7proxy_errors_total", ("", "no_route")] == 1
    assert said["l7proxy_retries_total", ("web",)] == 2
    assert said["l7proxy_sent_bytes_total", ("web",)] == 3000
    assert said["l7proxy_received_bytes_total", ("web",)] == 9
    assert said["l7proxy_request_duration_seconds_count", ("web",)] == 3
    assert said["l7proxy_request_duration_seconds_count", ("api",)] == 0  # a tunnel
    assert said["l7proxy_first_byte_seconds_count", ("web",)] == 2
    assert said["l7proxy_first_byte_seconds_sum", ("web",)] == pytest.approx(0.02)


@given(st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS_S), max_size=30))
def test_a_histogram_says_how_many_took_no_longer(durations: list[float]) -> None:
    meters = Meters()
    meters.keep([API])
    for duration in durations:
        meters.account(API, 200, None, 0, 0, 0, 0.0, duration, duration)
    said = shown(meters.counts())
    for name in ("request_duration", "first_byte"):
        known = durations if name == "request_duration" else [duration for duration in durations if duration]
        for bound in (*BOUNDS_S, math.inf):
            text = "+Inf" if bound == math.inf else str(bound)
            expected = sum(duration <= bound for duration in known)
            assert said[f"l7proxy_{name}_seconds_bucket", ("api", text)] == expected
        assert said[f"l7proxy_{name}_seconds_sum", ("api",)] == pytest.approx(sum(known))


def test_a_reload_keeps_what_stays_and_forgets_the_rest() -> None:
    meters = Meters()
    meters.keep([SHOP, API])
    for route in (SHOP, API, None):
        account(meters, route)
    meters.keep([SHOP, Route("api", "web"), BLOG])
    account(meters, SHOP)
    said = shown(meters.counts())
    assert said["l7proxy_requests_total", (SHOP.name, "web", "2xx")] == 2
    assert said["l7proxy_requests_total", ("api", "web", "2xx")] == 0
    assert said["l7proxy_requests_total", ("", "", "2xx")] == 1
    assert said["l7proxy_sent_bytes_total", ("web",)] == 2000
    assert not any(labels[:1] == ("api",) and "web" not in labels for _, labels in said)


def test_an_exchange_of_a_route_that_is_gone_still_counts() -> None:
    meters = Meters()
    meters.keep([SHOP])
    account(meters, API)
    assert shown(meters.counts())["l7proxy_requests_total", ("api", "api", "2xx")] == 1
    meters.keep([SHOP])
    assert ("l7proxy_requests_total", ("api", "api", "2xx")) not in shown(meters.counts())


EXCHANGES = st.lists(
    st.tuples(
        st.sampled_from([SHOP, BLOG, API, None]),
        st.sampled_from([0, 101, 200, 404, 499, 502, 999, 1000]),
        st.floats(0, 50),
        st.none() | st.sampled_from(list(Cause)),
    ),
    max_size=12,
)


@given(st.lists(EXCHANGES, min_size=1, max_size=4))
def test_the_sum_of_processes_is_as_if_there_were_one(
    processes: list[list[tuple[Route | None, int, float, Cause | None]]],
) -> None:
    one = Meters()
    parts = []
    for exchanges in processes:
        meters = Meters()
        for route, status, total_s, cause in exchanges:
            account(meters, route, status, total_s=total_s, cause=cause)
            account(one, route, status, total_s=total_s, cause=cause)
        parts.append(json.loads(json.dumps(meters.counts())))
    whole = merged(parts)
    assert whole == pytest.approx(one.counts())
    assert shown(whole) == pytest.approx(shown(one.counts()))


@given(st.sampled_from(list(FAMILIES.values())), st.data())
def test_keys_are_read_back_and_any_label_is_shown(name: object, data: st.DataObject) -> None:
    family = FAMILIES[getattr(name, "name", "")]
    labels = tuple(data.draw(st.text(st.characters(codec="utf-8"), max_size=8)) for _ in family.labels)
    key = key_of(family.name, *labels)
    plain = [label.replace("\n", " ") for label in labels]
    assert read_key(key) == (family.name, plain or [""])
    if family.kind is not Kind.HISTOGRAM:
        text = exposition({key: 3.0, "requests": 1, "upstreams/a/b/requests": 2}).decode()
        (line,) = [line for line in text.split("\n") if line and not line.startswith("#")]
        assert line.endswith(" 3.0")
        assert list(shown({key: 3.0}).values()) == [3.0]


def test_gauges_are_known_as_such() -> None:
    assert "l7proxy_requests_in_flight" in GAUGES
    assert "l7proxy_requests" not in GAUGES


def test_many_upstreams_are_shown_in_bearable_time() -> None:
    meters = Meters()
    meters.keep([Route(f"r{index}", f"u{index}") for index in range(200)])
    started_at = time.process_time()
    exposition(meters.counts())
    assert time.process_time() - started_at < 2.0
