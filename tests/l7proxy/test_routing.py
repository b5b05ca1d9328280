"""Which route a request takes: precedence as tables, and that order in the file plays no part."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.config import parse_path
from l7proxy.core.model import Route
from l7proxy.core.routing import RouteTable, ties

pytestmark = pytest.mark.unit


def route(text: str) -> Route:
    """`host path`, named by itself; `-` is any host."""
    host, _, path = text.partition(" ")
    return Route(text, "up", () if host == "-" else tuple(host.split(",")), parse_path(path))


ROUTES = [
    "- /",
    "- /v1",
    "- /v1/",
    "- = /v1/exact",
    "- ~ ^/v1/[0-9]+$",
    "- ~ /[0-9]+$",
    "*.example.org /",
    "*.shop.example.org /",
    "example.org,www.example.org /",
    "www.example.org /static",
    "only.example.net = /x",
]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("nobody", "/", "- /"),
        ("nobody", "/v10", "- /"),
        ("nobody", "/v1", "- /v1"),
        ("nobody", "/v1/", "- /v1/"),
        ("nobody", "/v1/a/b", "- /v1/"),
        ("nobody", "/v1/exact", "- = /v1/exact"),
        ("nobody", "/v1/exact/", "- /v1/"),
        ("nobody", "/v1/77", "- ~ ^/v1/[0-9]+$"),
        ("nobody", "/x/77", "- ~ /[0-9]+$"),
        ("example.org", "/v1", "example.org,www.example.org /"),
        ("www.example.org", "/statics", "example.org,www.example.org /"),
        ("www.example.org", "/static/a", "www.example.org /static"),
        ("a.example.org", "/", "*.example.org /"),
        ("a.b.example.org", "/", "*.example.org /"),
        ("a.shop.example.org", "/", "*.shop.example.org /"),
        ("shop.example.org", "/", "*.example.org /"),
        ("notexample.org", "/", "- /"),
        ("only.example.net", "/x", "only.example.net = /x"),
        ("only.example.net", "/y", "- /"),
        ("", "/", "- /"),
    ],
)
def test_most_specific_host_then_path_wins(host: str, path: str, expected: str) -> None:
    found = RouteTable(map(route, ROUTES)).find(host, path)
    assert found is not None
    assert found.name == expected


def test_nothing_matches() -> None:
    table = RouteTable([route("a.example.org /v1")])
    assert table.find("a.example.org", "/v2") is None
    assert table.find("b.example.org", "/v1") is None


PATTERNS = st.lists(
    st.tuples(
        st.sampled_from(["-", "a.org", "*.a.org", "b.a.org", "*.b.a.org"]),
        st.sampled_from(["/", "/x", "/x/", "/x/y", "= /x", "= /x/y", "~ ^/x", "~ y$", "~ /"]),
    ),
    min_size=1,
    unique=True,
)


@given(
    patterns=PATTERNS,
    seed=st.integers(),
    host=st.sampled_from(["a.org", "b.a.org", "c.b.a.org", "z"]),
    path=st.sampled_from(["/", "/x", "/x/", "/x/y", "/xy", "/y", "/x/y/z"]),
)
def test_order_of_routes_does_not_matter(patterns: list[tuple[str, str]], seed: int, host: str, path: str) -> None:
    routes = [route(f"{host} {path}") for host, path in patterns]
    shuffled = list(routes)
    random.Random(seed).shuffle(shuffled)  # noqa: S311
    assert RouteTable(routes).find(host, path) == RouteTable(shuffled).find(host, path)


@given(st.text(alphabet="/ab", max_size=12), st.sets(st.text(alphabet="/ab", max_size=6), max_size=6))
def test_longest_prefix_is_found_as_by_trying_them_all(path: str, prefixes: set[str]) -> None:
    path = "/" + path
    routes = [Route(text, "up", (), parse_path(text)) for text in {"/" + prefix for prefix in prefixes}]
    fitting = [
        r.name for r in routes if path == r.name or path.startswith(r.name if r.name[-1] == "/" else r.name + "/")
    ]
    found = RouteTable(routes).find("h", path)
    assert (found.name if found else None) == max(fitting, key=len, default=None)


def test_ties_name_both_routes() -> None:
    routes = [route("a.org /"), route("b.org /"), route("c.org,a.org /"), route("a.org = /")]
    assert list(ties(dict(enumerate(routes)))) == [(2, 0)]


def test_many_slashes_are_cheap() -> None:
    table = RouteTable([route("- /v1")])
    assert table.find("h", "/" * 30_000) is None


@pytest.mark.parametrize("pattern", [r"^/.*/.*/edit$", r"/.*/edit$", r"^/([a-z/]+/?)+\.html$", r"(/a*)*(/a*)*$x"])
@pytest.mark.parametrize("piece", ["/", "a", "a/"])
def test_no_path_makes_a_pattern_slow(pattern: str, piece: str) -> None:
    """RE2 takes milliseconds; backtracking, minutes."""
    table = RouteTable([route(f"- ~ {pattern}")])
    started_at = time.process_time()
    table.find("h", "/" + piece * (30_000 // len(piece)))
    assert time.process_time() - started_at < 1.0
