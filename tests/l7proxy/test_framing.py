"""Where chunked bodies end, however they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.framing import (
    LAST_CHUNK,
    LONGEST_SIZE_LINE,
    LONGEST_TRAILER,
    MOST_EXTENSION_BYTES,
    Chunked,
    FramingError,
    chunk,
)

pytestmark = pytest.mark.unit


def read(*pieces: bytes) -> tuple[bytes, bool, bytes]:
    """The body in what comes in `pieces`, whether it is whole, and what follows it."""
    body = Chunked()
    found = []
    for at, piece in enumerate(pieces):
        found.append(body.feed(piece))
        if body.done:
            return b"".join(found), True, body.rest + b"".join(pieces[at + 1 :])
    return b"".join(found), False, b""


def outcome(*pieces: bytes) -> tuple[bytes, bool, bytes] | None:
    try:
        return read(*pieces)
    except FramingError:
        return None


def extension(length: int) -> bytes:
    return b";" + b"x" * (length - 1)


@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"5\r\nhello\r\n00000\r\n\r\nGET", b"hello", b"GET"),
        (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n\r\n", b"abc", b"\r\n"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"0000000000000001\r\na\r\n0\r\n\r\n", b"a", b""),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
        (b'1;a=b;c="d;\xe4"\r\na\r\n0;e\r\n\r\n', b"a", b""),
        (b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nrest", b"a", b"rest"),
        (b"1%b\r\na\r\n0\r\n\r\n" % extension(LONGEST_SIZE_LINE - 1), b"a", b""),
        (b"0\r\nA:%b\r\n\r\n" % (b"x" * (LONGEST_TRAILER - 3)), b"", b""),
    ],
)
def test_bodies_end_where_they_say(data: bytes, body: bytes, rest: bytes) -> None:
    assert read(data) == (body, True, rest)
    for at in range(len(data)):
        assert read(data[:at], data[at:]) == (body, True, rest)
    assert read(*(data[at : at + 1] for at in range(len(data)))) == (body, True, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"5",
        b"5\r",
        b"5\r\nhell",
        b"5\r\nhello",
        b"5\r\nhello\r",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\n\r",
        b"0\r\nX: 1\r\n",
        b"7fffffffffffffff\r\na",
    ],
)
def test_a_body_without_its_end_is_not_done(data: bytes) -> None:
    assert not read(data)[1]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"0x5\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"5 ;x\r\n",
        b"5_0\r\n",
        b"5h\r\n",
        b";x\r\n",
        b"5\n",
        b"5\r\r\n",
        b"5\rhello\r\n",
        b"5;x\n",
        b"5;a\x00\r\n",
        b"5;a\rb\r\n",
        b"\xef\xbc\x95\r\n",
        b"00000000000000001\r\n",
        b"8000000000000000\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000005\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n",
        b"5\r\nhello\n\r",
        b"0\r\n\n",
        b"0\r\n\r\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\n X: 1\r\n",
        b"0\r\nX : 1\r\n",
        b"0\r\nX\r\n",
        b"0\r\n: 1\r\n",
        b"0\r\nX: \x00\r\n",
        b"0\r\nGET / HTTP/1.1\r\n",
        b"1%b\r\n" % extension(LONGEST_SIZE_LINE),
        b"1" * (LONGEST_SIZE_LINE + 2),
        b"0\r\nA:%b\r\n\r\n" % (b"x" * (LONGEST_TRAILER - 2)),
        b"0\r\nA:%b" % (b"x" * (LONGEST_TRAILER + 2)),
        b"0\r\n%b\r\n" % (b"A: 1\r\n" * (LONGEST_TRAILER // 4)),
    ],
)
def test_what_is_not_to_the_letter_is_refused(data: bytes) -> None:
    assert outcome(data) is None
    assert outcome(*(data[at : at + 1] for at in range(len(data)))) is None


def test_extensions_are_bounded_over_the_whole_body() -> None:
    one = b"1%b\r\na\r\n" % extension(128)
    most = MOST_EXTENSION_BYTES // 128
    assert outcome(one * most + LAST_CHUNK) == (b"a" * most, True, b"")
    assert outcome(one * (most + 1)) is None


@pytest.mark.parametrize("over", range(-3, 4))
def test_limits_do_not_depend_on_how_bytes_come(over: int) -> None:
    size = b"1%b\r\na\r\n0\r\n\r\n" % extension(LONGEST_SIZE_LINE - 1 + over)
    trailer = b"0\r\nA:%b\r\n\r\n" % (b"x" * (LONGEST_TRAILER - 3 + over))
    for data in (size, trailer):
        whole = outcome(data)
        assert (whole is None) == (over > 0)
        for at in range(len(data)):
            assert outcome(data[:at], data[at:]) == whole


BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(BODIES, st.binary(max_size=8), st.data())
def test_what_is_chunked_here_is_read_here(pieces: list[bytes], rest: bytes, data: st.DataObject) -> None:
    wire = b"".join(map(chunk, pieces)) + LAST_CHUNK + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert read(*parts) == (b"".join(pieces), True, rest)


ODD = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"0", b"1", b"3", b"f", b"abc", b";x=1", b";", b"X: 1", b"A:", b" ", b"\x00", b"\xff"]
    ),
    max_size=14,
).map(b"".join)


@given(ODD, st.data())
def test_any_split_reads_the_same(wire: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert outcome(*parts) == outcome(wire)
