"""Serves /metrics and /healthz at the address that the configuration in force names.

One rule: whoever asks, and however many, costs little: the kernel is read once a second at most, by the thread that
always reads it, the text is made in another, and a connection has one request and a bounded life.

An address is bound before a configuration is taken, so that one that cannot be had refuses it. One that is lost
otherwise (at the start, or on the way back to a former configuration) is tried again; meanwhile `trouble` says why.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from director.api.listening import listen
from director.core.metrics import Family, Sample, Work, families
from director.core.status import Status
from director.kit.collector import paused
from director.kit.errors import DirectorError, HostError
from director.kit.net import Endpoint

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S = 1.0
"""For so long the same numbers are told again."""
READ_S = 5.0
"""So long the kernel may take to answer (an apply may be under way); then the last numbers are told."""
LIFE_S = 30.0
"""Of a connection, from its beginning to its end."""
MOST_CONNECTIONS = 32
LONGEST_HEAD_BYTES = 8190
RETRY_S = 5.0
LAST_ANSWERS_S = 1.0


class Measured(Protocol):
    """What is measured."""

    async def status(self) -> Status: ...
    def work(self) -> Work: ...


class MetricsEndpoint:
    """Where metrics are served; `reserve` and `use` are for the loop's thread and never wait."""

    def __init__(self) -> None:
        self.trouble = ""
        self._wanted: Endpoint | None = None
        self._reserved: tuple[Endpoint, socket.socket] | None = None
        self._begins: tuple[Endpoint, socket.socket] | None = None  # while what served before ends its answers
        self._served: tuple[Endpoint, socket.socket, asyncio.Server, web.AppRunner] | None = None
        self._woken = asyncio.Event()

    def reserve(self, endpoint: Endpoint | None) -> None:
        """Have `endpoint` at hand for a `use` to come. Raises: HostError when it cannot be bound."""
        self._release()
        if endpoint is not None and not self._serves(endpoint):
            self._reserved = endpoint, self._listen(endpoint)

    def use(self, endpoint: Endpoint | None) -> None:
        """Serve there from now on, or nowhere; what was reserved besides is let go."""
        self._wanted = endpoint
        if self._reserved is not None and self._reserved[0] != endpoint:
            self._release()
        self._woken.set()

    async def run(self, measured: Measured) -> None:
        """Serve until cancelled."""
        scraped = _Scraped(measured)
        try:
            while True:
                self._woken.clear()
                await self._follow(scraped)
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self.trouble else None):
                        await self._woken.wait()
        finally:
            self._release()
            await self._stop()

    async def _follow(self, scraped: _Scraped) -> None:
        wanted = self._wanted
        if wanted is None or self._serves(wanted):
            if wanted is None:
                await self._stop()
            self.trouble = ""
            return
        try:
            listener = self._taken(wanted)
            self._begins = wanted, listener
            try:
                await self._stop()
                await self._start(wanted, listener, scraped)
            except BaseException:
                listener.close()
                raise
            finally:
                self._begins = None
        except HostError as error:
            self._tell_trouble(str(error), None)
            await self._stop()
        except Exception as error:  # noqa: BLE001 -- a director without metrics is better than none
            self._tell_trouble(f"internal error: {error!r}", error)
        else:
            self.trouble = ""

    def _taken(self, endpoint: Endpoint) -> socket.socket:
        """What was reserved for `endpoint`, or else opened now. Raises: HostError."""
        if self._reserved is not None and self._reserved[0] == endpoint:
            (_, listener), self._reserved = self._reserved, None
            return listener
        return self._listen(endpoint)

    def _listen(self, endpoint: Endpoint) -> socket.socket:
        mine = [each[1] for each in (self._served, self._begins) if each is not None]
        return listen(endpoint, MOST_CONNECTIONS, *mine)

    def _tell_trouble(self, trouble: str, error: Exception | None) -> None:
        if trouble != self.trouble:
            log.error("metrics are not served, trying again", extra={"reason": trouble}, exc_info=error)
        self.trouble = trouble

    async def _start(self, endpoint: Endpoint, listener: socket.socket, scraped: _Scraped) -> None:
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(
            _application(scraped),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=LAST_ANSWERS_S,
            max_line_size=LONGEST_HEAD_BYTES,
            max_field_size=LONGEST_HEAD_BYTES,
        )
        await runner.setup()
        made = runner.server
        assert made is not None  # noqa: S101 -- it is set up

        def connection() -> asyncio.Protocol:
            if len(made.connections) >= MOST_CONNECTIONS:
                return _TurnedAway()
            handler = made()
            loop.call_later(LIFE_S, _end, handler)
            return handler

        try:
            server = await loop.create_server(connection, sock=listener)
        except BaseException:
            await runner.cleanup()
            raise
        self._served = endpoint, listener, server, runner
        log.info("metrics are served", extra={"at": str(endpoint)})

    async def _stop(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            endpoint, _, server, runner = served
            server.close()
            await runner.cleanup()
            log.info("metrics are not served any more", extra={"at": str(endpoint)})

    def _serves(self, endpoint: Endpoint) -> bool:
        return any(each is not None and each[0] == endpoint for each in (self._served, self._begins))

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved[1].close()
            self._reserved = None


class _TurnedAway(asyncio.Protocol):
    """A connection beyond the last that there is room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- what a TCP server has
        transport.abort()


def _end(handler: web.RequestHandler) -> None:
    """Whoever sends or reads so slowly has had its time."""
    if handler.transport is not None:
        handler.transport.abort()


class _Scraped:
    """The last numbers, and how to get others; one at a time does."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._alone = asyncio.Lock()
        self._status: Status | None = None
        self._read_at = 0.0
        self._text = b""
        self._made_at = float("-inf")

    async def text(self) -> bytes:
        """The exposition. Raises: DirectorError while nothing is known yet."""
        async with self._alone:
            if time.monotonic() - self._made_at >= FRESH_S:
                await self._renew()
            return self._text

    async def _renew(self) -> None:
        trouble = "the kernel does not answer"
        try:
            async with asyncio.timeout(READ_S):
                self._status = await self._measured.status()
                self._read_at = time.time()
        except TimeoutError:
            pass
        except DirectorError as error:
            trouble = str(error)
        if self._status is None:
            raise HostError(trouble)
        status, read_at, work = self._status, self._read_at, self._measured.work()
        # In a thread: with thousands of real servers the text takes longer than a probe may be late.
        self._text = await asyncio.to_thread(exposition, status, read_at, work)
        self._made_at = time.monotonic()


def _application(scraped: _Scraped) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        try:
            return web.Response(body=await scraped.text(), headers={"Content-Type": CONTENT_TYPE})
        except DirectorError as error:
            return web.Response(status=503, text=f"{error}\n")

    async def last_of_its_connection(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()
        response.headers["Server"] = "director"  # and not which Python and aiohttp

    application = web.Application(client_max_size=0)
    application.on_response_prepare.append(last_of_its_connection)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/metrics", metrics)
    return application


def exposition(status: Status, read_at: float, work: Work) -> bytes:
    """The text format 0.0.4. It takes some 5 us for each line."""
    from prometheus_client import ProcessCollector
    from prometheus_client.exposition import generate_latest

    class Collector:
        def collect(self) -> Iterator[Metric]:
            for family, samples in families(status, read_at, work):
                yield _metric(family, samples)
            yield from ProcessCollector(registry=None).collect()

    with paused():
        return generate_latest(Collector())


def _metric(family: Family, samples: Iterable[Sample]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    made = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    metric = made(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        metric.add_metric(labels, value)
    return metric
