"""Checks that cannot be probed for want of something on this host, and what of that is told.

One rule: a log line for each check and reason when it begins and when it is over, and for at most `MOST_NAMED` checks
of one reason: what the whole host lacks, all checks lack.
"""

from __future__ import annotations

import logging
from collections import Counter
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

    def __init__(self) -> None:
        self._troubles: dict[Check, _Trouble] = {}
        self._alike: Counter[str] = Counter()
        self._named: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._troubles)

    def reason(self, check: Check) -> str:
        """Why `check` cannot be probed, or could not until a while ago; empty when it can."""
        trouble = self._troubles.get(check)
        return trouble.reason if trouble is not None else ""

    def met(self, check: Check, reason: str, now: float) -> None:
        """A probe of `check` could not be made."""
        trouble = self._troubles.get(check)
        if trouble is not None and trouble.reason == reason:
            trouble.met_at = now
            return
        self.forget(check)
        named = self._named[reason] < MOST_NAMED
        if named:
            log.error("probes cannot be made", extra={"check": str(check), "reason": reason})
        elif self._named[reason] == self._alike[reason]:
            log.error("probes of further checks cannot be made", extra={"reason": reason})
        self._troubles[check] = _Trouble(reason, now, named)
        self._alike[reason] += 1
        self._named[reason] += named

    def made(self, check: Check, now: float) -> None:
        """A probe of `check` was made, whatever its result."""
        trouble = self._troubles.get(check)
        if trouble is not None and now - trouble.met_at >= CALM_S:
            self.forget(check)
            if trouble.named:
                log.info("probes can be made again", extra={"check": str(check)})

    def forget(self, check: Check) -> None:
        """`check` is not watched any more."""
        trouble = self._troubles.pop(check, None)
        if trouble is not None:
            for count, times in ((self._alike, 1), (self._named, trouble.named)):
                count[trouble.reason] -= times
                if not count[trouble.reason]:
                    del count[trouble.reason]
