"""How trouble at backends is noticed in passing, and contained: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class OutlierSection(Section):
    """`{failures: 5, ejection: 30s, at_most: 50%}`"""


@dataclass(frozen=True, slots=True)
class Outlier:
    """What that means."""


def build_outlier(section: OutlierSection) -> Outlier:
    """`section`, which has no findings."""
    return Outlier()


class BreakerSection(Section):
    """`{errors: 50%, of: 20, open: 10s}`"""


@dataclass(frozen=True, slots=True)
class Breaker:
    """What that means."""


def build_breaker(section: BreakerSection) -> Breaker:
    """`section`, which has no findings."""
    return Breaker()


class RetryBudgetSection(Section):
    """`{share: 20%, minimum: 10}`"""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """What that means."""


def build_retry_budget(section: RetryBudgetSection) -> RetryBudget:
    """`section`, which has no findings."""
    return RetryBudget()
