"""What a route changes in header lines, of requests and of answers.

One rule: lines that nobody names keep their bytes, order and duplicates. Rules look at what came, so that no rule sees
what another one made.
"""

from __future__ import annotations

import re

_REQUEST_ID = re.compile(rb"[!-~]{1,200}")


def is_request_id(value: bytes) -> bool:
    """Whether a request id that came is fit to go on."""
    return _REQUEST_ID.fullmatch(value) is not None


def request_id_of(random: int) -> bytes:
    """A request id from 128 random bits.

    >>> request_id_of(15)
    b'0000000000000000000000000000000f'
    """
    return b"%032x" % random
