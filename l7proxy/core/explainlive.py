"""How things are at this moment for a request that is explained: plain values, and who is asked for them.

One rule: whoever tells them only looks. No token is taken, no turn, no place, and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from l7proxy.core.describe import Asking
from l7proxy.core.model import Route


@dataclass(frozen=True, slots=True)
class LimitNow:
    """What `limits.KIND` of the route would say. `refused` is what is answered; empty where the request passes."""

    kind: str
    said: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Lead:
    """Where something of the request leads, such as its session's cookie: to `backend`; empty, and `why`: nowhere."""

    by: str
    backend: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class BackendNow:
    """A backend: what the operator wants of it or its checks say, the weight that counts, and why it is not the file's.

    `share` is its part of what its upstream gets, from 0 to 1; `placed` are the requests that count against
    `max_connections`, where there is one.
    """

    state: str
    weight: int
    why: tuple[str, ...]
    share: float
    in_flight: int
    placed: int | None = None
    max_connections: int | None = None


@dataclass(frozen=True, slots=True)
class UpstreamNow:
    """An upstream. `refused` is what is answered instead of a backend; empty where one would be asked."""

    refused: str = ""
    breaker: str = ""
    """How its breaker stands, in words; empty where it has none."""
    waiting: int | None = None
    queue: int | None = None
    leads: tuple[Lead, ...] = ()
    backends: Mapping[str, BackendNow] = field(default_factory=dict)


class Live(Protocol):
    """A proxy that runs, or nobody."""

    def limits(self, route: Route, asking: Asking) -> tuple[LimitNow, ...]:
        """What limits the route, now."""
        ...

    def shares(self, route: Route, asking: Asking) -> Mapping[str, float]:
        """What each upstream of a route gets of such requests, in percent."""
        ...

    def upstream(self, name: str, asking: Asking) -> UpstreamNow:
        """How an upstream of the route is."""
        ...
