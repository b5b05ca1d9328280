"""The Unix socket of the admin endpoint: opened, served, moved by a reload, left to the next program.

One rule: while a process means to be asked, its socket is there: also from one program to the next, who asks waits a
moment and is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from director.kit import adminsocket
from director.kit.errors import HostError
from l7proxy.admin.app import make_app
from l7proxy.admin.operations import Operations
from l7proxy.control import taken_over
from l7proxy.counts import Collect
from l7proxy.runtime import Proxy

log = logging.getLogger("l7proxy")

IDLE_S = 75.0
LEAVES_S = 1.0
"""How long an answer may take when it goes."""


@dataclass(frozen=True, slots=True)
class _Serving:
    path: str
    socket: socket.socket
    runner: web.AppRunner
    server: asyncio.AbstractServer


class AdminSocket:
    """One process's; `operations` is asked with each request."""

    def __init__(self, proxy: Proxy, operations: Callable[[], Operations], collect: Collect | None = None) -> None:
        self._proxy = proxy
        self._operations = operations
        self._collect = collect
        self._serving: _Serving | None = None
        self._prepared: tuple[str, socket.socket | None] | None = None

    def prepare(self, path: str, left: Mapping[str, int] | None = None) -> None:
        """Get ready to be asked at `path`, "" for nowhere; `commit` or `abandon` it. `left` are the descriptors of
        what an earlier program of this process has served.

        Raises: HostError, and then nothing has changed.
        """
        self.abandon()
        opened: socket.socket | None = None
        for there, descriptor in (left or {}).items():
            if there == path:
                opened = taken_over(descriptor)
            else:
                os.close(descriptor)
                Path(there).unlink(missing_ok=True)
        now = self._serving.path if self._serving is not None else ""
        if path == now and (not path or Path(path).is_socket()):
            return
        if opened is None and path:
            opened = adminsocket.open_at(Path(path), "l7proxy", "name another `socket` in `admin`")
        self._prepared = path, opened

    def abandon(self) -> None:
        """Forget what was prepared."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[1] is not None:
            Path(prepared[0]).unlink(missing_ok=True)
            prepared[1].close()

    async def commit(self) -> None:
        """Be asked where it was prepared, and nowhere else."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        path, opened = prepared
        before, self._serving = self._serving, None
        if opened is not None:
            app = make_app(self._proxy, self._collect, self._operations)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=LEAVES_S, keepalive_timeout=IDLE_S)
            await runner.setup()
            if runner.server is None:
                raise HostError("the admin socket could not be set up")
            # A copy: whatever becomes of the server, the socket stays until this process lets go of it.
            mine = opened.dup()
            mine.setblocking(False)
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(runner.server, sock=mine, backlog=adminsocket.BACKLOG)
            self._serving = _Serving(path, opened, runner, server)
        if before is not None:
            if before.path != path:
                _remove(before.path)
            before.socket.close()
            # Beside everything else: who has asked for this change there waits for its answer.
            self._proxy.spawn(_end(before))

    async def close(self, *, keep: bool = False) -> dict[str, int]:
        """Be asked no more. With `keep` its socket is returned for the next program, by its path."""
        self.abandon()
        serving, self._serving = self._serving, None
        if serving is None:
            return {}
        kept = {serving.path: serving.socket.detach()} if keep else {}
        if not keep:
            _remove(serving.path)
            serving.socket.close()
        await _end(serving)
        return kept


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def _end(serving: _Serving) -> None:
    serving.server.close()
    try:
        async with asyncio.timeout(2 * LEAVES_S):
            await serving.runner.cleanup()
    except Exception as error:  # noqa: BLE001 -- what serves no longer must not end what does
        log.warning("admin socket did not end in order", extra={"reason": repr(error)})
