"""How trouble at backends is noticed in passing, and contained: the keys, and what they mean.

One rule: what is measured here are requests of clients; what checks find is another fact, and stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.duration import Duration
from director.kit.yamltree import Path

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")


def share_of(value: object) -> float:
    """A share, written in percent; 0 to 1.

    Raises: ValueError.

    >>> share_of("50%"), share_of("2.5 %")
    (0.5, 0.025)
    """
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{value!r} is no share: write 0% to 100%, such as 50%")
    return float(match[1]) / 100


Share = Annotated[float, BeforeValidator(share_of, json_schema_input_type=str)]
Times = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Status = Annotated[int, Field(strict=True, ge=400, le=599)]


class OutlierSection(Section):
    """`{failures: 5, ejection: 30s, at_most: 50%}`"""

    failures: Times = Field(5, description="requests in a row that fail at a backend before it is left out")
    ejection: Duration = Field(
        30.0, description="how long it is left out; twice as long the second time, and so on, up to ten times"
    )
    at_most: Share = Field(0.5, description="share of the upstream's backends that may be left out at one time")
    statuses: Annotated[tuple[Status, ...], Field(min_length=1)] = Field(
        (502, 503, 504), description="answers that count as failures, beside no answer at all"
    )


@dataclass(frozen=True, slots=True)
class Outlier:
    """When a backend is left out: after `failures` in a row, for `ejection_s`; never more than `at_most` of all."""

    failures: int = 5
    ejection_s: float = 30.0
    at_most: float = 0.5
    statuses: frozenset[int] = frozenset({502, 503, 504})


def build_outlier(section: OutlierSection) -> Outlier:
    """`section`, which has no findings."""
    return Outlier(section.failures, section.ejection, section.at_most, frozenset(section.statuses))


class BreakerSection(Section):
    """`{errors: 50%, of: 20, open: 10s}`"""

    errors: Share = Field(0.5, description="share of requests that fail, from which on the upstream is spared")
    of: Times = Field(20, description="requests within `window` before that share says anything")
    window: Duration = Field(10.0, description="the time that is looked back")
    open: Duration = Field(10.0, description="how long it is spared; then one request at a time is let through to try")
    statuses: Annotated[tuple[Status, ...], Field(min_length=1)] = Field(
        (500, 502, 503, 504), description="answers that count as failures, beside no answer at all"
    )


@dataclass(frozen=True, slots=True)
class Breaker:
    """When an upstream is spared: `errors` of at least `of` requests within `window_s` failed."""

    errors: float = 0.5
    of: int = 20
    window_s: float = 10.0
    open_s: float = 10.0
    statuses: frozenset[int] = frozenset({500, 502, 503, 504})


def build_breaker(section: BreakerSection) -> Breaker:
    """`section`, which has no findings."""
    return Breaker(section.errors, section.of, section.window, section.open, frozenset(section.statuses))


class RetryBudgetSection(Section):
    """`{share: 20%, minimum: 10}`"""

    share: Share = Field(0.2, description="attempts at another backend, as a share of the requests of the last 10 s")
    minimum: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        10, description="attempts in 10 s that are always allowed"
    )


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many further attempts there may be: `minimum` within 10 s, and `share` of the requests in that time."""

    share: float = 0.2
    minimum: int = 10


def build_retry_budget(section: RetryBudgetSection) -> RetryBudget:
    """`section`, which has no findings."""
    return RetryBudget(section.share, section.minimum)


def outlier_findings(section: OutlierSection, backends: int, path: Path) -> Iterator[Finding]:
    """What is wrong with `outlier`; `backends` is how many the upstream has."""
    if section.at_most <= 0:
        yield (*path, "at_most"), "0% leaves nobody out: remove `outlier`, or write such as 50%"
    elif int(backends * section.at_most + 1e-9) < 1:
        yield (
            (*path, "at_most"),
            f"of {backends} backend{'' if backends == 1 else 's'} this leaves nobody out: write a larger share, have "
            "more backends, or remove `outlier`",
        )


def breaker_findings(section: BreakerSection, path: Path) -> Iterator[Finding]:
    """What is wrong with `breaker`."""
    if section.errors <= 0:
        yield (*path, "errors"), "0% would spare the upstream always: write such as 50%"
