"""l7proxy.yaml: what a file comes to, and every problem at its place."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.configfile import InvalidConfigError
from director.kit.net import parse_endpoint
from l7proxy.core.config import load_config
from l7proxy.core.model import AccessLogFormat, Config, PathKind, UpstreamTimeouts
from l7proxy.core.settings.balancing import Balance

pytestmark = pytest.mark.unit

FULL = """\
listeners:
  http: {bind: "0.0.0.0:80"}
  inner: {bind: ["[::1]:8080", "127.0.0.1:8080"], trusted_proxies: [10.0.0.0/8, 192.0.2.7]}
admin: {bind: "127.0.0.1:9091"}
agent: {bind: ["127.0.0.1:9101", "[::1]:9101"]}
access_log: false
via: false
limits: {connections: 500, head_bytes: 16384}
timeouts: {head: 5s, idle: 30s, keepalive: 20s, drain: 1m, notice: 3s}
defaults:
  check: {type: tcp, interval: 5s}
routes:
  - {match: {host: [Shop.Example.org, "*.shop.example.org"], path: /v1}, upstream: shop}
  - {name: login, match: {path: "= /login"}, upstream: auth}
  - {match: {path: "~ ^/v[12]/"}, upstream: auth}
  - {upstream: shop}
upstreams:
  shop:
    balance: round_robin
    check: {type: http, path: /healthz, timeout: 300ms}
    timeouts: {connect: 1s, response: 10s, idle: 20s, keepalive: 3s}
    backends:
      a: {address: "10.0.1.11:8000"}
      b: {address: "10.0.1.12:8000", weight: 2}
  auth:
    backends: {x: {address: "[2001:db8::5]:80", weight: 0}}
"""


def config(text: str) -> Config:
    return load_config(text, "f.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        config(text)
    return caught.value.lines()


def test_a_full_file() -> None:
    found = config(FULL)
    assert [listener.name for listener in found.listeners] == ["http", "inner"]
    assert found.listeners[1].binds == (parse_endpoint("[::1]:8080"), parse_endpoint("127.0.0.1:8080"))
    assert found.listeners[1].trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"))
    assert [route.name for route in found.routes] == [
        "shop.example.org,*.shop.example.org /v1",
        "login",
        "* ~ ^/v[12]/",
        "* /",
    ]
    assert [route.path.kind for route in found.routes] == [
        PathKind.PREFIX,
        PathKind.EXACT,
        PathKind.REGEX,
        PathKind.PREFIX,
    ]
    shop, auth = found.upstreams["shop"], found.upstreams["auth"]
    assert shop.balance is Balance.ROUND_ROBIN
    assert shop.timeouts == UpstreamTimeouts(1.0, 10.0, 20.0, 3.0)
    assert [(backend.name, backend.weight) for backend in shop.backends] == [("a", 1), ("b", 2)]
    check = shop.backends[0].check
    assert check is not None
    assert isinstance(check.probe, HttpProbe)
    assert (check.timing.timeout_s, check.timing.interval_s) == (0.3, 5.0)
    inherited = auth.backends[0].check
    assert inherited is not None
    assert isinstance(inherited.probe, TcpProbe)
    assert (found.access_log, found.via, found.admin) == (AccessLogFormat.NONE, False, parse_endpoint("127.0.0.1:9091"))
    assert found.agent == (parse_endpoint("127.0.0.1:9101"), parse_endpoint("[::1]:9101"))
    assert (found.limits.connections, found.timeouts.drain_s, found.timeouts.notice_s) == (500, 60.0, 3.0)


def test_the_least_file_has_safe_defaults() -> None:
    found = config(
        'listeners: {http: {bind: "0.0.0.0:80"}}\nroutes: [{upstream: u}]\n'
        'upstreams: {u: {backends: {a: {address: "10.0.0.1:80"}}}}\n'
    )
    assert found.upstreams["u"].backends[0].check is None
    assert found.listeners[0].trusted_proxies == ()
    assert found.admin is None
    assert found.agent == ()
    assert (found.timeouts.head_s, found.limits.connections) == (10.0, 10_000)
    assert found.access_log is AccessLogFormat.COMBINED


def test_equal_files_are_equal() -> None:
    assert config(FULL) == config(FULL + "# a comment\n")


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        (
            "upstream: auth}",
            "upstream: aut}",
            "aut}",
            "routes.1.upstream: there is no upstream 'aut': did you mean 'auth'",
        ),
        ("0.0.0.0:80", "[::1]:8080", '"[::1]:8080", "127', "listeners.inner.bind.0: [::1]:8080 is bound by"),
        ("0.0.0.0:80", "0.0.0.0", '"0.0.0.0"', "listeners.http.bind: '0.0.0.0' has no port"),
        (
            '"0.0.0.0:80"',
            "28080",
            "28080",
            'listeners.http.bind: 28080 is a port without an address: write "0.0.0.0:28080"',
        ),
        ("0.0.0.0:80", "0.0.0.0:0", '"0.0.0.0:0"', "listeners.http.bind"),
        ('"0.0.0.0:80"', "[]", "[]", "listeners.http.bind: has too few"),
        (
            "127.0.0.1:9091",
            "127.0.0.1:8080",
            '"127.0.0.1:8080"}\nag',
            "admin.bind: 127.0.0.1:8080 is bound by listeners",
        ),
        (
            "127.0.0.1:9101",
            "127.0.0.1:9091",
            '"127.0.0.1:9091", "[',
            "agent.bind.0: 127.0.0.1:9091 is bound by admin.bind already: use another port",
        ),
        (
            "127.0.0.1:9101",
            "0.0.0.0:8080",
            '"0.0.0.0:8080", "[',
            "agent.bind.0: 0.0.0.0:8080 and 127.0.0.1:8080, bound by listeners.inner.bind.1, overlap: use another port",
        ),
        ("127.0.0.1:9101", "[::1]:9101", '"[::1]:9101"]', "agent.bind.1: [::1]:9101 is bound by agent.bind.0 already"),
        ("127.0.0.1:9101", "127.0.0.1", '"127.0.0.1", "[', "agent.bind.0: '127.0.0.1' has no port"),
        ("10.0.0.0/8", "10.0.0.1/8", "10.0.0.1/8", "listeners.inner.trusted_proxies.0: '10.0.0.1/8' is not a network"),
        (
            "10.0.1.12",
            "10.0.1.11",
            '"10.0.1.11:8000", w',
            "upstreams.shop.backends.b.address: 10.0.1.11:8000 is backend 'a'",
        ),
        ("10.0.1.12", "10.0.1.1200", '"10.0.1.12', "upstreams.shop.backends.b.address: '10.0.1.1200' is not an IP"),
        ("weight: 2", "weight: -1", "-1", "upstreams.shop.backends.b.weight: -1 is too small"),
        ("weight: 2", "wieght: 2", "wieght", "upstreams.shop.backends.b.wieght: unknown key"),
        ("round_robin", "leastconn", "leastconn", "upstreams.shop.balance: 'leastconn' is not known"),
        ("path: /v1", "path: v1", "v1}", "routes.0.match.path: 'v1' is not a path"),
        ("path: /v1", 'path: "/v1?x"', '"/v1?x', "routes.0.match.path: '/v1?x' is not a path"),
        ("path: /v1", "path: /a/../v1", "/a/../v1", "routes.0.match.path: '/a/../v1' can never match"),
        ("path: /v1", 'path: "~ ("', '"~ ("', "routes.0.match.path: '(' is not a regular expression"),
        (
            "path: /v1",
            'path: "~ ^/(?=a)"',
            '"~ ^/(?=',
            "routes.0.match.path: '^/(?=a)' is not a regular expression that can be used here: invalid perl operator: "
            "(?= (RE2 syntax",
        ),
        (
            "0.0.0.0:80",
            "0.0.0.0:8080",
            '"127.0.0.1:8080"]',
            "listeners.inner.bind.1: 127.0.0.1:8080 and 0.0.0.0:8080, bound by listeners.http.bind.0, overlap: remove",
        ),
        (
            "0.0.0.0:80",
            "0.0.0.0:9091",
            '"127.0.0.1:9091"',
            "admin.bind: 127.0.0.1:9091 and 0.0.0.0:9091, bound by listeners.http.bind.0, overlap: use another port",
        ),
        ("Shop.Example.org", "shop:80", "shop:80", "routes.0.match.host.0: 'shop:80' is not a host"),
        ("*.shop.", "*shop.", '"*shop', "routes.0.match.host.1: '*shop.example.org' is not a host"),
        ("- {upstream: shop}", '- {match: {path: "= /login"}, upstream: shop}', '{match: {path: "= /login"}, u', ""),
        (
            "- {upstream: shop}",
            "- {name: login, upstream: shop}",
            "login, upstream",
            "routes.3.name: routes.1 is called",
        ),
        ("timeout: 300ms", "timeout: 300", "300}", "upstreams.shop.check.timeout: 300 has no unit"),
        ("timeout: 300ms", "fast_interval: 9s", "{type: http", "upstreams.shop.check: fast_interval 9s is longer"),
        ("{connections: 500", "{connections: many", "many", "limits.connections: 'many' is not a whole number"),
    ],
)
def test_a_problem_has_its_place(old: str, new: str, at: str, message: str) -> None:
    assert FULL.count(old) >= 1
    text = FULL.replace(old, new, 1)
    offset = text.rindex(at)
    line, column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
    lines = problems(text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"f.yaml:{line}:{column}: {message}"), lines


def test_all_problems_come_at_once() -> None:
    text = FULL.replace("upstream: auth}", "upstream: aut}").replace("weight: 2", "weight: x").replace("/v1}", "v1}")
    assert [line.split(": ")[1] for line in problems(text)] == [
        "routes.0.match.path",
        "routes.1.upstream",
        "routes.2.upstream",
        "upstreams.shop.backends.b.weight",
    ]


def test_a_route_with_a_bad_path_is_not_called_a_tie_as_well() -> None:
    lines = problems(FULL.replace('path: "= /login"', "path: login"))
    assert len(lines) == 1


def test_what_is_missing_is_named() -> None:
    assert problems("") == ["f.yaml:1:1: the file is empty: it needs at least `listeners:` and `upstreams:`"]
    assert [
        line.partition(": ")[0] for line in problems("listeners: {}\nroutes: []\nupstreams: {a: {backends: {}}}\n")
    ] == [
        "f.yaml:1:12",
        "f.yaml:3:27",
    ]
