"""Health on its way from a prober to the backends of a snapshot, also from one process to others.

One rule: processes that have read the same text have the same checks in the same order, so a check's place names it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from director.kit.checks.check import Check
from director.kit.health import HealthState, ProbeResult, Status
from l7proxy.control import HealthChange
from l7proxy.runtime import Snapshot

log = logging.getLogger("l7proxy")


class ToldHealth:
    """What another process's prober has told of the checks of one configuration."""

    def __init__(self, checks: Iterable[Check], changes: Iterable[HealthChange]) -> None:
        self._checks = tuple(checks)
        self._states: dict[Check, HealthState] = {}
        self.take(changes)

    def state(self, check: Check) -> HealthState:
        """What is known of `check`; PENDING when it is not one of them."""
        return self._states.get(check, HealthState())

    @property
    def states(self) -> dict[Check, HealthState]:
        """All checks, in order."""
        return {check: self.state(check) for check in self._checks}

    def take(self, changes: Iterable[HealthChange]) -> list[Check]:
        """Learn, and say of which checks."""
        learnt = []
        for place, status, ok, reason in changes:
            if 0 <= place < len(self._checks):
                check = self._checks[place]
                last = ProbeResult(ok, reason) if reason else None
                self._states[check] = HealthState(Status(status), last=last)
                learnt.append(check)
        return learnt


def told(place: int, state: HealthState) -> HealthChange:
    """What to tell of a check."""
    last = state.last
    return place, state.status.value, last.ok if last is not None else False, last.reason if last is not None else ""


def told_all(states: Mapping[Check, HealthState]) -> tuple[HealthChange, ...]:
    """What to tell of all checks; `states` are in the order of `checks_of`."""
    return tuple(told(place, state) for place, state in enumerate(states.values()) if state.last is not None)


def take_health(snapshot: Snapshot, check: Check, before: HealthState, after: HealthState) -> None:
    """Give every backend that `check` is about its new health, and log what that changes."""
    for name, upstream in snapshot.upstreams.items():
        hit = [state for state in upstream.backends.values() if state.backend.check == check]
        if not hit:
            continue
        for state in hit:
            state.health = after
            if after.status is before.status:
                continue
            up = after.status is Status.UP
            log.log(
                logging.INFO if up else logging.WARNING,
                "backend is up" if up else "backend is down",
                extra={
                    "upstream": name,
                    "backend": state.backend.name,
                    "reason": after.last.reason if after.last is not None else "",
                    "before": before.status.value,
                },
            )
        served = bool(upstream.weights)
        upstream.refresh()
        if served and not upstream.weights:
            log.error("upstream has no backend left", extra={"upstream": name, "reason": upstream.why_nobody()})


def take_health_in_silence(snapshot: Snapshot, checks: Iterable[Check], told: ToldHealth) -> None:
    """The same where another process has logged it."""
    learnt = set(checks)
    for upstream in snapshot.upstreams.values():
        hit = [state for state in upstream.backends.values() if state.backend.check in learnt]
        for state in hit:
            if state.backend.check is not None:
                state.health = told.state(state.backend.check)
        if hit:
            upstream.refresh()
