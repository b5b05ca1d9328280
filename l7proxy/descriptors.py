"""File descriptors: how many there are, and how they are shared out.

One rule: clients get only what leaves every one of them a connection to a backend, so that new ones never make
established ones fail.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from functools import lru_cache

KEPT = 64
"""For the loop, listeners, logs, the admin endpoint, the agent (`agent.py`), and files that are read."""
MOST_PROBES = 1024
"""Probes run at one time in up to a quarter of all descriptors, and no more than these (`kit.turns`)."""
MOST_IDLE_LINKS = 4096
MOST_PIPES = 256
"""Each has two descriptors. Connections that carry bulk get one for each direction; others copy."""

LISTED_EVERY_S = 60.0
_OURS = "/proc/self/fd"


@dataclass(frozen=True, slots=True)
class Shares:
    """What fits: connections of clients, each with one to a backend, and idle links to backends and pipes besides."""

    clients: int
    idle_links: int
    pipes: int


def share_out(descriptors: int, forwards: bool = False) -> Shares:
    """How `descriptors` are used; `forwards` is whether a listener forwards connections as they are.

    >>> share_out(1024), share_out(20_000)
    (Shares(clients=317, idle_links=70, pipes=0), Shares(clients=8510, idle_links=1891, pipes=0))
    >>> share_out(1024, forwards=True)
    Shares(clients=300, idle_links=70, pipes=17)
    """
    left = max(0, descriptors - KEPT - min(MOST_PROBES, descriptors // 4))
    idle_links = min(MOST_IDLE_LINKS, left // 10)
    pipes = min(MOST_PIPES, left // 40) if forwards else 0
    return Shares(max(1, (left - idle_links - 2 * pipes) // 2), idle_links, pipes)


def raise_limit() -> None:
    """Raise the soft limit to the hard one. Where that is not allowed the soft one stays."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return


def in_use() -> int:
    """How many this process has; 0 where nobody can say."""
    try:
        return os.stat(_OURS).st_size or _listed(int(time.monotonic() / LISTED_EVERY_S))  # noqa: PTH116 -- 6 us
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _listed(period: int) -> int:
    """The same on kernels before 6.2, whose folder has no size: it takes 6 us for each, so it is done seldom."""
    del period
    return len(os.listdir(_OURS)) - 1  # noqa: PTH208 -- names will do; that of the folder is among them


def limit() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**30 if soft == resource.RLIM_INFINITY else soft
