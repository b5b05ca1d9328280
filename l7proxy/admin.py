"""The admin endpoint: GET /healthz, /v1/status and /metrics.

One rule: it only reads. There is no login, so it belongs on a local address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from l7proxy.certificates import soonest
from l7proxy.core.metering import Counters, merged
from l7proxy.core.model import Listener
from l7proxy.counts import Collect, WorkerCounts, collected
from l7proxy.metrics import CONTENT_TYPE, exposition, facts_of
from l7proxy.runtime import BackendState, Proxy, RouteState, UpstreamState


def make_app(proxy: Proxy, collect: Collect | None = None) -> web.Application:
    """The application; every answer is made from the present snapshot, and from what `collect` says that
    all processes have counted."""

    async def healthz(_: web.Request) -> web.Response:
        if proxy.says_draining:
            return web.Response(status=503, text="draining\n")
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        parts = await collected(proxy, collect)
        return web.json_response({**status_of(proxy), "workers": _workers(parts)})

    async def metrics(_: web.Request) -> web.Response:
        parts = await collected(proxy, collect)
        counts = merged(part.counts for part in parts) | facts_of(proxy)
        # In a thread: with hundreds of upstreams, the text takes longer than a request may wait.
        text = await asyncio.to_thread(exposition, counts)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def named(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = "l7proxy"  # and not which Python and aiohttp

    app = web.Application()
    app.on_response_prepare.append(named)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/metrics", metrics)
    return app


def _workers(parts: Iterable[WorkerCounts]) -> list[dict[str, float]]:
    return [
        {"pid": part.pid, **{name: part.counts.get(name, 0) for name in ("connections", "in_flight", "requests")}}
        for part in parts
        if part.pid
    ]


def status_of(proxy: Proxy) -> dict[str, Any]:
    """What /v1/status shows."""
    snapshot = proxy.snapshot
    return {
        "draining": proxy.says_draining,
        "connections": proxy.connections,
        "left_percent": proxy.load.percent,
        "counters": _counters(proxy.counters),
        "listeners": {listener.name: _listener(listener) for listener in snapshot.config.listeners},
        "routes": [_route(state) for state in snapshot.routes],
        "upstreams": {
            name: {
                "balance": state.upstream.balance.value,
                "backends": {backend: _backend(part) for backend, part in state.backends.items()},
                **_guarded(state),
            }
            for name, state in snapshot.upstreams.items()
        },
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


def _listener(listener: Listener) -> dict[str, Any]:
    shown: dict[str, Any] = {"bind": [str(bind) for bind in listener.binds], "tls": listener.tls is not None}
    shown["mode"] = "http" if listener.tcp is None else "tcp"
    if listener.tls is not None:
        ends = soonest(listener.tls)
        shown["not_after"] = ends.isoformat() if ends is not None else None
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


def _backend(state: BackendState) -> dict[str, Any]:
    health = state.health
    return {
        "address": state.backend.address,
        "weight": state.backend.weight,
        "health": health.status.value if state.backend.check is not None else "unchecked",
        "reason": state.why_down if health.last is not None or state.backend.unresolved else None,
        "up": state.up,
        "counters": _counters(state.counters),
    }


def _counters(counters: Counters) -> dict[str, Any]:
    return {
        "requests": counters.requests,
        "in_flight": counters.in_flight,
        "bytes_sent": counters.bytes_sent,
        "answers": {f"{digit}xx": counters.by_class[digit] for digit in range(1, 6)},
    }
