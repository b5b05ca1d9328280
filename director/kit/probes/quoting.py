"""What a peer said, in a reason: short, on one line, and harmless on a terminal."""

from __future__ import annotations


def quoted(said: bytes, most: int = 60) -> str:
    """The beginning of `said` in quotes, with `?` for what cannot be shown.

    >>> quoted(b"220 mail\\x1b[31m\\r\\n")
    "'220 mail?[31m'"
    """
    return f"'{plain(said, most)}'"


def plain(said: bytes, most: int = 120) -> str:
    """The same without quotes.

    >>> plain(b"  out\\tof memory \\r\\n")
    'out of memory'
    """
    text = said[: most * 4].decode("utf-8", "replace").strip()
    text = "".join(c if c.isprintable() and c != "\ufffd" else " " if c in "\t\r\n" else "?" for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."
