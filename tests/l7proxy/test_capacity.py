"""Limits as the file has them: what they mean, and what can be wrong about them."""

from __future__ import annotations

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.board import Board
from l7proxy.core.capacity import ROWS, shared_names
from l7proxy.core.config import load_config
from l7proxy.core.model import Config
from l7proxy.core.settings.capacity import Queue
from l7proxy.core.settings.limiting import By, Concurrency, Rate
from l7proxy.http.limits import client_of

pytestmark = pytest.mark.unit


def text(limits: str = "", upstream: str = "", backend: str = "") -> str:
    return (
        "listeners: {web: {bind: '127.0.0.1:80'}}\n"
        f"routes: [{{name: r, upstream: u{limits and ', limits: ' + limits}}}]\n"
        f"upstreams:\n  u:\n    backends: {{a: {{address: '127.0.0.1:1'{backend and ', ' + backend}}}, "
        f"b: {{address: '127.0.0.1:2'}}}}\n{upstream and '    ' + upstream}\n"
    )


def config(said: str) -> Config:
    return load_config(said, "f.yaml")


def problems(said: str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        config(said)
    (line,) = caught.value.lines()
    return line


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("{rate: 100/s}", Rate(10**7, 100, By.CLIENT)),
        ("{rate: {limit: 30/m, burst: 5, by: route}}", Rate(2 * 10**9, 5, By.ROUTE)),
        ("{rate: {limit: 500/h, by: header X-Api-Key}}", Rate(7_200_000_000, 500, By.HEADER, "x-api-key")),
    ],
)
def test_rates(said: str, rate: Rate) -> None:
    limits = config(text(said)).routes[0].limits
    assert limits is not None
    assert limits.rate == rate


@pytest.mark.parametrize(
    ("said", "concurrency"),
    [
        ("{concurrency: 200}", Concurrency(200, By.ROUTE)),
        ("{concurrency: {most: 3, by: client}}", Concurrency(3, By.CLIENT)),
    ],
)
def test_concurrency(said: str, concurrency: Concurrency) -> None:
    limits = config(text(said)).routes[0].limits
    assert limits is not None
    assert limits.concurrency == concurrency


@pytest.mark.parametrize(
    ("said", "where", "what"),
    [
        ("{rate: {limit: 0/s}}", "routes.0.limits.rate.limit", "lets nobody in"),
        ("{rate: 100}", "routes.0.limits.rate", "write a mapping"),
        ("{rate: {limit: 100}}", "routes.0.limits.rate.limit", "text"),
        ("{rate: {limit: 5/d}}", "routes.0.limits.rate.limit", "such as 100/s, 30/m or 500/h"),
        ("{rate: {limit: 9999999/s}}", "routes.0.limits.rate.limit", "at most 1000000"),
        ("{rate: {limit: 1/s, burst: 0}}", "routes.0.limits.rate.burst", "lets nobody in, ever: write 1 or more"),
        ("{rate: {limit: 1/s, by: ip}}", "routes.0.limits.rate.by", "none of client, route and `header NAME`"),
        ("{rate: {limit: 1/s, by: 'header X Y'}}", "routes.0.limits.rate.by", "such as `header X-Api-Key`"),
        ("{rate: {burst: 1}}", "routes.0.limits.rate", "key 'limit' is missing"),
        ("{concurrency: 0}", "routes.0.limits.concurrency", "lets nobody in"),
        ("{concurrency: {by: client}}", "routes.0.limits.concurrency", "key 'most' is missing"),
    ],
)
def test_what_is_wrong_with_a_routes_limits_is_found_in_place(said: str, where: str, what: str) -> None:
    line = problems(text(said))
    assert line.startswith("f.yaml:2:")
    assert f" {where}" in line
    assert what in line


def test_backends_have_the_upstreams_limit_unless_they_have_their_own() -> None:
    upstream = config(text(upstream="max_connections: 7", backend="max_connections: 9")).upstreams["u"]
    assert [backend.max_connections for backend in upstream.backends] == [9, 7]
    assert [backend.max_connections for backend in config(text()).upstreams["u"].backends] == [None, None]


def test_a_queue() -> None:
    said = text(upstream="max_connections: 7\n    queue: {length: 3, timeout: 2s}")
    assert config(said).upstreams["u"].queue == Queue(3, 2.0)
    assert config(text(upstream="max_connections: 7\n    queue: {}")).upstreams["u"].queue == Queue(100, 5.0)


@pytest.mark.parametrize(
    ("upstream", "backend", "where", "what"),
    [
        ("queue: {length: 5}", "", "upstreams.u.queue", "nobody ever waits: no backend has a limit"),
        ("queue: {length: 5}", "max_connections: 5", "upstreams.u.queue", "backend 'b' has no limit and takes all"),
        ("max_connections: 0", "", "upstreams.u.max_connections", "`weight: 0` to drain"),
        ("", "max_connections: 0", "upstreams.u.backends.a.max_connections", "`weight: 0` to drain"),
        ("max_connections: 1\n    queue: {length: 0}", "", "upstreams.u.queue.length", "or remove `queue`"),
        ("max_connections: 1\n    queue: {timeout: 0s}", "", "upstreams.u.queue.timeout", "too short"),
    ],
)
def test_what_is_wrong_with_capacity_is_found_in_place(upstream: str, backend: str, where: str, what: str) -> None:
    line = problems(text(upstream=upstream, backend=backend))
    assert f" {where}" in line
    assert what in line


def test_every_name_that_is_asked_for_is_given_out() -> None:
    said = config(text("{rate: 1/s, concurrency: 1}", "max_connections: 1\n    queue: {}"))
    names = list(shared_names(said))
    assert names == ["backend/u/a", "backend/u/b", "waiting/u", "eldest/u", "route/r"]
    assert len(set(names)) == len(names)
    assert list(shared_names(config(text()))) == []


def test_one_client_is_an_address_or_a_network_of_ipv6() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:ffff:ffff:ffff") != client_of("2001:db8:0:1::1")
    assert client_of("192.0.2.1") == client_of("::ffff:192.0.2.1") != client_of("192.0.2.2")
    assert client_of("unknown") == "unknown"


def test_what_outsiders_send_cannot_aim_at_a_place() -> None:
    one, other = Board.make(), Board.make()
    assert one.key("r", "192.0.2.1") == one.key("r", b"192.0.2.1") != one.key("q", "192.0.2.1")
    assert one.key("r", "192.0.2.1") != other.key("r", "192.0.2.1")
    assert ROWS > 0
    one.close()
    other.close()
