"""Which route takes a request: every kind of condition in one file, in any order, and `explain` beside it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from l7proxy.cli.main import cli
from tests.wire.outside import Back, Line, Program, upstreams

pytestmark = pytest.mark.unit

ROUTES = {
    "any": "",
    "wild": 'host: "*.example.org"',
    "wilder": 'host: "*.a.example.org"',
    "shop": "host: shop.example.org",
    "shop-v1": "host: shop.example.org, path: /v1",
    "shop-v1-deep": "host: shop.example.org, path: /v1/deep",
    "shop-re": 'host: shop.example.org, path: "~ ^/v1/(?P<id>[0-9]+)$"',
    "shop-re-longer": 'host: shop.example.org, path: "~ ^/v1/(?P<id>[0-9]+)/items$"',
    "shop-exact": 'host: shop.example.org, path: "= /v1/7"',
    "put": "host: shop.example.org, path: /v1, method: [PUT, DELETE]",
    "gold": "host: shop.example.org, path: /v1, header: {X-Tier: gold}",
    "gold-debug": 'host: shop.example.org, path: /v1, header: {X-Tier: gold}, query: {debug: "1"}',
    "tier-like": 'host: shop.example.org, path: /v1, header: {X-Tier: "~ ^g.*n$"}',
    "present": 'host: two.example.org, header: {X-Tier: "*"}',
    "absent": 'host: two.example.org, header: {X-Tier: "!"}, method: GET',
    "beta": 'host: three.example.org, cookie: {beta: "~ ^(yes|1)$"}',
    "query": 'host: three.example.org, query: {q: "a b"}',
    "put-three": "host: three.example.org, method: PUT",
    "near": "host: three.example.org, client: 127.0.9.0/24",
    "images": "host: three.example.org, type: [jpg, image/*]",
    "three": "host: three.example.org",
    "two-conditions": 'host: three.example.org, cookie: {beta: "yes"}, query: {q: "*"}',
}
MARKED = ', headers: {response: {set: {X-Route: "{route}"}}}'
HOME, AWAY = "127.0.0.1", "127.0.9.9"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the route that the manual's one rule gives it."""

    route: str
    url: str
    lines: tuple[str, ...] = ()
    method: str = "GET"
    client: str = HOME


ASKED = [
    Asked("any", "nobody.example/"),
    Asked("any", "example.org/"),
    Asked("wild", "x.example.org/"),
    Asked("wild", "X.Example.ORG.:8080/"),
    Asked("wilder", "x.a.example.org/v1"),
    Asked("wilder", "x.y.a.example.org/"),
    Asked("shop", "shop.example.org/"),
    Asked("shop", "shop.example.org/v10"),
    Asked("shop", "shop.example.org/V1"),
    Asked("shop-v1", "shop.example.org/v1"),
    Asked("shop-v1", "shop.example.org/v1/"),
    Asked("shop-v1", "shop.example.org/v1/x"),
    Asked("shop-v1", "shop.example.org/%76%31/x"),
    Asked("shop-v1-deep", "shop.example.org/v1/deep/er"),
    Asked("shop-v1-deep", "shop.example.org/v1/deep", ("X-Tier: gold",)),
    Asked("shop-re", "shop.example.org/v1/12"),
    Asked("shop-re", "shop.example.org/v1/12", ("X-Tier: gold",)),
    Asked("shop-re-longer", "shop.example.org/v1/12/items"),
    Asked("shop-exact", "shop.example.org/v1/7"),
    Asked("shop-exact", "shop.example.org/v1/7?debug=1", ("X-Tier: gold",), "PUT"),
    Asked("put", "shop.example.org/v1/x", (), "PUT"),
    Asked("put", "shop.example.org/v1/x", ("X-Tier: gold",), "DELETE"),
    Asked("shop-v1", "shop.example.org/v1/x", (), "HEAD"),
    Asked("gold", "shop.example.org/v1/x", ("x-tier: gold",)),
    Asked("gold", "shop.example.org/v1/x?debug=2", ("X-Tier: silver", "X-Tier: gold")),
    Asked("shop-v1", "shop.example.org/v1/x", ("X-Tier: GOLD",)),
    Asked("gold-debug", "shop.example.org/v1/x?a=b&debug=1", ("X-Tier: gold",)),
    Asked("gold-debug", "shop.example.org/v1/x?debug=0&d%65bug=%31", ("X-Tier: gold",), "PUT"),
    Asked("tier-like", "shop.example.org/v1/x", ("X-Tier: golden",)),
    Asked("present", "two.example.org/", ("X-Tier: x",)),
    Asked("absent", "two.example.org/"),
    Asked("wild", "two.example.org/", (), "POST"),
    Asked("beta", "three.example.org/", ("Cookie: a=1; beta=1",)),
    Asked("beta", "three.example.org/a.jpg?q=a+b", ("Cookie: beta=1",), client=AWAY),
    Asked("put-three", "three.example.org/a.jpg?q=a+b", ("Cookie: beta=1",), "PUT", AWAY),
    Asked("two-conditions", "three.example.org/?q", ("Cookie: beta=yes",), "PUT"),
    Asked("query", "three.example.org/a.jpg?q=a%20b", client=AWAY),
    Asked("near", "three.example.org/a.jpg", client=AWAY),
    Asked("images", "three.example.org/x/a.JPG"),
    Asked("images", "three.example.org/", ("Accept: text/html, image/webp;q=0.8",)),
    Asked("three", "three.example.org/", ("Accept: */*, image/png;q=0",)),
    Asked("three", "three.example.org/a.jpg.txt"),
]


def text_of(back: Back, order: list[str]) -> str:
    lines = []
    for name in order:
        match = f", match: {{{ROUTES[name]}}}" if ROUTES[name] else ""
        lines.append(f"  - {{name: {name}{match}, upstream: {name}{MARKED}}}\n")
    return "access_log: json\nroutes:\n" + "".join(lines) + upstreams({name: [back] for name in ROUTES})


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Back]]:
    back = Back("b")
    with Program(tmp_path_factory.mktemp("routes") / "run", text_of(back, list(ROUTES))) as program:
        yield program, back
    back.stop()


def explained(path: Path, asked: Asked, code: int = 0) -> dict[str, Any]:
    words = ["explain", str(path), f"{asked.method} http://{asked.url}", "--json", "--client", asked.client]
    for line in asked.lines:
        words += ["-H", line]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    said = json.loads(done.stdout)
    assert isinstance(said, dict)
    return said


def test_the_order_in_the_file_never_matters_and_explain_says_what_happens(proxy: tuple[Program, Back]) -> None:
    program, back = proxy
    expected = [(asked, asked.route) for asked in ASKED]
    for seed in range(4):
        order = list(ROUTES)
        random.Random(seed).shuffle(order)  # noqa: S311 -- the same each time
        program.reload(text_of(back, order))
        found = []
        with Line(program.port, HOME) as home, Line(program.port, AWAY) as away:
            for asked in ASKED:
                host, _, target = asked.url.partition("/")
                line = home if asked.client == HOME else away
                answer = line.ask(f"/{target}", *asked.lines, method=asked.method, host=host)
                assert answer.status == 200, asked
                found.append((asked, answer.one("x-route")))
        assert found == expected, order
    for asked in ASKED:
        said = explained(program.path, asked)
        assert said["route"] == asked.route, asked
        (target,) = said["targets"]
        assert target["upstream"] == asked.route
        assert [each["address"] for each in target["candidates"]] == [back.address]


def test_explain_is_right_about_all_that_a_route_may_do(proxy: tuple[Program, Back]) -> None:
    """Fixed answers, redirects, maintenance, refusals and rewrites: what it says is what is done."""
    program, back = proxy
    text = "access_log: none\nroutes:\n"
    does = {
        "fixed": "respond: {status: 418, body: tea}",
        "away": 'redirect: {to: "https://{host}/new{path}", status: 308}',
        "closed": "upstream: up, maintenance: true",
        "denied": "upstream: up, access: {deny: 127.0.0.0/8}",
        "rewritten": "upstream: up, rewrite: {strip_prefix: /rewritten, add_prefix: /v2, query: {remove: x}}",
        "empty": "upstream: none",
    }
    for name, what in does.items():
        text += f"  - {{name: {name}, match: {{path: /{name}}}, {what}}}\n"
    text += upstreams({"up": [back]}) + f'  none: {{backends: {{n: {{address: "{back.address}", weight: 0}}}}}}\n'
    statuses = {"fixed": 418, "away": 308, "closed": 503, "denied": 403, "rewritten": 200, "empty": 503}
    program.reload(text)
    before = len(back.heads)
    for name, status in statuses.items():
        said = explained(program.path, Asked(name, f"a.example/{name}/x?x=1&y=2"))
        assert said["route"] == name
        assert len(back.heads) == before, "nothing is sent"
        answer = program.ask(f"/{name}/x?x=1&y=2", host="a.example")
        assert answer.status == status, name
        before = len(back.heads)
        steps = " ".join(str(step) for step in said["steps"])
        shares = [each["percent"] for target in said["targets"] for each in target["candidates"]]
        assert sum(shares) == (0 if name in {"fixed", "away", "empty"} else 100), name
        match name:
            case "fixed":
                assert "418" in steps
            case "away":
                assert answer.one("location") == "https://a.example/new/away/x?x=1&y=2"
                assert answer.one("location") in steps
            case "rewritten":
                assert back.heads[-1].startswith(b"GET /v2/x?y=2 HTTP/1.1\r\n")
                assert "/v2/x?y=2" in steps
            case "closed":
                assert "maintenance" in steps
            case "denied":
                assert "refused" in steps
    nobody = explained(program.path, Asked("", "a.example/"), code=1)
    assert nobody["route"] is None
    assert program.ask("/", host="a.example").status == 404
    done = subprocess.run(
        [sys.executable, "-m", "l7proxy", "explain", str(program.path), "GET http://a.example/fixed", "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == explained(program.path, Asked("", "a.example/fixed", client="192.0.2.1"))
