"""Answers of the proxy's own: redirects, fixed answers, maintenance, and what is said where no backend can answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import (
    ALL,
    Origin,
    fields_of,
    free_port,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
    stuck_port,
)

pytestmark = pytest.mark.unit


def routes(*lines: str) -> str:
    return "\n".join(f"  - {line}" for line in lines)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@live
async def test_redirects_lead_where_they_say(tmp_path: Path) -> None:
    table = routes(
        '{match: {path: /all}, redirect: {to: "https://{host}{path}", status: 308}}',
        '{match: {path: /port}, redirect: {to: "https://{host}:8443{uri}", status: 301}}',
        '{match: {path: "~ ^/old/(?P<rest>.*)$"}, redirect: {to: "/{rest}"}}',
        '{match: {path: /own}, redirect: {to: "/new?a=1#top", status: 303}}',
        '{match: {path: /drop}, redirect: {to: "/new", keep_query: false, status: 307}}',
        '{match: {path: /frag}, redirect: {to: "/new#top"}}',
        '{match: {path: "~ ^/by/(?P<who>[^/]+)$"}, redirect: {to: "https://{who}.example.org/"}}',
    )
    origin = Origin(named)
    async with running(tmp_path, origin, routes=table) as proxy:

        async def led(target: str) -> tuple[int, bytes]:
            answer = await proxy.get(target, host="Shop.Example:80")
            assert body_of(answer) == b""
            assert fields_of(answer, b"content-length") == [b"0"]
            return status_of(answer), fields_of(answer, b"location")[0]

        assert await led("/all/a%2Fb?x=1&y") == (308, b"https://shop.example/all/a%2Fb?x=1&y")
        assert await led("/port?x") == (301, b"https://shop.example:8443/port?x")
        assert await led("/old/a/b?q=1") == (302, b"/a/b?q=1")
        assert await led("/old//evil.example/x") == (302, b"/evil.example/x")
        assert await led("/old/%5Cevil.example") == (302, b"/%5Cevil.example")
        assert await led("/own?q=1") == (303, b"/new?a=1#top")
        assert await led("/drop?q=1") == (307, b"/new")
        assert await led("/frag?q=1") == (302, b"/new?q=1#top")
        assert await led("/by/ann") == (302, b"https://ann.example.org/")
        refused = await proxy.get("/by/evil.example%2F")
        assert status_of(refused) == 400
        assert not fields_of(refused, b"location")
        refused = await proxy.talk(b"GET /all HTTP/1.0\r\n\r\n")
        assert status_of(refused) == 400
    assert not origin.heads


@live
async def test_fixed_answers_are_whole_and_keep_the_connection(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"<p>\xff" * 100)
    table = routes(
        "{match: {path: /a}, respond: {body: hello, headers: {X-One: '1', Cache-Control: no-store}}}",
        f"{{match: {{path: /f}}, respond: {{status: 404, file: {page}}}}}",
        "{match: {path: /n}, respond: {status: 204, headers: {X-One: '1'}}}",
        "{match: {path: /m}, respond: {status: 304, headers: {ETag: 'W/\"1\"'}}}",
        "{match: {path: /t}, respond: {body: '{}', type: application/json}}",
    )
    async with running(tmp_path, Origin(named), routes=table) as proxy:
        reader, writer = await proxy.connect()

        async def asked(method: str, path: str) -> tuple[bytes, bytes]:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            return await one_answer(reader, has_body=method != "HEAD")

        head, body = await asked("GET", "/a")
        assert (status_of(head), body) == (200, b"hello")
        assert fields_of(head, b"x-one") == [b"1"]
        assert fields_of(head, b"content-type") == [b"text/plain; charset=utf-8"]
        head, _ = await asked("HEAD", "/a")
        assert fields_of(head, b"content-length") == [b"5"]
        head, body = await asked("GET", "/f")
        assert (status_of(head), body) == (404, b"<p>\xff" * 100)
        assert fields_of(head, b"content-type") == [b"text/html; charset=utf-8"]
        for path, status in [("/n", 204), ("/m", 304)]:
            head, _ = await asked("GET", path)
            assert status_of(head) == status
            assert not fields_of(head, b"content-length")
        head, body = await asked("POST", "/t")
        assert (body, fields_of(head, b"content-type")) == (b"{}", [b"application/json"])
        writer.close()


@live
async def test_maintenance_is_for_everybody_but_some(tmp_path: Path) -> None:
    table = routes(
        "{match: {path: /all}, upstream: up, maintenance: true}",
        "{match: {path: /off}, upstream: up, maintenance: false}",
        "{match: {path: /some}, upstream: up, maintenance: {retry_after: 10m, body: later, allow: 192.0.2.0/24}}",
    )
    origin = Origin(named)
    async with running(tmp_path, origin, routes=table, listener=", trusted_proxies: 127.0.0.1") as proxy:
        answer = await proxy.get("/all")
        assert status_of(answer) == 503
        assert fields_of(answer, b"retry-after") == [b"300"]
        assert b'details="maintenance"' in fields_of(answer, b"proxy-status")[0]
        answer = await proxy.get("/some")
        assert (status_of(answer), body_of(answer)) == (503, b"later")
        assert fields_of(answer, b"retry-after") == [b"600"]
        assert not origin.heads
        assert status_of(await proxy.get("/some", "X-Forwarded-For: 192.0.2.9")) == 200
        assert status_of(await proxy.get("/off")) == 200


@live
async def test_sorry_is_said_where_no_backend_can(tmp_path: Path) -> None:
    page = tmp_path / "sorry.html"
    page.write_text("<h1>sorry</h1>")
    sorry = f"    sorry: {{file: {page}, retry_after: 1m}}"
    async with running(tmp_path, free_port(), free_port(), upstream=sorry) as proxy:
        answer = await proxy.get()
        assert (status_of(answer), body_of(answer)) == (503, b"<h1>sorry</h1>")
        assert fields_of(answer, b"retry-after") == [b"60"]
        assert b"connection_refused" in fields_of(answer, b"proxy-status")[0]
        page.write_text("changed: a reload reads it anew")
        proxy.server.request_reload()
        await asyncio.sleep(0)
        await proxy.until(
            lambda: (
                (of := next(iter(proxy.server.proxy.snapshot.config.upstreams.values())).sorry) is not None
                and of.content.body.startswith(b"changed")
            )
        )
    slow = "    sorry: {status: 200, body: soon}\n    timeouts: {connect: 50ms}"
    async with running(tmp_path, stuck_port(), upstream=slow) as proxy:
        answer = await proxy.get()
        assert (status_of(answer), body_of(answer)) == (200, b"soon")


@live
async def test_sorry_is_not_for_what_a_backend_has_done(tmp_path: Path) -> None:
    origin = Origin(says(b"no answer\r\n\r\n"))
    async with running(tmp_path, origin, upstream="    sorry: {body: soon}", routes=ALL) as proxy:
        answer = await proxy.get()
    assert status_of(answer) == 502
    assert b"soon" not in answer
