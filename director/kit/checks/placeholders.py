"""`{address}` and `{port}` in words of a check: the real server's.

One rule: nothing else in braces is touched, so that a word may have braces of its own.
"""

from __future__ import annotations

from director.kit.net import Endpoint


def needs_port(*words: str) -> bool:
    """Whether a port must be known to fill these in."""
    return any("{port}" in word for word in words)


def filled_in(word: str, target: Endpoint) -> str:
    """`word` with what is `target`'s.

    >>> from ipaddress import ip_address
    >>> filled_in("{address}:{port} {x}", Endpoint(ip_address("10.0.0.1"), 80))
    '10.0.0.1:80 {x}'
    """
    return word.replace("{address}", str(target.address)).replace("{port}", str(target.port))
