r"""Bytes as operators write them in YAML, for checks that send and compare what is no text.

One rule: escapes belong into single quotes or none: `'GET\r\n'`, `'\x00\xff'`. YAML reads those of double quotes
itself: our files may have no control characters but line breaks and tabs, and `"\xff"` is a letter to YAML.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from director.kit.shown import shown

MOST_PAYLOAD_BYTES = 16 * 1024
_PLAIN = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|[rnt0\\])|\\(.{0,3})", re.DOTALL)


def parse_payload(value: object) -> bytes:
    r"""The bytes that `value` means: UTF-8, with the escapes \r \n \t \0 \\ and \xNN.

    Raises: ValueError, with a message an operator can act on.

    >>> parse_payload(r"PING\r\n"), parse_payload(r"\x00\xff")
    (b'PING\r\n', b'\x00\xff')
    """
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: write it in single quotes")
    pieces: list[bytes] = []
    done = 0
    for match in _ESCAPE.finditer(value):
        known, unknown = match[1], match[2]
        if known is None:
            raise ValueError(f"`\\{unknown}` is not an escape: use \\r, \\n, \\t, \\0, \\xNN, or \\\\ for a backslash")
        pieces.append(_encoded(value[done : match.start()]))
        pieces.append(bytes.fromhex(known[1:]) if known[0] == "x" else _PLAIN[known].encode())
        done = match.end()
    payload = b"".join((*pieces, _encoded(value[done:])))
    if len(payload) > MOST_PAYLOAD_BYTES:
        raise ValueError(f"it has {len(payload)} bytes: use at most {MOST_PAYLOAD_BYTES}")
    return payload


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can write
        raise ValueError(f"{shown(text)} has no bytes in UTF-8: use \\xNN for single bytes") from None


def _some(value: object) -> bytes:
    payload = parse_payload(value)
    if not payload:
        raise ValueError("it is empty: write what is meant, or leave the key out")
    return payload


def shown_bytes(data: bytes, most: int = 40) -> str:
    r"""The beginning of what a peer sent, fit for one line of a log: printable ASCII, the rest as escapes.

    >>> shown_bytes(b"ok\n\xff'"), shown_bytes(b"abcdef", most=3)
    ("'ok\\n\\xff\\''", "'abc'... (6 bytes)")
    """
    text = data[:most].decode("latin-1")
    body = "".join(_shown_character(character) for character in text)
    return f"'{body}'" + (f"... ({len(data)} bytes)" if len(data) > most else "")


_SHOWN = {"\r": r"\r", "\n": r"\n", "\t": r"\t", "\0": r"\0", "\\": r"\\", "'": r"\'"}


def _shown_character(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    return character if " " <= character <= "~" else f"\\x{ord(character):02x}"


Payload = Annotated[
    bytes,
    BeforeValidator(_some),
    WithJsonSchema({"type": "string", "examples": [r"PING\r\n", r"\x00\x01"]}),
]
r"""At least a byte, written as text with the escapes \r \n \t \0 \\ and \xNN."""
