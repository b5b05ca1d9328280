"""How much of a route one client, or all of them, may use: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from director.kit.configfile import Section
from l7proxy.core.gcra import SECOND

MOST = 1_000_000
_RATE = re.compile(r"([0-9]+) ?/ ?(s|m|h)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class By(Enum):
    """Who shares a limit."""

    CLIENT = "client"
    ROUTE = "route"
    HEADER = "header"


def parse_rate(text: object) -> tuple[int, int]:
    """How many, in how many seconds.

    Raises: ValueError.

    >>> parse_rate("100/s"), parse_rate("10/m")
    ((100, 1), (10, 60))
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a rate: write requests and a unit, such as 100/s, 30/m or 500/h")
    count = int(match[1])
    if not count:
        raise ValueError(f"{text!r} lets nobody in: write more than 0, or see `maintenance` and `access`")
    if count > MOST:
        raise ValueError(f"{text!r} is too much: at most {MOST}")
    return count, _UNITS_S[match[2]]


def parse_by(text: str) -> tuple[By, str]:
    """Who shares a limit, and by which header.

    Raises: ValueError.

    >>> parse_by("header X-Api-Key")
    (<By.HEADER: 'header'>, 'x-api-key')
    """
    kind, _, name = text.partition(" ")
    if kind == "header" and _TOKEN.fullmatch(name.strip()):
        return By.HEADER, name.strip().lower()
    if text in {"client", "route"}:
        return By(text), ""
    raise ValueError(f"{text!r} is none of client, route and `header NAME`, such as `header X-Api-Key`")


def _rate(value: str) -> str:
    parse_rate(value)
    return value


def _by(value: str) -> str:
    parse_by(value)
    return value


def _burst(value: object) -> object:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"a burst of {value} lets nobody in, ever: write 1 or more")
    return value


def _some(value: object) -> object:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"{value} lets nobody in: write 1 or more, or see `maintenance` and `access`")
    return value


def _most_alone(value: object) -> object:
    return {"most": value} if isinstance(value, int) else value


def _limit_alone(value: object) -> object:
    return {"limit": value} if isinstance(value, str) else value


class RateSection(Section):
    """`{limit: 100/s, burst: 50, by: client}`"""

    limit: Annotated[str, AfterValidator(_rate)] = Field(description="requests on average: 100/s, 30/m or 500/h")
    burst: Annotated[int, Field(strict=True, ge=1, le=MOST), BeforeValidator(_burst)] | None = Field(
        None, description="requests that may come at once after a pause; default: as many as `limit` names"
    )
    by: Annotated[str, AfterValidator(_by)] = Field(
        "client", description="who has a rate of its own: each client (IPv6: each /64), the route, or `header NAME`"
    )


class ConcurrencySection(Section):
    """`{most: 200, by: client}`"""

    most: Annotated[int, Field(strict=True, ge=1, le=MOST), BeforeValidator(_some)] = Field(
        description="requests at one time, in all workers together"
    )
    by: Annotated[str, AfterValidator(_by)] = Field(
        "route", description="who has a limit of its own: the route, each client (IPv6: each /64), or `header NAME`"
    )


class LimitingSection(Section):
    """`{rate: {limit: 100/s, burst: 50, by: client}, concurrency: 200}`"""

    rate: Annotated[RateSection, BeforeValidator(_limit_alone, json_schema_input_type=str | RateSection)] | None = (
        Field(None, description="requests that come faster are answered 429; `100/s` is for each client")
    )
    concurrency: (
        Annotated[ConcurrencySection, BeforeValidator(_most_alone, json_schema_input_type=int | ConcurrencySection)]
        | None
    ) = Field(
        None,
        description="requests at one time; further ones are answered 503, or 429 where the limit is not the route's",
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """One request each `interval_ns` on average, `burst` at once, for each of whom `by` tells apart."""

    interval_ns: int
    burst: int
    by: By
    header: str = ""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """So many requests at one time, for each of whom `by` tells apart."""

    most: int
    by: By
    header: str = ""


@dataclass(frozen=True, slots=True)
class Limiting:
    """What a route's clients may use of it."""

    rate: Rate | None = None
    concurrency: Concurrency | None = None


def rate_text(rate: Rate) -> str:
    """A rate as it is written: by the shortest time in which it is a whole number.

    >>> rate_text(Rate(10_000_000, 100, By.CLIENT)), rate_text(Rate(8_571_428_571, 7, By.CLIENT))
    ('100/s', '7/m')
    """
    counts = {unit: within_s * SECOND / rate.interval_ns for unit, within_s in _UNITS_S.items()}
    whole = [unit for unit, count in counts.items() if abs(count - round(count)) <= count / 1_000_000]
    unit = whole[0] if whole else "h"
    return f"{round(counts[unit])}/{unit}"


def build_limiting(section: LimitingSection) -> Limiting:
    """`section`, which has no findings."""
    rate = concurrency = None
    if section.rate is not None:
        count, within_s = parse_rate(section.rate.limit)
        interval_ns = max(1, round(within_s * SECOND / count))
        rate = Rate(interval_ns, section.rate.burst or count, *parse_by(section.rate.by))
    if section.concurrency is not None:
        concurrency = Concurrency(section.concurrency.most, *parse_by(section.concurrency.by))
    return Limiting(rate, concurrency)
