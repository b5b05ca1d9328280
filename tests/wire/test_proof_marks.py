"""What backends are told of a request, what paths become on the way, and what leads back: all from outside."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.harness import fields_of
from tests.wire.outside import V2_SIGNATURE, Answered, Back, Line, Program, its_name, ok, until, upstreams

pytestmark = pytest.mark.unit

LIAR, TRUSTED = "127.0.0.1", "127.0.5.1"
ROUTES = """\
access_log: json
name: edge
routes:
  - {match: {host: plain}, upstream: up}
  - {match: {host: both}, upstream: up, headers: {forwarded: both, request_id: true, traceparent: true}}
  - {match: {host: rfc}, upstream: up, headers: {forwarded: rfc7239, request_id: {header: X-Correlation-ID}}}
  - {match: {host: none}, upstream: up, headers: {forwarded: none, traceparent: {sampled: false}}}
  - match: {host: rules, path: "~ ^/v1/(?P<rest>.*)$"}
    name: rules
    upstream: up
    rewrite: {path: "/new/{rest}"}
    headers:
      request:
        set:
          X-Tier: "l7 {client} {path} {rest} {route}"
          X-Old: "{header.x-old}!"
          X-Query: "{query.q}"
          X-Void: "{cookie.no}"
        add: {X-More: two}
        remove: [X-Debug, "X-Internal-*"]
        rename: {X-From: X-To}
      response:
        {set: {X-Frame-Options: DENY, X-By: "{backend}"}, add: {X-App: proxy}, remove: [Server], rename: {X-A: X-B}}
  - {match: {host: v1}, upstream: v1}
  - {match: {host: v2}, upstream: v2}
  - match: {host: moved, path: /app}
    upstream: up
    rewrite:
      strip_prefix: /app
      add_prefix: /v2
      host: "internal.example:81"
      query: {set: {by: "{client}"}, remove: ["utm_*"]}
  - match: {host: stripped, path: /app}
    upstream: up
    rewrite: {strip_prefix: /app}
  - {match: {host: silent, path: /app}, upstream: up, rewrite: {strip_prefix: /app, answers: false}}
  - match: {host: regex}
    upstream: up
    rewrite: {regex: {pattern: "^/old/(?P<x>.*)$", to: "/new/{x}"}, query: {add: {n: "1"}}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A program, its backends, and a connection of a peer that nobody trusts and of one that is."""

    proxy: Program
    up: Back
    proxied: dict[str, Back]
    liar: Line
    trusted: Line

    def seen(self) -> bytes:
        return self.up.heads[-1]

    def told(self, name: str) -> list[str]:
        """A header of the last request at the backend."""
        return [value.decode() for value in fields_of(self.seen(), name.lower().encode())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    up, v1, v2 = Back("up"), Back("v1", proxied=True), Back("v2", proxied=True)
    keys = {"v1": "proxy_protocol: v1", "v2": "proxy_protocol: v2"}
    text = ROUTES + upstreams({"up": [up], "v1": [v1], "v2": [v2]}, keys)
    folder = tmp_path_factory.mktemp("marks") / "run"
    with (
        Program(folder, text, listener=", trusted_proxies: [127.0.5.0/24]") as proxy,
        Line(proxy.port, LIAR) as liar,
        Line(proxy.port, TRUSTED) as trusted,
    ):
        yield Place(proxy, up, {"v1": v1, "v2": v2}, liar, trusted)
    for back in (up, v1, v2):
        back.stop()


@pytest.fixture(autouse=True)
def anew(place: Place) -> None:
    place.up.says = its_name


LIES = (
    "X-Forwarded-For: 198.51.100.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "Forwarded: for=198.51.100.9;proto=https;host=evil.example",
    "X-Real-IP: 198.51.100.9",
    "X-Request-ID: chosen-by-the-client",
)


def test_what_a_client_says_of_itself_is_replaced(place: Place) -> None:
    for lies in ((), LIES, LIES[::-1]):
        assert place.liar.ask("/", *lies, host="plain").status == 200
        assert place.told("x-forwarded-for") == [LIAR]
        assert place.told("x-forwarded-proto") == ["http"]
        assert place.told("x-forwarded-host") == ["plain"]
        assert place.told("via") == ["1.1 edge"]
        for name in ("x-forwarded-port", "forwarded", "x-real-ip"):
            assert not place.told(name)
        place.liar.ask("/", *lies, host="both")
        assert place.told("x-forwarded-for") == [LIAR]
        forwarded = re.split("[;,]", place.told("forwarded")[0].lower().replace('"', ""))
        assert {"for=127.0.0.1", "proto=http", "host=both"} <= {each.strip() for each in forwarded}
        assert len(place.told("forwarded")) == 1
        (made,) = place.told("x-request-id")
        assert made != "chosen-by-the-client"
        place.liar.ask("/", *lies, host="rfc")
        assert len(place.told("forwarded")) == 1
        assert not place.told("x-forwarded-for")
        place.liar.ask("/", *lies, host="none")
        for name in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"):
            assert not place.told(name)


def test_what_trusted_proxies_say_stands_and_grows(place: Place) -> None:
    lines = ("X-Forwarded-For: 203.0.113.66, 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example")
    answer = place.trusted.ask("/", *lines, "X-Request-ID: theirs-1", host="both")
    assert place.told("x-forwarded-for") == [f"203.0.113.66, 192.0.2.7, {TRUSTED}"]
    assert place.told("x-forwarded-proto") == ["https"]
    assert place.told("x-forwarded-host") == ["shop.example"]
    assert place.told("x-request-id") == answer.all("x-request-id") == ["theirs-1"]
    place.trusted.ask("/", "Forwarded: for=192.0.2.8", host="rfc")
    assert [each.count("for=") for each in place.told("forwarded")] == [2]
    assert place.told("forwarded")[0].startswith("for=192.0.2.8")
    place.trusted.ask("/v1/x", lines[0], host="rules")
    assert place.told("x-tier") == ["l7 192.0.2.7 /v1/x x rules"], "the nearest one that nobody trusts"

    def logged() -> list[str]:
        records = (json.loads(line) for line in place.proxy.said.splitlines() if line.startswith("{"))
        return [record["client"] for record in records if record.get("request_id") == "theirs-1"]

    until(lambda: logged() == ["192.0.2.7"], "the log has the id and the client")


def test_each_request_has_an_id_of_its_own(place: Place) -> None:
    ids = set()
    for _ in range(20):
        answer = place.liar.ask("/", host="both")
        assert answer.all("x-request-id") == place.told("x-request-id")
        ids |= set(answer.all("x-request-id"))
    assert len(ids) == 20
    answer = place.liar.ask("/", host="rfc")
    assert answer.all("x-correlation-id") == place.told("x-correlation-id") != []


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_goes_on_where_it_is_valid_and_begins_where_it_is_not(place: Place) -> None:
    place.liar.ask("/", f"traceparent: {PARENT}", "tracestate: a=1", host="both")
    (parent,) = place.told("traceparent")
    assert re.fullmatch("00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", parent)
    assert parent != PARENT
    assert place.told("tracestate") == ["a=1"]
    broken = [
        (),
        ("traceparent: nonsense",),
        (f"traceparent: {PARENT.upper()}",),
        (f"traceparent: {PARENT.replace('0af7651916cd43dd8448eb211c80319c', '0' * 32)}",),
        (f"traceparent: {PARENT}", f"traceparent: {PARENT}"),
    ]
    traces = set()
    for lines in broken:
        place.liar.ask("/", *lines, "tracestate: a=1", host="both")
        (parent,) = place.told("traceparent")
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent), lines
        assert "0af7651916cd43dd8448eb211c80319c" not in parent, lines
        assert not place.told("tracestate"), lines
        traces.add(parent)
    assert len(traces) == len(broken)
    place.liar.ask("/", host="none")
    assert place.told("traceparent")[0].endswith("-00")


def test_rules_see_what_came_and_not_each_other(place: Place) -> None:
    place.up.says = lambda back, head: ok(b"x", "Server: s", "X-A: 1", "X-B: 2", "X-App: own", "X-Frame-Options: ALLOW")
    came = (
        "X-Tier: lie",
        "X-Old: o",
        "X-More: one",
        "X-Debug: 1",
        "X-Internal-A: 1",
        "X-From: f",
        "X-To: old",
        "X-Void: v",
    )
    answer = place.liar.ask("/v1/a%2fb?q=x%20y", *came, host="rules")
    assert place.seen().startswith(b"GET /new/a%2Fb?q=x%20y HTTP/1.1\r\n")
    told = {name: place.told(name) for name in ("x-tier", "x-old", "x-more", "x-to", "x-query")}
    assert told == {
        "x-tier": ["l7 127.0.0.1 /v1/a%2fb a%2Fb rules"],
        "x-old": ["o!"],
        "x-more": ["one", "two"],
        "x-to": ["f"],
        "x-query": ["x y"],
    }
    for name in ("x-debug", "x-internal-a", "x-from", "x-void"):
        assert not place.told(name), name
    assert answer.all("server") == []
    assert (answer.all("x-frame-options"), answer.all("x-by")) == (["DENY"], ["up"])
    assert (answer.all("x-b"), answer.all("x-a")) == (["1"], [])
    assert answer.all("x-app") == ["own", "proxy"]


@settings(max_examples=30)
@given(value=st.text(max_size=40))
def test_no_value_of_a_request_makes_a_line_of_its_own(place: Place, value: str) -> None:
    """Decoded from the query, with whatever is in it."""
    quoted = "".join(f"%{octet:02X}" for octet in value.encode("utf-8", "replace")).replace("%00", "%20")
    assert place.liar.ask(f"/v1/x?q={quoted}&q=2", host="rules").status == 200
    assert len(place.told("x-query")) <= 1
    assert len(fields_of(place.seen(), b"x-tier")) == 1
    assert place.seen().count(b"\r\n") == place.seen().count(b"\n") == place.seen().count(b"\r")


def test_backends_are_told_by_proxy_protocol_who_came_where(place: Place) -> None:
    for client, lines, source in (
        (LIAR, (), "127.0.0.1"),
        (LIAR, LIES, "127.0.0.1"),
        (TRUSTED, ("X-Forwarded-For: 192.0.2.7",), "192.0.2.7"),
    ):
        for version in ("v1", "v2"):
            with Line(place.proxy.port, client) as line:
                assert [line.ask("/", *lines, host=version).status for _ in range(2)] == [200, 200]
            header = place.proxied[version].prefixes[-1]
            if version == "v1":
                words = header.decode().rstrip("\r\n").split(" ")
                assert words[:4] == ["PROXY", "TCP4", source, "127.0.0.1"]
                assert int(words[5]) == place.proxy.port
            else:
                assert header.startswith(V2_SIGNATURE + b"\x21\x11")
                assert socket.inet_ntoa(header[16:20]) == source
                assert socket.inet_ntoa(header[20:24]) == "127.0.0.1"
                assert int.from_bytes(header[26:28], "big") == place.proxy.port
    assert [len(place.proxied[version].prefixes) for version in ("v1", "v2")] == [3, 3], (
        "a connection serves one client"
    )


PATHS = [
    ("stripped", "/app", "/"),
    ("stripped", "/app/", "/"),
    ("stripped", "/app/a%2fb/?x=%20&y", "/a%2fb/?x=%20&y"),
    ("moved", "/app", "/v2?by=127.0.0.1"),
    ("moved", "/app/", "/v2/?by=127.0.0.1"),
    ("moved", "/app/a%2fb/?utm_source=1&b=%31&utm_x&by=7&b=2", "/v2/a%2fb/?b=%31&by=127.0.0.1&b=2"),
    ("regex", "/old/a/b", "/new/a/b?n=1"),
    ("regex", "/old/a/b?n=0", "/new/a/b?n=0&n=1"),
    ("regex", "/other?q", "/other?q&n=1"),
    ("silent", "/app/x", "/x"),
]


def test_paths_become_what_the_manual_says(place: Place) -> None:
    for host, target, expected in PATHS:
        assert place.liar.ask(target, host=host).status == 200
        assert place.seen().split(b" ")[1].decode() == expected, (host, target)
    place.liar.ask("/app/x", host="moved")
    assert place.told("host") == ["internal.example:81"]
    assert place.told("x-forwarded-host") == ["moved"]


def back(place: Place, target: str, host: str, *lines: str) -> Answered:
    place.up.says = lambda back, head: ok(b"", *lines)
    return place.liar.ask(target, host=host)


def test_answers_lead_back(place: Place) -> None:
    where = {
        "/v2/login?a=b": "/app/login?a=b",
        "/v2": "/app",
        "/elsewhere": "/elsewhere",
        "/v20/x": "/v20/x",
        "http://internal.example:81/v2/x": "http://moved/app/x",
        f"http://{place.up.address}/v2/x": "http://moved/app/x",
        "https://other.example/v2/x": "https://other.example/v2/x",
        "relative/x": "relative/x",
        "//evil.example/v2": "//evil.example/v2",
    }
    for location, expected in where.items():
        answer = back(place, "/app/x", "moved", f"Location: {location}", f"Content-Location: {location}")
        assert answer.one("location") == answer.one("content-location") == expected, location
    answer = back(place, "/app/x", "moved", "Refresh: 5; url=/v2/y")
    assert answer.one("refresh") == "5; url=/app/y"
    cookies = {
        "a=/v2; Path=/v2/x; HttpOnly": "a=/v2; Path=/app/x; HttpOnly",
        "b=1; Path=/v2; Domain=internal.example; SameSite=Lax": "b=1; Path=/app; Domain=moved; SameSite=Lax",
        "c=1; Domain=other.example": "c=1; Domain=other.example",
        "d=1": "d=1",
    }
    answer = back(place, "/app/x", "moved", *(f"Set-Cookie: {cookie}" for cookie in cookies))
    assert answer.all("set-cookie") == list(cookies.values())
    answer = back(place, "/app/x", "stripped", "Location: /y", "Set-Cookie: a=1; Path=/")
    assert (answer.one("location"), answer.one("set-cookie")) == ("/app/y", "a=1; Path=/app")
    for target, host in (("/app/x", "silent"), ("/old/x", "regex"), ("/x", "plain")):
        answer = back(place, target, host, "Location: /new/y", "Set-Cookie: a=1; Path=/new")
        assert (answer.one("location"), answer.one("set-cookie")) == ("/new/y", "a=1; Path=/new"), host


def test_a_path_never_climbs_by_a_rewrite(place: Place) -> None:
    before = len(place.up.heads)
    for target in ("/app/..%2fx", "/app/%2e%2e/x", "/app/..;/x", "/app/..%5cx"):
        answer = place.proxy.ask(target, host="moved")
        assert answer.status in {400, 404}, target
    assert place.proxy.ask("/app//evil.example/x", host="stripped").status == 400
    assert len(place.up.heads) == before
