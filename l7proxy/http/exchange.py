"""One exchange, from the parsed head to the log record:
head -> route -> candidates -> connect, or retry -> transform -> stream -> account.

One rule: the client gets exactly one answer, and never a cut one that looks whole. Before the answer's head is on the
wire every failure becomes a status; after it, the client's connection is broken off.

What is lost on the way, because aiohttp's parser does not show it: trailers, and the borders of chunks.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time

from aiohttp import ClientError, ServerTimeoutError, web
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from l7proxy.core.head import Refusal, RequestHead, read_head
from l7proxy.core.headers import BodyFraming, Origin, forward_answer, forward_request, join, origin_of
from l7proxy.core.model import AccessLogFormat, Route
from l7proxy.core.retry import Failure, Retry, repeatable, retry
from l7proxy.http.bodies import Download, Upload
from l7proxy.http.connection import Front, Incoming
from l7proxy.http.link import ConnectError, UpstreamLink
from l7proxy.http.replies import CLOSE, KEEP, http_date, reply_bytes, status_line
from l7proxy.runtime import BackendState, Proxy, UpstreamState

CLIENT_LEFT = 499
"""What the access log shows for a request whose client did not stay for the answer (nginx's number)."""


class _AttemptError(Exception):
    """A backend gave no answer."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure


async def handle(front: Front, request: Incoming) -> web.StreamResponse:
    """Answer one request."""
    return await Exchange(front, request).run()


class Exchange:
    """One request and its answer."""

    def __init__(self, front: Front, request: Incoming) -> None:
        connection = request.connection
        self.proxy: Proxy = front.proxy
        self.snapshot = front.proxy.snapshot
        self.front = front
        self.connection = connection
        self.request = request
        peer = connection.peer
        self.origin = Origin(peer, peer, trusted=False)
        self.head: RequestHead | None = None
        self.route: Route | None = None
        self.backend: BackendState | None = None
        self.status = 0
        self.download = Download()
        self.is_health = False
        self.head_sent = False
        self.keep_alive = False

    async def run(self) -> web.StreamResponse:
        """Everything, top to bottom; raises nothing but CancelledError."""
        started_at = time.monotonic()  # the loop's own clock stands still within an iteration
        self.proxy.counters.begin()
        try:
            return await self._run()
        except asyncio.CancelledError:
            self.status = self.status or CLIENT_LEFT
            if self.connection.doomed:
                self._log("connection closed", self.connection.doomed, ours=False)
            raise
        except ConnectionError:  # writing to a client that is gone
            self.status = self.status or CLIENT_LEFT
            return CLOSE
        except Exception as error:  # noqa: BLE001 -- logged with its traceback, and bounded in number
            self.proxy.failures.write("exchange failed in itself", level=logging.ERROR, error=error)
            return CLOSE if self.head_sent else await self._reply(500, "internal error", close=True)
        finally:
            self._account(time.monotonic() - started_at)

    async def _run(self) -> web.StreamResponse:
        # head
        message = self.request.message
        config = self.snapshot.config
        head = read_head(message.method, message.path, message.version, message.raw_headers, config.limits.head_bytes)
        if isinstance(head, Refusal):
            self._log("request refused", head.reason, status=head.status, ours=False)
            return await self._reply(head.status, head.reason, close=True)
        self.head = head
        self.origin = origin_of(head, self.origin.peer, self.front.listener.trusted_proxies)
        if head.path == self.front.listener.health:
            self.is_health = True
            draining = self.proxy.draining
            return await self._reply(503 if draining else 200, "draining" if draining else "ok", named=True)
        # route
        self.route = self.snapshot.table.find(head.host, head.path)
        if self.route is None:
            reason = f"nothing matches host {head.host or '(none)'} and path {head.path}"
            self._log("no route", reason, status=404, ours=False)
            return await self._reply(404, "no route")
        upstream = self.snapshot.upstreams[self.route.upstream]
        # candidates -> connect, or retry
        upload = Upload(self.request, head)
        untried = upstream.weights
        while (name := upstream.turns.pick(untried)) is not None:
            self.backend = upstream.backends[name]
            untried = {other: weight for other, weight in untried.items() if other != name}
            try:
                return await self._attempt(head, upload, upstream, self.backend)
            except _AttemptError as error:
                failed = error
            if failed.failure is Failure.STALE and retry(failed.failure, head) is Retry.SAME_BACKEND:
                try:
                    return await self._attempt(head, upload, upstream, self.backend, fresh=True)
                except _AttemptError as error:
                    failed = error
            if upload.problem:
                self._log("request refused", upload.problem, status=400, ours=False)
                return await self._reply(400, "malformed body", close=True)
            if retry(failed.failure, head) is not Retry.OTHER_BACKEND or not untried:
                status = 504 if failed.failure is Failure.TIMED_OUT else 502
                self._log("request failed", str(failed), status=status)
                return await self._reply(status, "the backend gave no answer")
            self._log("trying another backend", str(failed), level=logging.INFO)
        self._log("request failed", upstream.why_nobody(), status=503)
        return await self._reply(503, "no backend is available", retry_after=True)

    async def _attempt(
        self, head: RequestHead, upload: Upload, upstream: UpstreamState, backend: BackendState, fresh: bool = False
    ) -> web.StreamResponse:
        """One try with one backend. Raises: _AttemptError, while nothing of an answer was sent."""
        timeouts = upstream.upstream.timeouts
        link = None if fresh else backend.pool.take_idle(repeatable(head))
        if link is None:
            try:
                link = await backend.pool.connect(timeouts.connect_s)
            except ConnectError as error:
                raise _AttemptError(Failure.NOT_CONNECTED, str(error)) from error
        whole = False
        backend.counters.begin()
        before_bytes = self.download.sent_bytes
        try:
            if link.transport is None:
                raise _AttemptError(Failure.BROKEN, "connection closed as soon as it was made")
            link.begin(head.method == "HEAD", timeouts.response_s)
            fields = forward_request(head, self.origin, self.snapshot.config.via, backend.authority)
            link.transport.write(join(b"%b %b HTTP/1.1" % (head.method.encode("ascii"), head.target), fields))
            if head.has_body:
                whole = await self._answer_while_uploading(head, link, upload, timeouts.idle_s)
            else:
                link.start_timeout()
                whole = await self._answer(head, link, upload, timeouts.idle_s)
        finally:
            backend.counters.end(self.status, self.download.sent_bytes - before_bytes)
            backend.pool.give_back(link, whole and upload.done)
        return KEEP if whole and self.keep_alive and not self.proxy.draining else CLOSE

    async def _answer_while_uploading(
        self, head: RequestHead, link: UpstreamLink, upload: Upload, idle_s: float
    ) -> bool:
        failed: Exception | None = None
        whole = False
        async with asyncio.TaskGroup() as group:
            task = group.create_task(upload.run(link), name="upload")
            try:
                whole = await self._answer(head, link, upload, idle_s)
            except Exception as error:  # noqa: BLE001 -- raised below: a group would wrap it
                failed = error
            finally:
                task.cancel()
        if failed is not None:
            raise failed
        return whole

    async def _answer(self, head: RequestHead, link: UpstreamLink, upload: Upload, idle_s: float) -> bool:
        """The answer, from its head to its end; whether all of it came."""
        message, payload = await self._await_head(head, link, upload)
        # transform
        answer = forward_answer(message.code, message.raw_headers, head, message.chunked, http_date())
        if isinstance(answer, str):
            raise _AttemptError(Failure.BROKEN, answer)
        self.keep_alive = self.request.keep_alive and not self.proxy.draining
        self.keep_alive = self.keep_alive and answer.framing is not BodyFraming.CLOSE
        if answer.framing is BodyFraming.CHUNKED:
            answer.fields.append((b"Transfer-Encoding", b"chunked"))
        if not self.keep_alive:
            answer.fields.append((b"Connection", b"close"))
        elif head.http10:
            answer.fields.append((b"Connection", b"keep-alive"))
        self.status = message.code
        # stream
        link.read_timeout = idle_s
        writer = self.request.writer
        self.head_sent = True
        start = join(status_line(message.code, message.reason), answer.fields)
        if answer.framing is BodyFraming.NONE:
            await writer.write(start)
            return True
        problem = await self.download.run(payload, writer, start, answer.framing)
        if problem is not None:
            self._break_off(answer.framing, problem)
        return problem is None

    async def _await_head(
        self, head: RequestHead, link: UpstreamLink, upload: Upload
    ) -> tuple[RawResponseMessage, StreamReader]:
        """The final head; interim ones (RFC 9110 15.2) are passed on as they come."""
        while True:
            try:
                message, payload = await link.read()
            except ServerTimeoutError as error:
                raise _AttemptError(Failure.TIMED_OUT, "no answer in time") from error
            except HttpProcessingError as error:
                what = error.message.partition("\n")[0].rstrip(":")
                raise _AttemptError(Failure.BROKEN, f"what came is no HTTP answer: {what}") from error
            except (ClientError, OSError) as error:
                stale = link.uses > 1 and not link.answered
                raise _AttemptError(
                    Failure.STALE if stale else Failure.BROKEN, "connection closed before an answer"
                ) from error
            if message.code == 101:
                raise _AttemptError(Failure.BROKEN, "the backend switched protocols without being asked")
            if message.code >= 200:
                return message, payload
            if not head.http10 and (message.code != 100 or head.expects_continue):
                interim = forward_answer(message.code, message.raw_headers, head, False, b"")
                if not isinstance(interim, str):
                    await self.request.writer.write(join(status_line(message.code, message.reason), interim.fields))
            if upload.done:
                link.start_timeout()

    def _break_off(self, framing: BodyFraming, reason: str) -> None:
        """End the client's connection so that it sees a broken transfer."""
        self._log("answer broken off", reason, status=self.status)
        transport = self.connection.transport
        if transport is None:
            return
        if framing is BodyFraming.CLOSE:  # only a reset tells this from the end
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            self.connection.force_close()

    async def _reply(
        self, status: int, text: str, *, close: bool = False, retry_after: bool = False, named: bool = False
    ) -> web.StreamResponse:
        """An answer of our own."""
        self.status = status
        self.head_sent = True
        request = self.request
        http10 = request.message.version < (1, 1)
        close = (
            close
            or http10
            or self.proxy.draining
            or not request.keep_alive
            or self.connection.doomed != ""
            or not request.content.is_eof()
        )
        head_only = request.message.method == "HEAD"
        await request.writer.write(
            reply_bytes(status, text, close=close, head_only=head_only, retry_after=retry_after, named=named)
        )
        return CLOSE if close else KEEP

    def _log(
        self, message: str, reason: str, level: int = logging.WARNING, status: int | None = None, ours: bool = True
    ) -> None:
        """One line; `ours` is whether it is about us and our backends, and not about what a client did."""
        fields = {**self._names(), "status": status, "reason": reason, "client": self.origin.client}
        failures = self.proxy.failures if ours else self.proxy.refusals
        failures.write(message, level, {name: value for name, value in fields.items() if value is not None})

    def _names(self) -> dict[str, str | None]:
        return {
            "route": self.route.name if self.route is not None else None,
            "upstream": self.route.upstream if self.route is not None else None,
            "backend": self.backend.backend.name if self.backend is not None else None,
        }

    def _account(self, duration_s: float) -> None:
        self.proxy.counters.end(self.status, self.download.sent_bytes)
        if self.snapshot.config.access_log is not AccessLogFormat.NONE and not self.is_health:
            message = self.request.message
            host = self.head.host if self.head is not None else None
            fields = {"client": self.origin.client, "method": message.method, "host": host, "target": message.path}
            self.proxy.access.write(
                {
                    **fields,
                    "status": self.status,
                    "bytes": self.download.sent_bytes,
                    "ms": f"{duration_s * 1000:.1f}",
                    **self._names(),
                }
            )
