"""How things are now for a request that a running l7proxy is asked about, from the snapshot that it serves by.

One rule: it looks, and changes nothing that counts: what picks, admits and refuses is asked what it would say.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from director.kit.yamltree import parse
from l7proxy.admin.shown import why_of
from l7proxy.core.describe import Asking, answer
from l7proxy.core.explainlive import BackendNow, Lead, LimitNow, UpstreamNow
from l7proxy.core.explaintext import note_of, told
from l7proxy.core.model import Route
from l7proxy.core.proxystatus import Cause
from l7proxy.core.question import Question, ask
from l7proxy.core.settings.balancing import Hashing
from l7proxy.core.sticky import Verdict
from l7proxy.core.wishes import Want
from l7proxy.files.loading import Loaded
from l7proxy.http.balancing import First, Hashed
from l7proxy.http.limits import ConcurrencyStep, RateStep
from l7proxy.runtime import Proxy, Snapshot
from l7proxy.upstreams import BackendState, UpstreamState

_WHY_NOT = {
    Verdict.NEW: "it is not there",
    Verdict.REFUSED: "it is not ours, or its backend is gone",
    Verdict.EXPIRED: "it is too old",
}


def explained(proxy: Proxy, loaded: Loaded, question: Question) -> dict[str, Any]:
    """What /v1/explain says: the explanation, and the same in words. It takes time for a large configuration.

    Raises: ConfigError: it is no request.
    """
    snapshot = proxy.snapshot
    config = snapshot.config
    found = ask(config, question, Present(snapshot))
    notes = [note] if (note := note_of(config, question.request, found)) else []
    if proxy.says_draining:
        notes.append("this l7proxy drains: who shares out connections is told to choose another one")
    places: dict[int, int] = {}
    if loaded.config is snapshot.config:
        tree = parse(loaded.text)
        places = {place: tree.mark(("routes", place)).line for place in range(len(config.routes))}
    return {
        "explanation": {**asdict(found), "notes": notes},
        "told": list(told(found, loaded.source, places, notes)),
    }


class Present:
    """A `Live` (core/explainlive.py): what `snapshot` serves, at this moment."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._now = time.monotonic()

    def limits(self, route: Route, asking: Asking) -> tuple[LimitNow, ...]:
        steps = self._snapshot.routes[route.place].steps
        before = steps.before if steps is not None else ()
        return tuple(step.look(asking) for step in before if isinstance(step, RateStep | ConcurrencyStep))

    def shares(self, route: Route, asking: Asking) -> Mapping[str, float]:
        """As `RouteState.upstream_for` shares out: a session's upstream has all, and so has a key's."""
        state = self._snapshot.routes[route.place]
        split = state.split
        if split is None:
            return {}
        upstreams = [self._snapshot.upstreams[name] for name in split.shares]
        taken = next((each.upstream.name for each in upstreams if self._holder(each, asking)), "")
        if not taken:  # a session whose backend is gone stays where it was
            taken = next((each.upstream.name for each in upstreams if each.weights and _had(each, asking)), "")
        key = state.keyed.key(asking) if state.keyed is not None else None
        if not taken and key and len(state.unusable) < len(upstreams):
            taken = split.of_key(key, state.unusable)
        return {name: 100.0 * (name == taken) for name in split.shares} if taken else split.percent(state.unusable)

    def upstream(self, name: str, asking: Asking) -> UpstreamNow:
        state = self._snapshot.upstreams[name]
        holder = self._holder(state, asking)
        line, gate = state.line, state.guard.gate if state.guard is not None else None
        waiting = line.waiting if line is not None else None
        breaker = ""
        if gate is not None:
            breaker = "is closed"
            if gate.is_open():
                left_s = gate.opens_in_s(self._now)
                breaker = f"is open for {left_s:.1f} s more" if left_s else "is open, one request at a time tries"
        return UpstreamNow(
            self._refused(state, holder, waiting),
            breaker,
            waiting,
            line.queue.length if line is not None else None,
            tuple(self._leads(state, asking)),
            {each.backend.name: self._backend(each, state) for each in state.backends.values()},
        )

    def _refused(self, state: UpstreamState, holder: str, waiting: int | None) -> str:
        """In the order in which an exchange meets it."""
        cause, reason = None, ""
        gate = state.guard.gate if state.guard is not None else None
        able = [holder] if holder else list(state.weights)
        queue = state.line.queue if state.line is not None else None
        if gate is not None and gate.opens_in_s(self._now):
            cause, reason = Cause.BREAKER_OPEN, "its breaker is open"
        elif not able:
            cause, reason = Cause.NO_BACKEND, state.why_nobody()
        elif not any(state.backends[name].has_room for name in able):
            reason = "backends have max_connections requests"
            if queue is None or waiting is None:
                cause = Cause.CONNECTION_LIMIT
            elif waiting >= queue.length:
                cause, reason = Cause.CONNECTION_LIMIT, f"{reason}, and {queue.length} wait already"
        if cause is None:
            return ""
        sorry = state.upstream.sorry
        return answer(cause, reason) if sorry is None else f"{sorry.status}, its sorry page: {reason}"

    def _holder(self, state: UpstreamState, asking: Asking) -> str:
        """The backend that has the client's session by cookie, and would take the request; empty where none has."""
        sessions = state.sessions
        name = sessions.ticket_in(asking.head.fields).name if sessions is not None else ""
        return name if name in state.weights or (name and sessions and sessions.keeps(name, self._now)) else ""

    def _leads(self, state: UpstreamState, asking: Asking) -> Iterator[Lead]:
        sessions, sticky, picker = state.sessions, state.upstream.sticky, state.picker
        holder = ""
        if sessions is not None and sticky is not None:
            by = f"cookie {sticky.cookie}"
            ticket, holder = sessions.ticket_in(asking.head.fields), self._holder(state, asking)
            if holder:
                yield Lead(by, holder)
            elif ticket.name:
                yield Lead(by, "", f"{ticket.name} takes its requests no more, another backend gets the session")
            else:
                yield Lead(by, "", _WHY_NOT[ticket.verdict])
        hashing = sticky.hashing if sticky is not None and sticky.hashing is not None else state.upstream.hashing
        if isinstance(picker, Hashed) and hashing is not None and not holder:
            key = picker.key(asking)
            name = picker.whose(key, state.weights) if key else None
            yield Lead(_by(hashing), name or "", "" if name else "no backend is up" if key else "it is not there")

    def _backend(self, state: BackendState, upstream: UpstreamState) -> BackendNow:
        name, wish = state.backend.name, state.wish
        is_wanted = wish is None or wish.want is Want.ENABLED
        checked = state.health.status.value if state.backend.check is not None else "unchecked"
        why = [] if state.up else [f"down: {state.why_down}"]
        places = state.places
        return BackendNow(
            checked if wish is None or is_wanted else wish.want.value,
            state.weight if name in upstream.weights else 0,
            (*why, *why_of(state, upstream, self._now)),
            _share(name, upstream),
            state.counters.in_flight,
            places.taken if places is not None else None,
            places.most if places is not None else None,
        )


def _share(name: str, upstream: UpstreamState) -> float:
    """What of its upstream's requests goes to a backend, of those that no session and no key leads."""
    if isinstance(upstream.picker, First):
        able = [each for each in upstream.backends if upstream.weights.get(each, 0) > 0]
        roomy = [each for each in able if upstream.backends[each].has_room]
        return float(name in (roomy or able)[:1])
    return upstream.weights.get(name, 0) / (sum(upstream.weights.values()) or 1)


def _by(hashing: Hashing) -> str:
    """What a hash is made of.

    >>> _by(Hashing(KeyKind.HEADER, "x-session")), _by(Hashing(KeyKind.SOURCE))
    ('header x-session', 'source')
    """
    return f"{hashing.kind.value} {hashing.name}".strip()


def _had(state: UpstreamState, asking: Asking) -> bool:
    """Whether the request's cookie names a backend of `state`, whatever has become of that."""
    return state.sessions is not None and bool(state.sessions.ticket_in(asking.head.fields).name)
