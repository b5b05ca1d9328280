"""The admin socket's routes.

One rule: a route turns a request into one call of `Operations` and its outcome into JSON; it decides nothing.
Every refusal is `{"error": "..."}` with a sentence for the operator; 400 is theirs to mend, 500 the kernel's or host's.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from aiohttp import web

from director.core.model import ServerRef
from director.core.plan import Step
from director.core.status import Status
from director.kit.errors import ConfigError, DirectorError, HostError

log = logging.getLogger(__name__)

MODE = 0o660
BACKLOG = 64
LAST_ANSWERS_S = 5.0
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024


class Operations(Protocol):
    """What can be asked of a running director; each raises DirectorError with a sentence."""

    async def status(self) -> Status: ...
    async def plan(self, text: str, source: str) -> list[Step]: ...
    async def apply(self, text: str, source: str) -> list[Step]: ...
    async def drain(self, ref: ServerRef) -> None: ...
    async def enable(self, ref: ServerRef) -> None: ...
    async def weight(self, ref: ServerRef, weight: int) -> None: ...


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at `path`, mode 0660, that connections wait at until `serve` answers them.

    One that a dead process left there is replaced; one that answers, or another kind of file, is not.
    Raises: HostError when it cannot be had.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            _bind(listener, path)
        except OSError as error:
            advice = ": run as root" if error.errno in {errno.EACCES, errno.EPERM} else ""
            raise HostError(f"could not open the admin socket {path}: {error.strerror or error}{advice}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@asynccontextmanager
async def serve(director: Operations, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on `listener` meanwhile; what was asked before the end has `LAST_ANSWERS_S` to be answered."""
    runner = web.AppRunner(
        _application(director), access_log=None, handle_signals=False, shutdown_timeout=LAST_ANSWERS_S
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()


def _bind(listener: socket.socket, path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.is_socket():
        if _answers(path):
            raise HostError(f"another director answers on {path}: stop it first, or give this one another --socket")
        path.unlink(missing_ok=True)
    elif path.exists():
        raise HostError(f"{path} is in the way of the admin socket: it is no socket, so give another --socket")
    listener.bind(str(path))
    try:
        path.chmod(MODE)  # before listen(): nobody can connect with the mode that bind gave it
        listener.listen(BACKLOG)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1.0)
        try:
            peer.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # too busy to accept (EAGAIN), or of another kind: somebody is there
            return True
    return True


def _application(director: Operations) -> web.Application:
    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(await director.status())

    async def post_plan(request: web.Request) -> web.Response:
        text, source = await _file(request)
        return _steps(await director.plan(text, source))

    async def post_apply(request: web.Request) -> web.Response:
        text, source = await _file(request)
        # Shielded: once begun it is carried out, also when whoever asked has gone away.
        return _steps(await asyncio.shield(director.apply(text, source)))

    async def post_drain(request: web.Request) -> web.Response:
        await asyncio.shield(director.drain(_ref(await _object(request))))
        return web.json_response({})

    async def post_enable(request: web.Request) -> web.Response:
        await asyncio.shield(director.enable(_ref(await _object(request))))
        return web.json_response({})

    async def post_weight(request: web.Request) -> web.Response:
        body = await _object(request)
        weight = body.get("weight")
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 65535:
            raise ConfigError(f"weight {weight!r} is not one: use 0 to 65535")
        await asyncio.shield(director.weight(_ref(body), weight))
        return web.json_response({})

    application = web.Application(middlewares=[_errors_as_json], client_max_size=LARGEST_REQUEST_BYTES)
    application.add_routes(
        [
            web.get("/v1/status", get_status),
            web.post("/v1/plan", post_plan),
            web.post("/v1/apply", post_apply),
            web.post("/v1/drain", post_drain),
            web.post("/v1/enable", post_enable),
            web.post("/v1/weight", post_weight),
        ]
    )
    return application


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
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


def _steps(steps: list[Step]) -> web.Response:
    return web.json_response({"steps": [{"sign": s.sign, "subject": s.subject, "detail": s.detail} for s in steps]})


async def _object(request: web.Request) -> dict[str, object]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError("the request is not JSON: send an object") from error
    if not isinstance(body, dict):
        raise ConfigError("the request is not a JSON object: send one")
    return body


async def _file(request: web.Request) -> tuple[str, str]:
    match await _object(request):
        case {"text": str(text), "source": str(source)}:
            return text, source
    raise ConfigError('the request needs "text" (the file\'s content) and "source" (its name)')


def _ref(body: dict[str, object]) -> ServerRef:
    match body:
        case {"virtual_server": str(virtual), "real_server": str(real)}:
            return ServerRef(virtual, real)
    raise ConfigError('the request needs "virtual_server" and "real_server", both names')
