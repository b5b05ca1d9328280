"""Who gets which coding, of what, and that every compressor gives back what it got."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.configfile import InvalidConfigError
from l7proxy.core.compression import choose, compressor, judge
from l7proxy.core.lookup import Fields
from l7proxy.core.settings.compression import Compression, Level
from l7proxy.files.loading import load_text
from tests.wire.codings import pieces_of

pytestmark = pytest.mark.unit

ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip, br", "br"),
        (b"GZIP;Q=0.9 , br ; q=0.5", "gzip"),
        (b"x-gzip", "gzip"),
        (b"*", "zstd"),
        (b"*;q=0.5, zstd;q=0", "br"),
        (b"gzip;q=0", None),
        (b"identity", None),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", "gzip"),
        (b"", None),
        (b"deflate", None),
        (b"gzip;q=2", None),
        (b"gzip;q=nan", None),
        (b"gzip;q=", None),
        (b"gzip;x=1;q=0.1", "gzip"),
        (b"," * 300 + b"gzip", "gzip"),
        (b"\xff;q=\xff, gzip", "gzip"),
    ],
)
def test_the_client_chooses(accepted: bytes, coding: str | None) -> None:
    assert choose(accepted, ALL) == coding


@pytest.mark.parametrize(
    ("media_type", "fits"),
    [
        (b"text/html; charset=utf-8", True),
        (b"TEXT/HTML", True),
        (b"application/problem+json", True),
        (b"application/json", True),
        (b"image/svg+xml", True),
        (b"text/event-stream", False),
        (b"image/png", False),
        (b"application/octet-stream", False),
        (b"text/", False),
        (b"text/a/b", False),
        (b"", False),
    ],
)
def test_types_that_gain_by_it(media_type: bytes, fits: bool) -> None:
    answer = Fields(b"Content-Type: " + media_type + b"\r\n")
    asked = Fields(b"Accept-Encoding: gzip\r\n")
    assert judge(Compression(), asked, b"GET", 200, answer) == (fits, "gzip" if fits else None)


@given(
    st.sampled_from(ALL),
    st.sampled_from(Level),
    st.lists(st.tuples(st.binary(max_size=50), st.sampled_from([1, 5000])), max_size=6),
)
def test_what_goes_in_comes_out_piece_by_piece(coding: str, level: Level, parts: list[tuple[bytes, int]]) -> None:
    made = compressor(coding, level)
    decode = pieces_of(coding)
    for part, times in parts:
        piece = part * times
        assert decode(made.encode(memoryview(piece), False)) == piece
    assert decode(made.encode(b"", True)) == b""


@pytest.mark.parametrize(
    ("compress", "place", "said"),
    [
        ("{algorithms: [gzip, br, gzip]}", "5:39", "gzip is there already"),
        ("{algorithms: deflate}", "5:28", "use one of zstd, br, gzip"),
        ("{algorithms: []}", "5:28", "at least one"),
        ("{types: html}", "5:23", "is not a media type: write one such as text/html"),
        ("{types: [image/png]}", "5:24", "is compressed already"),
        ("{types: ['*/*']}", "5:24", "is not a media type"),
        ("{minimum_bytes: -1}", "5:31", "too small"),
        ("{level: 9}", "5:23", "use one of fast, balanced, small"),
        ("fast", "5:15", "cannot stand here: write a mapping"),
    ],
)
def test_mistakes_are_told_where_they_stand(compress: str, place: str, said: str) -> None:
    text = (
        'listeners: {http: {bind: "0.0.0.0:80"}}\nupstreams: {up: {backends: {a: {address: "10.0.0.1:80"}}}}\n'
        f"routes:\n  - upstream: up\n    compress: {compress}\n"
    )
    with pytest.raises(InvalidConfigError) as caught:
        load_text(text, "f")
    [line] = caught.value.lines()
    assert line.startswith(f"f:{place}: ")
    assert said in line
