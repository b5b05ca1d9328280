"""What backends see, and how their answers lead back, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import Origin, fields_of, live, named, running, says, status_of

pytestmark = pytest.mark.unit

STRIP = "  - {name: all, upstream: up, match: {path: /app}, rewrite: {strip_prefix: /app, add_prefix: /v2}}"
REGEX = """\
  - name: all
    match: {path: "~ ^/v1/(?P<rest>.*)$"}
    rewrite: {path: "/{rest}", query: {set: {by: "{client}"}, remove: [utm_*]}}
    upstream: up
  - name: old
    match: {path: /old}
    rewrite: {regex: {pattern: "^/old/(?P<y>[0-9]{4})/(?P<t>.*)$", to: "/posts/{y}-{t}"}}
    upstream: up"""
HOST = "  - {name: all, upstream: up, rewrite: {host: internal.example}}"


def targets(origin: Origin) -> list[bytes]:
    return [head.split(b" ")[1] for head in origin.heads]


@live
async def test_prefix_is_another_one_for_the_backend(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=STRIP) as proxy:
        for target in ("/app", "/app/", "/app/a%2fb/?x=%41&y", "/%61pp/x"):
            assert status_of(await proxy.get(target)) == 200
    assert targets(origin) == [b"/v2", b"/v2/", b"/v2/a%2fb/?x=%41&y", b"/v2/x"]


@live
async def test_body_goes_on_after_a_rewrite(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=STRIP) as proxy:
        answer = await proxy.talk(
            b"POST /app/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        )
        assert status_of(answer) == 200
        await proxy.until(lambda: origin.received.endswith(b"\r\n\r\nok"))
    assert origin.received.startswith(b"POST /v2/x HTTP/1.1\r\nHost: a\r\n")


@live
async def test_path_by_groups_and_query_by_names(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=REGEX) as proxy:
        for target in ("/v1/a%2fb?utm_x=1&q=%41", "/v1/", "/old/2024/x?y", "/old/x"):
            assert status_of(await proxy.get(target)) == 200
    assert targets(origin) == [b"/a%2Fb?q=%41&by=127.0.0.1", b"/?by=127.0.0.1", b"/posts/2024-x?y", b"/old/x"]


@live
async def test_what_a_rewrite_makes_dangerous_is_refused(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=REGEX + "\n" + STRIP.replace("all", "app")) as proxy:
        for target in ("/v1//evil.example", "/v1/%2e%2e/v1/x"):
            answer = await proxy.get(target)
            assert status_of(answer) == 400
            assert b"this path is not served" in answer
    assert not origin.heads


@live
async def test_host_for_the_backend_is_not_the_client_s(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=HOST) as proxy:
        await proxy.get("/")
        await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
    modern, old = origin.heads
    assert fields_of(modern, b"host") == [b"internal.example"]
    assert fields_of(modern, b"x-forwarded-host") == [b"any.example"]
    assert fields_of(old, b"host") == [b"internal.example"]
    assert fields_of(old, b"x-forwarded-host") == []


async def _answers(tmp_path: Path, routes: str, *lines: str, target: str = "/app/x") -> bytes:
    head = "".join(line + "\r\n" for line in lines)
    origin = Origin(says(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n{head}\r\n".encode()))
    origin_text = f"127.0.0.1:{origin.port}"
    origin.answer = says(
        f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n{head.replace('ORIGIN', origin_text)}\r\n".encode()
    )
    async with running(tmp_path, origin, routes=routes) as proxy:
        return (await proxy.get(target, host=f"shop.example:{proxy.port}")).replace(b"%d" % proxy.port, b"PORT")


@live
async def test_answers_lead_back(tmp_path: Path) -> None:
    lines = (
        "Location: /v2/login?next=/v2/x",
        "set-cookie: a=b;  Path=/v2/x; HttpOnly",
        "Set-Cookie: c=d",
        "Refresh: 1",
    )
    answer = await _answers(tmp_path, STRIP, *lines)
    assert fields_of(answer, b"location") == [b"/app/login?next=/v2/x"]
    assert b"\r\nset-cookie: a=b;  Path=/app/x; HttpOnly\r\nSet-Cookie: c=d\r\nRefresh: 1\r\n" in answer


@live
async def test_backend_s_own_address_becomes_the_public_one(tmp_path: Path) -> None:
    answer = await _answers(tmp_path, STRIP, "Location: http://ORIGIN/v2/a")
    assert fields_of(answer, b"location") == [b"http://shop.example:PORT/app/a"]
    answer = await _answers(
        tmp_path, HOST, "Location: http://internal.example/a", "Set-Cookie: a=b; domain=internal.example"
    )
    assert fields_of(answer, b"location") == [b"http://shop.example:PORT/a"]
    assert fields_of(answer, b"set-cookie") == [b"a=b; domain=shop.example"]


@live
async def test_answers_are_left_alone_where_it_is_asked_for(tmp_path: Path) -> None:
    routes = STRIP.replace("add_prefix: /v2", "add_prefix: /v2, answers: false")
    answer = await _answers(tmp_path, routes, "Location: /v2/x", "Set-Cookie: a=b; Path=/v2")
    assert fields_of(answer, b"location") == [b"/v2/x"]
    assert fields_of(answer, b"set-cookie") == [b"a=b; Path=/v2"]


@live
async def test_scheme_that_a_trusted_proxy_says_leads_back(tmp_path: Path) -> None:
    origin = Origin(named)
    origin.answer = says(
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:%d/v2/\r\n\r\n" % origin.port
    )
    async with running(tmp_path, origin, routes=STRIP, listener=", trusted_proxies: 127.0.0.1") as proxy:
        answers = await asyncio.gather(
            proxy.get("/app", "X-Forwarded-Proto: https"), proxy.get("/app", "X-Forwarded-Proto: ftp")
        )
    assert [fields_of(answer, b"location") for answer in answers] == [
        [b"https://any.example/app/"],
        [b"http://any.example/app/"],
    ]


@live
async def test_websocket_is_asked_for_at_the_rewritten_path(tmp_path: Path) -> None:
    origin = Origin(
        says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-X: 1\r\n\r\nhi")
    )
    ask = b"GET /app/chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with running(tmp_path, origin, routes=STRIP) as proxy:
        reader, writer = await proxy.connect()
        writer.write(ask)
        answer = await reader.readuntil(b"hi")
        writer.close()
    assert status_of(answer) == 101
    assert targets(origin) == [b"/v2/chat"]
