"""Somebody else is asked who may pass: a GET with what the request says of itself, and no body of it.

One rule: it never opens because nobody answers. 2xx lets pass; every other answer is the client's; none is 502 or 504.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

from l7proxy.core.access import line_of
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.access import ForwardAuth
from l7proxy.core.template import came_target
from l7proxy.http.steps import WAIT

if TYPE_CHECKING:
    import aiohttp

    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told

MOST_CONNECTIONS = 128
"""To all who are asked; further questions wait, as long as their timeout lets them."""
LARGEST_BODY = 64 * 1024
"""Of an answer that is handed on; a larger one is handed on without it."""
_RELAYED = {
    name.lower().encode("ascii"): name
    for name in (
        "Cache-Control",
        "Content-Encoding",
        "Content-Language",
        "Content-Security-Policy",
        "Content-Type",
        "Expires",
        "Location",
        "Retry-After",
        "Set-Cookie",
        "Vary",
        "WWW-Authenticate",
    )
}
_ABOUT_BODY = frozenset({b"content-encoding", b"content-language", b"content-type"})


class Inquiries:
    """The connections to those who are asked, of one process."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made when somebody is asked for the first time."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, keepalive_timeout=4.0),
                cookie_jar=aiohttp.DummyCookieJar(),  # a jar would show one client's session to the next
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            )
        return self._session

    async def close(self) -> None:
        """Ask no more."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class ForwardAuthStep:
    """Asks before each request, for as long as its client waits."""

    def __init__(self, asked: ForwardAuth) -> None:
        self._asked = asked
        self._names = {name.lower().encode("ascii"): name for name in asked.copied}
        self._cut = frozenset(name.replace(b"_", b"-") for name in self._names)
        self._asking: dict[Told, asyncio.Task[None]] = {}

    def before(self, exchange: Exchange) -> int:
        """The answer comes later."""
        asking = self._ask(exchange)
        self._asking[exchange] = task = exchange.proxy.spawn(asking)
        task.add_done_callback(lambda _: asking.close())  # cancelled before it began, nobody else would
        return WAIT

    def ended(self, exchange: Told) -> None:
        """Nobody waits for it any longer."""
        task = self._asking.pop(exchange, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _ask(self, exchange: Exchange) -> None:
        try:
            await self._answered(exchange)
        except Exception as error:
            if exchange.over:  # its client may be at another one
                raise
            exchange.crashed(error)

    async def _answered(self, exchange: Exchange) -> None:
        import aiohttp
        from yarl import URL

        asked = self._asked
        try:
            async with exchange.proxy.inquiries.session.get(
                URL(asked.url, encoded=True),
                headers=self._question(exchange),
                allow_redirects=False,
                ssl=_trusting(asked.ca_pem) if asked.ca_pem else True,
                timeout=aiohttp.ClientTimeout(total=asked.timeout_s),
            ) as answer:
                status, lines = answer.status, answer.raw_headers
                body = await _body(answer.content)
        except TimeoutError:
            exchange.failed_aside(Cause.AUTH_TIMEOUT, f"forward_auth gave no answer within {asked.timeout_s:g}s")
            return
        except aiohttp.ClientConnectorError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error.os_error)
            exchange.failed_aside(Cause.AUTH_UNREACHABLE, f"forward_auth: {error.host}:{error.port}: {reason}")
            return
        except (aiohttp.ClientError, OSError) as error:
            exchange.failed_aside(Cause.AUTH_UNREACHABLE, f"forward_auth: {str(error) or type(error).__name__}")
            return
        if exchange.over:
            return
        if 200 <= status < 300:
            self._admit(exchange, lines)
        elif status < 300:
            exchange.failed_aside(Cause.AUTH_UNREACHABLE, f"forward_auth answered {status}")
        else:
            _relay(exchange, status, lines, body)

    def _question(self, exchange: Exchange) -> list[tuple[str, str]]:
        head = exchange.head
        host = exchange.came_with(b"x-forwarded-host") or head.authority
        told = [
            ("X-Forwarded-Method", _text(head.method)),
            ("X-Forwarded-Proto", exchange.scheme),
            ("X-Forwarded-Host", _text(host)),
            ("X-Forwarded-Uri", _text(came_target(head))),
            ("X-Forwarded-For", exchange.asker),
        ]
        for name in self._asked.send:
            told += ((name, _text(value)) for value in exchange.seen.all(name.encode("ascii")))
        return told

    def _admit(self, exchange: Exchange, lines: tuple[tuple[bytes, bytes], ...]) -> None:
        if self._cut:
            told = [(self._names.get(name.lower()), value) for name, value in lines]
            exchange.vouch(self._cut, b"".join(line_of(written, value) for written, value in told if written))
        exchange.go_on()


def _relay(exchange: Exchange, status: int, lines: tuple[tuple[bytes, bytes], ...], body: bytes | None) -> None:
    """Its answer is the client's."""
    fields = b""
    for name, value in lines:
        written = _RELAYED.get(name.lower())
        if written is not None and (body is not None or name.lower() not in _ABOUT_BODY):
            fields += line_of(written, value)
    exchange.respond(status, fields, body or b"")


async def _body(content: aiohttp.StreamReader) -> bytes | None:
    """All of it; None where that is too much."""
    body = b""
    while piece := await content.readany():
        body += piece
        if len(body) > LARGEST_BODY:
            return None
    return body


def _text(value: bytes) -> str:
    """As aiohttp sends it, which is in UTF-8."""
    return value.decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _trusting(pem: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem.decode("ascii"))
