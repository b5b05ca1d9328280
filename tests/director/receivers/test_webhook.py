"""Webhooks to real HTTP servers on the loopback address, good and hostile."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from director.core.event import Event, EventKind
from director.core.notifying import Trust, Webhook
from director.receivers.delivery import deliver
from director.receivers.failure import NotDeliveredError, RefusedError

pytestmark = pytest.mark.unit

EVENTS = [Event(1e9 + number, EventKind.HEALTH, "web", "a", "up", "down", "refused") for number in range(2)]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    application = web.Application(client_max_size=10_000_000)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes, hangs: bool = False) -> AsyncIterator[str]:
    """A peer that reads what comes, says `answer`, and closes, or does not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            if answer:
                await reader.read(100)
            writer.write(answer)
            if hangs:
                await asyncio.sleep(20)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def run(story: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(main())


def test_events_are_posted_as_json(tmp_path: Path) -> None:
    seen: list[tuple[str, str, dict[str, str], dict[str, object]]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, dict(request.headers), json.loads(await request.read())))
        return web.Response(status=204)

    async def story() -> None:
        (tmp_path / "token").write_text("Bearer hidden\n")
        async with serving(take) as origin:
            hook = Webhook(f"{origin}/in?to=ops", (("X-Room", "ops"),), (("Authorization", str(tmp_path / "token")),))
            await deliver(hook, EVENTS)

    run(story())
    ((method, path, headers, body),) = seen
    assert (method, path) == ("POST", "/in?to=ops")
    assert (headers["X-Room"], headers["Authorization"]) == ("ops", "Bearer hidden")
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("lvs-director/")
    assert body["events"] == [event.plain() for event in EVENTS]
    assert body["text"] == "\n".join(["web/a: health up -> down: refused"] * 2)
    assert set(body) == {"host", "text", "events"}


def test_many_events_have_a_bounded_text() -> None:
    seen: list[dict[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(json.loads(await request.read()))
        return web.Response()

    async def story() -> None:
        async with serving(take) as origin:
            await deliver(Webhook(origin + "/"), EVENTS * 200)

    run(story())
    assert len(seen[0]["events"]) == 400
    assert seen[0]["text"].splitlines()[-1] == "and 300 more"


def fails(hook: Webhook) -> Awaitable[NotDeliveredError]:
    async def attempt() -> NotDeliveredError:
        with pytest.raises(NotDeliveredError) as caught:
            await deliver(hook, EVENTS)
        return caught.value

    return attempt()


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (200, None, ""),
        (299, None, ""),
        (302, NotDeliveredError, "answered 302: redirects are not followed, write the URL they lead to"),
        (400, RefusedError, "answered 400: no room\\x1b"),
        (404, NotDeliveredError, "answered 404: no room\\x1b"),
        (413, RefusedError, "answered 413: no room\\x1b"),
        (500, NotDeliveredError, "answered 500: no room\\x1b"),
    ],
)
def test_any_2xx_is_an_arrival(status: int, kind: type[Exception] | None, said: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, text="no\r\nroom\x1b", headers={"Location": "/other"})

    async def story() -> None:
        async with serving(answer) as origin:
            if kind is None:
                await deliver(Webhook(f"{origin}/hidden"), EVENTS)
            else:
                error = await fails(Webhook(f"{origin}/hidden"))
                assert (type(error), str(error)) == (kind, said)
        assert asked == ["/hidden"]

    run(story())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "disconnected"),
        (b"220 smtp\r\n", "Expected HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000, ""),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 1_000_000, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 500 no\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1000, "answered 500: " + "x" * 100),
    ],
)
def test_a_hostile_answer_is_a_bounded_sentence(answer: bytes, said: str) -> None:
    async def story() -> None:
        async with raw(answer) as origin:
            error = str(await fails(Webhook(f"{origin}/hidden")))
        assert said in error
        assert len(error) <= 400
        assert error.isprintable()
        assert "hidden" not in error

    run(story())


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 500 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_receiver_that_hangs_costs_the_timeout(answer: bytes) -> None:
    async def story() -> None:
        async with raw(answer, hangs=True) as origin:
            began = time.monotonic()
            error = await fails(Webhook(f"{origin}/", timeout_s=0.3))
            assert time.monotonic() - began < 2
        assert str(error) == "no answer within 0.3s"

    run(story())


def test_nobody_there_is_told() -> None:
    async def story() -> None:
        async with raw(b"") as origin:
            pass
        assert "Connect call failed" in str(await fails(Webhook(f"{origin}/hidden")))
        error = str(await fails(Webhook("http://no-such-host.invalid/hidden")))
        assert error
        assert "hidden" not in error

    run(story())


def test_a_certificate_counts_unless_it_is_said_not_to(certificate: str, server_tls: ssl.SSLContext) -> None:
    async def take(_: web.Request) -> web.Response:
        return web.Response()

    async def story() -> None:
        async with serving(take, server_tls) as origin:
            hook = Webhook(f"{origin}/hidden")
            error = str(await fails(hook))
            assert "certificate verify failed" in error
            assert "hidden" not in error
            await deliver(replace(hook, trust=Trust(verify=False)), EVENTS)
            await deliver(replace(hook, trust=Trust(ca_file=certificate)), EVENTS)
            other = str(await fails(replace(hook, trust=Trust(ca_file="/nowhere"))))
            assert other == "could not use /nowhere: No such file or directory"

    run(story())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "could not read {}: No such file or directory"),
        (b"", "{} does not hold one line of printable ASCII"),
        (b"hidden\nhidden\n", "{} does not hold one line of printable ASCII"),
        (b"hidden" * 10_000, "{} does not hold one line of printable ASCII"),
        (b"hidden\xff", "{} holds no text"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_and_not_shown(tmp_path: Path, content: bytes | None, said: str) -> None:
    secret = tmp_path / "token"
    if content is not None:
        secret.write_bytes(content)

    async def story() -> None:
        error = await fails(Webhook("http://127.0.0.1:1/", header_files=(("Authorization", str(secret)),)))
        assert str(error) == said.format(secret)

    run(story())
