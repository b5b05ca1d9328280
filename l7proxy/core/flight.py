"""One exchange that went wrong, as it is kept, and as it is told.

One rule: it is kept as it came, which costs next to nothing, and told without its secrets: `told` is the only way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from typing_extensions import TypedDict  # pydantic reads it before Python 3.12

from l7proxy.core.redaction import cut, header_lines, plain, target

LONGEST_HEAD_BYTES = 4096
LONGEST_TARGET_BYTES = 2048
LONGEST_REASON = 300
MOST_TRIES = 8


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt with a backend that gave no answer; `at` is when it ended."""

    backend: str
    cause: str
    reason: str
    at: float


class ToldTry(TypedDict):
    """The same, told."""

    backend: str
    cause: str
    reason: str
    after_ms: float


class Told(TypedDict):
    """What is told of a flight. Times of phases in ms; None is a phase that never began."""

    time: str
    at: float
    number: int
    pid: int
    client: str
    scheme: str
    method: str
    target: str
    host: str
    head: list[str]
    route: str | None
    upstream: str | None
    backend: str | None
    tries: list[ToldTry]
    status: int
    cause: str | None
    reason: str
    queue_ms: float | None
    connect_ms: float | None
    first_byte_ms: float | None
    total_ms: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Flight:
    """What is kept. Points in time are monotonic, 0.0 where something never was; heads are as they came."""

    started_at: float
    chosen_at: float
    linked_at: float
    first_byte_at: float
    ended_at: float
    client: str
    scheme: str
    method: bytes
    target: bytes
    host: bytes
    head: bytes
    route: str | None
    upstream: str | None
    backend: str | None
    tries: tuple[Try, ...]
    status: int
    cause: str | None
    reason: str
    received_bytes: int
    sent_bytes: int

    @property
    def size_bytes(self) -> int:
        """About what it takes of memory."""
        return 600 + len(self.target) + len(self.head) + len(self.host) + len(self.reason) + 200 * len(self.tries)


def told(flight: Flight, number: int, pid: int, wall_s: float) -> Told:
    """`flight` as it may be seen; `wall_s` is the wall clock's distance from the monotonic one."""
    at = flight.started_at + wall_s
    start, end = flight.started_at, flight.ended_at
    return {
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "at": round(at, 6),
        "number": number,
        "pid": pid,
        "client": flight.client,
        "scheme": flight.scheme,
        "method": cut(plain(flight.method), 32),
        "target": target(plain(flight.target)),
        "host": cut(plain(flight.host), 256),
        "head": header_lines(flight.head),
        "route": flight.route,
        "upstream": flight.upstream,
        "backend": flight.backend,
        "tries": [
            {
                "backend": each.backend,
                "cause": each.cause,
                "reason": cut(each.reason, LONGEST_REASON),
                "after_ms": _ms(start, each.at) or 0.0,
            }
            for each in flight.tries
        ],
        "status": flight.status,
        "cause": flight.cause,
        "reason": cut(flight.reason, LONGEST_REASON),
        "queue_ms": _ms(start, flight.chosen_at),
        "connect_ms": _ms(flight.chosen_at, flight.linked_at),
        "first_byte_ms": _ms(flight.linked_at, flight.first_byte_at),
        "total_ms": _ms(start, end) or 0.0,
        "bytes_in": flight.received_bytes,
        "bytes_out": flight.sent_bytes,
    }


def _ms(start_at: float, end_at: float) -> float | None:
    return round(max(0.0, end_at - start_at) * 1000, 1) if start_at and end_at else None
