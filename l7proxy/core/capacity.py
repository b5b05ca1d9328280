"""What of a configuration holds for all workers together, and what it is called on the board.

One rule: whoever asks the board for a row has its name here, or workers are not told of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.kit.configfile import Finding
from l7proxy.core.model import Config, Upstream
from l7proxy.core.window import PARTS

ROWS = 16384
"""On the board."""


def crowding_findings(config: Config) -> Iterator[Finding]:
    """Whether `config` needs more rows than there are."""
    count = sum(1 for _ in shared_names(config))
    if count > ROWS:
        yield (
            ("upstreams",),
            f"they and `routes` have {count} limits and counts that all workers share, and there is room for {ROWS}: "
            "each `max_connections` takes 1, each backend 2 with `outlier`, a `breaker` "
            f"{PARTS + 1}, a `retry_budget` {PARTS}; leave some out",
        )


def shared_names(config: Config) -> Iterator[str]:
    """All rows that `config` needs."""
    for upstream in config.upstreams.values():
        for backend in upstream.backends:
            if backend.max_connections is not None:
                yield backend_row(upstream.name, backend.name)
        if upstream.queue is not None:
            yield waiting_row(upstream.name)
            yield eldest_row(upstream.name)
        yield from names_of(upstream)
    for route in config.routes:
        if route.limits is not None and route.limits.concurrency is not None:
            yield route_row(route.name)


def names_of(upstream: Upstream) -> Iterator[str]:
    """The cells that say how an upstream fares."""
    start = f"guard/{upstream.name}/"
    if upstream.outlier is not None:
        for backend in upstream.backends:
            yield f"{start}{backend.name}/trouble"
            yield f"{start}{backend.name}/history"
    if upstream.breaker is not None:
        yield f"{start}breaker"
        yield from (f"{start}errors/{part}" for part in range(PARTS))
    if upstream.retry_budget is not None:
        yield from (f"{start}retries/{part}" for part in range(PARTS))


def backend_row(upstream: str, backend: str) -> str:
    """How many requests a backend has."""
    return f"backend/{upstream}/{backend}"


def waiting_row(upstream: str) -> str:
    """How many requests wait for an upstream."""
    return f"waiting/{upstream}"


def eldest_row(upstream: str) -> str:
    """Since when the one waits in each process that has waited longest; 0 where none does."""
    return f"eldest/{upstream}"


def route_row(route: str) -> str:
    """How many requests a route has."""
    return f"route/{route}"
