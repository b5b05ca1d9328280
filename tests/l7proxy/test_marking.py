"""Header lines that routes change."""

from __future__ import annotations

import os
import re

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.core.config import load_config
from l7proxy.core.head import RequestHead
from l7proxy.core.marking import is_request_id, response_rules, tail_in, trace_of
from l7proxy.core.model import Route
from l7proxy.core.settings.marking import Forwarding
from l7proxy.core.strict import read_request
from l7proxy.http.randomhex import random_hex
from tests.l7proxy.transformed import Asking, rewritten

pytestmark = pytest.mark.unit

FILE = """\
listeners: {{web: {{bind: "127.0.0.1:80"}}}}
routes:
  - {{name: r, upstream: up, headers: {headers}}}
upstreams: {{up: {{backends: {{a: {{address: "10.0.0.1:8000"}}}}}}}}
"""
CAME = ("X-Debug: 1", "x-tier: me", "Accept:  */*", "X-Old: o", "X-Internal-A: 1", "x-internal-b: 2", "X-New: n")


def route_of(headers: str) -> Route:
    return load_config(FILE.format(headers=headers), "f.yaml").routes[0]


def head_of(*lines: str) -> RequestHead:
    head = read_request("\r\n".join(["GET /p HTTP/1.1", "Host: a.example", *lines]).encode())
    assert isinstance(head, RequestHead)
    return head


def sent(headers: str, *lines: str) -> list[str]:
    """The header lines that go on, but Host."""
    route = route_of(headers)
    made = rewritten(route, Asking(head_of(*lines), route))
    return made.fields.decode().split("\r\n")[1:-1]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('{set: {X-Tier: "l7 {client}"}}', [*CAME[:1], *CAME[2:], "X-Tier: l7 192.0.2.1"]),
        ("{set: {X-Count: 1}}", [*CAME, "X-Count: 1"]),
        ("{add: {X-Tier: b}}", [*CAME, "X-Tier: b"]),
        ("{remove: [x-debug, X-None]}", [*CAME[1:]]),
        ('{remove: "X-Internal-*"}', [*CAME[:4], CAME[6]]),
        ("{rename: {X-Old: X-Other}}", [*CAME[:3], "X-Other: o", *CAME[4:]]),
        ("{rename: {x-old: X-New}}", [*CAME[:3], "X-New: o", *CAME[4:6]]),
        ("{rename: {X-None: X-New}}", [*CAME]),
        ('{set: {X-Tier: "{header.X-None}"}}', [*CAME[:1], *CAME[2:]]),
        ('{set: {X-Copy: "{header.X-Debug}"}, remove: X-Debug}', [*CAME[1:], "X-Copy: 1"]),
        ('{set: {X-A: "{header.X-Tier}", X-Tier: new}}', [*CAME[:1], *CAME[2:], "X-A: me", "X-Tier: new"]),
    ],
)
def test_rules_see_what_came(rules: str, expected: list[str]) -> None:
    assert sent(f"{{request: {rules}}}", *CAME) == expected


def test_lines_that_nobody_names_keep_their_bytes() -> None:
    lines = ("A:  x ", "a: y", "B:\tz", "A: x")
    assert sent("{request: {remove: [C], set: {D: e}}}", "C: 1", *lines) == [*lines, "D: e"]


def test_wildcard_passes_by_what_frames_a_message() -> None:
    rules = response_rules_of('{remove: ["Content-*", "D*"]}')
    came = b"Content-Length: 3\r\nContent-Type: a\r\nDate: now\r\nDNT: 1\r\n"
    assert applied(rules, came) == b"Content-Length: 3\r\nDate: now\r\n"
    assert sent('{request: {remove: ["H*", "Con*"]}}', "Content-Type: b", "HX: 1") == []


def response_rules_of(rules: str) -> Route:
    return route_of(f"{{response: {rules}}}")


def applied(route: Route, fields: bytes) -> bytes:
    assert route.marking is not None
    asking = Asking(head_of(), route, backend_name="b1")
    return response_rules(route.marking).apply(fields, asking)


def test_answers_are_marked() -> None:
    route = response_rules_of(
        '{set: {X-By: "{backend}"}, add: {Vary: Origin}, remove: [Server], rename: {ETag: X-ETag}}'
    )
    came = b"Server: x\r\nVary: Accept\r\nETag: 1\r\nx-by: me\r\n"
    assert applied(route, came) == b"Vary: Accept\r\nX-ETag: 1\r\nX-By: b1\r\nVary: Origin\r\n"


def test_request_id_is_told_both_ways() -> None:
    route = route_of("{request_id: {header: X-Corr}}")
    made = rewritten(route, Asking(head_of("x-corr: mine"), route, request_id=b"4711"))
    assert made.fields == b"Host: a.example\r\nX-Corr: 4711\r\n"
    assert applied(route, b"X-CORR: theirs\r\n") == b"X-Corr: made-anew\r\n"


@pytest.mark.parametrize(
    ("value", "fit"), [(b"abc-1", True), (b"", False), (b"a b", False), (b"\xe4", False), (b"x" * 201, False)]
)
def test_request_id_that_came_must_be_one_word(value: bytes, fit: bool) -> None:
    assert is_request_id(value) is fit


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", b"01"),
        (f"00-{TRACE}-{PARENT}-00", b"00"),
        (f"00-{TRACE}-{PARENT}-ff", b"01"),
        (f"cc-{TRACE}-{PARENT}-01-more", b"01"),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"cc-{TRACE}-{PARENT}-01.more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_w3c_says(came: str, expected: bytes | None) -> None:
    found = trace_of([came.encode()])
    assert found == (None if expected is None else (TRACE.encode(), expected))
    assert trace_of([came.encode()] * 2) is None


def test_trace_goes_on_with_a_parent_of_ours() -> None:
    lines = (f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=1", "Tracestate: b=2")
    assert sent("{traceparent: true}", *lines) == [*lines[1:], f"traceparent: 00-{TRACE}-{'f' * 16}-00"]


@pytest.mark.parametrize(("asked", "flags"), [("true", "01"), ("{sampled: false}", "00")])
def test_trace_begins_where_there_is_none(asked: str, flags: str) -> None:
    for came in ((), ("traceparent: nonsense", "tracestate: a=1"), ("TraceState: a=1",)):
        assert sent(f"{{traceparent: {asked}}}", *came) == [f"traceparent: 00-{'f' * 32}-{'f' * 16}-{flags}"]


def test_nothing_is_asked_for_and_nothing_changes() -> None:
    assert sent("{}", *CAME) == [*CAME]


OWN = b"Via: 1.1 edge\r\n\r\n"
TAIL = b"Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6, 10.0.0.1\r\n" + OWN


@pytest.mark.parametrize(
    ("form", "claims", "expected"),
    [
        (Forwarding.X_FORWARDED, [], TAIL),
        (Forwarding.NONE, [b"Forwarded: for=6.6.6.6"], OWN),
        (
            Forwarding.RFC7239,
            [b"forwarded:  for=6.6.6.6;proto=https ", b"X-Forwarded-For: 1.1.1.1"],
            b"Forwarded: for=6.6.6.6;proto=https, for=10.0.0.1;host=a.example;proto=http\r\n" + OWN,
        ),
        (
            Forwarding.RFC7239,
            [b"X-Forwarded-For: 192.0.2.7, [2001:db8::1]:80,,", b'x-forwarded-for: "x:y", 10.0.0.9:81'],
            b'Forwarded: for=192.0.2.7, for="[2001:db8::1]", for=unknown, for=10.0.0.9, '
            b"for=10.0.0.1;host=a.example;proto=http\r\n" + OWN,
        ),
        (
            Forwarding.BOTH,
            [b"Forwarded: for=6.6.6.6"],
            b"Forwarded: for=6.6.6.6, for=10.0.0.1;host=a.example;proto=http\r\n"
            b"X-Forwarded-For: 6.6.6.6, 10.0.0.1\r\n" + OWN,
        ),
    ],
)
def test_claims_of_trusted_proxies_grow_in_each_form(form: Forwarding, claims: list[bytes], expected: bytes) -> None:
    head = head_of()
    head.claims = tuple(claims)
    assert tail_in(form, TAIL, OWN, head, "10.0.0.1", "http", from_proxy=True) == expected


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ("{request: {set: {Host: a}}}", "headers.request.set.Host: Host is changed by `rewrite.host`"),
        ("{request: {set: {content-length: 1}}}", "content-length says where a body ends"),
        ("{request: {remove: Connection}}", "headers.request.remove.0: Connection is about one connection"),
        ("{response: {set: {Date: now}}}", "Date is the backend's"),
        ("{request: {add: {Via: a}}}", "Via is up to `via`"),
        ('{request: {set: {"a b": c}}}', "'a b' is not the name of a header"),
        ('{request: {set: {"a*": c}}}', "only `remove` takes a *"),
        ('{request: {remove: "*"}}', "'*' is not a name"),
        ('{request: {remove: "a*b"}}', "only `remove` takes a *, at the end of a name"),
        ('{request: {remove: "X-Forwarded-*"}}', "what is told in their place is up to `forwarded`"),
        ("{request: {set: {X-A: b}, remove: x-a}}", "`set` says already what becomes of x-a"),
        ("{request: {set: {X-A: b, x-a: c}}}", "names the same header twice"),
        ("{request: {set: {X-A: b}, add: {x-a: c}}}", "`set` says already what becomes of x-a"),
        ("{request: {rename: {X-A: x-a}}}", "is the same header"),
        ("{request: {rename: {X-A: X-B}, set: {X-B: c}}}", "headers.request.rename.X-A: `set` says already"),
        ("{request: {rename: {X-A: Host}}}", "Host is changed by `rewrite.host`"),
        ('{request: {set: {X-A: "{clint}"}}}', "headers.request.set.X-A: '{clint}' is no variable"),
        ('{request: {set: {X-A: "{backend}"}}}', "is not known before an answer comes"),
        ('{request: {set: {X-A: "a\\nb"}}}', "cannot stand in a header"),
        ("{request_id: true, request: {set: {x-request-id: a}}}", "`request_id` says already what becomes"),
        ("{request_id: {header: a b}}", "headers.request_id.header: 'a b' is not the name"),
        ("{traceparent: true, request: {remove: traceparent}}", "`traceparent` says already"),
        ("{forwarded: xff}", "headers.forwarded"),
    ],
)
def test_mistakes_are_found_at_their_place(headers: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=re.escape(message)) as caught:
        route_of(headers)
    assert all(line.startswith("f.yaml:3:") for line in caught.value.lines())
    assert len(caught.value.lines()) == 1


def test_marks_for_backends_of_a_route_without_any_are_a_mistake() -> None:
    text = FILE.replace("upstream: up, headers", "respond: {{status: 204}}, rewrite: {{add_prefix: /a}}, headers")
    text = text.replace("  - {{name: r", "  - {{upstream: up, match: {{path: /b}}}}\n  - {{name: r")
    with pytest.raises(InvalidConfigError) as caught:
        load_config(text.format(headers="{request: {set: {A: b}}, response: {set: {C: d}}, forwarded: none}"), "f.yaml")
    places = [line.split(": ")[1] for line in caught.value.lines()]
    assert places == ["routes.1.rewrite", "routes.1.headers.request", "routes.1.headers.forwarded"]


def test_random_names_are_never_the_same() -> None:
    names = [random_hex(32) for _ in range(1000)] + [random_hex(16) for _ in range(1000)]
    assert len(set(names)) == 2000
    assert all(re.fullmatch(rb"[0-9a-f]{16}|[0-9a-f]{32}", name) for name in names)


def test_random_names_of_a_forked_process_are_its_own() -> None:
    random_hex(16)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, random_hex(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) != random_hex(16)
    os.close(reading)
    os.close(writing)
