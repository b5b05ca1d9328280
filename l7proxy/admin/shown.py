"""What the admin endpoint shows: plain values, made from what is there now.

One rule: it reads, and every name stands for the same in each answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from l7proxy.core.metering import Counters
from l7proxy.core.model import Config, Listener
from l7proxy.core.settings.tls import Certificate
from l7proxy.core.slowstart import SCALE
from l7proxy.core.wishes import Wish, moment
from l7proxy.counts import WorkerCounts
from l7proxy.files import certificates
from l7proxy.runtime import Proxy, RouteState, Snapshot
from l7proxy.upstreams import BackendState, UpstreamState


def status_of(proxy: Proxy) -> dict[str, Any]:
    """What /v1/status shows."""
    snapshot = proxy.snapshot
    return {
        "name": snapshot.name,
        "draining": proxy.says_draining,
        "connections": proxy.connections,
        "most_connections": snapshot.config.limits.connections,
        "left_percent": proxy.load.percent,
        "trouble": snapshot.trouble() or None,
        "reload_refused": proxy.reload_refused,
        "problems": list(proxy.problems),
        "counters": _counters(proxy.counters),
        "listeners": {listener.name: _listener(listener) for listener in snapshot.config.listeners},
        "routes": [_route(state) for state in snapshot.routes],
        "upstreams": upstreams_of(proxy),
    }


def upstreams_of(proxy: Proxy) -> dict[str, Any]:
    """What /v1/upstreams shows."""
    return {
        name: {
            "balance": state.upstream.balance.value,
            "up": sum(part.up and part.weight > 0 for part in state.backends.values()),
            "why": _why_not(state),
            "backends": {backend: _backend(part, state) for backend, part in state.backends.items()},
            **_guarded(state),
        }
        for name, state in proxy.snapshot.upstreams.items()
    }


def backends_of(proxy: Proxy) -> list[dict[str, Any]]:
    """What /v1/backends shows: all of them, and what is wanted of others that are gone."""
    found = [
        {"upstream": name, "backend": backend, **_backend(part, state)}
        for name, state in proxy.snapshot.upstreams.items()
        for backend, part in state.backends.items()
    ]
    return found + [
        {"upstream": upstream, "backend": backend, "gone": True, "wish": _wish(wish)}
        for (upstream, backend), wish in sorted(proxy.wishes.items())
        if not is_there(proxy.snapshot, upstream, backend)
    ]


def is_there(snapshot: Snapshot, upstream: str, backend: str) -> bool:
    """Whether the configuration has such a backend."""
    return upstream in snapshot.upstreams and backend in snapshot.upstreams[upstream].backends


def why_of(state: BackendState, upstream: UpstreamState, now: float) -> Iterator[str]:
    """Why a backend that is up has another share than the file says, and until when."""
    name, guard, sticky = state.backend.name, upstream.guard, upstream.upstream.sticky
    if state.effective.why:
        yield state.effective.why
    elif not state.weight:
        yield "drained by the file"
    if state.drained_at is not None and sticky is not None and sticky.cookie:
        left_s = sticky.drain_s - (now - state.drained_at)
        yield f"keeps its sessions for {left_s:.0f} s more" if left_s > 0 else "keeps no sessions any more"
    if guard is not None and (ejection := guard.ejections.get(name)) is not None and ejection.is_out(now):
        spared = "; nobody else is left" if name in upstream.weights else ""
        yield f"left out for {ejection.until - now:.1f} s more, since it failed requests{spared}"
    if upstream.is_slow and (counts := upstream.weights.get(name, 0)) < SCALE * state.weight and counts:
        yield f"slow start: {100 * counts / (SCALE * state.weight):.0f} % of its weight"


def certificates_of(config: Config, now: datetime | None = None) -> list[dict[str, Any]]:
    """What /v1/certificates shows, the one that ends first at the top. It takes a millisecond for each."""
    found: dict[Certificate, list[str]] = {}
    for listener in config.listeners:
        for each in _certificates(listener):
            found.setdefault(each, []).append(listener.name)
    shown = [_certificate(each, listeners, now or datetime.now(UTC)) for each, listeners in found.items()]
    return sorted(shown, key=lambda each: each["not_after"] or "")


def workers_of(parts: Iterable[WorkerCounts]) -> list[dict[str, float]]:
    """Each process that serves."""
    return [
        {"pid": part.pid, **{name: part.counts.get(name, 0) for name in ("connections", "in_flight", "requests")}}
        for part in parts
        if part.pid
    ]


def _certificates(listener: Listener) -> list[Certificate]:
    return list(listener.tls.certificates) if listener.tls is not None else []


def _certificate(certificate: Certificate, listeners: list[str], now: datetime) -> dict[str, Any]:
    ends = certificates.expiry(certificate)
    return {
        "name": certificate.name,
        "file": certificate.chain,
        "listeners": listeners,
        "names": [*certificate.facts.names, *certificate.facts.others] if certificate.facts is not None else [],
        "not_after": ends.isoformat() if ends is not None else None,
        "days_left": (ends - now).days if ends is not None else None,
    }


def _route(state: RouteState) -> dict[str, Any]:
    route = state.route
    shown: dict[str, Any] = {"name": route.name, "host": list(route.hosts), "path": str(route.path)}
    if str(route.conditions):
        shown["conditions"] = str(route.conditions)
    shown["upstream"] = route.upstream
    if state.split is not None:
        now = state.split.percent(state.unusable)
        shown["shares"] = {
            share.upstream: {"weight": share.weight, "percent": now[share.upstream]} for share in route.split
        }
    return shown


def _guarded(state: UpstreamState) -> dict[str, Any]:
    """What its guard says: whether the upstream is spared, and who is left out for how long."""
    guard, now = state.guard, time.monotonic()
    if guard is None:
        return {}
    out = {name: round(each.until - now, 1) for name, each in guard.ejections.items() if each.is_out(now)}
    shown: dict[str, Any] = {"left_out_for_s": out} if guard.ejections else {}
    if guard.gate is not None:
        shown["breaker"] = {"open": guard.gate.is_open(), "tried_in_s": round(guard.gate.opens_in_s(now), 1)}
    return shown


def _listener(listener: Listener) -> dict[str, Any]:
    shown: dict[str, Any] = {"bind": [str(bind) for bind in listener.binds], "tls": listener.tls is not None}
    shown["mode"] = "http" if listener.tcp is None else "tcp"
    if listener.tls is not None:
        ends = certificates.soonest(listener.tls)
        shown["not_after"] = ends.isoformat() if ends is not None else None
    return shown


def _why_not(state: UpstreamState) -> str | None:
    """Why its requests are not answered by a backend."""
    if not state.weights:
        return state.why_nobody()
    guard, now = state.guard, time.monotonic()
    if guard is None or guard.gate is None or not guard.gate.is_open():
        return None
    return f"spared, since too many of its requests failed: one is tried in {max(guard.gate.opens_in_s(now), 0.0):.0f}s"


def _backend(state: BackendState, upstream: UpstreamState) -> dict[str, Any]:
    health = state.health
    return {
        "address": state.backend.address,
        "weight": state.weight,
        "configured_weight": state.backend.weight,
        "why": "; ".join(why_of(state, upstream, time.monotonic())) or None,
        "wish": _wish(state.wish),
        "health": health.status.value if state.backend.check is not None else "unchecked",
        "reason": state.why_down if health.last is not None or state.backend.unresolved else None,
        "up": state.up,
        "counters": _counters(state.counters),
    }


def _wish(wish: Wish | None) -> dict[str, Any] | None:
    if wish is None:
        return None
    return {"want": wish.want.value, "weight": wish.weight, "since": moment(wish.since)}


def _counters(counters: Counters) -> dict[str, Any]:
    return {
        "requests": counters.requests,
        "in_flight": counters.in_flight,
        "bytes_sent": counters.bytes_sent,
        "answers": {f"{digit}xx": counters.by_class[digit] for digit in range(1, 6)},
    }
