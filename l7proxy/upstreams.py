"""Upstreams at work: their backends, who may be picked, and whose turn it is.

One rule: what may be picked is looked at when something has changed (`refresh`), not for each request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from director.kit.health import HealthState, Status
from l7proxy.core.balance import RoundRobin, cycle
from l7proxy.core.latency import Latency
from l7proxy.core.metering import Counters
from l7proxy.core.model import Backend, Upstream
from l7proxy.core.settings.backside import Way
from l7proxy.core.slowstart import scaled
from l7proxy.core.wishes import Effective, Want, Wish, effective
from l7proxy.http.admission import Line, Places
from l7proxy.http.balancing import Hashed, picker_of
from l7proxy.http.guard import Guard
from l7proxy.http.pool import IdleBudget, LinkPool
from l7proxy.http.sticky import Sessions

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange


class BackendState:
    """A backend at work."""

    def __init__(self, backend: Backend, idle: IdleBudget, way: Way) -> None:
        self.backend = backend
        self.pool = LinkPool(backend.endpoint, idle, way)
        self.authority = str(backend.endpoint).encode("ascii")
        self.counters = Counters()
        self.health = HealthState()
        self.latency = Latency()
        self.is_away = False
        self.back_at = float("-inf")
        """When it came back, having been away: down, drained or left out."""
        self.wish: Wish | None = None
        """What the operator wants of it; `want` sets it."""
        self.drained_at: float | None = None
        """Since when it gets no new sessions, and may keep those that it holds for a while; None where it gets them,
        and where it is disabled, which no session outlives."""
        self.places: Places | None = None
        """How many requests it has and may have; None: as many as come."""

    @property
    def weight(self) -> int:
        """Its share of requests; 0 drains."""
        return self.backend.weight if self.wish is None else self.effective.weight

    @property
    def effective(self) -> Effective:
        """The same with why."""
        return effective(self.backend.weight, self.wish)

    def want(self, wish: Wish | None, since_at: float) -> None:
        """Do as the operator wishes; `since_at` is when that was wished, on the monotonic clock."""
        self.wish = wish
        self.drained_at = since_at if wish is not None and not self.weight else None

    @property
    def has_room(self) -> bool:
        """Whether it takes another request at once."""
        return self.places is None or not self.places.is_full

    @property
    def up(self) -> bool:
        """Whether it gets requests: PENDING counts as up, as in HAProxy, so that a start serves at once."""
        if self.backend.unresolved:
            return False
        return self.backend.check is None or self.health.status is not Status.DOWN

    @property
    def why_down(self) -> str:
        """Why it is, where it is."""
        if self.backend.unresolved:
            return f"{self.backend.host} has no address: {self.backend.unresolved}"
        return self.health.last.reason if self.health.last is not None else "no result"


class UpstreamState:
    """An upstream at work. `weights` holds the backends that may be picked now."""

    def __init__(
        self, upstream: Upstream, backends: dict[str, BackendState], turns: RoundRobin, guard: Guard | None = None
    ) -> None:
        self.upstream = upstream
        self.backends = backends
        self.turns = turns
        self.guard = guard
        """Who hears how requests end; None: nobody does."""
        self.weights: dict[str, int] = {}
        self.line: Line | None = None
        """Who waits where all backends are full; None: nobody does."""
        self.picker = picker_of(upstream, backends, turns)
        """Who picks; None where turns do."""
        sticky = upstream.sticky
        self.sessions = Sessions(upstream.name, sticky, backends) if sticky is not None and sticky.cookie else None
        """Who has a session; None where there are none."""
        self.is_plain = self.picker is None and self.sessions is None
        """Whether `next` says it all: neither the request nor what backends are doing has a say in whose turn it is."""
        self._order: list[BackendState] | None = None
        self._turn = 0
        self.is_slow = False
        """Whether a backend that has come back has less than its whole weight still."""
        self.refresh()

    def refresh(self) -> None:
        """Look at health and weights again."""
        now = time.monotonic()
        left = {name: state.weight for name, state in self.backends.items() if state.up and state.weight}
        out = self.guard.out if self.guard is not None else frozenset()
        # With nobody else left, those that were left out are better than none.
        left = {name: weight for name, weight in left.items() if name not in out} or left
        for name, state in self.backends.items():
            if state.is_away and name in left:
                state.back_at = now
            state.is_away = name not in left
        self.is_slow = False
        slow_s = self.upstream.slow_start_s
        if slow_s:
            back = {name: state.back_at for name, state in self.backends.items() if now - state.back_at < slow_s}
            whole, left = left, scaled(left, back, slow_s, now)
            self.is_slow = left != whole
        self.weights = left
        for state in self.backends.values():
            if state.weight or (state.wish is not None and state.wish.want is Want.DISABLED):
                state.drained_at = None
            elif state.drained_at is None:
                state.drained_at = time.monotonic()
            if not state.up:
                state.latency.forget()
        if self.picker is not None:
            self.picker.refresh(self.weights)

        names = cycle(self.weights)
        self._order = [self.backends[name] for name in names] if names is not None else None

    def look(self, now: float, *, tells: bool = True) -> None:
        """Every now and then: what other processes have found, and what time has changed. Of several processes one
        `tells` it."""
        changed = self.guard is not None and self.guard.look(now, tells=tells)
        if changed or self.is_slow:
            self.refresh()

    def next(self) -> BackendState | None:
        """The backend whose turn it is."""
        order = self._order
        if order is None:
            name = self.turns.pick(self.weights)
            return self.backends[name] if name is not None else None
        if not order:
            return None
        turn = self._turn + 1
        if turn >= len(order):
            turn = 0
        self._turn = turn
        return order[turn]

    def choose(self, exchange: Exchange, untried: Mapping[str, int]) -> BackendState | None:
        """The backend for `exchange`, of those that it has not tried (name to weight), or of a drained one that has its
        session."""
        if self.sessions is not None:
            backend = self.sessions.choose(exchange, untried)
            if backend is not None:
                return backend
        if self.picker is not None:
            name = self.picker.pick(exchange, untried)
        elif untried is self.weights:
            return self.next()
        else:
            name = self.turns.pick(untried)
        return self.backends[name] if name is not None else None

    def session_of(self, exchange: Exchange) -> BackendState | None:
        """The backend here that has the client's session by cookie, and would take the request."""
        return self.sessions.backend_of(exchange, self.weights) if self.sessions is not None else None

    def had_session(self, exchange: Exchange) -> bool:
        """Whether the client's cookie names a backend here, also one that takes no request."""
        return self.sessions is not None and bool(self.sessions.ticket_of(exchange).name)

    @property
    def is_spared(self) -> bool:
        """Whether the breaker lets nothing through now."""
        gate = self.guard.gate if self.guard is not None else None
        return gate is not None and gate.opens_in_s(time.monotonic()) > 0

    def follow(self, before: UpstreamState) -> None:
        """Take over what `before`, which it replaces, has counted."""
        if self.sessions is not None and before.sessions is not None:
            self.sessions.counts = before.sessions.counts
        if self.guard is not None and before.guard is not None:
            self.guard.follow(before.guard)
            self.refresh()

    def insists_on(self, exchange: Exchange, chosen: BackendState) -> str:
        """The only backend that will do for `exchange`: the one that was `chosen`, if its session is there; empty where
        others will do."""
        if self.sessions is not None:
            is_held = self.session_of(exchange) is chosen
        else:
            sticky = self.upstream.sticky
            is_held = sticky is not None and sticky.hashing is not None and self._has_key(exchange)
        return chosen.backend.name if is_held else ""

    def held_at(self, exchange: Exchange, untried: Mapping[str, int]) -> BackendState | None:
        """The backend that `exchange` has to go to by its session, or by its key; None where any will do."""
        held = self.session_of(exchange)
        if held is None and self.picker is not None and self._has_key(exchange):
            name = self.picker.pick(exchange, untried)
            held = self.backends[name] if name is not None else None
        return held

    def _has_key(self, exchange: Exchange) -> bool:
        return isinstance(self.picker, Hashed) and bool(self.picker.key(exchange))

    def why_nobody(self) -> str:
        """Why no backend can be picked, in a few words."""
        down = [f"{name} is down: {state.why_down}" for name, state in self.backends.items() if not state.up]
        drained = [
            f"{name} {f'is {why}' if (why := state.effective.why) else 'has weight 0'}"
            for name, state in self.backends.items()
            if state.up
        ]
        return "no backend is up: " + "; ".join([*down, *drained][:3])
