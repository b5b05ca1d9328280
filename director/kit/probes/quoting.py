"""What a peer said in words, for a reason: short, on one line, and harmless on a terminal."""

from __future__ import annotations


def plain(said: bytes, most: int = 120) -> str:
    """The beginning of `said`, with `?` for what cannot be shown.

    >>> plain(b"  out\\tof \\x1b[31mmemory \\r\\n")
    'out of ?[31mmemory'
    """
    text = said[: most * 4].decode("utf-8", "replace").strip()
    text = "".join(c if c.isprintable() and c != "\ufffd" else " " if c in "\t\r\n" else "?" for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."
