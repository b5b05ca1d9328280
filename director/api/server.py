"""The admin socket's routes.

One rule: a route turns a request into one call of `Operations` and its outcome into JSON; it decides nothing.
Every refusal is `{"error": "..."}` with a sentence for the operator; 400 is theirs to mend, 421 meant for another
network namespace's director, 500 the kernel's or host's; what was done in part says beside it which steps were made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from aiohttp import web

from director.api import NAMESPACE_HEADER
from director.api.asking import ask_as_peer
from director.api.events import add_events
from director.core.answers import Applied, Planned
from director.core.driftlines import DriftLine
from director.core.explain import Explanation
from director.core.model import ServerRef
from director.core.status import Status
from director.eventlog import EventLog
from director.host.lockfile import namespace_inode
from director.kit.adminsocket import BACKLOG
from director.kit.duration import LONGEST_S
from director.kit.errors import ConfigError, DirectorError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LAST_ANSWERS_S = 5.0
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024
LONGEST_REASON = 200


class Operations(Protocol):
    """What can be asked of a running director; each raises DirectorError with a sentence."""

    async def status(self) -> Status: ...
    async def drift(self) -> list[DriftLine]: ...
    async def plan(self, text: str, source: str) -> Planned: ...
    async def apply(
        self, text: str, source: str, confirm_s: float | None = None, drain_s: float | None = None
    ) -> Applied: ...
    async def reload(self) -> Applied: ...
    async def confirm(self) -> Applied: ...
    async def undo(self) -> Applied: ...
    async def drain(self, ref: ServerRef) -> list[str]: ...
    async def enable(self, ref: ServerRef) -> list[str]: ...
    async def weight(self, ref: ServerRef, weight: int) -> list[str]: ...
    async def maintenance(self, ref: ServerRef, reason: str, for_s: float | None) -> list[str]: ...
    async def explain(self, virtual_server: str, real_server: str | None) -> Explanation: ...


@asynccontextmanager
async def serve(director: Operations, listener: socket.socket, events: EventLog | None = None) -> AsyncIterator[None]:
    """Answer on `listener` meanwhile; what was asked before the end has `LAST_ANSWERS_S` to be answered."""
    async with asyncio.TaskGroup() as group:
        begun = _Begun(group)
        application = _application(director, begun)
        if events is not None:
            add_events(application, events)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=LAST_ANSWERS_S)
        try:
            await runner.setup()
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            yield
        finally:
            end_at = asyncio.get_running_loop().time() + LAST_ANSWERS_S
            await runner.cleanup()
            await begun.end(end_at)


class _Begun:
    """Operations that are carried out once begun, also when whoever asked has gone away."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry_out(self, operation: Coroutine[Any, Any, Answer]) -> Answer:
        """The outcome of `operation`, which outlives whoever waits for it here."""
        outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                answer = await operation
            except asyncio.CancelledError:
                outcome.cancel()
                raise
            except Exception as error:  # noqa: BLE001 -- its place is the answer, not the group
                outcome.set_exception(error)
            else:
                outcome.set_result(answer)

        task = self._group.create_task(work(), name="admin request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(outcome)

    async def end(self, end_at: float) -> None:
        """Wait until `end_at` of the loop's clock for what was begun, and give up the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, end_at - asyncio.get_running_loop().time()))
        for task in self._tasks:
            log.warning("a request is given up at the end")
            task.cancel()


def _application(director: Operations, begun: _Begun) -> web.Application:
    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(await director.status())

    async def post_plan(request: web.Request) -> web.Response:
        text, source = _file(await _object(request))
        return web.json_response((await director.plan(text, source)).plain())

    async def get_drift(_: web.Request) -> web.Response:
        return web.json_response({"drift": await director.drift()})

    async def post_apply(request: web.Request) -> web.Response:
        body = await _object(request)
        text, source = _file(body)
        confirm_s, drain_s = _seconds(body, "confirm_s"), _seconds(body, "drain_s")
        return _applied(await begun.carry_out(director.apply(text, source, confirm_s, drain_s)))

    async def post_reload(_: web.Request) -> web.Response:
        return _applied(await begun.carry_out(director.reload()))

    async def post_confirm(_: web.Request) -> web.Response:
        return _applied(await begun.carry_out(director.confirm()))

    async def post_undo(_: web.Request) -> web.Response:
        return _applied(await begun.carry_out(director.undo()))

    async def post_drain(request: web.Request) -> web.Response:
        return web.json_response({"notes": await begun.carry_out(director.drain(_ref(await _object(request))))})

    async def post_enable(request: web.Request) -> web.Response:
        return web.json_response({"notes": await begun.carry_out(director.enable(_ref(await _object(request))))})

    async def post_weight(request: web.Request) -> web.Response:
        body = await _object(request)
        weight = body.get("weight")
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 65535:
            raise ConfigError(f"weight {weight!r} is not one: use 0 to 65535")
        return web.json_response({"notes": await begun.carry_out(director.weight(_ref(body), weight))})

    async def post_maintenance(request: web.Request) -> web.Response:
        body = await _object(request)
        reason = body.get("reason", "")
        if not isinstance(reason, str) or len(reason) > LONGEST_REASON or not (reason.isprintable()):
            raise ConfigError(f"the reason is one line of at most {LONGEST_REASON} characters")
        for_s = _seconds(body, "for_s")
        return web.json_response({"notes": await begun.carry_out(director.maintenance(_ref(body), reason, for_s))})

    async def get_explain(request: web.Request) -> web.Response:
        virtual_server = request.query.get("virtual_server")
        if not virtual_server:
            raise ConfigError('the request needs "virtual_server", a name')
        return web.json_response(await director.explain(virtual_server, request.query.get("real_server")))

    here = str(namespace_inode())

    @web.middleware
    async def same_namespace(request: web.Request, handler: Handler) -> web.StreamResponse:
        ask_as_peer(request)
        asked_from = request.headers.get(NAMESPACE_HEADER, here)
        return await handler(request) if asked_from == here else _elsewhere(here, asked_from)

    async def name_namespace(_: web.Request, response: web.StreamResponse) -> None:
        response.headers[NAMESPACE_HEADER] = here

    application = web.Application(middlewares=[same_namespace, _errors_as_json], client_max_size=LARGEST_REQUEST_BYTES)
    application.on_response_prepare.append(name_namespace)
    application.add_routes(
        [
            web.get("/v1/status", get_status),
            web.get("/v1/drift", get_drift),
            web.post("/v1/plan", post_plan),
            web.post("/v1/apply", post_apply),
            web.post("/v1/reload", post_reload),
            web.post("/v1/confirm", post_confirm),
            web.post("/v1/undo", post_undo),
            web.post("/v1/drain", post_drain),
            web.post("/v1/enable", post_enable),
            web.post("/v1/weight", post_weight),
            web.post("/v1/maintenance", post_maintenance),
            web.get("/v1/explain", get_explain),
        ]
    )
    return application


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ConfigError as error:
        return web.json_response({"error": str(error)}, status=400)
    except DirectorError as error:
        return web.json_response({"error": str(error)}, status=500)
    except web.HTTPException as error:
        return web.json_response({"error": f"{request.method} {request.path}: {error.reason}"}, status=error.status)
    except Exception:
        log.exception("a request failed in itself", extra={"path": request.path})
        return web.json_response({"error": "internal error: the director's log has the details"}, status=500)


def _elsewhere(here: str, asked_from: str) -> web.Response:
    pid = os.getpid()
    sentence = (
        f"the director that answers here (process {pid}) manages network namespace {here}, and this command runs in "
        f"{asked_from}: nothing was done; to ask that director, run it there (nsenter -t {pid} -n ...), and for a "
        "director of this namespace use its own --socket and --state-dir"
    )
    return web.json_response({"error": sentence}, status=421)  # RFC 9110, 15.5.20: misdirected


def _applied(applied: Applied) -> web.Response:
    if applied.failures:
        return web.json_response({**applied.plain(), "error": "\n".join(applied.failures)}, status=500)
    return web.json_response(applied.plain())


async def _object(request: web.Request) -> dict[str, object]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError("the request is not JSON: send an object") from error
    if not isinstance(body, dict):
        raise ConfigError("the request is not a JSON object: send one")
    return body


def _file(body: dict[str, object]) -> tuple[str, str]:
    match body:
        case {"text": str(text), "source": str(source)}:
            return text, source
    raise ConfigError('the request needs "text" (the file\'s content) and "source" (its name)')


def _seconds(body: dict[str, object], key: str) -> float | None:
    match body.get(key):
        case None:
            return None
        case int() | float() as seconds if not isinstance(seconds, bool) and 0 < seconds <= LONGEST_S:
            return float(seconds)
        case other:
            raise ConfigError(f"{key} {other!r} is not a number of seconds above 0, {LONGEST_S:.0f} at most")


def _ref(body: dict[str, object]) -> ServerRef:
    match body:
        case {"virtual_server": str(virtual), "real_server": str(real)}:
            return ServerRef(virtual, real)
    raise ConfigError('the request needs "virtual_server" and "real_server", both names')
