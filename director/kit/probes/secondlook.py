"""A probe through the VIP that has failed is followed by one of the real server itself: which of the two is broken?

One rule: the second look only words the reason; the verdict is the first one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from director.kit.checks.base import Route
from director.kit.checks.check import Check
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.attempt import Done, Outcome


class Stoppable(Protocol):
    """A probe that runs."""

    def cancel(self) -> None:
        """It ends without an outcome."""


Begin = Callable[[Check, Done, float], Stoppable]


class SecondLook:
    """One probe of `check`, and another of its real server where that fails. `done` gets one outcome for both.

    Where the one before has failed, as `failing` remembers, both begin at once: a black
    hole costs one timeout then, not two.
    """

    __slots__ = ("_begin", "_check", "_done", "_failing", "_first", "_is_over", "_running", "_second")

    def __init__(self, begin: Begin, check: Check, done: Done, now: float, failing: set[Check]) -> None:
        self._begin = begin
        self._check = check
        self._done = done
        self._failing = failing
        self._is_over = False
        self._first: ProbeResult | None = None
        self._second: Outcome | None = None
        self._running: dict[bool, Stoppable] = {}  # the first by True, the second by False
        if check in failing:
            self._begin_second(now)
        self._running[True] = begin(check, self._first_ended, now)

    def cancel(self) -> None:
        """End without an outcome."""
        self._is_over = True
        for run in self._running.values():
            run.cancel()
        self._running.clear()

    def _first_ended(self, outcome: Outcome, now: float) -> None:
        if self._is_over:
            return
        del self._running[True]
        if not isinstance(outcome, ProbeResult) or outcome.ok:
            self._failing.discard(self._check)
            self.cancel()
            self._done(outcome, now)
            return
        self._failing.add(self._check)
        self._first = outcome
        if False not in self._running and self._second is None:
            self._begin_second(now)
        self._tell(now)

    def _begin_second(self, now: float) -> None:
        direct = direct_check(self._check)
        if direct is not None:
            self._running[False] = self._begin(direct, self._second_ended, now)

    def _second_ended(self, outcome: Outcome, now: float) -> None:
        if not self._is_over:
            del self._running[False]
            self._second = outcome
            self._tell(now)

    def _tell(self, now: float) -> None:
        if self._first is not None and self._second is not None:
            self._is_over = True
            self._done(told(self._first, self._second), now)


def direct_check(check: Check) -> Check | None:
    """The same probe of the real server itself; None where `check` goes there anyway."""
    real = check.route.real
    if real is None:
        return None
    source = check.route.source
    if source is not None and source.version != real.version:
        source = None
    return replace(check, target=Endpoint(real, check.target.port), route=Route(source), sentinel=False)


def told(failed: ProbeResult, direct: object) -> ProbeResult:
    """`failed`, through the VIP, with what the probe of the real server itself amounts to.

    >>> told(ProbeResult(False, "no answer within 1s"), ProbeResult(True, "status 200")).reason
    'through the VIP: no answer within 1s; the server itself answers (status 200): its VIP or the way there is broken'
    """
    through = f"through the VIP: {failed.reason}"
    if not isinstance(direct, ProbeResult):
        return replace(failed, reason=f"{through}; the server itself could not be probed ({direct})")
    if direct.ok:
        answers = f"the server itself answers ({direct.reason}): its VIP or the way there is broken"
        return replace(failed, reason=f"{through}; {answers}")
    if direct.reason == failed.reason:
        return replace(failed, reason=f"{failed.reason}, through the VIP and at its own address")
    return replace(failed, reason=f"{through}; the server itself is down, too ({direct.reason})")
