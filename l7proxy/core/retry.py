"""Whether a failed attempt may be made again, and where.

One rule: a backend never gets a request twice unless the method allows it and not a byte of an answer has come
(RFC 9110 9.2.2). Where nothing was sent, another backend is tried; where a kept-alive connection turned out to be dead,
the same backend is tried once on a fresh connection (RFC 9112 9.3.1): that is the keep-alive race, and no failure.
"""

from __future__ import annotations

from enum import Enum

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
MOST_REPLAYED_BYTES = 64 * 1024
"""Of a request's body that are kept to be sent again; a longer body is sent once."""


class Failure(Enum):
    """How an attempt ended without an answer."""

    NOT_CONNECTED = "not connected"
    """No connection: not a byte of the request was sent."""
    STALE_UNSENT = "stale, nothing sent"
    """A connection used before took nothing of the request: it had ended."""
    STALE = "stale"
    """A connection used before died before any byte of the answer."""
    BROKEN = "broken"
    """A fresh connection died before any byte of the answer."""
    FINAL = "final"
    """Something of an answer came, or none in time: the backend may be at work on it."""


class Retry(Enum):
    """What comes next."""

    NO = "no"
    OTHER_BACKEND = "other backend"
    SAME_BACKEND = "same backend, fresh connection"


def retry(failure: Failure, repeatable: bool) -> Retry:
    """What to do after `failure`; `repeatable` is whether the method is idempotent and the body still at hand.

    >>> retry(Failure.STALE, repeatable=False), retry(Failure.STALE_UNSENT, repeatable=False)
    (<Retry.NO: 'no'>, <Retry.SAME_BACKEND: 'same backend, fresh connection'>)
    """
    match failure:
        case Failure.NOT_CONNECTED:
            return Retry.OTHER_BACKEND
        case Failure.STALE_UNSENT:
            return Retry.SAME_BACKEND
        case Failure.STALE:
            return Retry.SAME_BACKEND if repeatable else Retry.NO
        case Failure.BROKEN:
            return Retry.OTHER_BACKEND if repeatable else Retry.NO
        case Failure.FINAL:
            return Retry.NO
