"""Sessions by cookie: which backend a client has, and what its answers say of it.

One rule: a session leads only to a backend that takes requests now, or is drained and within its deadline; every other
client is as good as new, and told so in the answer it gets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from l7proxy.core.cookies import cookie_value, find_cookie, find_set_cookie, without_cookie
from l7proxy.core.head import ResponseHead
from l7proxy.core.settings.balancing import Balance
from l7proxy.core.settings.stickiness import CookieMode, Sticky
from l7proxy.core.sticky import (
    NO_TICKET,
    REFUSED,
    Ticket,
    Tickets,
    Verdict,
    made_private,
    set_cookie,
    with_value,
    without_prefix,
    without_set_cookie,
)
from l7proxy.http.balancing import TimedAnswers
from l7proxy.http.steps import After, Steps

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told
    from l7proxy.upstreams import BackendState, UpstreamState

_wall = time.time
_NEW, _KEPT, _MOVED = Verdict.NEW, Verdict.KEPT, Verdict.MOVED


class Held:
    """What one exchange's cookie says, for one upstream."""

    def __init__(self, sessions: Sessions, ticket: Ticket, at: int, now: float) -> None:
        self.sessions = sessions
        self.ticket = ticket
        self.now = now
        """Seconds since 1970 when it came; 0 where times are nothing to this upstream."""
        self.at = at
        """Where the first cookie of that name stands in the header lines as they came."""
        self.arrived = False
        """Whether the request is on its way to this upstream: it was counted, and our cookie taken out."""


class Sessions:
    """The sessions of one upstream. None of them is stored: `counts` is all that is kept."""

    def __init__(self, upstream: str, sticky: Sticky, backends: Mapping[str, BackendState]) -> None:
        self._is_insert = sticky.mode is CookieMode.INSERT
        self._is_prefix = sticky.mode is CookieMode.PREFIX
        self._is_passive = sticky.mode is CookieMode.PASSIVE
        self._indirect = sticky.indirect
        self._sticky = sticky
        self._key = sticky.cookie.encode() + b"="
        self._backends = backends
        self._drain_s = sticky.drain_s
        self.tickets = Tickets(upstream, backends, sticky.keys, sticky.plain_names, sticky.maxidle_s, sticky.maxlife_s)
        self._is_timed = self.tickets.timed
        self.counts = [0] * len(Verdict)
        """Requests, by what became of their sessions: a place for each Verdict."""

    def ticket_of(self, exchange: Told) -> Ticket:
        """What the client's cookies say: the first one that holds, or why none does."""
        held = exchange.session
        if held is not None and held.sessions is self:
            return held.ticket
        fields = exchange.original or exchange.head.fields
        at = find_cookie(fields, self._key)
        now = _wall() if self._is_timed else 0.0
        ticket = self._read(fields, at, now) if at >= 0 else NO_TICKET
        exchange.session = Held(self, ticket, max(at, 0), now)
        return ticket

    def ticket_in(self, fields: bytes) -> Ticket:
        """What the cookies in a request's header lines say; nothing is counted, and nothing remembered of a request."""
        at = find_cookie(fields, self._key)
        return self._read(fields, at, _wall() if self._is_timed else 0.0) if at >= 0 else NO_TICKET

    def _read(self, fields: bytes, at: int, now: float) -> Ticket:
        key, tickets = self._key, self.tickets
        found = NO_TICKET
        while at >= 0:
            value = cookie_value(fields, key, at)
            if self._is_prefix:
                value, sign, _ = value.partition(b"~")
                ticket = tickets.read(value, now) if sign else NO_TICKET  # without: the backend's own, from before
            else:
                ticket = tickets.read(value, now)
            if ticket.name:
                return ticket
            if found is NO_TICKET or found is REFUSED:
                found = ticket
            at = find_cookie(fields, key, at + 1)
        return found

    def backend_of(self, exchange: Exchange, untried: Mapping[str, int]) -> BackendState | None:
        """The backend that has the client's session, if it takes the request."""
        name = self.ticket_of(exchange).name
        if not name:
            return None
        if name in untried:
            return self._backends[name]
        return self._backends[name] if not exchange.retries and self.keeps(name, exchange.started_at) else None

    def keeps(self, name: str, now: float) -> bool:
        """Whether a backend that gets no new sessions takes requests of those that it has."""
        backend = self._backends[name]
        drained_at = backend.drained_at
        return drained_at is not None and backend.up and now - drained_at <= self._drain_s

    def choose(self, exchange: Exchange, untried: Mapping[str, int]) -> BackendState | None:
        """The same, for a request that goes to this upstream."""
        backend = self.backend_of(exchange, untried)
        self.arrive(exchange, backend)
        return backend

    def arrive(self, exchange: Exchange, backend: BackendState | None) -> None:
        """The request goes to this upstream, to `backend` if it has a session there."""
        ticket = self.ticket_of(exchange)
        held = exchange.session
        if held is None or held.arrived:
            return
        held.arrived = True
        verdict = ticket.verdict
        if verdict is _KEPT and backend is None:
            verdict = _MOVED
        self.counts[verdict] += 1
        head = exchange.head
        if self._is_prefix:
            head.fields = without_prefix(head.fields, self._key, self.tickets.ids.values())
        elif self._indirect and verdict is not _NEW:
            head.fields = without_cookie(head.fields, self._key, held.at if head.fields is exchange.original else 0)

    def answered(self, exchange: Told, head: ResponseHead) -> None:
        """Tell the client which backend it has, where it does not know, or not for long."""
        backend = exchange.backend
        if backend is None or self._is_passive:
            return
        name = backend.backend.name
        at = find_set_cookie(head.fields, self._key)
        if not self._is_insert:
            if at >= 0:
                fields = with_value(head.fields, self._key, self.tickets.ids[name], self._is_prefix)
                if fields != head.fields:
                    self._give(exchange, head, fields)
            return
        if at >= 0:
            head.fields = without_set_cookie(head.fields, self._key)
        ticket = self.ticket_of(exchange)
        is_kept = ticket.name == name
        if is_kept and not self._is_timed:
            return
        now = exchange.session.now if exchange.session is not None else 0.0
        if is_kept and not self.tickets.is_due(ticket, now):
            return
        value = self.tickets.value(name, now, ticket.first_at if is_kept else 0.0)
        line = set_cookie(self._sticky.cookie, value, self._sticky.attributes, _is_https(exchange))
        self._give(exchange, head, head.fields + line)

    def _give(self, exchange: Told, head: ResponseHead, fields: bytes) -> None:
        """`fields` are for this client alone."""
        head.fields = made_private(fields) if exchange.head.method in {b"GET", b"HEAD"} else fields


def _is_https(exchange: Told) -> bool:
    """Whether the client came by https, as far as it or a trusted proxy says."""
    if exchange.client.scheme == "https":
        return True
    front = exchange.client.front
    if not front.trusting or not front.trusted.trust(exchange.client.peer):
        return False
    said = [line[18:].strip(b" \t").lower() for line in exchange.head.claims if line[:18].lower() == _PROTO]
    return bool(said) and said[-1].rsplit(b",")[-1].strip(b" \t") == b"https"


_PROTO = b"x-forwarded-proto:"


class SessionAnswers:
    """A route's step: answers say which backend a client has."""

    def after(self, exchange: Told, head: ResponseHead) -> None:
        upstream = exchange.upstream
        sessions = upstream.sessions if upstream is not None else None
        if sessions is not None:
            sessions.answered(exchange, head)


def answering(steps: Steps | None, upstreams: Iterable[UpstreamState]) -> Steps | None:
    """`steps` of a route, and what its upstreams want: sessions last, so that no other step changes our cookie."""
    upstreams = list(upstreams)
    more: list[After] = []
    if any(each.upstream.balance is Balance.LEAST_TIME for each in upstreams):
        more.append(TimedAnswers())
    if any(each.sessions is not None for each in upstreams):
        more.append(SessionAnswers())
    if not more:
        return steps
    before = steps or Steps()
    return replace(before, after=(*before.after, *more))
