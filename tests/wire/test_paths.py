"""Paths and bodies go on as they came; what a path hides is refused where it would be read in another way behind."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from tests.wire.corpus import Bad, bad
from tests.wire.harness import ALL, Origin, fields_of, live, running, says, statuses_of, takes
from tests.wire.verdicts import LEFT_OPEN_S, expect_none, fault_of_answer, faults_of_refusals

pytestmark = pytest.mark.unit

AS_THEY_CAME = [
    "/", "//", "///", "/a//b", "//a", "/a/", "/a%2Fb", "/a%2fb", "/%61", "/%41%7e%7E", "/A/a", "/a;b=c;d", "/;",
    "/a;/b", "/.", "/./", "/./a", "/a/.", "/a/./b", "/a.b", "/.a", "/..a", "/a..", "/a..b", "/...", "/.../a",
    "/....", "/a/.b/..c/d..", "/%2e", "/%2E/a", "/a/%2e/b", "/a%2e%2eb", "/%2e%2ea",
    "/a%20b", "/a+b", "/%C3%A4", "/%c3%a4", "/%ff", "/%25", "/%252e%252e/a", "/%2500", "/%252f", "/a|b",
    "/a@b:c", "/'()*!$&,=", "/~a", "/-._~", "/?", "/??", "/?a=%2e%2e/../..", "/?/../", "/a?../b", "/?a=%00", "/?%",
    "/?a+b", "/a?b=c/%2F;d", "/" + "a/" * 300, "/" + "%41" * 300,
]  # fmt: skip
"""Nothing here climbs, and nothing holds a NUL."""

CLIMBING = [
    "/..", "/../", "/../a", "/a/..", "/a/../", "/a/../b", "/a/b/../../c", "/a/./../b", "//..", "//../a", "/a//../b",
    "/%2e%2e", "/%2E%2E/a", "/.%2e/a", "/%2e./a", "/a/%2e%2e/b", "/a/.%2E", "/..%2fa", "/..%2Fa", "/a%2f..",
    "/a%2f../b", "/a%2f..%2fb", "/a/%2e%2e%2fb", "/%2e%2e%2f%2e%2e%2fa", "/..\\a", "/a\\..\\b", "/a/..\\b",
    "/..%5ca", "/a%5C..%5cb", "/%2e%2e%5ca", "/a%5c%2e%2e", "/\\..", "/..?a", "/..;/a", "/a/..;b=c/d", "/%2e%2e;/a",
    "/..;", "/a/..?b=c", "http://a/../b", "http://a/b/%2e%2e", "http://a/b%2f..",
]  # fmt: skip
BROKEN = ["/%", "/%2", "/%zz", "/a%2%65", "/%0", "/%g0?a", "http://a/%"]
"""No URI (RFC 3986 2.1): each server decodes them in its own way."""
NULS = ["/%00", "/a%00", "/a%00.html", "/a/%00/b", "/%00?a", "/a%2f%00", "http://a/%00"]


def request(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


def target_of(head: bytes) -> str:
    return head.split(b" ")[1].decode()


def route(policy: str) -> str:
    return f"  - {{name: all, upstream: up, dangerous_path: {policy}}}"


@pytest.mark.parametrize("policy", [None, "refuse", "forward"])
@live
async def test_harmless_paths_arrive_byte_for_byte(tmp_path: Path, policy: str | None) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=route(policy) if policy else ALL) as proxy:
        wrong = {}
        for target in AS_THEY_CAME:
            got, count = await proxy.send(request(target)), len(origin.heads)
            arrived = target_of(origin.heads[-1]) if statuses_of(got) == [200] else ""
            if arrived != target:
                wrong[target[:60]] = f"arrived as {arrived!r}, got {got[:60]!r}, {count} so far"
    expect_none(wrong)


@pytest.mark.parametrize("targets", [CLIMBING, NULS, BROKEN], ids=["climbing", "NUL", "broken escapes"])
@live
async def test_paths_that_hide_something_are_refused_by_default(tmp_path: Path, targets: list[str]) -> None:
    cases: dict[str, Bad] = {target: bad(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()) for target in targets}
    cases["in a POST"] = bad(f"POST {targets[0]} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".encode())
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        faults = {}
        for name, case in cases.items():  # the framing is good, so the connection may live on
            got = await proxy.send(case.request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            if fault := fault_of_answer(got, case.statuses):
                faults[name] = fault
    expect_none(faults)
    assert origin.received == b""


@live
async def test_forward_sends_even_dangerous_paths_as_they_came(tmp_path: Path) -> None:
    origin, targets = Origin(takes), [target for target in CLIMBING + NULS + BROKEN if target.startswith("/")]
    async with running(tmp_path, origin, routes=route("forward")) as proxy:
        for target in targets:
            assert statuses_of(await proxy.send(request(target))) == [200], target
    assert [target_of(head) for head in origin.heads] == targets


@live
async def test_normalise_sends_the_normal_form(tmp_path: Path) -> None:
    """RFC 3986 6.2.2: needless escapes undone, dot segments resolved. The query stays."""
    normal = {
        "/a/../b": "/b", "/a/./b": "/a/b", "/..": "/", "/../../a": "/a", "/a/b/..": "/a/", "/%2e%2e/a": "/a",
        "/%61/b": "/a/b", "/a//b": "/a//b", "/a;b=c": "/a;b=c", "/a/../b?c=/../%61": "/b?c=/../%61", "/%7Ea": "/~a",
        "/a%20b": "/a%20b", "/a": "/a", "/": "/", "/a/%2e/b": "/a/b",
    }  # fmt: skip
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=route("normalise")) as proxy:
        for target in normal:
            assert statuses_of(await proxy.send(request(target))) == [200], target
        count = len(origin.heads)
        hidden = [target for target in CLIMBING if "%2f" in target.lower() or "\\" in target or "%5c" in target.lower()]
        for target in NULS + BROKEN + hidden:
            assert statuses_of(await proxy.send(request(target))) == [400], target
        assert len(origin.heads) == count
    assert {target: target_of(head) for target, head in zip(normal, origin.heads, strict=True)} == normal


ROUTES = """\
  - {name: open, match: {path: /open}, upstream: up, dangerous_path: forward}
  - {name: closed, match: {path: /closed}, upstream: up, dangerous_path: refuse}
  - {name: tidy, match: {path: /tidy}, upstream: up, dangerous_path: normalise}"""


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        ("/open/../open/a", "/open/../open/a"),
        ("/closed/../open/a", "/closed/../open/a"),
        ("/open/../closed/a", None),
        ("/open/%2e%2e/closed/a", None),
        ("/closed/a/../b", None),
        ("/closed/a", "/closed/a"),
        ("/%63losed/a", "/%63losed/a"),
        ("/./closed/a", "/./closed/a"),
        ("/./closed/../tidy/a", "/tidy/a"),
        ("/tidy/../tidy/./a", "/tidy/a"),
        ("/tidy/%61", "/tidy/a"),
    ],
)
@live
async def test_the_policy_is_that_of_the_route_which_the_normal_form_takes(
    tmp_path: Path, target: str, arrives: str | None
) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=ROUTES) as proxy:
        got = await proxy.send(request(target))
    assert statuses_of(got) == [200 if arrives else 400]
    assert [target_of(head) for head in origin.heads] == ([arrives] if arrives else [])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/admin", 200), ("/admin/", 200), ("/admin/x", 200), ("/%61dmin", 200), ("/%61%64%6D%69%6e/x", 200),
        ("/./admin", 200), ("/admin/./x", 200), ("/%2e/admin", 200), ("/admin?x", 200), ("/admin;x", 404),
        ("//admin", 404), ("/adminx", 404), ("/ADMIN", 404), ("/x%2fadmin", 404), ("/admin%2fx", 404),
        ("/x", 404), ("/%2561dmin", 404),
    ],
)  # fmt: skip
@live
async def test_routing_sees_the_normal_form(tmp_path: Path, target: str, status: int) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, routes="  - {match: {path: /admin}, upstream: up}") as proxy:
        got = await proxy.send(request(target))
    assert statuses_of(got) == [status]
    assert [target_of(head) for head in origin.heads] == ([target] if status == 200 else [])


@live
async def test_no_target_gives_an_answer_that_is_not_http(tmp_path: Path) -> None:
    """Each octet in a path, raw: passed as it came or refused, and never anything else on the wire."""
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin) as proxy:
        for octet in range(256):
            count = len(origin.heads)
            got = await proxy.send(
                b"GET /a%cb HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % octet, patience_s=LEFT_OPEN_S
            )
            if statuses_of(got) == [200]:
                fine = origin.heads[count].startswith(b"GET /a%cb HTTP/1.1\r\n" % octet) and 0x20 < octet < 0x7F
            else:
                fine = not fault_of_answer(got, [400]) and len(origin.heads) == count
            if not fine and octet != 0x3F:
                faults[f"{octet:02x}"] = f"got {got[:80]!r}"
    expect_none(faults)


BODIES = {
    "gzip": gzip.compress(b"a" * 10_000),
    "deflate": zlib.compress(b"a" * 10_000),
    "br": b"\x8b\x00\x80aaa\x03",
    "gzip, gzip": gzip.compress(gzip.compress(b"a")),
    "x-what": bytes(range(256)),
    "gzip ": b"this is no gzip",
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@live
async def test_nothing_is_decompressed_or_encoded_anew(tmp_path: Path, chunked: bool) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for coding, body in BODIES.items():
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
            lines = f"Content-Encoding: {coding}\r\nAccept-Encoding: gzip;q=0.1, br".encode()
            head = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + lines + b"\r\n" + framing + b"\r\n\r\n"
            assert statuses_of(await proxy.send(head + sent)) == [200], coding
    assert [message.body for message in origin.messages] == list(BODIES.values())
    assert [fields_of(message.head, b"content-encoding") for message in origin.messages] == [
        [coding.strip().encode()] for coding in BODIES
    ]
    assert {fields_of(message.head, b"accept-encoding")[0] for message in origin.messages} == {b"gzip;q=0.1, br"}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("coding", BODIES)
@live
async def test_no_answer_is_decompressed_or_encoded_anew(tmp_path: Path, coding: str, chunked: bool) -> None:
    body = BODIES[coding]
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nETag: x\r\nVary: A\r\n".encode() + framing + b"\r\n\r\n"
    async with running(tmp_path, Origin(says(head, sent))) as proxy:
        got = await proxy.send(request("/"))
    assert body in got
    assert fields_of(got, b"content-encoding") == [coding.strip().encode()]
    assert fields_of(got, b"etag") == [b"x"]
    assert fields_of(got, b"content-length") == ([] if chunked else [b"%d" % len(body)])


@live
async def test_a_refused_path_does_not_hide_bad_framing(tmp_path: Path) -> None:
    """Whatever is found first: one answer, and the connection ends, since nobody knows where the request did."""
    cases = {
        "two lengths": bad(b"POST /../ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        "two framings": bad(
            b"POST /%00 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
    }
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))
