"""What features do together: each of these was wrong once."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import bcrypt
import pytest

from l7proxy.http import logins
from tests.wire.harness import (
    ALL,
    Origin,
    abort,
    fields_of,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
)
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

TRUSTED = ", trusted_proxies: 127.0.0.0/8"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Server: b\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def asking(port: int) -> str:
    return (
        f"  - {{name: all, upstream: up, access: {{forward_auth: {{url: 'http://127.0.0.1:{port}/', timeout: 9s}}}}}}"
    )


@live
async def test_a_tunnel_closes_the_breaker_as_any_answer_does(tmp_path: Path) -> None:
    said = [b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"] * 2 + [SWITCHED] + [OK]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said.pop(0))

    rule = "    breaker: {errors: 50%, of: 2, window: 10s, open: 50ms}"
    async with running(tmp_path, Origin(answer), upstream=rule) as proxy:
        assert [status_of(await proxy.get()) for _ in range(3)] == [503] * 3
        reader, writer = await proxy.connect()
        await asyncio.sleep(0.06)
        writer.write(UPGRADE)
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 101
        assert status_of(await proxy.get()) == 200
        writer.close()


@live
async def test_the_answer_that_opens_a_tunnel_is_marked_and_begins_a_session(tmp_path: Path) -> None:
    routes = (
        "  - {name: all, upstream: up, compress: true,"
        " headers: {request_id: true, response: {set: {X-Mark: m}, remove: [X-Server]}}}"
    )
    sticky = "    sticky: {cookie: SRV, signed: false}"
    async with running(tmp_path, Origin(says(SWITCHED)), upstream=sticky, routes=routes) as proxy:
        reader, writer = await proxy.connect()
        writer.write(UPGRADE)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert status_of(head) == 101
    assert fields_of(head, b"x-mark") == [b"m"]
    assert fields_of(head, b"x-request-id")
    assert not fields_of(head, b"x-server")
    assert fields_of(head, b"set-cookie")[0].startswith(b"SRV=")
    assert fields_of(head, b"upgrade") == [b"websocket"]


@live
async def test_a_backend_has_its_whole_time_after_somebody_else_was_asked(tmp_path: Path) -> None:
    async def slow(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(OK)

    async def quick(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.12)
        writer.write(OK)

    asked = await Origin(slow).start()
    more = "timeouts: {head: 200ms}"
    limit = "    timeouts: {response: 250ms}"
    async with running(tmp_path, Origin(quick), upstream=limit, more=more, routes=asking(asked.port)) as proxy:
        assert [status_of(await proxy.get()) for _ in range(2)] == [200, 200]
    await asked.stop()


@live
async def test_whoever_leaves_has_nobody_asked_any_longer(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def never(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        gone.set()
        raise EOFError

    asked = await Origin(never).start()
    async with running(tmp_path, Origin(named), routes=asking(asked.port)) as proxy:
        _, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: bool(asked.heads))
        abort(writer)
        async with asyncio.timeout(3):
            await gone.wait()
    await asked.stop()


@live
async def test_a_session_stands_above_the_link_that_a_connection_has_already(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"PROXY "):
            head = head.partition(b"\r\n")[2]
        await named(origin, head, reader, writer)

    upstream = "    proxy_protocol: v1\n    sticky: {cookie: SRV, signed: false}"
    origins = Origin(answer, "one"), Origin(answer, "two")
    async with running(tmp_path, *origins, upstream=upstream, listener=TRUSTED) as proxy:
        cookies: dict[bytes, str] = {}
        for _ in range(2):
            got = await proxy.get("/", "X-Forwarded-For: 192.0.2.1")
            cookies[got[-3:]] = fields_of(got, b"set-cookie")[0].partition(b";")[0].decode()
        assert set(cookies) == {b"one", b"two"}
        reader, writer = await proxy.connect()
        for name in (b"one", b"two", b"two", b"one"):
            line = f"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: {cookies[name]}\r\n\r\n"
            writer.write(line.encode())
            assert (await one_answer(reader))[1] == name
        writer.close()
    assert [origin.connections for origin in origins] == [2, 2]


@live
async def test_who_has_no_key_does_not_wait_for_one_backend(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/held" in head:
            await free.wait()
        writer.write(OK)

    upstream = "    sticky: {header: X-Session}\n    max_connections: 1\n    queue: {length: 9, timeout: 200ms}"
    async with running(tmp_path, Origin(answer), Origin(answer), upstream=upstream) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: proxy.server.proxy.counters.in_flight == 1)
        assert [status_of(await proxy.get()) for _ in range(3)] == [200] * 3
        free.set()
        assert (await one_answer(reader))[1] == b"ok"
        writer.close()


@live
async def test_what_a_client_says_of_its_scheme_before_a_trusted_proxy_is_nothing(tmp_path: Path) -> None:
    listener = TRUSTED + ", redirect_to_https: true"
    async with running(tmp_path, Origin(named), listener=listener) as proxy:
        assert status_of(await proxy.get("/", "X-Forwarded-Proto: https, http")) == 308
        assert status_of(await proxy.get("/", "X-Forwarded-Proto: http, https")) == 200


@pytest.mark.parametrize("path", ["..%2f..%2fadmin", "x/../../../admin", "t;/x", "", "a/b"])
@live
async def test_nothing_but_a_token_goes_to_who_answers_challenges(tmp_path: Path, path: str) -> None:
    origin = Origin(named)
    routes = ALL.replace("}", ", access: {deny: [127.0.0.0/8]}}")
    async with running(tmp_path, origin, listener=", acme: {upstream: up}", routes=routes) as proxy:
        assert status_of(await proxy.get("/.well-known/acme-challenge/" + path)) in {400, 403, 404}
        assert status_of(await proxy.get("/.well-known/acme-challenge/t0ken-_")) == 200
    assert len(origin.heads) == 1


@live
async def test_what_a_backend_says_unasked_over_tls_answers_nobody(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "backend")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    start = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = 16384 - len(start % 16384)
    # Of two full records, OpenSSL's buffer takes one, and the beginning of the next.
    said = [start % size + b"a" * size + start % size + b"evil" * (size // 4) + b"." * (size % 4)]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said.pop() if said else start % 4 + b"good")

    origin = Origin(answer, tls=context)
    async with running(tmp_path, origin, upstream=f"    tls: {{ca: {certificate}}}") as proxy:
        one = b"GET / HTTP/1.1\r\nHost: a\r\n"
        got = await proxy.talk(one + b"\r\n" + one + b"Connection: close\r\n\r\n")
    assert b"evil" not in got
    assert got.endswith(b"good")


@live
async def test_guesses_of_a_password_are_limited_by_rate(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"one", bcrypt.gensalt(4)).decode()
    routes = (
        f"  - {{name: all, upstream: up, access: {{basic: {{realm: r, users: {{ann: '{hashed}'}}}}}},"
        " limits: {rate: {limit: 2/h, burst: 2, by: client}}}"
    )
    login = "Authorization: Basic " + base64.b64encode(b"ann:two").decode()
    async with running(tmp_path, Origin(named), routes=routes) as proxy:
        assert [status_of(await proxy.get("/", login)) for _ in range(3)] == [401, 401, 429]


@live
async def test_what_a_route_sets_is_not_said_otherwise_with_underscores(tmp_path: Path) -> None:
    rules = "request_id: true, request: {set: {X-User: '{user}'}, remove: [X-A-B]}"
    routes = f"  - {{name: all, upstream: up, headers: {{{rules}}}}}"
    origin = Origin(named)
    async with running(tmp_path, origin, routes=routes, more="underscores: forward") as proxy:
        await proxy.get("/", "X_User: root", "x_a-b: 1", "X_Request_ID: 1", "X_Other: kept", "a_b: kept")
    head = origin.heads[0].lower()
    assert b"root" not in head
    assert b"x_" not in head.replace(b"x_other: kept", b"")
    assert b"x_other: kept" in head
    assert b"a_b: kept" in head


@live
async def test_not_everybody_waits_for_what_becomes_of_one_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MOST_SHARING", 2)
    tried = logins.Logins()
    heard: asyncio.Queue[bool | None] = asyncio.Queue()
    hashed = bcrypt.hashpw(b"one", bcrypt.gensalt(4)).decode()
    key = tried.key_of("ann", b"one", hashed)
    assert [tried.attempt(key, b"one", hashed, True, heard.put_nowait) for _ in range(3)] == [True, True, False]
    assert [await heard.get(), await heard.get()] == [True, True]
    tried.close()


@live
async def test_rules_see_who_it_is_as_it_was_proven_and_not_as_the_client_says(tmp_path: Path) -> None:
    asked = await Origin(says(b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n")).start()
    routes = (
        f"  - {{name: all, upstream: up, "
        f"access: {{forward_auth: {{url: 'http://127.0.0.1:{asked.port}/', pass: X-User}}}},"
        " headers: {request: {set: {X-Remote: '{header.X-User}'}}}}"
    )
    origin = Origin(named)
    async with running(tmp_path, origin, routes=routes) as proxy:
        assert status_of(await proxy.get("/", "X-User: root")) == 200
    assert fields_of(origin.heads[0], b"x-remote") == [b"ann"]
    assert fields_of(origin.heads[0], b"x-user") == [b"ann"]
    await asked.stop()
