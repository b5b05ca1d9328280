"""Routes by all that a request says, and shares between upstreams, through the real program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from l7proxy.admin.shown import status_of
from l7proxy.core.question import Question, ask
from l7proxy.files.loading import load_file
from tests.wire.harness import Origin, Running, fields_of, free_port, live, named, one_answer, running
from tests.wire.harness import status_of as status

pytestmark = pytest.mark.unit

ROUTES = {
    "tenant": 'host: "*.shop.example", path: /',
    "v1": 'host: a.shop.example, path: "~ ^/v1/(?P<rest>.*)$"',
    "v1-posts": 'host: a.shop.example, path: "~ ^/v1/(?P<rest>.*)$", method: [POST, PUT]',
    "v1-gold": 'host: a.shop.example, path: "~ ^/v1/(?P<rest>.*)$", header: {X-Tier: gold}',
    "v1-beta": 'host: a.shop.example, path: "~ ^/v1/(?P<rest>.*)$", cookie: {beta: "~ ^(yes|1)$"}',
    "debug": 'host: a.shop.example, path: "= /v1/items", query: {debug: "1"}, client: 127.0.0.0/8',
    "elsewhere": 'host: a.shop.example, path: "= /v1/items", query: {debug: "*"}, client: 203.0.113.0/24',
    "images": 'host: "*.shop.example", path: /, type: [jpg, image/*]',
    "anonymous": 'path: /me, header: {Authorization: "!"}',
    "me": "path: /me",
    "sockets": "path: /live, header: {Upgrade: websocket}",
}
ASKED: list[tuple[str, tuple[str, ...], str | None]] = [
    ("GET a.shop.example/v1/items", (), "v1"),
    ("POST a.shop.example/v1/items", (), "v1-posts"),
    ("POST a.shop.example/v1/items", ("X-Tier: gold",), "v1-posts"),
    ("GET a.shop.example/v1/items", ("x-tier: gold", "Cookie: beta=yes"), "v1-gold"),
    ("GET a.shop.example/v1/items", ("X-Tier: silver", "Cookie: a=b; beta=yes"), "v1-beta"),
    ("GET a.shop.example/v1/items?debug=1", ("X-Tier: gold",), "debug"),
    ("GET a.shop.example/v1/items?debug=2", (), "v1"),
    ("GET a.shop.example/%76%31/x/../items?debug=2", (), "v1"),
    ("GET a.shop.example/x", (), "tenant"),
    ("GET b.shop.example/v1/a.JPG?x", (), "images"),
    ("GET b.shop.example/", ("Accept: text/html, image/webp;q=0.5",), "images"),
    ("GET b.shop.example/", ("Accept: */*",), "tenant"),
    ("GET other.example/me", (), "anonymous"),
    ("GET other.example/me/x", ("Authorization: Bearer x",), "me"),
    ("GET other.example/live", ("Connection: upgrade", "Upgrade: websocket"), "sockets"),
    ("GET other.example/live", (), None),
    ("GET other.example/", (), None),
]


@live
async def test_a_request_takes_the_route_that_it_should_and_explain_says_the_same(tmp_path: Path) -> None:
    """Whatever the order in the file."""
    lines = [
        f"  - {{name: {name}, match: {{{match}}}, dangerous_path: normalise, respond: {{body: {name}}}}}"
        for name, match in ROUTES.items()
    ]
    for routes in (lines, lines[::-1]):
        async with running(tmp_path, free_port(), routes="\n".join(routes)) as proxy:
            loaded = load_file(str(proxy.path))
            for line, headers, expected in ASKED:
                method, _, rest = line.partition(" ")
                host, _, target = rest.partition("/")
                more = "".join(f"{each}\r\n" for each in headers)
                head = f"{method} /{target} HTTP/1.1\r\nHost: {host}\r\n{more}"
                answer = await proxy.talk(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
                found = ask(loaded.config, Question(f"{method} http://{rest}", tuple(headers), "127.0.0.1"))
                assert found.route == expected, line
                if expected is None:
                    assert status(answer) == 404
                else:
                    assert answer.endswith(b"\r\n\r\n" + expected.encode()), (line, answer)


@asynccontextmanager
async def sharing(tmp_path: Path, shares: str, keys: str = "", access_log: str = "false") -> AsyncIterator[Running]:
    """A proxy whose one route has several upstreams; `spare` has nobody to answer."""
    up, canary = await Origin(named, "up").start(), Origin(named, "canary")
    upstreams = f"""\
    {keys}
    backends: {{b: {{address: "127.0.0.1:{up.port}"}}}}
  spare: {{backends: {{b: {{address: "127.0.0.1:{up.port}", weight: 0}}}}}}
  canary:
    {keys}"""
    routes = f"  - {{name: all, upstream: {{{shares}}}}}"
    async with running(tmp_path, canary, routes=routes, upstream=upstreams, access_log=access_log) as proxy:
        yield proxy
    await up.stop()


async def asked(proxy: Running, count: int, *lines: str) -> list[str]:
    """The bodies of so many answers on one connection."""
    reader, writer = await proxy.connect()
    more = "".join(f"{line}\r\n" for line in lines)
    bodies = []
    for _ in range(count):
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode())
        bodies.append((await one_answer(reader))[1].decode())
    writer.close()
    return bodies


@live
async def test_upstreams_have_their_shares_exactly_and_spread_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with sharing(tmp_path, "up: 18, canary: 2, spare: 0", access_log="json") as proxy:
        bodies = await asked(proxy, 100)
        assert Counter(bodies) == {"up": 90, "canary": 10}
        for first in range(80):
            assert 1 <= bodies[first : first + 20].count("canary") <= 3, "in no stretch of 20 it has none, or many"
        shown = status_of(proxy.server.proxy)["routes"][0]
        assert shown["shares"] == {
            "up": {"weight": 18, "percent": 90.0},
            "canary": {"weight": 2, "percent": 10.0},
            "spare": {"weight": 0, "percent": 0.0},
        }
        counts = proxy.server.proxy.meters.counts()
        assert counts["all\ncanary\n2xx/l7proxy_requests"] == 10
        assert counts["all\nup\n2xx/l7proxy_requests"] == 90
        proxy.server.proxy.access.flush()
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert Counter(line["upstream"] for line in lines) == {"up": 90, "canary": 10}


@live
async def test_the_share_of_who_has_nobody_to_answer_goes_to_the_others(tmp_path: Path) -> None:
    async with sharing(tmp_path, "spare: 50, up: 30, canary: 20") as proxy:
        assert Counter(await asked(proxy, 100)) == {"up": 60, "canary": 40}
        shown = status_of(proxy.server.proxy)["routes"][0]["shares"]
        assert [each["percent"] for each in shown.values()] == [0.0, 60.0, 40.0]
    async with sharing(tmp_path, "spare: 50, up: 0, canary: 0") as proxy:
        assert status(await proxy.get()) == 503


@live
async def test_a_session_stays_with_the_upstream_that_holds_it(tmp_path: Path) -> None:
    """Though both call their cookie the same."""
    async with sharing(tmp_path, "up: 1, canary: 1", "sticky: {cookie: SRV}") as proxy:
        held = {}
        for _ in range(2):
            answer = await proxy.get()
            held[answer.rpartition(b"\r\n\r\n")[2].decode()] = fields_of(answer, b"set-cookie")[0].partition(b";")[0]
        assert set(held) == {"up", "canary"}
        for name, cookie in held.items():
            assert set(await asked(proxy, 10, f"Cookie: {cookie.decode()}")) == {name}


@live
async def test_who_has_a_backend_by_hash_has_an_upstream_by_it_too(tmp_path: Path) -> None:
    async with sharing(tmp_path, "up: 1, canary: 1", "sticky: {header: X-Session}") as proxy:
        found: Counter[str] = Counter()
        for number in range(40):
            [body] = set(await asked(proxy, 3, f"X-Session: {number}"))
            found[body] += 1
        assert min(found.values()) >= 8, found


@live
async def test_a_reload_gives_nobody_more(tmp_path: Path) -> None:
    async with sharing(tmp_path, "up: 3, canary: 1") as proxy:
        bodies = []
        for _ in range(8):
            bodies += await asked(proxy, 1)
            before = proxy.server.proxy.snapshot
            proxy.server.request_reload()
            await proxy.until(lambda before=before: proxy.server.proxy.snapshot is not before)  # type: ignore[misc]
        assert Counter(bodies) == {"up": 6, "canary": 2}


@live
async def test_a_session_whose_backend_is_gone_stays_with_its_upstream_as_long_as_that_has_another(
    tmp_path: Path,
) -> None:
    """Who was on one version of an application is not moved to the other one."""
    up, canary = await Origin(named, "up").start(), Origin(named, "canary")
    upstreams = f"""\
    sticky: {{cookie: SRV}}
    backends:
      a: {{address: "127.0.0.1:{free_port()}"}}
      b: {{address: "127.0.0.1:{up.port}"}}
  canary:
    sticky: {{cookie: SRV}}"""
    routes = "  - {name: all, upstream: {up: 1, canary: 1}}"
    async with running(tmp_path, canary, routes=routes, upstream=upstreams) as proxy:
        sessions = proxy.server.proxy.snapshot.upstreams["up"].sessions
        assert sessions is not None
        cookie = sessions.tickets.value("a").decode()
        proxy.server.proxy.snapshot.upstreams["up"].weights.pop("a")
        assert set(await asked(proxy, 8, f"Cookie: SRV={cookie}")) == {"up"}
        proxy.server.proxy.snapshot.upstreams["up"].weights.clear()
        assert set(await asked(proxy, 2, f"Cookie: SRV={cookie}")) == {"canary"}
    await up.stop()


@live
async def test_the_share_of_who_is_spared_goes_to_the_others(tmp_path: Path) -> None:
    keys = "breaker: {errors: 50%, of: 2, open: 1h}"
    async with sharing(tmp_path, "up: 1, canary: 1", keys) as proxy:
        guard = proxy.server.proxy.snapshot.upstreams["canary"].guard
        assert guard is not None
        assert guard.gate is not None
        for _ in range(2):
            guard.gate.saw(True, False, 1.0)
        guard.gate._state.number = 1e12
        assert set(await asked(proxy, 6)) == {"up"}
