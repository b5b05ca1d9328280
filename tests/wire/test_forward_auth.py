"""Somebody else is asked who may pass."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import (
    Answer,
    Origin,
    fields_of,
    free_port,
    live,
    named,
    running,
    says,
    status_of,
    takes,
)

pytestmark = pytest.mark.unit

ENDS = "Content-Length: 3\r\nConnection: close\r\n\r\nabc"
YES = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


def route(port: int, more: str = "") -> str:
    return (
        f"  - {{name: all, upstream: up, access: {{forward_auth: {{url: 'http://127.0.0.1:{port}/v?a=%2F'{more}}}}}}}"
    )


@live
async def test_it_sees_who_asks_for_what_and_its_headers_reach_the_backend(tmp_path: Path) -> None:
    asked = await Origin(says(YES, b"X-User: ann\r\nx-user: b\r\nX-Other: no\r\n\r\nok")).start()
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=route(asked.port, ", pass: [X-User, X-Groups]")) as proxy:
        lines = ("Cookie: a=1", "cookie: b=2", "Authorization: Bearer t", "X-User: root", "x-groups: all", "X-Y: 1")
        answer = await proxy.talk(
            "\r\n".join(("POST /p%2Fq?x=1 HTTP/1.1", "Host: Shop.example:81", *lines, ENDS)).encode()
        )
        assert status_of(answer) == 200
        assert status_of(await proxy.get("/again")) == 200
    head = asked.heads[0]
    assert head.startswith(b"GET /v?a=%2F HTTP/1.1\r\n")
    assert fields_of(head, b"cookie") == [b"a=1", b"b=2"]
    assert fields_of(head, b"authorization") == [b"Bearer t"]
    for what, value in [("method", "POST"), ("proto", "http"), ("host", "Shop.example:81"), ("uri", "/p%2Fq?x=1")]:
        assert fields_of(head, f"x-forwarded-{what}".encode()) == [value.encode()]
    assert fields_of(head, b"x-forwarded-for") == [b"127.0.0.1"]
    for name in (b"content-length", b"x-y", b"x-user", b"user-agent", b"accept-encoding"):
        assert not fields_of(head, name)
    assert asked.connections == 1
    assert origin.messages[0].body == b"abc"
    assert fields_of(origin.heads[0], b"x-user") == [b"ann", b"b"]
    assert not fields_of(origin.heads[0], b"x-groups")
    assert not fields_of(origin.heads[0], b"x-other")
    assert fields_of(origin.heads[0], b"cookie") == [b"a=1", b"b=2"]
    await asked.stop()


@live
async def test_its_no_is_the_clients_answer(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cookie = fields_of(head, b"cookie")
        if cookie == [b"large"]:
            writer.write(b"HTTP/1.1 403 No\r\nContent-Type: a/b\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        elif cookie:
            writer.write(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer\r\nContent-Length: 4\r\n\r\nnope")
        else:
            writer.write(
                b"HTTP/1.1 302 Go\r\nLocation: https://login.example/?r=1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
                b"Connection: X-Hop\r\nX-Hop: 1\r\nServer: s\r\nContent-Length: 0\r\n\r\n"
            )

    asked = await Origin(answer).start()
    origin = Origin(named)
    async with running(tmp_path, origin, routes=route(asked.port)) as proxy:
        sent = await proxy.get()
        assert status_of(sent) == 302
        assert fields_of(sent, b"location") == [b"https://login.example/?r=1"]
        assert fields_of(sent, b"set-cookie") == [b"a=1", b"b=2"]
        assert not fields_of(sent, b"x-hop")
        refused = await proxy.get("/", "Cookie: x")
        assert status_of(refused) == 401
        assert refused.endswith(b"\r\n\r\nnope")
        assert fields_of(refused, b"www-authenticate") == [b"Bearer"]
        large = await proxy.get("/", "Cookie: large")
        assert (status_of(large), fields_of(large, b"content-length")) == (403, [b"0"])
        assert not fields_of(large, b"content-type")
    assert not origin.heads
    await asked.stop()


async def silent(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("answer", "status", "cause"),
    [
        (None, 502, b"auth_unreachable"),
        (silent, 504, b"auth_timeout"),
        (says(b"rubbish\r\n\r\n"), 502, b"auth_unreachable"),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Long: %b\r\n\r\n" % (b"x" * 20_000)),
            502,
            b"auth_unreachable",
        ),
    ],
)
def test_it_never_opens_because_nobody_answers(
    tmp_path: Path, answer: Answer | None, status: int, cause: bytes
) -> None:
    @live
    async def trial() -> None:
        asked = Origin(answer or named)
        if answer is not None:
            await asked.start()
        port = asked.port if answer is not None else free_port()
        origin = Origin(named)
        async with running(tmp_path, origin, routes=route(port, ", timeout: 100ms")) as proxy:
            found = await proxy.get()
            assert status_of(found) == status
            assert b'details="%b"' % cause in fields_of(found, b"proxy-status")[0]
        assert not origin.heads
        await asked.stop()

    trial()


@live
async def test_a_client_that_leaves_meanwhile_is_forgotten(tmp_path: Path) -> None:
    asked = await Origin(silent).start()
    origin = Origin(named)
    async with running(tmp_path, origin, routes=route(asked.port, ", timeout: 100ms")) as proxy:
        _, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: len(asked.heads) == 1)
        writer.close()
        await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 0)
        await proxy.until(lambda: not asked._writers)  # its timeout is over: nothing may be told then
        assert proxy.server.proxy.counters.ended == 1
    assert not origin.heads
    await asked.stop()


@live
async def test_no_cookie_of_one_client_reaches_it_with_another(tmp_path: Path) -> None:
    asked = await Origin(says(YES, b"Set-Cookie: session=ann\r\n\r\nok")).start()
    async with running(tmp_path, Origin(named), routes=route(asked.port)) as proxy:
        for _ in range(2):
            assert status_of(await proxy.get()) == 200
    assert not any(fields_of(head, b"cookie") for head in asked.heads)
    await asked.stop()


@live
async def test_it_hears_what_a_trusted_proxy_says_of_the_request(tmp_path: Path) -> None:
    asked = await Origin(says(YES, b"\r\nok")).start()
    claims = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example")
    for listener in ("", ", trusted_proxies: 127.0.0.1"):
        async with running(tmp_path, Origin(named), routes=route(asked.port), listener=listener) as proxy:
            assert status_of(await proxy.get("/", *claims)) == 200
    told = [
        [fields_of(head, b"x-forwarded-" + name)[0] for name in (b"for", b"proto", b"host")] for head in asked.heads
    ]
    assert told == [[b"127.0.0.1", b"http", b"any.example"], [b"192.0.2.7", b"https", b"shop.example"]]
    await asked.stop()


@live
async def test_what_a_clients_name_is_nobody_else_says(tmp_path: Path) -> None:
    """X-Forwarded-User is about who asks: from a trusted proxy such headers go on, but it has them of its client."""
    asked = await Origin(says(YES, b"X-Forwarded-User: ann\r\n\r\nok")).start()
    origin = Origin(named)
    table, trusts = route(asked.port, ", pass: [X-Forwarded-User, X-Groups]"), ", trusted_proxies: 127.0.0.1"
    async with running(tmp_path, origin, routes=table, listener=trusts, more="underscores: forward") as proxy:
        lies = ("X-Forwarded-User: root", "X_Forwarded_User: root", "X-Forwarded-Port: 1", "x_groups: root")
        assert status_of(await proxy.get("/", *lies)) == 200
    assert fields_of(origin.heads[0], b"x-forwarded-user") == [b"ann"]
    assert b"root" not in origin.heads[0]
    assert fields_of(origin.heads[0], b"x-forwarded-port") == [b"1"]
    assert fields_of(origin.heads[0], b"x-forwarded-for") == [b"127.0.0.1"]
    await asked.stop()
