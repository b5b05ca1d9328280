"""The admin endpoint: what can be read, and over the Unix socket also what an operator can have done.

One rule: at an address it only reads, for there is no login. Whatever changes something, and what holds clients'
requests, is at the socket, whose mode says who may ask. Every refusal is `{"error": "..."}` with a sentence.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from director.kit.errors import ConfigError, DirectorError
from l7proxy.admin.explained import explained
from l7proxy.admin.operations import ACTIONS, Operations, UnknownError
from l7proxy.admin.shown import backends_of, certificates_of, status_of, upstreams_of, workers_of
from l7proxy.core.metering import merged
from l7proxy.core.question import Question
from l7proxy.core.wishes import HEAVIEST
from l7proxy.counts import Collect, collected
from l7proxy.metrics import CONTENT_TYPE, exposition, facts_of
from l7proxy.runtime import Proxy

log = logging.getLogger("l7proxy")

LARGEST_BODY_BYTES = 16 * 1024
FAILURES = 20
MOST_FAILURES = 1000
LONGEST_WAIT_S = 7 * 24 * 3600.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["make_app", "status_of"]


def make_app(
    proxy: Proxy, collect: Collect | None = None, operations: Callable[[], Operations] | None = None
) -> web.Application:
    """The application; every answer is made from the present snapshot, and from what `collect` says that all processes
    have counted. With `operations` it is the one of the socket."""
    app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=[_refusing(operations is not None)])
    app.on_response_prepare.append(_named)
    _add_reading(app, proxy, collect)
    if operations is not None:
        _add_operating(app, proxy, collect, operations)
    return app


async def _named(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "l7proxy"  # and not which Python and aiohttp


def _add_reading(app: web.Application, proxy: Proxy, collect: Collect | None) -> None:
    async def healthz(_: web.Request) -> web.Response:
        if proxy.says_draining:
            return web.Response(status=503, text="draining\n")
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        parts = await collected(proxy, collect)
        return web.json_response({**status_of(proxy), "workers": workers_of(parts)})

    async def metrics(_: web.Request) -> web.Response:
        parts = await collected(proxy, collect)
        counts = merged(part.counts for part in parts) | facts_of(proxy)
        # In a thread: with hundreds of upstreams, the text takes longer than a request may wait.
        text = await asyncio.to_thread(exposition, counts)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def backends(_: web.Request) -> web.Response:
        await collected(proxy, collect)
        return web.json_response({"backends": backends_of(proxy)})

    async def upstreams(_: web.Request) -> web.Response:
        await collected(proxy, collect)
        return web.json_response({"upstreams": upstreams_of(proxy)})

    async def certificates(_: web.Request) -> web.Response:
        # In a thread: with thousands of them it takes longer than a request may wait.
        found = await asyncio.to_thread(certificates_of, proxy.snapshot.config)
        return web.json_response({"certificates": found})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/backends", backends)
    app.router.add_get("/v1/upstreams", upstreams)
    app.router.add_get("/v1/certificates", certificates)


def _add_operating(
    app: web.Application, proxy: Proxy, collect: Collect | None, operations: Callable[[], Operations]
) -> None:
    async def drain_told(_: web.Request) -> web.Response:
        return web.json_response({"connections": proxy.connections, "drain": operations().told()})

    async def failures(request: web.Request) -> web.Response:
        most = _count(request.query.get("n", str(FAILURES)))
        return web.json_response({"failures": await operations().failures(most)})

    async def config(_: web.Request) -> web.Response:
        # In a thread: a large file takes longer to read than a request may wait.
        return web.json_response(await asyncio.to_thread(operations().config))

    async def explain(request: web.Request) -> web.Response:
        question = _question(await _object(request))
        await collected(proxy, collect)
        # In a thread: near misses of a thousand routes take longer than a request may wait. It only reads.
        return web.json_response(await asyncio.to_thread(explained, proxy, operations().loaded, question))

    async def wish(request: web.Request) -> web.Response:
        upstream, backend = request.match_info["upstream"], request.match_info["backend"]
        action, weight = _wish(await _object(request))
        return web.json_response({"notes": await operations().wish(upstream, backend, action, weight)})

    async def drain(request: web.Request) -> web.Response:
        body = await _object(request)
        _only(body, "stop", "within_s")
        stop, within_s = body.get("stop", False), body.get("within_s")
        if not isinstance(stop, bool):
            raise ConfigError("`stop` is true or false")
        if within_s is not None and (
            isinstance(within_s, bool) or not isinstance(within_s, int | float) or not 0 <= within_s <= LONGEST_WAIT_S
        ):
            raise ConfigError(f"`within_s` is a number of seconds, {LONGEST_WAIT_S:g} at most")
        return web.json_response({"notes": await operations().drain(stop=stop, within_s=within_s)})

    async def undrain(request: web.Request) -> web.Response:
        _only(await _object(request))
        return web.json_response({"notes": await operations().undrain()})

    async def reload(request: web.Request) -> web.Response:
        _only(await _object(request))
        problems = await operations().reload()
        if problems:
            said = {"error": "reload refused, the old configuration stays", "problems": problems}
            return web.json_response(said, status=409)
        return web.json_response({"notes": []})

    app.router.add_get("/v1/drain", drain_told)
    app.router.add_get("/v1/failures", failures)
    app.router.add_get("/v1/config", config)
    app.router.add_post("/v1/explain", explain)
    app.router.add_post("/v1/backends/{upstream}/{backend}", wish)
    app.router.add_post("/v1/drain", drain)
    app.router.add_post("/v1/undrain", undrain)
    app.router.add_post("/v1/reload", reload)


def _refusing(is_socket: bool) -> Any:
    """What makes every refusal a sentence in JSON."""

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except UnknownError as error:
            return _error(404, str(error))
        except ConfigError as error:
            return _error(400, str(error))
        except DirectorError as error:
            return _error(500, str(error))
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"a body has {LARGEST_BODY_BYTES} bytes at most")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            response = _error(405, f"{request.method} is not what this is for: use {allowed}")
            response.headers["Allow"] = allowed
            return response
        except web.HTTPNotFound:
            if is_socket:
                return _error(404, f"there is no {request.path}: the manual of l7proxy names what there is")
            return _error(404, f"there is no {request.path} here: what changes something is at the socket of `admin`")
        except web.HTTPException:
            raise
        except Exception:
            log.exception("a request of the admin endpoint failed in itself", extra={"path": request.path})
            return _error(500, "it failed in itself: the log of l7proxy says how")

    return refuse


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


async def _object(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body; none is an empty one."""
    text = await request.text()
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError('the body is not a JSON object: send one such as {"action": "drain"}')
    return found


def _only(body: dict[str, Any], *keys: str) -> None:
    for key in body:
        if key not in keys:
            raise ConfigError(f"there is no {key!r} here" + (f": {', '.join(keys)}" if keys else ""))


def _question(body: dict[str, Any]) -> Question:
    """`{"request": "GET https://shop.example.org/", "headers": ["Cookie: a=1"], "client": "10.1.2.3"}`."""
    _only(body, "request", "headers", "client", "listener")
    request, headers = body.get("request"), body.get("headers", [])
    if not isinstance(request, str) or not isinstance(headers, list) or not all(isinstance(e, str) for e in headers):
        raise ConfigError('say what is asked: {"request": "GET https://shop.example.org/", "headers": ["Cookie: a=1"]}')
    client, listener = body.get("client"), body.get("listener")
    if not isinstance(client, str | None) or not isinstance(listener, str | None):
        raise ConfigError("`client` is an address, and `listener` a name")
    return Question(request, tuple(headers), client, listener)


def _wish(body: dict[str, Any]) -> tuple[str, int | None]:
    """`{"action": "drain"}`, or `{"weight": 3}`."""
    _only(body, "action", "weight")
    action = body.get("action", "weight" if "weight" in body else None)
    if action not in ACTIONS:
        raise ConfigError(f'say what to do: {{"action": one of {", ".join(ACTIONS)}}}, or {{"weight": 3}}')
    weight = body.get("weight")
    is_number = isinstance(weight, int) and not isinstance(weight, bool)
    if (action == "weight") is not is_number or (is_number and not 0 <= weight <= HEAVIEST):  # type: ignore[operator] # is_number
        raise ConfigError(f"a `weight` is a number from 0 to {HEAVIEST}, and goes with the action `weight` alone")
    return str(action), weight


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= MOST_FAILURES:
        raise ConfigError(f"`n` is a number from 1 to {MOST_FAILURES}")
    return int(text)
