"""A token bucket in one number: the generic cell rate algorithm (ITU-T I.371, A.1), as a virtual schedule.

One rule: the number is when the bucket will be full again. One that is not in the future says nothing that need be
remembered.
"""

from __future__ import annotations

SECOND = 1_000_000_000
"""Times are whole nanoseconds."""


def decide(full_at: int, now: int, interval: int, burst: int) -> tuple[int, int]:
    """Take one from a bucket of `burst` that gets one each `interval` and is full at `full_at`: when it is full after
    that, and 0; or the same as before, and how long until there is one.

    A bucket that misses more than `burst` was filled under another limit, and counts as empty.

    >>> decide(0, 1000, interval=10, burst=2)
    (1010, 0)
    >>> decide(1010, 1000, interval=10, burst=2), decide(1020, 1001, interval=10, burst=2)
    ((1020, 0), (1020, 9))
    """
    most = now + interval * burst
    full_at = min(max(full_at, now), most)
    after = full_at + interval
    return (after, 0) if after <= most else (full_at, after - most)


def left(full_at: int, now: int, interval: int, burst: int) -> int:
    """How many such a bucket holds.

    >>> left(0, 1000, interval=10, burst=2), left(1010, 1000, interval=10, burst=2), left(1020, 1001, 10, 2)
    (2, 1, 0)
    """
    return max(0, (now + interval * burst - max(full_at, now)) // interval)
