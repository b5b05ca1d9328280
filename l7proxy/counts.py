"""What a worker has counted, as numbers that can be sent, and added to those of others: for /v1/status and /metrics.

One rule: everything is a number below a name. Counts only grow, so that those of a worker that has ended can be kept;
what rises and falls (gauges) ends with it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from l7proxy import metrics
from l7proxy.core import metering
from l7proxy.core.metering import Counters, Counts, merged
from l7proxy.runtime import Proxy

GAUGES = metering.GAUGES | {"connections", "in_flight"}
"""Last parts of names. Those of /v1/status are such as `requests` and `upstreams/shop/a/requests`."""


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """What one process has counted. `pid` 0: those that have ended."""

    pid: int
    counts: Counts


Collect = Callable[[], Awaitable[list[WorkerCounts]]]
"""How to learn what every process has counted up to now."""


async def collected(proxy: Proxy, collect: Collect | None) -> list[WorkerCounts]:
    """What every process has counted; without `collect` there is only this one. `proxy` shows the sums from then on."""
    if collect is None:
        return [WorkerCounts(os.getpid(), counts_of(proxy))]
    parts = await collect()
    show(merged(part.counts for part in parts), proxy)
    return parts


def counts_of(proxy: Proxy) -> Counts:
    """All that this process has counted."""
    counts = metrics.counts_of(proxy)
    counts["connections"] = proxy.connections
    _put(counts, "", proxy.counters)
    for upstream, state in proxy.snapshot.upstreams.items():
        for name, backend in state.backends.items():
            _put(counts, f"upstreams/{upstream}/{name}/", backend.counters)
    return counts


def lasting(counts: Counts) -> Counts:
    """What is left of `counts` when its worker has ended.

    >>> lasting({"requests": 3, "in_flight": 1, "upstreams/a/b/in_flight": 1})
    {'requests': 3}
    """
    return {name: value for name, value in counts.items() if name.rpartition("/")[2] not in GAUGES}


def show(counts: Counts, proxy: Proxy) -> None:
    """Put sums where a single process has its own: there they are read from."""
    proxy.connections = int(counts.get("connections", 0))
    _take(counts, "", proxy.counters)
    for upstream, state in proxy.snapshot.upstreams.items():
        for name, backend in state.backends.items():
            _take(counts, f"upstreams/{upstream}/{name}/", backend.counters)


def _put(counts: Counts, prefix: str, counters: Counters) -> None:
    counts[f"{prefix}requests"] = counters.requests
    counts[f"{prefix}in_flight"] = counters.in_flight
    counts[f"{prefix}bytes_sent"] = counters.bytes_sent
    for digit, count in enumerate(counters.by_class):
        if digit:
            counts[f"{prefix}answers/{digit}xx"] = count


def _take(counts: Counts, prefix: str, counters: Counters) -> None:
    counters.requests = int(counts.get(f"{prefix}requests", 0))
    counters.ended = counters.requests - int(counts.get(f"{prefix}in_flight", 0))
    counters.bytes_sent = int(counts.get(f"{prefix}bytes_sent", 0))
    counters.by_class = [0, *(int(counts.get(f"{prefix}answers/{digit}xx", 0)) for digit in range(1, 10))]
