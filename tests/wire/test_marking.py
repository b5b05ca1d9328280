"""Marks on requests and answers, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.wire.harness import Logged, Origin, fields_of, live, named, running, says, status_of

pytestmark = pytest.mark.unit


def routes(headers: str, more: str = "") -> str:
    return f"  - {{name: all, upstream: up, headers: {headers}{more}}}"


@live
async def test_requests_are_marked(tmp_path: Path) -> None:
    origin = Origin(named)
    rules = (
        '{request: {set: {X-Tier: "l7 {client} {listener}"}, add: {X-Many: a}, remove: [X-Debug], rename: {X-O: X-N}}}'
    )
    async with running(tmp_path, origin, routes=routes(rules)) as proxy:
        answer = await proxy.get("/", "x-tier: mine", "X-Many: b", "x-debug: 1", "X-O:  v")
    assert status_of(answer) == 200
    (head,) = origin.heads
    assert fields_of(head, b"x-tier") == [b"l7 127.0.0.1 http"]
    assert fields_of(head, b"x-many") == [b"b", b"a"]
    assert fields_of(head, b"x-debug") == []
    assert b"\r\nX-N:  v\r\n" in head


@live
async def test_values_of_requests_cannot_break_a_line(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=routes('{request: {set: {X-Q: "{query.q}"}}}')) as proxy:
        await proxy.get("/?q=a%0d%0aX-Evil:%201%00")
    (head,) = origin.heads
    assert fields_of(head, b"x-q") == [b"a  X-Evil: 1"]
    assert fields_of(head, b"x-evil") == []


@live
async def test_answers_are_marked_with_who_gave_them(tmp_path: Path) -> None:
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nServer: old\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok"))
    rules = '{response: {set: {X-By: "{backend}/{route}"}, remove: [Server], rename: {X-A: X-B}}}'
    async with running(tmp_path, origin, routes=routes(rules)) as proxy:
        answer = await proxy.get("/")
    assert answer.endswith(b"\r\n\r\nok")
    assert fields_of(answer, b"x-by") == [b"b0/all"]
    assert fields_of(answer, b"server") == fields_of(answer, b"x-a") == []
    assert fields_of(answer, b"x-b") == [b"1"]


@live
async def test_answers_of_our_own_are_marked_too(tmp_path: Path) -> None:
    rules = "{response: {set: {X-Frame-Options: DENY}, remove: [Retry-After]}, request_id: true}"
    async with running(tmp_path, 1, routes=routes(rules)) as proxy:
        answer = await proxy.get("/")
        head = await proxy.talk(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 502
    for each in (answer, head):
        assert fields_of(each, b"x-frame-options") == [b"DENY"]
        assert len(fields_of(each, b"x-request-id")[0]) == 32
        assert fields_of(each, b"content-length") == [b"%d" % len(answer.partition(b"\r\n\r\n")[2])]
    assert head.endswith(b"\r\n\r\n")


@live
async def test_request_id_is_the_same_for_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    origin = Origin(named)
    log = Logged(capfd)
    async with running(tmp_path, origin, routes=routes("{request_id: true}"), access_log="json") as proxy:
        first = await proxy.get("/", "X-Request-ID: mine")
        second = await proxy.get("/")
    assert len(log.statuses()) == 2
    ids = [fields_of(answer, b"x-request-id")[0].decode() for answer in (first, second)]
    assert len({*ids, "mine"}) == 3
    assert [fields_of(head, b"x-request-id") for head in origin.heads] == [[each.encode()] for each in ids]
    assert [json.loads(line)["request_id"] for line in log.text.splitlines() if line.startswith("{")] == ids


@live
async def test_request_id_of_a_trusted_proxy_is_kept(tmp_path: Path) -> None:
    origin = Origin(named)
    listener = ", trusted_proxies: 127.0.0.1"
    async with running(tmp_path, origin, routes=routes("{request_id: {header: X-Corr}}"), listener=listener) as proxy:
        kept = await proxy.get("/", "x-corr: mine-1")
        made = await proxy.get("/", "x-corr: not one")
    assert fields_of(kept, b"x-corr") == fields_of(origin.heads[0], b"x-corr") == [b"mine-1"]
    assert fields_of(made, b"x-corr") == fields_of(origin.heads[1], b"x-corr") != [b"not one"]


@live
async def test_traces_go_on_or_begin(tmp_path: Path) -> None:
    origin = Origin(named)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with running(tmp_path, origin, routes=routes("{traceparent: true}")) as proxy:
        await proxy.get("/", f"traceparent: 00-{trace}-00f067aa0ba902b7-00", "tracestate: a=1")
        await proxy.get("/", "tracestate: a=1")
    on, new = origin.heads
    assert re.fullmatch(
        rb"00-%b-(?!00f067aa0ba902b7)[0-9a-f]{16}-00" % trace.encode(), fields_of(on, b"traceparent")[0]
    )
    assert fields_of(on, b"tracestate") == [b"a=1"]
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fields_of(new, b"traceparent")[0])
    assert fields_of(new, b"tracestate") == []


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("rfc7239", [b"forwarded"]),
        ("both", [b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"]),
        ("none", []),
        ("x-forwarded", [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"]),
    ],
)
@live
async def test_who_asks_is_told_in_the_form_that_is_asked_for(tmp_path: Path, form: str, told: list[bytes]) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, routes=routes(f"{{forwarded: {form}}}")) as proxy:
        await proxy.get("/", "Forwarded: for=6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6")
    (head,) = origin.heads
    names = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip")
    assert [name for name in names if fields_of(head, name)] == told
    assert b"6.6.6.6" not in head
    if b"forwarded" in told:
        assert fields_of(head, b"forwarded") == [b"for=127.0.0.1;host=any.example;proto=http"]
    assert len(fields_of(head, b"via")) == 1


@live
async def test_what_is_told_of_the_client_can_be_set(tmp_path: Path) -> None:
    origin = Origin(named)
    rules = '{request: {set: {X-Forwarded-Proto: https, X-Real-IP: "{client}"}, remove: ["X-*"]}}'
    listener = ", trusted_proxies: 127.0.0.1"
    async with running(tmp_path, origin, routes=routes(rules), listener=listener) as proxy:
        await proxy.get("/", "X-Forwarded-For: 192.0.2.7", "X-Real-IP: 192.0.2.9")
    (head,) = origin.heads
    assert fields_of(head, b"x-forwarded-proto") == [b"https"]
    assert fields_of(head, b"x-real-ip") == [b"192.0.2.7"]
    assert fields_of(head, b"x-forwarded-for") == [b"192.0.2.7, 127.0.0.1"]


@live
async def test_proxy_header_never_reaches_a_backend(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        await proxy.get("/", "Proxy: http://evil.example:3128")
        await proxy.get("/", "pROXY: http://evil.example:3128", "X-Slow: \xe4")
    assert [fields_of(head, b"proxy") for head in origin.heads] == [[], []]


@live
async def test_another_attempt_has_the_same_marks_once(tmp_path: Path) -> None:
    broken, whole = Origin(says()), Origin(named, "whole")

    async def leaves(_: Origin, __: bytes, ___: object, writer: asyncio.StreamWriter) -> None:
        writer.close()

    broken.answer = leaves
    rules = '{request: {set: {X-A: "{client}"}}, request_id: true, traceparent: true, forwarded: both}'
    async with running(tmp_path, broken, whole, routes=routes(rules)) as proxy:
        answers = [await proxy.get("/") for _ in range(2)]
    assert [status_of(answer) for answer in answers] == [200, 200]
    assert broken.heads
    twice = [
        head for head in whole.heads if fields_of(head, b"x-request-id") == fields_of(broken.heads[0], b"x-request-id")
    ]
    assert twice == broken.heads[:1]
    for name in (b"x-a", b"x-request-id", b"traceparent", b"forwarded", b"x-forwarded-for", b"via"):
        assert len(fields_of(twice[0], name)) == 1
