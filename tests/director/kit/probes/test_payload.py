"""Bytes that an operator writes as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.payload import MOST_PAYLOAD_BYTES, parse_payload, shown_bytes
from director.kit.yamltree import parse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("PING", b"PING"),
        (r"PING\r\n", b"PING\r\n"),
        (r"\x00\xFf\0\t", b"\x00\xff\0\t"),
        (r"\\x00", rb"\x00"),
        ("grün", "grün".encode()),
        ("\r\n", b"\r\n"),
        ("", b""),
    ],
)
def test_escapes(written: str, bytes_: bytes) -> None:
    assert parse_payload(written) == bytes_


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (r"\q", r"`\\q` is not an escape"),
        (r"\x0", r"`\\x0` is not an escape"),
        ("\\", r"`\\` is not an escape"),
        (7, "7 is not text"),
        (None, "nothing is not text"),
        ("\ud800", "has no bytes in UTF-8"),
        ("x" * (MOST_PAYLOAD_BYTES + 1), "use at most 16384"),
    ],
)
def test_what_is_no_payload_says_what_to_write(written: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_payload(written)


@pytest.mark.parametrize("written", [r"a: 'PING\r\n\x00'", r"a: PING\r\n\x00", r'a: "PING\\r\n\\0"'])
def test_yaml_hands_escapes_on(written: str) -> None:
    data = parse(written).data
    assert isinstance(data, dict)
    assert parse_payload(data["a"]) == b"PING\r\n\x00"


@given(st.binary(max_size=200))
def test_every_byte_can_be_written(data: bytes) -> None:
    assert parse_payload("".join(f"\\x{byte:02x}" for byte in data)) == data
    assert parse_payload(shown_bytes(data, most=200)[1:-1].replace("\\'", "'")) == data


@given(st.text())
def test_any_text_is_bytes_or_a_sentence(text: str) -> None:
    try:
        parse_payload(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ": "
    assert ": " in said


@given(st.binary(), st.integers(1, 50))
def test_shown_bytes_are_one_short_line(data: bytes, most: int) -> None:
    shown = shown_bytes(data, most)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 4 * most + 30


def test_shown_bytes_name_the_whole_length() -> None:
    assert shown_bytes(b"abcdef", 3) == "'abc'... (6 bytes)"
