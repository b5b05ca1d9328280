"""Who goes to a backend now, and who waits for one: `max_connections` and `queue`.

One rule: a place that was taken is given back once, by the exchange that has it, whatever becomes of that; and who has
come first goes first, unless only its session's backend is good for it.

Places are counted on the board, for all workers. Who waits stands here, each with its own worker, and is called by it:
at once when a place becomes free in the same worker, within `LOOK_EVERY_S` when it does in another one. Between workers
the one who has waited longest goes first, give or take `FAIR_WITHIN_NS`: a place is not left empty for less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, cast

from l7proxy.board import Board, SharedCount
from l7proxy.core.capacity import backend_row, eldest_row, waiting_row
from l7proxy.core.gcra import SECOND
from l7proxy.core.settings.capacity import Queue

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told
    from l7proxy.upstreams import BackendState, UpstreamState

LOOK_EVERY_S = 0.004
FAIR_WITHIN_NS = SECOND // 50
_STUCK_NS = SECOND
"""Who is said to wait so much longer than it may is in a worker that is stuck: it keeps nobody else waiting."""


class Places:
    """How many requests a backend may have, and how many it has."""

    __slots__ = ("count", "most")

    def __init__(self, count: SharedCount, most: int) -> None:
        self.count = count
        self.most = most

    def take(self) -> bool:
        """Take a place if there is one."""
        return self.count.take(self.most)

    @property
    def taken(self) -> int:
        """How many requests it has, of all workers."""
        return self.count.total()

    @property
    def is_full(self) -> bool:
        return self.count.total() >= self.most


@dataclass(frozen=True, slots=True)
class _Waiter:
    since: int
    until: int
    only: str
    """The one backend that it waits for; empty: whichever is free first."""


class Line:
    """Those who wait for an upstream in this worker, in their order. It outlives reloads."""

    def __init__(self, queue: Queue, waiting: SharedCount, eldest: SharedCount) -> None:
        self.queue = queue
        self._waiting = waiting
        self._eldest = eldest
        self._who: dict[Exchange, _Waiter] = {}
        self._anyone: dict[Exchange, _Waiter] = {}
        """Those of them who take whichever backend is free first."""
        self._looks = False
        self._called = False
        self.entered = 0
        self._waited_ns = 0

    def __len__(self) -> int:
        return len(self._who)

    @property
    def waiting(self) -> int:
        """How many wait, in all workers."""
        return self._waiting.total()

    @property
    def waited_s(self) -> float:
        """How long all have waited who wait no longer."""
        return self._waited_ns / SECOND

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits, in any worker, who would take any backend."""
        return self._eldest.total() != 0

    def enter(self, exchange: Exchange, only: str) -> bool:
        """Wait from now on; False where there is no room for one more."""
        if not self._waiting.take(self.queue.length):
            return False
        now = monotonic_ns()
        waiter = _Waiter(now, now + int(self.queue.timeout_s * SECOND), only)
        self._who[exchange] = waiter
        if not only:
            self._anyone[exchange] = waiter
            if len(self._anyone) == 1:
                self._eldest.own = now
        self.entered += 1
        if not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        return True

    def leave(self, exchange: Told) -> None:
        """Wait no longer."""
        waiter = self._who.pop(cast("Exchange", exchange), None)
        if waiter is None:
            return
        self._waiting.give()
        self._waited_ns += monotonic_ns() - waiter.since
        if self._anyone.pop(cast("Exchange", exchange), None) is not None:
            self._eldest.own = next(iter(self._anyone.values())).since if self._anyone else 0

    def call(self) -> None:
        """A place may have become free: see who takes it, as soon as what happens now is over."""
        if self._who and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._hear)

    def _hear(self) -> None:
        self._called = False
        self.pump()

    def _look(self) -> None:
        self._looks = False
        try:
            self.pump()
        finally:
            if self._who and not self._looks:
                self._looks = True
                asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def pump(self) -> None:
        """Send on who can go, and answer who has waited for too long."""
        now = monotonic_ns()
        while self._who:
            exchange, waiter = next(iter(self._who.items()))
            if waiter.until > now:
                break
            self.leave(exchange)
            exchange.has_waited_in_vain((now - waiter.since) / SECOND)
        others_first = self._others_first(now)
        free: dict[UpstreamState, dict[str, BackendState]] = {}
        for exchange, waiter in list(self._who.items()):
            upstream = exchange.upstream
            if upstream is None or exchange not in self._who:
                continue
            if waiter.only and (own := upstream.backends[waiter.only]).up:
                self._go(exchange, own)
                continue
            if upstream not in free:
                free[upstream] = free_of(upstream)
            if not any(free.values()) and len(self._anyone) == len(self._who):
                break
            if not others_first:
                self._send_on(exchange, upstream, free[upstream])

    def _others_first(self, now: int) -> bool:
        """Whether somebody in another worker has waited so much longer that it is their turn."""
        if not self._anyone:
            return False
        mine = self._eldest.own
        stuck_before = now - int(self.queue.timeout_s * SECOND) - _STUCK_NS
        return any(stuck_before < since < mine - FAIR_WITHIN_NS for since in self._eldest.others() if since)

    def _send_on(self, exchange: Exchange, upstream: UpstreamState, free: dict[str, BackendState]) -> None:
        """Send it to one of `free`, if one is good for it; who turns out to have no place is no longer free."""
        while good := {name: weight for name, weight in exchange.untried.items() if name in free}:
            backend = upstream.choose(exchange, good)
            if backend is None or backend.backend.name not in free or self._go(exchange, backend):
                return
            del free[backend.backend.name]

    def _go(self, exchange: Exchange, backend: BackendState) -> bool:
        """Send it there if there is a place."""
        places = backend.places
        if places is not None and not places.take():
            return False
        self.leave(exchange)
        exchange.go_at_last(backend, places)
        return True


def free_of(upstream: UpstreamState) -> dict[str, BackendState]:
    """The backends of `upstream` that may be picked and have a place."""
    return {
        name: state
        for name, state in upstream.backends.items()
        if name in upstream.weights and (state.places is None or not state.places.is_full)
    }


def admit(exchange: Exchange, chosen: BackendState, untried: Mapping[str, int], only: str) -> BackendState | None:
    """Where `exchange` goes now that `chosen` was chosen for it: there, or where there is room, with a place taken.
    None: nowhere, it waits or was answered. `only`: its session is at that backend, and no other one will do."""
    upstream = exchange.upstream
    assert upstream is not None  # noqa: S101 -- it has chosen
    line = upstream.line
    if line is None or only or not line.is_busy:
        places = chosen.places
        if places is None or places.take():
            exchange.place = places
            return chosen
        if not only:
            free = free_of(upstream)
            free.pop(chosen.backend.name, None)
            while good := {name: weight for name, weight in untried.items() if name in free}:
                other = upstream.choose(exchange, good)
                if other is None or other.backend.name not in free:
                    break
                if other.places is None or other.places.take():
                    exchange.place = other.places
                    return other
                del free[other.backend.name]
    if line is not None and line.enter(exchange, only):
        exchange.line = line
        return None
    exchange.has_no_place(line)
    return None


def places_of(board: Board, upstream: str, backend: str, most: int | None, before: Places | None) -> Places | None:
    """The places of a backend; those that it has already, if any: who has one gives it back there."""
    if most is None:
        return None
    if before is None:
        return Places(board.count(backend_row(upstream, backend)), most)
    before.most = most
    return before


def line_of(board: Board, upstream: str, queue: Queue | None, before: Line | None) -> Line | None:
    """The line of an upstream; the one that it has already, if any: who waits there goes on waiting."""
    if queue is None:
        return None
    if before is None:
        return Line(queue, board.count(waiting_row(upstream)), board.count(eldest_row(upstream)))
    before.queue = queue
    return before
