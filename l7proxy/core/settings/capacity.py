"""How many requests a backend has at one time, and who waits: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.duration import Duration
from director.kit.yamltree import Path

MOST = 1_000_000


def _some_requests(value: object) -> object:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"{value} lets nobody in: write 1 or more, or `weight: 0` to drain a backend")
    return value


def _some_places(value: object) -> object:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"nobody can wait in {value} places: write 1 or more, or remove `queue`")
    return value


MostRequests = Annotated[int, Field(strict=True, ge=1, le=MOST), BeforeValidator(_some_requests)]


class QueueSection(Section):
    """`{length: 100, timeout: 5s}`"""

    length: Annotated[int, Field(strict=True, ge=1, le=MOST), BeforeValidator(_some_places)] = Field(
        100, description="requests that wait at one time, in all workers together; more are answered 503 at once"
    )
    timeout: Duration = Field(5.0, description="how long one waits for a backend; then it is answered 503")


@dataclass(frozen=True, slots=True)
class Queue:
    """At most `length` requests wait in all workers together, each for `timeout_s`."""

    length: int = 100
    timeout_s: float = 5.0


def build_queue(section: QueueSection) -> Queue:
    """`section`, which has no findings."""
    return Queue(section.length, section.timeout)


def queue_findings(
    section: QueueSection | None, path: Path, most: int | None, backends: Mapping[str, int | None]
) -> Iterator[Finding]:
    """What is wrong about a queue where the upstream's `max_connections` is `most`, and those of its backends are
    `backends`."""
    if section is None or most is not None:
        return
    free = [name for name, own in backends.items() if own is None]
    if len(free) == len(backends):
        yield path, "nobody ever waits: no backend has a limit; give the upstream `max_connections`, or remove `queue`"
    elif free:
        yield (
            path,
            f"nobody ever waits: backend {free[0]!r} has no limit and takes all; give the upstream `max_connections`, "
            "or remove `queue`",
        )
