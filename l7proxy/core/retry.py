"""Whether a failed attempt may be made again, and where.

One rule: a backend never gets a request twice unless the method allows it. Where nothing was sent, another backend
is tried; where a kept-alive connection turned out to be dead, the same backend is tried once on a fresh connection,
and only for requests that may be repeated (RFC 9110 9.2.2, RFC 9112 9.3.1).
"""

from __future__ import annotations

from enum import Enum

from l7proxy.core.head import RequestHead

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that are idempotent and safe; PUT and DELETE are idempotent, but a proxy cannot know who counts them."""


class Failure(Enum):
    """How an attempt ended without an answer."""

    NOT_CONNECTED = "not connected"
    """No connection: not a byte of the request was sent."""
    STALE = "stale"
    """A connection used before died before any byte of the answer."""
    BROKEN = "broken"
    """The connection died, or what came was no HTTP answer."""
    TIMED_OUT = "timed out"
    """No head of an answer in time."""


class Retry(Enum):
    """What comes next."""

    NO = "no"
    OTHER_BACKEND = "other backend"
    SAME_BACKEND = "same backend, fresh connection"


def retry(failure: Failure, head: RequestHead) -> Retry:
    """What to do after `failure`."""
    if failure is Failure.NOT_CONNECTED:
        return Retry.OTHER_BACKEND
    if failure is Failure.STALE and repeatable(head):
        return Retry.SAME_BACKEND
    return Retry.NO


def repeatable(head: RequestHead) -> bool:
    """Whether a request may be sent again after it was sent once."""
    return head.method in REPEATABLE and not head.has_body
