"""Limits of a route: how fast requests come, and how many there are at one time, in all workers together.

One rule: who is refused costs little: nothing is held of it, and its body is not read.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from time import monotonic_ns
from typing import TYPE_CHECKING

from l7proxy.board import Board
from l7proxy.core.capacity import route_row
from l7proxy.core.conditions import Asked
from l7proxy.core.describe import answer
from l7proxy.core.explainlive import LimitNow
from l7proxy.core.gcra import SECOND
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.limiting import By, Concurrency, Rate
from l7proxy.http.steps import GO_ON, OVER

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told

BUSY_AGAIN_S = 1
"""When who was one too many at one time may try again: it depends on others' requests, so soon."""
_MOST_KNOWN = 8192
_LONGEST_KNOWN = 256
_NETWORK_BITS = 64


def client_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which is what one household has.

    >>> client_of("192.0.2.7"), client_of("::ffff:192.0.2.7"), client_of("2001:db8:0:1:2:3:4:5")
    ('192.0.2.7', '192.0.2.7', '2001:db8:0:1::')
    """
    if ":" not in address:
        return address
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _NETWORK_BITS << _NETWORK_BITS))


class Keys:
    """What stands on the board for who sent a request: its address, or the value of a header. Requests without that
    header are all of one sender."""

    def __init__(self, of: str, header: str, board: Board) -> None:
        self._of = of
        self._header = header.encode("ascii")
        self._board = board
        self._known: dict[str | bytes, int] = {}

    def of(self, asked: Asked) -> int:
        """The key of a request."""
        who: str | bytes
        if self._header:
            values = asked.seen.all(self._header)
            who = b"" if not values else values[0] if len(values) == 1 else b",".join(values)
        else:
            who = asked.asker
        key = self._known.get(who)
        if key is None:
            key = self._board.key(self._of, who if isinstance(who, bytes) else client_of(who))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            if len(who) <= _LONGEST_KNOWN:
                self._known[who] = key
        return key


class RateStep:
    """429 to who comes faster than its bucket fills."""

    def __init__(self, route: str, rate: Rate, board: Board) -> None:
        name = f"rate/{route}/{rate.by.value}/{rate.header}"
        self._take = board.buckets.take
        self._left = board.buckets.left
        self._keys = Keys(name, rate.header, board) if rate.by is not By.ROUTE else None
        self._key = board.key(name, "")
        self._interval_ns = rate.interval_ns
        self._burst = rate.burst
        self._said = f"above limits.rate of this {'route' if rate.by is By.ROUTE else rate.by.value}"

    def before(self, exchange: Exchange) -> int:
        """Take one from the bucket, or answer when there will be one."""
        key = self._key if self._keys is None else self._keys.of(exchange)
        wait_ns = self._take(key, monotonic_ns(), self._interval_ns, self._burst)
        if not wait_ns:
            return GO_ON
        assert exchange.route is not None  # noqa: S101 -- the step is one of its route's
        exchange.proxy.meters.limited(exchange.route, "rate")
        exchange.put_off(Cause.RATE_LIMITED, self._said, -(-wait_ns // SECOND))
        return OVER

    def look(self, asked: Asked) -> LimitNow:
        """What `before` would say; nothing is taken."""
        key = self._key if self._keys is None else self._keys.of(asked)
        left, wait_ns = self._left(key, monotonic_ns(), self._interval_ns, self._burst)
        said = f"{left} of {self._burst} are left"
        if wait_ns:
            again_s = -(-wait_ns // SECOND)
            return LimitNow("rate", said, f"{answer(Cause.RATE_LIMITED, self._said)}; again in {again_s} s")
        return LimitNow("rate", said)


class ConcurrencyStep:
    """503 to who is one too many of a route, 429 to who is one too many of its own."""

    def __init__(self, route: str, concurrency: Concurrency, board: Board) -> None:
        self._most = concurrency.most
        self._inside: dict[Told, int] = {}
        self._count = board.count(route_row(route))
        self._tallies = board.tallies
        name = f"concurrency/{route}/{concurrency.by.value}/{concurrency.header}"
        self._keys = Keys(name, concurrency.header, board) if concurrency.by is not By.ROUTE else None
        self._said = f"above limits.concurrency of this {concurrency.by.value}: {concurrency.most} at one time"

    def before(self, exchange: Exchange) -> int:
        """Take a place, or answer that there is none."""
        if self._keys is None:
            if self._count.take(self._most):
                self._inside[exchange] = 0
                return GO_ON
            cause = Cause.ROUTE_BUSY
        else:
            key = self._keys.of(exchange)
            if self._tallies.take(key, self._most):
                self._inside[exchange] = key
                return GO_ON
            cause = Cause.TOO_MANY_REQUESTS
        assert exchange.route is not None  # noqa: S101 -- as above
        exchange.proxy.meters.limited(exchange.route, "concurrency")
        exchange.put_off(cause, self._said, BUSY_AGAIN_S)
        return OVER

    def look(self, asked: Asked) -> LimitNow:
        """What `before` would say; nothing is taken."""
        if self._keys is None:
            there, cause = self._count.total(), Cause.ROUTE_BUSY
        else:
            there, cause = self._tallies.total(self._keys.of(asked)), Cause.TOO_MANY_REQUESTS
        said = f"{there} of {self._most} are there"
        return LimitNow("concurrency", said, answer(cause, self._said) if there >= self._most else "")

    def ended(self, exchange: Told) -> None:
        """Give its place back, if it has one."""
        key = self._inside.pop(exchange, None)
        if key is None:
            return
        if self._keys is None:
            self._count.give()
        else:
            self._tallies.give(key)
