"""What is counted of exchanges, as plain cells, and as numbers below names that processes can send and add up.

One rule: labels come from the configuration, never from a request. To count is a few additions; whoever wants to see
does the work.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from l7proxy.core.model import Route
from l7proxy.core.proxystatus import Cause

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of all histograms; the last bucket has none."""

Counts: TypeAlias = dict[str, float]
"""By key: see `key_of`. What is missing is 0, except that a series is shown once it has a key."""

_CLASSES = range(1, 10)
_ALWAYS = range(2, 6)
"""Classes of answers that are shown before there is one: a rate is known from the first one on."""


class Kind(Enum):
    """What a family's numbers are. Those of a gauge end with the process."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name` is without `_total`. A histogram's last label is its bucket's bound, or `sum`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_ROUTE = ("route", "upstream", "code")
_BACKEND = ("upstream", "backend")
_FORWARDED = ("listener", "upstream")
FAMILIES = {
    family.name: family
    for family in (
        Family("l7proxy_requests", Kind.COUNTER, "Answered requests, by class of status.", _ROUTE),
        Family("l7proxy_errors", Kind.COUNTER, "Exchanges that went wrong here, by cause.", ("upstream", "cause")),
        Family(
            "l7proxy_request_duration_seconds", Kind.HISTOGRAM, "From a request to its answer's end.", ("upstream",)
        ),
        Family("l7proxy_first_byte_seconds", Kind.HISTOGRAM, "From a request to its answer's head.", ("upstream",)),
        Family("l7proxy_received_bytes", Kind.COUNTER, "Bytes of requests' bodies.", ("upstream",)),
        Family("l7proxy_sent_bytes", Kind.COUNTER, "Bytes of answers' bodies.", ("upstream",)),
        Family("l7proxy_retries", Kind.COUNTER, "Further attempts with a backend.", ("upstream",)),
        Family("l7proxy_sessions", Kind.COUNTER, "Requests, by their sessions' state.", ("upstream", "session")),
        Family("l7proxy_tcp_connections", Kind.COUNTER, "Forwarded connections that have ended.", _FORWARDED),
        Family("l7proxy_tcp_received_bytes", Kind.COUNTER, "Bytes forwarded to backends.", _FORWARDED),
        Family("l7proxy_tcp_sent_bytes", Kind.COUNTER, "Bytes forwarded to clients.", _FORWARDED),
        Family("l7proxy_tcp_errors", Kind.COUNTER, "Connections with a cause.", (*_FORWARDED, "cause")),
        Family("l7proxy_limited", Kind.COUNTER, "Requests above a limit of their route.", ("route", "limit")),
        Family("l7proxy_queue_waiting", Kind.GAUGE, "Requests that wait for a backend.", ("upstream",)),
        Family("l7proxy_queue_entered", Kind.COUNTER, "Requests that had to wait for a backend.", ("upstream",)),
        Family("l7proxy_queue_wait_seconds", Kind.COUNTER, "How long requests have waited in all.", ("upstream",)),
        Family("l7proxy_requests_in_flight", Kind.GAUGE, "Requests that are being answered."),
        Family("l7proxy_client_connections", Kind.GAUGE, "Connections of clients."),
        Family("l7proxy_client_connections_limit", Kind.GAUGE, "Those that there is room for."),
        Family("l7proxy_open_descriptors", Kind.GAUGE, "File descriptors in use by those who serve."),
        Family("l7proxy_descriptors_limit", Kind.GAUGE, "File descriptors that they may have."),
        Family("l7proxy_workers", Kind.GAUGE, "Processes that serve."),
        Family("l7proxy_worker_deaths", Kind.COUNTER, "Workers that ended without being told to."),
        Family("l7proxy_access_log_dropped", Kind.COUNTER, "Lines of the access log that nobody read in time."),
        Family("l7proxy_backend_requests", Kind.COUNTER, "Requests sent to a backend.", _BACKEND),
        Family("l7proxy_backend_in_flight", Kind.GAUGE, "Requests that a backend is answering.", _BACKEND),
        Family("l7proxy_backend_connections", Kind.COUNTER, "Connections made to a backend.", _BACKEND),
        Family("l7proxy_backend_reuses", Kind.COUNTER, "Requests that went out on a kept connection.", _BACKEND),
        Family("l7proxy_backend_idle_connections", Kind.GAUGE, "Kept connections that wait.", _BACKEND),
        Family("l7proxy_backend_ejected", Kind.GAUGE, "1 while a backend is left out for its failures.", _BACKEND),
        Family("l7proxy_backend_ejections", Kind.COUNTER, "How often a backend was left out.", _BACKEND),
        Family("l7proxy_breaker_open", Kind.GAUGE, "1 while an upstream is spared.", ("upstream",)),
        Family("l7proxy_retries_refused", Kind.COUNTER, "Attempts that the budget did not allow.", ("upstream",)),
        Family("l7proxy_backend_up", Kind.GAUGE, "1 where a backend gets requests, by its check.", _BACKEND),
        Family("l7proxy_backend_weight", Kind.GAUGE, "A backend's weight; 0 drains.", _BACKEND),
        Family(
            "l7proxy_tls_handshakes",
            Kind.COUNTER,
            "Handshakes with clients; resumed is yes or no.",
            ("listener", "resumed"),
        ),
        Family("l7proxy_tls_handshake_failures", Kind.COUNTER, "Handshakes that failed.", ("listener", "reason")),
        Family(
            "l7proxy_certificate_expiry_seconds",
            Kind.GAUGE,
            "When a certificate ends, in seconds since 1970.",
            ("listener", "certificate"),
        ),
        Family("l7proxy_certificate_problems", Kind.GAUGE, "Certificates not served as their files have them."),
        Family("l7proxy_draining", Kind.GAUGE, "1 while this proxy stops."),
        Family("l7proxy_config_last_reload_successful", Kind.GAUGE, "0 while the last reload is one that was refused."),
    )
}

GAUGES = frozenset(family.name for family in FAMILIES.values() if family.kind is Kind.GAUGE)
"""What a process that ends takes with it; its other counts go on."""


def key_of(family: str, *labels: str) -> str:
    r"""The key of a number: its labels, line by line, then `/` and the family, which has none.

    >>> key_of("l7proxy_retries", "a/b"), read_key("a/b\nc/l7proxy_retries")
    ('a/b/l7proxy_retries', ('l7proxy_retries', ['a/b', 'c']))
    """
    return "\n".join([label.replace("\n", " ") for label in labels]) + "/" + family


def read_key(key: str) -> tuple[str, list[str]]:
    """Family and labels."""
    labels, _, family = key.rpartition("/")
    return family, labels.split("\n")


def merged(parts: Iterable[Mapping[str, float]]) -> Counts:
    """The sum of what several processes have."""
    whole: Counts = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = whole.get(key, 0) + value
    return whole


class Counters:
    """Plain counts since the start; `by_class` counts answers by the first digit of their status."""

    __slots__ = ("by_class", "bytes_sent", "ended", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.ended = 0
        self.bytes_sent = 0
        self.by_class = [0] * 10

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self.requests - self.ended


class UpstreamMeter:
    """An upstream's cells."""

    __slots__ = (
        "causes", "first", "first_s", "received_bytes", "retries", "sent_bytes", "total", "total_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.total = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0
        self.first = [0] * (len(BOUNDS_S) + 1)
        self.first_s = 0.0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.retries = 0
        self.causes: dict[str, int] = {}


class RouteMeter:
    """A route's cells."""

    __slots__ = ("by_class", "limited", "name", "upstream", "upstream_name")

    def __init__(self, name: str, upstream_name: str, upstream: UpstreamMeter) -> None:
        self.name = name
        self.upstream_name = upstream_name
        self.upstream = upstream
        self.by_class = [0] * 10
        self.limited: dict[str, int] = {}
        """Requests above a limit, by its name."""


def _key_of_meter(route: Route) -> str:
    """Of a split, each upstream is counted for itself."""
    return f"{route.name}\n{route.upstream}" if route.split else route.name


class Meters:
    """All routes and upstreams of a configuration, and what belongs to none (empty labels)."""

    def __init__(self) -> None:
        self._upstreams: dict[str, UpstreamMeter] = {"": UpstreamMeter()}
        self._nowhere = RouteMeter("", "", self._upstreams[""])
        self._routes: dict[str, RouteMeter] = {}

    def keep(self, routes: Iterable[Route]) -> None:
        """Have all of these, and nothing of others."""
        before, self._routes = self._routes, {}
        before_upstreams, self._upstreams = self._upstreams, {"": self._nowhere.upstream}
        for route in (each for whole in routes for each in whole.by_upstream):
            known = before_upstreams.get(route.upstream)
            if known is not None:
                self._upstreams[route.upstream] = known
            key = _key_of_meter(route)
            if key in before:
                self._routes[key] = before[key]
            self._meter(route)
            if route.limits is not None:
                if route.limits.rate is not None:
                    self.limited(route, "rate", 0)
                if route.limits.concurrency is not None:
                    self.limited(route, "concurrency", 0)

    def _meter(self, route: Route) -> RouteMeter:
        key = _key_of_meter(route)
        meter = self._routes.get(key)
        if meter is None or meter.upstream_name != route.upstream:
            upstream = self._upstreams.setdefault(route.upstream, UpstreamMeter())
            meter = self._routes[key] = RouteMeter(route.name, route.upstream, upstream)
        return meter

    def limited(self, route: Route, limit: str, requests: int = 1) -> None:
        """Count requests above a limit of a route; 0 has it shown before there is one."""
        known = self._meter(route).limited
        known[limit] = known.get(limit, 0) + requests

    def account(
        self,
        route: Route | None,
        status: int,
        cause: Cause | None,
        retries: int,
        received_bytes: int,
        sent_bytes: int,
        started_at: float,
        first_byte_at: float,
        ended_at: float,
    ) -> None:
        """Count an exchange that is over; `first_byte_at` is 0 where no backend's answer began."""
        if route is None:
            meter = self._nowhere
        else:
            found = self._routes.get(_key_of_meter(route) if route.split else route.name)
            meter = self._meter(route) if found is None else found
        meter.by_class[status // 100 if 100 <= status < 1000 else 0] += 1
        upstream = meter.upstream
        if status != 101:  # how long a tunnel stands says nothing of how fast anything is
            total_s = ended_at - started_at
            upstream.total[bisect_left(BOUNDS_S, total_s)] += 1
            upstream.total_s += total_s
        if first_byte_at:
            first_s = first_byte_at - started_at
            upstream.first[bisect_left(BOUNDS_S, first_s)] += 1
            upstream.first_s += first_s
        upstream.received_bytes += received_bytes
        upstream.sent_bytes += sent_bytes
        if retries:
            upstream.retries += retries
        if cause is not None:
            upstream.causes[cause.label] = upstream.causes.get(cause.label, 0) + 1

    def counts(self) -> Counts:
        """All of it."""
        counts: Counts = {}
        for route in (self._nowhere, *self._routes.values()):
            for digit in _CLASSES:
                if route.by_class[digit] or digit in _ALWAYS:
                    code = f"{digit}xx"
                    counts[key_of("l7proxy_requests", route.name, route.upstream_name, code)] = route.by_class[digit]
            for limit, count in route.limited.items():
                counts[key_of("l7proxy_limited", route.name, limit)] = count
        for name, meter in self._upstreams.items():
            _put(counts, "l7proxy_request_duration_seconds", name, meter.total, meter.total_s)
            _put(counts, "l7proxy_first_byte_seconds", name, meter.first, meter.first_s)
            counts[key_of("l7proxy_received_bytes", name)] = meter.received_bytes
            counts[key_of("l7proxy_sent_bytes", name)] = meter.sent_bytes
            counts[key_of("l7proxy_retries", name)] = meter.retries
            for cause, count in meter.causes.items():
                counts[key_of("l7proxy_errors", name, cause)] = count
        return counts


def _put(counts: Counts, family: str, upstream: str, buckets: list[int], sum_s: float) -> None:
    """A histogram: a number for each bucket that has some, by itself, and the sum."""
    counts[key_of(family, upstream, "sum")] = sum_s
    for bound, count in zip((*BOUNDS_S, "+Inf"), buckets, strict=True):
        if count:
            counts[key_of(family, upstream, str(bound))] = count
