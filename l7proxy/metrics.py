"""What Prometheus reads (text format 0.0.4).

One rule: everything is made from numbers that were copied before; nothing here is counted, and nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from l7proxy import descriptors
from l7proxy.core.metering import BOUNDS_S, FAMILIES, Counts, Family, Kind, key_of, read_key
from l7proxy.core.sticky import Verdict
from l7proxy.files.certificates import expiry
from l7proxy.http.acme import route_of
from l7proxy.http.guard import Guard
from l7proxy.runtime import Proxy

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (*(str(bound) for bound in BOUNDS_S), "+Inf")


def counts_of(proxy: Proxy) -> Counts:
    """What this process has counted: numbers that can be sent, and added to those of others."""
    config = proxy.snapshot.config
    challenges = [route for listener in config.listeners if (route := route_of(listener)) is not None]
    proxy.meters.keep([*config.routes, *challenges])
    counts = proxy.meters.counts() | proxy.tcp_meters.counts()
    counts[key_of("l7proxy_requests_in_flight")] = proxy.counters.in_flight
    counts[key_of("l7proxy_client_connections")] = proxy.connections
    counts[key_of("l7proxy_client_connections_limit")] = proxy.most_clients
    counts[key_of("l7proxy_open_descriptors")] = descriptors.in_use()
    counts[key_of("l7proxy_descriptors_limit")] = descriptors.limit()
    counts[key_of("l7proxy_workers")] = 1
    counts[key_of("l7proxy_access_log_dropped")] = proxy.access.dropped
    for listener, seal in proxy.seals.items():
        counts[key_of("l7proxy_tls_handshakes", listener, "yes")] = seal.resumed
        counts[key_of("l7proxy_tls_handshakes", listener, "no")] = seal.handshakes - seal.resumed
        for reason, count in seal.failed.items():
            counts[key_of("l7proxy_tls_handshake_failures", listener, reason)] = count
    for upstream, state in proxy.snapshot.upstreams.items():
        if state.sessions is not None:
            for verdict in Verdict:
                counts[key_of("l7proxy_sessions", upstream, verdict.name.lower())] = state.sessions.counts[verdict]
        if state.line is not None:
            counts[key_of("l7proxy_queue_waiting", upstream)] = len(state.line)
            counts[key_of("l7proxy_queue_entered", upstream)] = state.line.entered
            counts[key_of("l7proxy_queue_wait_seconds", upstream)] = state.line.waited_s
        for backend, part in state.backends.items():
            counts[key_of("l7proxy_backend_requests", upstream, backend)] = part.counters.requests
            counts[key_of("l7proxy_backend_in_flight", upstream, backend)] = part.counters.in_flight
            counts[key_of("l7proxy_backend_connections", upstream, backend)] = part.pool.made
            counts[key_of("l7proxy_backend_reuses", upstream, backend)] = part.pool.reused
            counts[key_of("l7proxy_backend_idle_connections", upstream, backend)] = part.pool.idle
        guard = state.guard
        if guard is not None:
            for backend, ejections in guard.seen.ejections.items():
                counts[key_of("l7proxy_backend_ejections", upstream, backend)] = ejections
            counts[key_of("l7proxy_retries_refused", upstream)] = guard.seen.retries_refused
    return counts


def facts_of(proxy: Proxy) -> Counts:
    """What is so for all processes alike, and is told by one."""
    facts: Counts = {
        key_of("l7proxy_draining"): proxy.draining,
        key_of("l7proxy_certificate_problems"): len(proxy.problems),
        key_of("l7proxy_worker_deaths"): proxy.worker_deaths,
        key_of("l7proxy_config_last_reload_successful"): not proxy.reload_refused,
    }
    for upstream, state in proxy.snapshot.upstreams.items():
        for backend, part in state.backends.items():
            facts[key_of("l7proxy_backend_up", upstream, backend)] = part.up
            facts[key_of("l7proxy_backend_weight", upstream, backend)] = part.weight
        if state.guard is not None:
            facts |= _facts_of_guard(upstream, state.guard)
    for listener in proxy.snapshot.config.listeners:
        for certificate in listener.tls.certificates if listener.tls is not None else ():
            ends = expiry(certificate)
            if ends is not None:
                key = key_of("l7proxy_certificate_expiry_seconds", listener.name, certificate.name)
                facts[key] = ends.timestamp()
    return facts


def _facts_of_guard(upstream: str, guard: Guard) -> Counts:
    now = time.monotonic()
    facts: Counts = {
        key_of("l7proxy_backend_ejected", upstream, backend): each.is_out(now)
        for backend, each in guard.ejections.items()
    }
    if guard.gate is not None:
        facts[key_of("l7proxy_breaker_open", upstream)] = guard.gate.is_open()
    return facts


def exposition(counts: Mapping[str, float]) -> bytes:
    """The text. Keys of no family are left out. It takes some 10 us for each line."""
    from prometheus_client.exposition import generate_latest

    return generate_latest(_Collector(counts))


class _Collector:
    def __init__(self, counts: Mapping[str, float]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        found: dict[str, list[tuple[list[str], float]]] = {}
        for key, value in self._counts.items():
            name, labels = read_key(key)
            found.setdefault(name, []).append((labels, value))
        for name, family in FAMILIES.items():
            if name in found:
                yield _metric(family, found[name])


def _metric(family: Family, series: Iterable[tuple[list[str], float]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        cells: dict[tuple[str, ...], dict[str, float]] = {}
        for labels, value in series:
            cells.setdefault(tuple(labels[:-1]), {})[labels[-1]] = value
        for of, cell in cells.items():
            histogram.add_metric(list(of), _cumulative(cell), cell.get("sum", 0))
        return histogram
    made = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = made(family.name, family.help, labels=family.labels)
    for labels, value in series:
        metric.add_metric(labels if family.labels else [], value)
    return metric


def _cumulative(cell: Mapping[str, float]) -> list[tuple[str, float]]:
    buckets = []
    sum_so_far = 0.0
    for bound in _BOUNDS:
        sum_so_far += cell.get(bound, 0)
        buckets.append((bound, sum_so_far))
    return buckets
