"""Whose turn it is where what backends are doing, or the request itself, has a say.

One rule: what is decided is in core; here is only what it is decided from: counters, times, randomness, the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import random
from typing import TYPE_CHECKING, Protocol

from l7proxy.core.balance import Lots, RoundRobin, better, least
from l7proxy.core.conditions import Asked
from l7proxy.core.hashring import HashRing
from l7proxy.core.head import ResponseHead
from l7proxy.core.lookup import query_of, query_value
from l7proxy.core.model import Upstream
from l7proxy.core.settings.balancing import Balance, Hashing, KeyKind

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told
    from l7proxy.upstreams import BackendState

Backends = Mapping[str, "BackendState"]


class Picker(Protocol):
    """Picks one of an upstream's backends."""

    def refresh(self, weights: Mapping[str, int]) -> None:
        """These may be picked now, by name and weight."""
        ...

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        """One for `exchange`, of those that it has not tried; None where there is none."""
        ...


def picker_of(upstream: Upstream, backends: Backends, turns: RoundRobin) -> Picker | None:
    """Who picks for `upstream`; None where plain turns do."""
    found: Picker | None
    match upstream.balance:
        case Balance.ROUND_ROBIN:
            found = None
        case Balance.LEAST_REQUESTS:
            found = LeastRequests(backends, turns)
        case Balance.TWO_CHOICES:
            found = TwoChoices(backends)
        case Balance.RANDOM:
            found = Drawn()
        case Balance.FIRST:
            found = First(backends)
        case Balance.LEAST_TIME:
            found = LeastTime(backends, turns)
        case Balance.HASH:
            assert upstream.hashing is not None  # noqa: S101 -- it comes with it
            found = Hashed(upstream.hashing, backends, LeastRequests(backends, turns))
    sticky = upstream.sticky
    if sticky is not None and sticky.hashing is not None:
        return Hashed(sticky.hashing, backends, found or Turns(turns))
    return found


class Turns:
    """Weighted round robin, for who has no key to go by."""

    def __init__(self, turns: RoundRobin) -> None:
        self._turns = turns

    def refresh(self, weights: Mapping[str, int]) -> None:
        """Nothing is kept of weights."""

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        return self._turns.pick(untried)


class LeastRequests:
    """The fewest in flight for its weight; of equals, whose turn it is."""

    def __init__(self, backends: Backends, turns: RoundRobin) -> None:
        self._backends = backends
        self._turns = turns

    def refresh(self, weights: Mapping[str, int]) -> None:
        """Nothing is kept of weights."""

    def busy(self, name: str) -> int:
        """How many requests a backend has, those that wait for a connection to it too."""
        backend = self._backends[name]
        return backend.counters.in_flight + backend.pool.connecting

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        return least(untried, self.busy, self._turns)


class LeastTime(LeastRequests):
    """The least time to the first byte, times requests in flight with this one, for its weight."""

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        backends, now = self._backends, exchange.started_at
        average_s = self.average_s(untried)

        def cost(name: str) -> float:
            return backends[name].latency.estimate(now, average_s) * (self.busy(name) + 1)

        return least(untried, cost, self._turns)

    def average_s(self, names: Iterable[str]) -> float:
        """Of those that are known."""
        known = [value for name in names if (value := self._backends[name].latency.known_s) is not None]
        return sum(known) / len(known) if known else 1.0


class TwoChoices:
    """Of two that are drawn by weight, the one with fewer in flight for its weight."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._weights: Mapping[str, int] = {}
        self._lots = Lots({})

    def refresh(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lots = Lots(weights)

    def busy(self, name: str) -> int:
        """As above, and this request."""
        backend = self._backends[name]
        return backend.counters.in_flight + backend.pool.connecting + 1

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        lots = self._lots if untried is self._weights else Lots(untried)
        two = lots.draw_two(random)
        return better(*two, untried, self.busy) if two is not None else lots.draw(random)


class Drawn:
    """At random, by weight."""

    def __init__(self) -> None:
        self._weights: Mapping[str, int] = {}
        self._lots = Lots({})

    def refresh(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lots = Lots(weights)

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        return (self._lots if untried is self._weights else Lots(untried)).draw(random)


class First:
    """The first in the file that has room; where none has, the first."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def refresh(self, weights: Mapping[str, int]) -> None:
        """Nothing is kept of weights."""

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        first: str | None = None
        for name, backend in self._backends.items():
            if untried.get(name, 0) > 0:
                if backend.has_room:
                    return name
                first = first or name
        return first


class Hashed:
    """By consistent hash; `others` pick for requests without a key."""

    def __init__(self, hashing: Hashing, backends: Backends, others: Picker) -> None:
        self._kind = hashing.kind
        self._name = hashing.name.encode()
        self._bounded = hashing.bounded or 0.0
        self._others = others
        self._busy = LeastRequests(backends, RoundRobin()).busy if hashing.bounded is not None else None
        self._weights: Mapping[str, int] = {}
        self._ring = HashRing({})

    def refresh(self, weights: Mapping[str, int]) -> None:
        self._others.refresh(weights)
        if dict(weights) != dict(self._weights):
            self._ring = HashRing(weights)
        self._weights = weights

    def key(self, asked: Asked) -> bytes | None:
        """What decides; None where the request has none."""
        match self._kind:
            case KeyKind.SOURCE:
                return asked.asker.encode("ascii", "replace")
            case KeyKind.URI:
                return asked.head.target
            case KeyKind.HEADER:
                return asked.seen.first(self._name)
            case KeyKind.COOKIE:
                return asked.seen.cookie(self._name)
            case KeyKind.QUERY:
                return query_value(query_of(asked.head.target), self._name)

    def whose(self, key: bytes, untried: Mapping[str, int]) -> str | None:
        """The one that a key leads to: nobody has a turn."""
        return self._ring.pick(key, untried, self._busy, self._bounded)

    def pick(self, exchange: Exchange, untried: Mapping[str, int]) -> str | None:
        key = self.key(exchange)
        if not key:
            return self._others.pick(exchange, untried)
        return self.whose(key, untried)


class TimedAnswers:
    """A route's step: learns how long backends take. One that fails at once is not taken for a fast one."""

    def after(self, exchange: Told, head: ResponseHead) -> None:
        upstream, backend = exchange.upstream, exchange.backend
        if upstream is None or backend is None or not isinstance(upstream.picker, LeastTime):
            return
        now = exchange.first_byte_at
        taken_s = max(now - exchange.sent_at, 0.0)
        if head.status >= 500:
            average_s = upstream.picker.average_s(upstream.backends)
            taken_s = max(taken_s, 2 * backend.latency.estimate(now, average_s))
        backend.latency.observe(taken_s, now)
