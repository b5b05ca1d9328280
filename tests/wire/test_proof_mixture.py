"""Any features in one file: each does what it says, whatever else is there, and whatever was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.cli.main import cli
from tests.wire.codings import WHOLE
from tests.wire.harness import fields_of
from tests.wire.outside import V2_SIGNATURE, Answered, Back, Line, Program, ok, upstreams
from tests.wire.sealed import credulous, make_certificate

pytestmark = pytest.mark.unit

BODY = b"all the world is a stage; " * 100
Sees = Callable[[Answered], bool]
Passes = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Part:
    """YAML for one key, and what must then be seen: in the answer, and (where it passes) by the backend."""

    text: str
    answer: Sees = lambda answer: True
    head: Passes = lambda head: True
    status: int = 200


def has(name: str, value: str) -> Sees:
    return lambda answer: answer.all(name) == [value]


def tells(name: str, value: str) -> Passes:
    return lambda head: fields_of(head, name.encode()) == [value.encode()]


def asks(target: str) -> Passes:
    return lambda head: head.startswith(f"GET {target} ".encode())


NONE = Part("")
LISTENER = [
    NONE,
    Part(", tls: {folder: CERTIFICATES, default: one}"),
    Part(
        ", tls: {folder: CERTIFICATES, default: one}, hsts: {max_age: 1h}",
        has("strict-transport-security", "max-age=3600"),
    ),
    Part(", trusted_proxies: 192.0.2.0/24, health: /-/health"),
]
REFUSING = [
    NONE,
    NONE,
    NONE,
    Part("maintenance: true", status=503),
    Part("maintenance: {allow: 127.0.0.0/8}"),
    Part("access: {deny: 127.0.0.1}", status=403),
    Part("access: {allow: 127.0.0.0/8}"),
    Part('access: {basic: {users: {ann: "$2b$04$AFt0Fgs2.i46BPhw4ar6X.Dy.SvQGoCMBx.sQeP77QLzK5uBO0HwW"}}}', status=401),
]
REWRITE = [
    Part("", head=asks("/app/x?q=1")),
    Part("rewrite: {strip_prefix: /app}", has("location", "/app/y"), asks("/x?q=1")),
    Part("rewrite: {add_prefix: /v2, query: {remove: q}}", head=asks("/v2/app/x")),
    Part('rewrite: {path: "/{rest}"}', head=asks("/x?q=1")),
    Part('rewrite: {regex: {pattern: "^/app/(?P<y>.*)$", to: "/n/{y}"}}', head=asks("/n/x?q=1")),
]
HEADERS = [
    NONE,
    Part("headers: {request_id: true}", lambda answer: len(answer.all("x-request-id")) == 1),
    Part("headers: {request: {set: {X-A: '{client}'}}}", head=tells("x-a", "127.0.0.1")),
    Part("headers: {response: {set: {X-B: b}, remove: [Server]}}", has("x-b", "b")),
    Part("headers: {forwarded: none}", head=lambda head: not fields_of(head, b"x-forwarded-for")),
    Part("headers: {traceparent: true, forwarded: both}", head=lambda head: bool(fields_of(head, b"traceparent"))),
]
LIMITS = [
    NONE,
    Part("limits: {rate: 1000/s}"),
    Part("limits: {concurrency: 5, rate: {limit: 1000/s, by: route}}"),
    Part("limits: {concurrency: {most: 3, by: client}}"),
]
COMPRESS = [NONE, Part("compress: true", has("content-encoding", "gzip"))]
BALANCE = [
    NONE,
    *(Part(f"balance: {word}") for word in ("least_requests", "two_choices", "random", "first", "least_time")),
]
BALANCE += [Part("balance: {hash: source, bounded: 1.25}"), Part('balance: {hash: "header X-Key"}')]
STICKY = [
    NONE,
    Part("sticky: {cookie: SRV}", lambda answer: "SRV" in answer.cookies),
    Part("sticky: {cookie: SRV, key_file: KEYS, maxidle: 1h, same_site: lax}", lambda answer: "SRV" in answer.cookies),
    Part("sticky: {source: true}"),
    Part("sticky: {cookie: APP, mode: prefix}", lambda answer: "~" in answer.cookies["APP"]),
]
TROUBLE = [
    NONE,
    Part("outlier: {failures: 5}"),
    Part("breaker: {errors: 50%}, retry_budget: {share: 20%}"),
    Part("slow_start: 5s, outlier: {failures: 2}, breaker: {errors: 10%}"),
    Part("max_connections: 2, queue: {length: 5}"),
    Part("max_connections: 1, sorry: {body: sorry}"),
]
BACKSIDE = [NONE, Part("dscp: AF41"), Part("proxy_protocol: v2"), Part("proxy_protocol: v1, dscp: 10")]
ROUTE = (REFUSING, REWRITE, HEADERS, LIMITS, COMPRESS)
UPSTREAM = (BALANCE, STICKY, TROUBLE, BACKSIDE)


@dataclass(frozen=True, slots=True)
class Place:
    """A program, and backends that take a PROXY header as well as none."""

    folder: Path
    proxy: Program
    backs: list[Back]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "certificates").mkdir()
    make_certificate(folder / "certificates", names="DNS:a.example")
    (folder / "keys").write_text("0123456789abcdef0123456789abcdef\n")
    backs = [Back(name, answer, proxied=None) for name in ("one", "two")]
    text = "access_log: none\nroutes: [{upstream: up}]\n" + upstreams({"up": backs})
    with Program(folder / "run", text) as proxy:
        yield Place(folder, proxy, backs)
    for back in backs:
        back.stop()


def answer(back: Back, head: bytes) -> bytes:
    return ok(BODY, "Content-Type: text/plain", "Location: /y", "Set-Cookie: APP=1; Path=/", "Server: s")


def one_of_each(menus: tuple[list[Part], ...]) -> st.SearchStrategy[list[Part]]:
    return st.tuples(*(st.sampled_from(menu) for menu in menus)).map(list)


@settings(max_examples=40)
@given(listener=st.sampled_from(LISTENER), route=one_of_each(ROUTE), upstream=one_of_each(UPSTREAM))
def test_whatever_stands_together_each_does_what_it_says(
    place: Place, listener: Part, route: list[Part], upstream: list[Part]
) -> None:
    proxy = place.proxy
    of_route = "".join(f", {part.text}" for part in route if part.text)
    of_upstream = ", ".join(part.text for part in upstream if part.text).replace("KEYS", str(place.folder / "keys"))
    proxy.listener = listener.text.replace("CERTIFICATES", str(place.folder / "certificates"))
    proxy.text = (
        f'access_log: none\nroutes:\n  - {{match: {{path: "~ ^/app/(?P<rest>.*)$"}}, upstream: up{of_route}}}\n'
        + upstreams({"up": place.backs}, {"up": of_upstream})
    )
    proxy.write()
    done = CliRunner().invoke(cli, ["check", str(proxy.path)])
    assert (done.exit_code, ": ok: " in done.output) == (0, True), done.output
    proxy.reload()
    tls = credulous() if "tls" in listener.text else None
    for back in place.backs:
        back.heads.clear()
        back.prefixes.clear()
    with Line(proxy.port, tls=tls, name="a.example" if tls else None) as line:
        found = line.ask("/app/x?q=1", "Accept-Encoding: gzip", host="a.example")
    parts = [listener, *route, *upstream]
    refused = next((part for part in route if part.status != 200), None)
    heads = [head for back in place.backs for head in back.heads]
    if refused is not None:
        assert found.status == refused.status
        assert not heads
        assert listener.answer(found)
        return
    assert found.status == 200
    assert found.body == BODY or WHOLE["gzip"](found.body) == BODY
    (head,) = heads
    for part in parts:
        assert part.answer(found), (part.text, found.head)
        assert part.head(head), (part.text, head)
    prefixes = [prefix for back in place.backs for prefix in back.prefixes]
    if "proxy_protocol: v1" in of_upstream:
        assert [prefix[:6] for prefix in prefixes] == [b"PROXY "]
    elif "proxy_protocol: v2" in of_upstream:
        assert [prefix[:12] for prefix in prefixes] == [V2_SIGNATURE]
    else:
        assert not prefixes
