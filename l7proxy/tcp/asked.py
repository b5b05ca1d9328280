"""A forwarded connection, as those see it who choose among backends and who hear what they do: as a request that says
nothing but where it comes from.

One rule: a connection that a backend takes is a good answer, one that it does not take is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from l7proxy.core.lookup import Fields
from l7proxy.http.guard import OPEN, TRIAL
from l7proxy.upstreams import BackendState, UpstreamState

_REACHED, _NOT_REACHED = 200, 0
"""In terms of answers."""


class _NoHead:
    target = b"/"
    fields = b""


class Asked:
    """What balancing, ejection and breaker need of an exchange."""

    __slots__ = ("asker", "started_at", "trial")
    head = _NoHead()
    seen = Fields(b"")

    def __init__(self, asker: str, started_at: float) -> None:
        self.asker = asker
        self.started_at = started_at
        self.trial = False

    def admitted(self, upstream: UpstreamState) -> bool:
        """What the upstream's breaker says."""
        guard = upstream.guard
        said = guard.admit() if guard is not None else None
        self.trial = said == TRIAL
        return said != OPEN

    def pick(self, upstream: UpstreamState, untried: Mapping[str, int]) -> BackendState | None:
        """The backend for it. Sessions by cookie have no say: there are no cookies."""
        picker = upstream.picker
        if picker is not None:
            name = picker.pick(cast("Any", self), untried)
        elif untried is upstream.weights:
            return upstream.next()
        else:
            name = upstream.turns.pick(untried)
        return upstream.backends[name] if name is not None else None

    def may_retry(self, upstream: UpstreamState) -> bool:
        """What the upstream's budget of retries says."""
        return upstream.guard is None or upstream.guard.may_retry()

    def tell(self, upstream: UpstreamState, backend: BackendState, reached: bool) -> None:
        """A backend took the connection, or did not."""
        guard = upstream.guard
        if guard is not None and guard.saw(
            cast("Any", self), backend.backend.name, _REACHED if reached else _NOT_REACHED
        ):
            upstream.refresh()

    def over(self, upstream: UpstreamState) -> None:
        """It has ended."""
        if self.trial and upstream.guard is not None:
            self.trial = False
            upstream.guard.trial_is_void()
