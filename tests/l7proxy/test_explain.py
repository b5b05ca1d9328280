"""What `l7proxy explain` says of a request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from l7proxy.core.config import load_config
from l7proxy.core.describe import Asking, described
from l7proxy.core.explain import Explanation, explain
from l7proxy.core.explaintext import told
from l7proxy.core.head import RequestHead
from l7proxy.core.model import Listener
from l7proxy.core.question import AskError, Question, ask, head_of, listener_of
from l7proxy.files.loading import load_text

pytestmark = pytest.mark.unit

TEXT = """\
listeners:
  web: {bind: "0.0.0.0:80", health: /-/health, trusted_proxies: 10.0.0.0/8}
  other: {bind: "0.0.0.0:8080"}
routes:
  - name: shop
    match: {host: shop.example.org, path: "~ ^/v1/(?P<rest>.*)$", method: [GET, POST]}
    upstream: {shop: 90, canary: 10}
  - name: beta
    match: {host: shop.example.org, path: "~ ^/v1/(?P<rest>.*)$", cookie: {beta: "yes"}, method: GET}
    upstream: canary
  - name: inside
    match: {host: "*.example.org", client: 10.0.0.0/8}
    maintenance: {allow: 10.9.0.0/16}
    upstream: shop
  - name: old
    match: {host: old.example.org, path: /old}
    redirect: {to: "https://shop.example.org{path}", status: 308}
  - name: prefix
    match: {host: shop.example.org, path: /v2/}
    respond: {body: hello}
  - name: encoded
    match: {host: enc.example.org}
    dangerous_path: normalise
    upstream: canary
upstreams:
  shop:
    backends: {a: {address: "127.0.0.1:1", weight: 2}, b: {address: "127.0.0.1:2"}, c: {address: "[::1]:3", weight: 0}}
  canary: {backends: {a: {address: "127.0.0.1:4"}}}
"""
LOADED = load_text(TEXT, "l7proxy.yaml")


def of(asked: str, *lines: str, client: str | None = None, listener: str | None = None) -> Explanation:
    return ask(LOADED.config, Question(asked, lines, client, listener))


def misses(found: Explanation) -> dict[str, str]:
    return {miss.route: miss.why for miss in found.near}


def test_the_route_and_why() -> None:
    found = of("GET https://shop.example.org/v1/x?q", client="10.1.1.1")
    assert (found.route, found.place, found.answered) == ("shop", 0, "")
    assert found.why == (
        "host is shop.example.org",
        "path /v1/x is matched by ~ ^/v1/(?P<rest>.*)$",
        "it has all of: GET|POST",
    )
    assert found.captures == {"rest": "x"}
    below = of("http://a.example.org/", client="10.1.1.1")
    assert below.why == ("host a.example.org is below *.example.org", "any path", "it has all of: client=10.0.0.0/8")


@pytest.mark.parametrize(
    ("asked", "lines", "client", "route", "why"),
    [
        ("GET http://shop.example.org/v1/x", (), None, "beta", "cookie beta is not there"),
        ("GET http://shop.example.org/v1/x", ("Cookie: beta=no",), None, "beta", "cookie beta is 'no', not 'yes'"),
        ("POST http://shop.example.org/v1/x", (), None, "beta", "method is POST, not GET"),
        ("GET http://shop.example.org/v1/x", (), None, "inside", "client 192.0.2.1 is not in 10.0.0.0/8"),
        ("GET http://shop.example.org/v1", (), None, "shop", "path /v1 is not matched by ~ ^/v1/(?P<rest>.*)$"),
        ("GET http://shop.example.org/v2", (), None, "prefix", "path /v2 is not below /v2/ (which has a / at its end)"),
        ("GET http://old.example.org/older", (), None, "old", "path /older is not below /old (a prefix goes by whole"),
        ("GET http://older.org/old", (), None, "old", "host is older.org, not old.example.org"),
        (
            "GET http://shop.example.org/v1/x",
            ("Cookie: beta=yes",),
            None,
            "shop",
            "it fits too, but beta is more specific by its conditions",
        ),
        (
            "GET http://shop.example.org/v1/x",
            (),
            "10.1.1.1",
            "inside",
            "it fits too, but shop is more specific by its host",
        ),
    ],
)
def test_each_near_miss_has_the_first_thing_that_it_lacked(
    asked: str, lines: tuple[str, ...], client: str | None, route: str, why: str
) -> None:
    assert misses(of(asked, *lines, client=client))[route].startswith(why)


def test_the_nearest_comes_first() -> None:
    found = of("PUT http://shop.example.org/v1/x")
    assert found.is_unmatched
    assert found.answered == "404 no route: nothing matches"
    assert [miss.route for miss in found.near][:4] == ["shop", "inside", "beta", "prefix"]


def test_of_many_near_misses_the_first_are_told() -> None:
    routes = "\n".join(f"  - {{match: {{host: h{number}.org}}, upstream: shop}}" for number in range(30))
    loaded = load_text(TEXT.replace("routes:\n", f"routes:\n{routes}\n"), "f")
    found = ask(loaded.config, Question("http://h31.org/"))
    assert len(found.near) == 8
    assert found.more_near >= 22
    assert "h3.org /" in misses(found), "the likest names come first"


def test_shares_of_upstreams_and_backends() -> None:
    found = of("http://shop.example.org/v1/")
    assert [(each.upstream, each.weight, each.percent) for each in found.targets] == [
        ("shop", 90, 90.0),
        ("canary", 10, 10.0),
    ]
    assert [(each.backend, each.percent) for each in found.targets[0].candidates] == [
        ("a", 60.0),
        ("b", 30.0),
        ("c", 0.0),
    ]


@pytest.mark.parametrize(
    ("asked", "client", "step"),
    [
        ("http://old.example.org/old/x?a=b", None, "redirect: answers 308, to https://shop.example.org/old/x?a=b"),
        ("http://shop.example.org/v2/", None, "respond: answers 200 by itself"),
        ("http://a.example.org/", "10.1.1.1", "maintenance: answers 503: under maintenance"),
        ("http://a.example.org/", "10.9.1.1", "maintenance: is under maintenance, but client 10.9.1.1 passes"),
        (
            "http://shop.example.org/v1/x/../y",
            None,
            "answers 400 this path is not served: the path climbs: it has `..`",
        ),
        ("http://enc.example.org/x/../y", None, "sends the path as /y: the path climbs: it has `..` as a segment"),
    ],
)
def test_what_a_route_does(asked: str, client: str | None, step: str) -> None:
    [said] = of(asked, client=client).steps
    assert said.startswith(step)


def test_a_setting_says_by_itself_what_it_does() -> None:
    class Own:
        def describe(self, asking: Asking) -> list[str]:
            return [f"sends {asking.head.path}"]

    head = RequestHead()
    head.path = "/x"
    assert list(described(Own(), Asking(head, "192.0.2.1", Listener("web", ())))) == ["sends /x"]


def test_what_a_listener_answers_before_any_route_is_not_a_route_s() -> None:
    plain = "web: {bind: '0.0.0.0:80', redirect_to_https: true, acme: {upstream: canary}, trusted_proxies: 10.0.0.0/8}"
    text = TEXT.replace(TEXT.splitlines()[1].strip(), plain)
    text = text.replace("other: {", "tls: {bind: '0.0.0.0:443', tls: {certificate: /c, key: /c}}\n  other: {")
    config = load_config(text, "f")

    def at(listener: int, target: str, *lines: str, peer: str = "10.1.1.1") -> str:
        head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: shop.example.org:80", *lines])
        found = explain(config, config.listeners[listener], head.encode(), peer)
        return found.route or found.answered

    assert at(0, "/v1/x?y") == "308, to https://shop.example.org/v1/x?y: redirect_to_https"
    assert at(0, "/.well-known/acme-challenge/abc") == "by upstream canary: a challenge of ACME"
    assert at(0, "/v1/x", "X-Forwarded-Proto: https") == "shop"
    assert at(0, "/v1/x", "X-Forwarded-Proto: https", peer="192.0.2.1").startswith("308, to https://")
    assert at(1, "/v1/x") == "shop"


def test_who_may_pass_is_told_without_secrets() -> None:
    text = TEXT.replace(
        "    respond: {body: hello}\n",
        """\
    respond: {body: hello}
    access:
      deny: [192.0.2.0/24]
      basic: {realm: shop, users: {ann: "$2b$12$abcdefghijklmnopqrstuuWO1SAmMiZw9zbvgpCzBcTvPMcaS1TQa"}}
""",
    )
    loaded = load_text(text, "f")
    found = ask(loaded.config, Question("http://shop.example.org/v2/"))
    assert found.steps == (
        "access: client 192.0.2.1 is refused",
        "access: asks for a user and a password, for 'shop'",
        "respond: answers 200 by itself",
    )
    assert ask(loaded.config, Question("http://shop.example.org/v2/", client="10.1.1.1")).steps[0].endswith("may pass")


@pytest.mark.parametrize(
    ("setting", "lines", "said"),
    [
        ("limits: {rate: 100/s}", (), ("limits: 100/s for client 192.0.2.1, 100 at once; 429 beyond",)),
        (
            "limits: {rate: {limit: 7/m, burst: 3, by: header X-Key}, concurrency: 5}",
            ("X-Key: k",),
            (
                "limits: 7/m for x-key 'k', 3 at once; 429 beyond",
                "limits: 5 at one time for the whole route; 503 beyond",
            ),
        ),
        (
            "limits: {concurrency: {most: 2, by: header X-Key}}",
            (),
            ("limits: 2 at one time for all without x-key; 429 beyond",),
        ),
        (
            "compress: true",
            ("Accept-Encoding: gzip, br",),
            ("compress: answers are sent in br, of the types that are named and from 1024 bytes on",),
        ),
        (
            "compress: {algorithms: gzip}",
            ("Accept-Encoding: gzip", "Range: bytes=1-"),
            ("compress: answers stay as they are: this request takes none of gzip",),
        ),
    ],
)
def test_limits_and_compression_say_what_they_are(setting: str, lines: tuple[str, ...], said: tuple[str, ...]) -> None:
    text = TEXT.replace("    respond: {body: hello}\n", f"    upstream: canary\n    {setting}\n")
    found = ask(load_text(text, "f").config, Question("http://shop.example.org/v2/", lines))
    assert found.steps == said


def test_what_goes_on_is_what_the_rewriting_makes() -> None:
    text = TEXT.replace(
        "    upstream: {shop: 90, canary: 10}\n",
        """\
    upstream: {shop: 90, canary: 10}
    rewrite: {path: "/new/{rest}", query: {remove: [utm_source]}, host: internal.example.org}
    headers:
      request: {set: {X-Tier: "l7 {client}"}, remove: [X-Debug], rename: {X-Old: X-New}}
      response: {add: {X-Route: "{route}"}}
      forwarded: none
      request_id: true
""",
    )
    found = ask(load_text(text, "f").config, Question("http://shop.example.org/v1/a/b?utm_source=x&c=d"))
    assert found.steps == (
        "rewrite: /v1/a/b?utm_source=x&c=d goes on as /new/a/b?c=d",
        "rewrite: Host is internal.example.org",
        "headers: on the request, X-Old is called X-New from then on",
        "headers: on the request, X-Debug is removed",
        "headers: on the request, X-Tier is set to 'l7 192.0.2.1'",
        "headers: on the answer, X-Route: shop is added",
        "headers: on the request, who asks is told by none",
        "headers: on both, X-Request-ID is set",
    )


@pytest.mark.parametrize(
    ("asked", "lines", "answered"),
    [
        ("http://a.org/-/health", (), "200, or 503 while it drains"),
        ("GET http://a..org:99999/", (), ""),
        ("GET http://a.org/ä", (), "400 malformed request"),
        ("CONNECT http://a.org/", (), "405 method not allowed"),
        ("GET http://a.org/", ("Transfer-Encoding: gzip",), "501 unknown transfer coding"),
        ("OPTIONS http://a.org/", ("Max-Forwards: 0",), "200: Max-Forwards is 0"),
    ],
)
def test_what_is_answered_before_any_route(asked: str, lines: tuple[str, ...], answered: str) -> None:
    if not answered:
        with pytest.raises(AskError):
            of(asked, *lines)
        return
    found = of(asked, *lines)
    assert found.answered.startswith(answered)
    assert not found.is_unmatched


def test_the_client_is_who_trusted_proxies_say() -> None:
    claim = "X-Forwarded-For: 10.2.2.2"
    assert of("http://a.example.org/", claim, client="10.1.1.1").client == "10.2.2.2"
    assert of("http://a.example.org/", claim, client="192.0.2.9").client == "192.0.2.9"
    assert of("http://a.example.org/", claim, client="10.1.1.1", listener="other").client == "10.1.1.1"


@pytest.mark.parametrize(
    ("asked", "lines", "head"),
    [
        ("http://a.org", (), b"GET / HTTP/1.1\r\nHost: a.org"),
        ("PUT http://a.org:81/x?y#z", (), b"PUT /x?y HTTP/1.1\r\nHost: a.org:81"),
        ("https://me:secret@a.org?y", (), b"GET /?y HTTP/1.1\r\nHost: a.org"),
        ("/x", ("Host: b.org",), b"GET /x HTTP/1.1\r\nHost: b.org"),
        ("http://a.org/x", ("host: b.org",), b"GET /x HTTP/1.1\r\nhost: b.org"),
        ("OPTIONS *", ("Host: b.org",), b"OPTIONS * HTTP/1.1\r\nHost: b.org"),
    ],
)
def test_a_request_is_made_of_a_url(asked: str, lines: tuple[str, ...], head: bytes) -> None:
    assert head_of(asked, lines)[0] == head


@pytest.mark.parametrize(
    ("asked", "lines", "message"),
    [
        ("", (), "is no request: write one such as"),
        ("GET ftp://a.org/", (), "neither a URL that begins with http:// or https://"),
        ("G(T http://a.org/", (), "is no request"),
        ("/x", (), "says no host"),
        ("http://a.org/", ("Cookie",), "-H 'Cookie' is no header"),
        ("http://a.org/", ("A: b\r\nC: d",), "is no header"),
        ("http://[::1/", (), "is no URL"),
    ],
)
def test_what_is_no_request_is_said(asked: str, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(AskError, match="(?s)" + message.replace("(", r"\(")):
        of(asked, *lines)


def test_where_it_comes_in() -> None:
    config = LOADED.config
    assert listener_of(config, None, "http", 8080).name == "other"
    assert listener_of(config, None, "https", 443).name == "web"
    assert listener_of(config, "other", "http", 80).name == "other"
    with pytest.raises(AskError, match="there is no listener 'wbe': did you mean 'web'"):
        listener_of(config, "wbe", "http", 80)
    with pytest.raises(AskError, match="is no address"):
        of("http://a.org/", client="localhost")


def test_in_words_it_names_lines() -> None:
    lines = list(told(of("http://shop.example.org/v1/x"), "l7proxy.yaml", dict(enumerate(range(5, 50)))))
    assert lines[0] == "GET shop.example.org /v1/x, from 192.0.2.1, at listener web"
    assert "route      shop (l7proxy.yaml:5)" in lines
    assert "  beta: cookie beta is not there (l7proxy.yaml:6)" in lines
    assert "  backend  c [::1]:3, weight 0: only its sessions" in lines


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "l7proxy.yaml"
    path.write_text(TEXT)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "l7proxy", "explain", str(path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    found = run("GET https://shop.example.org/v1/x", "-H", "Cookie: beta=yes", "--json")
    assert (found.returncode, json.loads(found.stdout)["route"]) == (0, "beta")
    missing = run("GET https://nobody.org/")
    assert missing.returncode == 1
    assert f"inside: host is nobody.org, not *.example.org ({path}:11)" in missing.stdout
    more = run("GET https://shop.example.org/", "--file", str(path))
    assert (more.returncode, "say one FILE and one REQUEST" in more.stderr) == (64, True)
    named = [sys.executable, "-m", "l7proxy", "explain", "--file", str(path), "GET https://nobody.org/"]
    again = subprocess.run(named, capture_output=True, text=True, check=False, timeout=60)
    assert (again.returncode, again.stdout) == (1, missing.stdout)
    wrong = run("GET https://shop.example.org/", "--listener", "wbe")
    assert (wrong.returncode, wrong.stderr) == (1, "l7proxy: there is no listener 'wbe': did you mean 'web'?\n")


def test_it_explains_what_an_empty_head_is() -> None:
    found = explain(LOADED.config, LOADED.config.listeners[0], b"", "192.0.2.1")
    assert found.answered.startswith("400 malformed request")


def test_the_first_backend_has_all_where_the_first_one_serves() -> None:
    text = """\
listeners: {web: {bind: "0.0.0.0:80"}}
routes: [{upstream: api}]
upstreams:
  api:
    balance: first
    backends: {z: {address: "127.0.0.1:1", weight: 0}, a: {address: "127.0.0.1:2"}, b: {address: "127.0.0.1:3"}}
"""
    found = ask(load_text(text, "l7proxy.yaml").config, Question("GET http://a.example/", (), None, None))
    assert [(each.backend, each.percent) for each in found.targets[0].candidates] == [("z", 0), ("a", 100), ("b", 0)]
