"""Whose turn it is among an upstream's backends: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.yamltree import Path

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What names a header or a cookie (RFC 9110 5.6.2)."""
_KEY = re.compile(r"(source|uri)|(header|cookie|query) +(\S+)")


class Balance(Enum):
    """How an upstream's backends take turns."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUESTS = "least_requests"
    TWO_CHOICES = "two_choices"
    RANDOM = "random"
    FIRST = "first"
    LEAST_TIME = "least_time"
    HASH = "hash"


class KeyKind(Enum):
    """What of a request says whose it is."""

    SOURCE = "source"
    URI = "uri"
    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Hashing:
    """Requests with the same key go to the same backend. `name` is the header's (lower-case), cookie's or entry's.

    `bounded`: a backend with more than so many times its share of what is in flight passes requests on.
    """

    kind: KeyKind
    name: str = ""
    bounded: float | None = None


def parse_key(text: str) -> Hashing:
    """`source`, `uri`, `header X-A`, `cookie c`, `query q`.

    Raises: ValueError.

    >>> parse_key("header X-Tenant")
    Hashing(kind=<KeyKind.HEADER: 'header'>, name='x-tenant', bounded=None)
    """
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is no key: write source, uri, "header X-Name", "cookie NAME" or "query NAME"')
    kind = KeyKind(found[1] or found[2])
    name = found[3] or ""
    if kind in {KeyKind.HEADER, KeyKind.COOKIE} and not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a {kind.value}: use letters, digits and -")
    return Hashing(kind, name.lower() if kind is KeyKind.HEADER else name)


def _key(text: str) -> str:
    parse_key(text)
    return text


BalanceText = Literal["round_robin", "least_requests", "two_choices", "random", "first", "least_time"]
WORDS = tuple(balance.value for balance in Balance if balance is not Balance.HASH)


class BalanceSection(Section):
    """`{hash: source, bounded: 1.25}`, or a word"""

    by: BalanceText | None = Field(None, description="the same as the word alone in place of this section")
    hash: Annotated[str, AfterValidator(_key)] | None = Field(
        None,
        description='what of a request decides: source, uri, "header X-Name", "cookie NAME" or "query NAME"; a request '
        "without it goes where the fewest are",
    )
    bounded: Annotated[float, Field(strict=True, ge=1.0, le=100.0, allow_inf_nan=False)] | None = Field(
        None,
        description="with `hash`: how many times its share of requests in flight a backend takes; default: no bound",
    )


def _section(value: object) -> object:
    if isinstance(value, dict | BalanceSection):
        return value
    if value not in WORDS:
        raise ValueError(f"{value!r} is not known: use one of {', '.join(WORDS)}, or {{hash: source}}")
    return {"by": value}


BalanceOrWord = Annotated[
    BalanceSection, BeforeValidator(_section, json_schema_input_type=BalanceText | BalanceSection)
]


def balance_findings(section: BalanceSection, path: Path) -> Iterator[Finding]:
    """What is wrong across its keys."""
    if section.by is None and section.hash is None:
        yield path, 'nothing says whose turn it is: write `hash: source`, or a word such as "balance: least_requests"'
    if section.by is not None and section.hash is not None:
        yield (*path, "by"), "`hash` says whose turn it is already: remove one of them"
    elif section.by is not None and section.bounded is not None:
        yield (*path, "bounded"), f"only `hash` has a bound, {section.by} needs none: remove it"


def build_balance(section: BalanceSection) -> tuple[Balance, Hashing | None]:
    """`section`, which has no findings."""
    if section.hash is None:
        return Balance(section.by), None
    key = parse_key(section.hash)
    return Balance.HASH, Hashing(key.kind, key.name, section.bounded)
