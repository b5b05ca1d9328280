"""The client's side: connections, their deadlines, and what answers them before an exchange begins.

One rule: every connection is bounded in time and in bytes, whatever its client does or leaves undone. Parsing and
flow control are aiohttp's server protocol; its error pages, tracebacks and default headers never show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from l7proxy.core.model import Listener
from l7proxy.http.replies import CLOSE, reply_bytes
from l7proxy.runtime import Proxy

READ_BUFFER_BYTES = 64 * 1024
LINGER_S = 5.0
HALF_CLOSED_S = 2.0
"""A client that sends no more may still wait for its answer (`nc -N`, old health checkers), or be gone: no telling. The
answer must begin within this time, then the backend is let go."""


class ClientConnection(RequestHandler):
    """One client connection. `finished` counts exchanges that ended; `doomed` is why it was cut off."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        config = front.proxy.snapshot.config
        super().__init__(
            front,
            loop=loop,
            keepalive_timeout=config.timeouts.keepalive_s,
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp turns it off
            max_line_size=config.limits.head_bytes,
            max_field_size=config.limits.head_bytes,
            lingering_time=LINGER_S,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
        )
        self.front = front
        self.counted = False
        self.finished = 0
        self.wire: asyncio.Transport | None = None
        self.doomed = ""
        self.peer = "-"
        self.head_bytes = 0
        self.head_began_at = self.read_at = self.made_at = loop.time()
        self.awaits_body_since_at: float | None = None
        self.half_closed_at: float | None = None
        self._unsent_bytes = 0
        self._unsent_since_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        proxy = self.front.proxy
        wire = cast("asyncio.Transport", transport)
        if proxy.connections >= proxy.most_clients:
            self._force_close = True
            wire.write(reply_bytes(503, "too many connections", retry_after=True))
            wire.close()
            limited = proxy.most_clients == proxy.snapshot.config.limits.connections
            reason = "limits.connections is reached" if limited else "open files allow no more"
            proxy.refusals.write("connection refused", fields={"reason": reason, "client": peer_of(wire)})
            return
        self.peer = peer_of(wire)
        self.wire = wire  # aiohttp forgets its own as soon as it is closing
        proxy.connections += 1
        self.counted = True
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.counted:
            self.counted = False
            self.front.proxy.connections -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data:
            self.read_at = self._loop.time()
            if not self.busy:
                if not self.head_bytes:
                    self.head_began_at = self.read_at
                self.head_bytes += len(data)
        super().data_received(data)
        if not self.busy:
            if self.head_bytes > self.front.proxy.snapshot.config.limits.head_bytes:
                self.close_with(431, "the head is larger than limits.head_bytes")
        elif self._messages and self._current_request is not None and _is_error(self._messages[-1]):
            # aiohttp leaves the reader of a body waiting when what follows cannot be parsed.
            self._current_request.content.set_exception(RequestPayloadError("the body's framing is broken"))

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's meaning: whether it stays open to write to
        """Stay for the answer to a request that is whole; a client that leaves midway is gone."""
        request = self._current_request
        bodies = [request.content] if request is not None else []
        if self._messages:
            bodies.append(self._messages[-1][1])
        if not self.busy or not bodies or not all(body.is_eof() for body in bodies) or self._force_close:
            return False
        if self.half_closed_at is None:
            self.half_closed_at = self._loop.time()
        return True

    @property
    def sends_no_more(self) -> bool:
        """Whether what is being answered is the last: the client has closed its side, and nothing waits."""
        return self.half_closed_at is not None and not self._messages

    @property
    def busy(self) -> bool:
        """Whether a request that was parsed is not answered yet."""
        return self._request_count != self.finished

    def close_with(self, status: int, reason: str) -> None:
        """Answer where no exchange runs, and close."""
        if self.transport is not None and not self._force_close:
            self.transport.write(reply_bytes(status, reason))
            fields = {"status": status, "reason": reason, "client": self.peer}
            self.front.proxy.refusals.write("request refused", fields=fields)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused. aiohttp calls this; it writes here and has nothing left to send."""
        reason = str(message or exc or "").partition("\n")[0].strip().rstrip(":") or "malformed request"
        fields = {"status": status, "reason": reason, "client": self.peer}
        self.front.proxy.refusals.write("request refused", fields=fields)
        if status == 400 and (isinstance(exc, LineTooLong) or reason.startswith("Too many headers")):
            status = 431
        if self.transport is not None and request.writer.output_size == 0:
            self.transport.write(reply_bytes(status, "malformed request"))
        return CLOSE

    def close_if_idle(self) -> None:
        """Close unless a request is being answered, or is about to be. What is busy must still be read."""
        if not self.busy:
            self.force_close()

    def sweep(self, now: float) -> None:
        """Close what has taken too long."""
        timeouts = self.front.proxy.snapshot.config.timeouts
        waited_from = self.awaits_body_since_at
        if self.busy:
            if waited_from is not None and now - max(waited_from, self.read_at) > timeouts.idle_s:
                self.doom(f"the client sent nothing of its body for {timeouts.idle_s:g}s")
            elif self.half_closed_at is not None and now - self.half_closed_at > HALF_CLOSED_S and not self._answering:
                self.abort()
        elif self.head_bytes:
            if now - self.head_began_at > timeouts.head_s:
                self.close_with(408, f"no whole head within {timeouts.head_s:g}s")
        elif not self.finished and now - self.made_at > timeouts.head_s:
            self.force_close()
        self._sweep_unsent(now, timeouts.idle_s)

    def _sweep_unsent(self, now: float, idle_s: float) -> None:
        """Close when the client has taken nothing of what waits for it; also after the last answer was written."""
        unsent = self.wire.get_write_buffer_size() if self.wire is not None else 0
        if not unsent or unsent != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since_at = unsent, now
        elif now - self._unsent_since_at > idle_s:
            self.doom(f"the client took nothing for {idle_s:g}s")

    @property
    def _answering(self) -> bool:
        request = self._current_request
        return request is not None and cast("Incoming", request).writer.output_size > 0

    def doom(self, reason: str) -> None:
        """Cut the connection off, remembering why."""
        self.doomed = reason
        self.abort()

    def abort(self) -> None:
        """Cut the connection off."""
        if self.wire is not None:
            self.wire.abort()


class Incoming:
    """A request as it came: its parsed head, its body, and where the answer goes.

    It stands in for aiohttp's request object, of which the server protocol uses only `_task`, `_cancel` and `_finish`.
    """

    __slots__ = ("_task", "connection", "content", "message", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        connection: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.message = message
        self.content = content
        self.connection = cast("ClientConnection", connection)
        self.writer = writer
        self._task = task

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may stay. Not behind an Upgrade: aiohttp's parser may drop what follows one."""
        last = self.message.should_close or self.message.upgrade or self.connection.sends_no_more
        return not last

    def _cancel(self, exc: BaseException) -> None:
        self.content.set_exception(exc)

    def _finish(self) -> None:
        """Nothing was stored."""


Handler = Callable[["Front", Incoming], Awaitable[web.StreamResponse]]


class Front(web.Server):
    """The connections of one bound address."""

    def __init__(self, proxy: Proxy, listener: Listener, handle: Handler) -> None:
        self.proxy = proxy
        self.listener = listener
        self._exchange = handle
        super().__init__(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", self._handle),
            request_factory=cast("Any", Incoming),
            handler_cancellation=True,
        )

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, asyncio.get_running_loop())

    async def _handle(self, request: Incoming) -> web.StreamResponse:
        connection = request.connection
        try:
            sent = await self._exchange(self, request)
        finally:
            connection.awaits_body_since_at = None
            connection.head_bytes = 0
            # While aiohttp reads the rest of a body that nobody wants (LINGER_S), the connection is still busy.
            if request.content.is_eof():
                connection.finished += 1
        return sent if request.content.is_eof() and not connection.sends_no_more else CLOSE

    @property
    def clients(self) -> list[ClientConnection]:
        """Every connection, also one that is closing."""
        return cast("list[ClientConnection]", self.connections)

    def close_idle(self) -> None:
        """Close connections on which nothing is being answered."""
        for connection in self.clients:
            connection.close_if_idle()

    def abort(self) -> None:
        """Cut every connection."""
        for connection in self.clients:
            connection.doom("the proxy stops")

    def sweep(self, now: float) -> None:
        """Look at every connection's deadlines."""
        for connection in self.clients:
            connection.sweep(now)


def _is_error(item: tuple[object, object]) -> bool:
    return type(item[0]).__name__ == "_ErrInfo"


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The peer's address as text."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).partition("%")[0] if peer else "-"
