"""Paths: normal form, and what is dangerous to pass on."""

from __future__ import annotations

import re
import time
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.paths import Danger, climbs, danger_of, normal_path, normalised

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/%61/%7Eb", "/a/~b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2Fb"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2E/c", "/c"),
        ("/../../x", "/x"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a//b", "/a//b"),
        ("/a/...", "/a/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/%", "/%"),
        ("/%zz", "/%zz"),
    ],
)
def test_paths_are_compared_in_normal_form(raw: str, normal: str) -> None:
    assert normal_path(raw) == normal
    assert normal_path(normal) == normal


@given(st.text(alphabet="/.ab%2eEfF", max_size=20))
def test_normal_form_is_final(path: str) -> None:
    once = normal_path("/" + path)
    assert once.startswith("/")
    # `%%32e` becomes `%2e` in one step and is left there: an escape is decoded once.
    assert normal_path(once) == once or "%" in once


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/../",
        "/a/../b",
        "/a/..",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e",
        "/a%2f..%2Fb",
        "/a/..%2fb",
        "/a%2f../b",
        "/a\\..\\b",
        "/a/..\\b",
        "/a%5c..%5Cb",
        "/a/..%5cb",
        "/a\\%2e%2e",
        "/..;/admin",
        "/a/..;jsessionid=1/b",
        "/a/..;",
        "/a/..%3bx/b",
        "/a/%2e%2e%3B/b",
        "/a;x=%2f..%2fb",
        "/%c0%ae%c0%ae/",
        "/a%C0%AF..%c1%9cb",
        "/a/b/../c",
    ],
)
def test_these_climb(path: str) -> None:
    assert climbs(path)
    assert danger_of(path) is Danger.CLIMBS


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "*",
        "/a/b.html",
        "/a//b/./c",
        "/.well-known/x",
        "/a/...",
        "/a/..b",
        "/a/b..",
        "/a/.;/b",
        "/a;..;/b",
        "/a;x=../b",
        "/a%2fb%5cc",
        "/a/%20%E2%82%AC",
        "/a/%252e%252e/b",
        "/a/%25%32%65%25%32%65/b",
        "/a..%2fb",
        "/a/..%20/b",
        "/a/\xe4",
        "/%c0%80",
        "/%2e",
        "/%2e%2e%2e",
    ],
)
def test_these_do_not(path: str) -> None:
    assert not climbs(path)
    assert danger_of(path) is None


@pytest.mark.parametrize(
    ("path", "danger"),
    [
        ("/a%00", Danger.NUL),
        ("/..%00", Danger.NUL),
        ("/%00%zz", Danger.NUL),
        ("/%", Danger.BROKEN_ESCAPE),
        ("/a%2", Danger.BROKEN_ESCAPE),
        ("/a%zz/..", Danger.BROKEN_ESCAPE),
        ("/%u002e%u002e/", Danger.BROKEN_ESCAPE),
        ("/%%32e%%32e/", Danger.BROKEN_ESCAPE),
        ("/%2500", None),
    ],
)
def test_other_dangers(path: str, danger: Danger | None) -> None:
    assert danger_of(path) is danger


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/../b", "/b"),
        ("/a/%2e%2e/%62", "/b"),
        ("/../../b", "/b"),
        ("/a%2fb//c", "/a%2Fb//c"),
        ("/a/..%2fb", Danger.CLIMBS),
        ("/a\\..\\b", Danger.CLIMBS),
        ("/a/..;/b", Danger.CLIMBS),
        ("/a/../..;/b", Danger.CLIMBS),
        ("/a/../%00", Danger.NUL),
        ("/a/%00/../b", Danger.NUL),
        ("/%%32e%%32e/", Danger.BROKEN_ESCAPE),
    ],
)
def test_what_normalise_passes_on(path: str, expected: str | Danger) -> None:
    assert normalised(path) == expected


PATHS = st.lists(
    st.sampled_from(
        ["/", ".", "..", "%2e", "%2F", "%5c", "\\", ";", "%3b", "a", "%", "%0", "%00", "%c0%ae", "%25", "\xff"]
    ),
    max_size=12,
).map(lambda pieces: "/" + "".join(pieces))


@given(PATHS)
def test_the_quick_look_misses_nothing(path: str) -> None:
    """Beside a reading that takes every path apart."""
    octets = unquote_to_bytes(path).replace(b"\xc0\xae", b".")
    up = any(segment.partition(b";")[0] == b".." for segment in re.split(rb"[/\\]", octets))
    assert climbs(path) is up
    danger = danger_of(path)
    if "%00" in path:
        assert danger is Danger.NUL
    elif re.search("%(?![0-9a-fA-F]{2})", path):
        assert danger is Danger.BROKEN_ESCAPE
    else:
        assert danger is (Danger.CLIMBS if up else None)


@given(PATHS)
def test_what_normalise_passes_on_is_safe_and_final(path: str) -> None:
    normal = normalised(path)
    if isinstance(normal, str):
        assert danger_of(normal) is None
        assert normalised(normal) == normal


@given(st.text(st.characters(), max_size=40) | PATHS.map(lambda path: path + "\udc80"))
def test_no_text_raises(path: str) -> None:
    danger_of(path)
    climbs(path)
    normalised(path)


@given(st.binary(max_size=40))
def test_the_normal_form_means_the_same_octets(octets: bytes) -> None:
    path = "/" + quote_from_bytes(octets, safe="").replace(".", "%2E")
    if danger_of(path) is None:
        assert unquote_to_bytes(normal_path(path)) in {b"/" + octets, b"/"}


@pytest.mark.parametrize("piece", ["/..", "%2e", "%2f..", "%", "/.", "\\..;", "%c0%ae", "%C3"])
def test_no_path_is_slow(piece: str) -> None:
    path = "/" + piece * (8192 // len(piece))
    started_at = time.process_time()
    for _ in range(50):
        danger_of(path)
        normalised(path)
    assert time.process_time() - started_at < 1.0
