"""GET /v1/events: what happened, as JSON lines, and with `follow` what happens.

One rule: whoever asks costs a bounded amount, also if nothing is read: a follower who is too slow is told so, and cut.

Parameters: `since` (a unix time), `vs`, `rs`, `limit` (the last so many), `follow=1`. A line is an event, or an object
with `error` before the end; an empty line means that nothing has happened.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, suppress

from aiohttp import web

from director.core.event import Event
from director.eventfile import Filter
from director.eventlog import EventLog
from director.kit.errors import ConfigError, HostError

ALIVE_EVERY_S = 15.0
READ_WITHIN_S = 30.0
MOST_AT_ONCE = 100_000
CUT = "more has happened than was read in time: ask again with `since`"
BUSY = "too many follow already: end one of them"


def add_events(application: web.Application, events: EventLog) -> None:
    """Have `application` answer for `events`."""

    async def get_events(request: web.Request) -> web.StreamResponse:
        wanted, limit, follow = _asked(request)
        if follow and not events.has_room:
            raise HostError(BUSY)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        try:
            await _stream(request, response, events, wanted, limit, follow)
        except (ConnectionError, TimeoutError):  # whoever asked has gone, or does not read
            if request.transport is not None:
                request.transport.abort()
        return response

    async def end(_: web.Application) -> None:
        events.end_following()

    application.router.add_get("/v1/events", get_events)
    application.on_shutdown.append(end)


async def _stream(
    request: web.Request,
    response: web.StreamResponse,
    events: EventLog,
    wanted: Filter,
    limit: int | None,
    follow: bool,
) -> None:
    async def send(lines: bytes) -> None:
        async with asyncio.timeout(READ_WITHIN_S):
            if not response.prepared:
                await response.prepare(request)
            if lines:
                await response.write(lines)

    said_at = time.monotonic()
    async with aclosing(events.read(wanted, limit, follow=follow)) as batches:
        try:
            async for batch in batches:
                if request.transport is None or request.transport.is_closing():
                    return
                if batch is None:
                    await send(_line({"error": CUT}))
                elif batch or not response.prepared:
                    await send(b"".join(map(_event, batch)))
                elif time.monotonic() - said_at > ALIVE_EVERY_S:
                    await send(b"\n")
                else:
                    continue
                said_at = time.monotonic()
        except OSError as error:
            sentence = f"could not read the journal of events: {error.strerror or 'its disk does not answer'}"
            if not response.prepared:
                raise HostError(sentence) from error
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            await send(_line({"error": sentence}))
    await send(b"")
    async with asyncio.timeout(READ_WITHIN_S):
        await response.write_eof()


def _asked(request: web.Request) -> tuple[Filter, int | None, bool]:
    query = request.query
    unknown = sorted(set(query) - {"since", "vs", "rs", "limit", "follow"})
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no parameter of events: use since, vs, rs, limit and follow")
    since = limit = None
    if "since" in query:
        with suppress(ValueError):
            since = float(query["since"])
        if since is None or not abs(since) < 1e12:
            raise ConfigError(f"since {query['since']!r} is no unix time: write seconds since 1970")
    if "limit" in query:
        text = query["limit"]
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= MOST_AT_ONCE):
            raise ConfigError(f"limit {text!r} is out of range: use 1 to {MOST_AT_ONCE}")
        limit = int(text)
    follow = query.get("follow", "0")
    if follow not in {"0", "1"}:
        raise ConfigError(f"follow {follow!r} is neither 0 nor 1")
    return Filter(since, query.get("vs", ""), query.get("rs", "")), limit, follow == "1"


def _event(event: Event) -> bytes:
    return _line(event.plain())


def _line(plain: object) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"
