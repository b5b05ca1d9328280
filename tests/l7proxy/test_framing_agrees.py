"""Chunked bodies are read as h11 reads them, or refused; what h11 refuses is refused here.

Where we are stricter is told by `why_stricter`, and nowhere else.
"""

from __future__ import annotations

import re
from random import Random

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.core.framing import LAST_CHUNK, Chunked, FramingError, chunk

pytestmark = pytest.mark.unit

ROUNDS = 60
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = [
    b"5\r\nhello\r\n",
    b"1;x=y\r\na\r\n",
    b"00a\r\n0123456789\r\n",
    b"0\r\n\r\n",
    b"0;x\r\nX-Sum: 1\r\n\r\n",
    b"0\r\nA: 1\r\nB:\xe4\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"0",
    b"5",
    b"f",
    b"0x5\r\n",
    b"-1\r\n",
    b"5 \r\nhello\r\n",
    b"5 ;x\r\nhello\r\n",
    b"5;\x00\r\nhello\r\n",
    b"5\r\nhello",
    b"5\nhello\n",
    b"8000000000000000\r\n",
    b"ffffffffffffffff\r\n",
    b"00000000000000005\r\nhello\r\n",
    b"100000000000000005\r\nhello\r\n",
    b"0\r\n X: folded\r\n\r\n",
    b"0\r\nX: 1\n\r\n",
    b"0\r\nX: 1\r\n\n",
    b"0\r\nX: 1\r\n more\r\n\r\n",
    b"0\r\nX: \x01\r\n\r\n",
    b"0\r\nX:\r\n1\r\n\r\n",
]


def ours(data: bytes) -> tuple[bytes, bytes | None] | str:
    """The body and what follows it, or None where its end has not come; or why it is refused."""
    body = Chunked()
    try:
        found = body.feed(data)
    except FramingError as error:
        return str(error)
    return found, body.rest if body.done else None


def by_h11(data: bytes, *, answer: bool) -> tuple[bytes, bytes | None] | str:
    """The same of h11."""
    if answer:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(ANSWER_HEAD + data)
    else:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        connection.receive_data(HEAD + data)
    body = b""
    try:
        assert isinstance(connection.next_event(), h11.Request | h11.Response)
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError as error:
        return str(error)
    if event is h11.NEED_DATA:
        return body, None
    assert isinstance(event, h11.EndOfMessage), event
    return body, connection.trailing_data[0]


_SIZE = re.compile(rb"[0-9A-Fa-f]{1,20}(?:;.*)?[ \t]*")


def why_stricter(data: bytes, reason: str) -> bool:
    """Whether h11 is known to take what is refused here for `reason`."""
    lines = data.split(b"\r\n")
    match reason:
        case "a chunk's size that is none":
            # Blanks at its end, more than 16 digits, and control characters in an extension.
            return any(
                _SIZE.fullmatch(line) and not re.fullmatch(rb"[0-9A-Fa-f]{1,16}(?:;[\t -~\x80-\xff]*)?", line)
                for line in lines
            )
        case "a chunk's size that is too large":
            return any(re.match(rb"[89a-fA-F][0-9a-fA-F]{15}(?![0-9a-fA-F])", line) for line in lines)
        case "a line end that is not CRLF":
            return re.search(rb"0+(?:;.*)?\r\n(?s:.*)\n", data) is not None
        case "a trailer that is no header line":
            # Control characters in its value, folded lines.
            return re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\n[ \t]", data) is not None
        case "a chunk is longer than its size" | "a line of the chunked body is too long":
            return False
    return False


def agree(data: bytes, *, answer: bool) -> bool:
    """Both see the same; whether the body is whole."""
    mine, other = ours(data), by_h11(data, answer=answer)
    if isinstance(mine, str):
        if not isinstance(other, str) and other[1] is not None:
            assert why_stricter(data, mine), (data, mine, other)
        return False
    if isinstance(other, str):
        # h11 looks at the bytes after a chunk before we do, and at trailers after we do.
        raise AssertionError((data, mine, other))
    if other[1] is None and mine[1] is None:
        assert mine[0] == other[0], data
        return False
    assert mine == other, data
    return True


BODIES = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=9).map(chunk)), max_size=6)


@settings(max_examples=400)
@given(BODIES.map(b"".join), st.booleans())
@example(b"5\r\nhelloX\r\n0\r\n\r\n", False)
def test_bodies_are_read_as_h11_reads_them(data: bytes, answer: bool) -> None:
    agree(data, answer=answer)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_faulty_bodies_are_read_as_h11_reads_them(seed: int) -> None:
    random = Random(seed)  # noqa: S311 -- chance that can be had again
    for _ in range(ROUNDS):
        agree(faulty(random), answer=random.random() < 0.5)


def faulty(random: Random) -> bytes:
    """A chunked body with at most two faults."""
    pieces = [chunk(random.randbytes(random.choice((1, 3, 20)))) for _ in range(random.randrange(3))]
    end = random.choice((LAST_CHUNK, LAST_CHUNK, b"0\r\nX-Sum: 1\r\nY:\r\n\r\n", b"0;x=y\r\n\r\n"))
    found = bytearray(b"".join(pieces) + end + random.choice((b"", b"GET", b"\r\n")))
    for _ in range(random.randrange(3)):
        at = random.randrange(len(found))
        what = random.randrange(4)
        if what == 0:
            found[at] ^= 1 << random.randrange(8)
        elif what == 1:
            found[at:at] = random.choice((b"\r", b"\n", b"\r\n", b" ", b"0", b"a", b";", b"\x00", b"_", b"x", b"\t"))
        elif what == 2:
            del found[at : at + 1]
        else:
            found[at:at] = random.choice(PIECES)
    return bytes(found)


def test_these_tests_see_enough_of_both() -> None:
    random = Random(1)  # noqa: S311 -- as above
    whole = sum(agree(faulty(random), answer=False) for _ in range(1000))
    assert 200 < whole < 800
