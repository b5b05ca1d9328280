"""Checks that cannot be probed for want of something on this host, and what of that is told.

One rule: a log line for each check and reason when it begins and when it is over, and for at most `MOST_NAMED` checks
of one reason: what the whole host lacks, all checks lack.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from director.kit.checks.check import Check
from director.kit.turns import CALM_S

log = logging.getLogger(__name__)

MOST_NAMED = 8


@dataclass(slots=True)
class _Trouble:
    reason: str
    met_at: float
    named: bool = False


class Troubles:
    """The trouble that each check is in; bounded by the checks that are watched."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._troubles: dict[Check, _Trouble] = {}

    def met(self, check: Check, reason: str) -> None:
        """A probe of `check` could not be made."""
        trouble = self._troubles.get(check)
        if trouble is not None and trouble.reason == reason:
            trouble.met_at = self._now()
            return
        self.forget(check)
        alike = [each for each in self._troubles.values() if each.reason == reason]
        named = sum(each.named for each in alike) < MOST_NAMED
        if named:
            log.error("probes cannot be made", extra={"check": str(check), "reason": reason})
        elif all(each.named for each in alike):
            log.error("probes of further checks cannot be made", extra={"reason": reason})
        self._troubles[check] = _Trouble(reason, self._now(), named)

    def made(self, check: Check) -> None:
        """A probe of `check` was made, whatever its result."""
        trouble = self._troubles.get(check)
        if trouble is not None and self._now() - trouble.met_at >= CALM_S:
            self.forget(check)
            if trouble.named:
                log.info("probes can be made again", extra={"check": str(check)})

    def forget(self, check: Check) -> None:
        """`check` is not watched any more."""
        self._troubles.pop(check, None)
