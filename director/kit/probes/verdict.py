"""What a file or a script says of a server, in words.

One rule: what is not exactly one of these words is no verdict.
"""

from __future__ import annotations

import re

from director.kit.checks.payload import shown_bytes
from director.kit.health import Asks, ProbeResult

_SHARE = re.compile(r"([0-9]{1,6})(%?)")
_WORD = re.compile(r"(up|down|drain|maint)(?:[\s#:,]+(.*))?", re.IGNORECASE | re.DOTALL)
MOST_SHOWN = 200


def parse_share(word: str) -> tuple[int | None, int | None] | None:
    """Weight and share that `N` (0 to 65535) or `N%` (0 to 100) mean; None for anything else. No share is weight 0.

    >>> parse_share("75%"), parse_share("0%"), parse_share("40"), parse_share("400%")
    ((None, 75), (0, None), (40, None), None)
    """
    match = _SHARE.fullmatch(word)
    if match is None or not word.isascii() or int(match[1]) > (100 if match[2] else 65535):
        return None
    number = int(match[1])
    return (None, number) if match[2] and number else (number, None)


def first_line(data: bytes) -> str:
    """The first line, in printable characters; bounded."""
    text = data.decode("utf-8-sig", errors="replace").strip()
    line = text.splitlines()[0] if text else ""
    return "".join(character if character.isprintable() else "?" for character in line[:MOST_SHOWN]).strip()


def parse_verdict(data: bytes, source: str) -> ProbeResult | str:
    """`up`, `down`, `drain` or `maint`, perhaps with a reason behind it, or a weight or share, in the first line.

    A string says why it is no verdict.

    >>> parse_verdict(b"down disk is full\\n", "it").reason
    'it says down: disk is full'
    """
    line = first_line(data)
    share = parse_share(line)
    if share is not None:
        what = f"weight {share[0]}" if share[1] is None else f"{share[1]}%"
        return ProbeResult(True, f"{source} says {what}", weight=share[0], percent=share[1])
    match = _WORD.fullmatch(line)
    if match is None:
        said = f"says {shown_bytes(data.lstrip())}" if line else "is empty"
        return f"{source} {said}: write up, down, drain, maint, a weight (40) or a share (75%)"
    word, why = match[1].lower(), (match[2] or "").strip()
    asks = {"drain": Asks.DRAIN, "maint": Asks.MAINTENANCE}.get(word)
    return ProbeResult(word != "down", f"{source} says {word}" + (f": {why}" if why else ""), asks=asks)
