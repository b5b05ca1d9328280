"""A route's upstream, or its shares between several: the key, and what it means.

One rule: shares are parts of their sum. 0 is a share that nobody gets yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from director.kit.configfile import Finding
from director.kit.schemawalk import suggestion
from director.kit.shown import shown

HEAVIEST = 10_000


def _shares(value: object) -> object:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError("name an upstream, or several with their shares: {shop: 95, canary: 5}")
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= HEAVIEST:
            raise ValueError(f"{name}: {shown(weight)} is not a share: write a whole number from 0 to {HEAVIEST}")
    return value


Answering = Annotated[str | dict[str, int], BeforeValidator(_shares)]
"""A name, or shares by name."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an upstream gets of a route's requests: `weight` of the sum of all."""

    upstream: str
    weight: int


def build_split(upstream: str | Mapping[str, int] | None) -> tuple[Share, ...]:
    """The shares; none where there is one upstream at most.

    >>> build_split({"shop": 95, "canary": 5})[1], build_split("shop"), build_split({"shop": 1})
    (Share(upstream='canary', weight=5), (), ())
    """
    if upstream is None or isinstance(upstream, str) or len(upstream) < 2:
        return ()
    return tuple(Share(name, weight) for name, weight in upstream.items())


def main_upstream(upstream: str | Mapping[str, int] | None) -> str:
    """The one with the largest share, the first of equals; empty where there is none."""
    if upstream is None or isinstance(upstream, str):
        return upstream or ""
    return max(upstream, key=lambda name: upstream[name])


def split_findings(
    upstream: str | Mapping[str, int] | None, known: Iterable[str], path: tuple[str | int, ...]
) -> Iterator[Finding]:
    """What is wrong with who answers, at `path`."""
    names = [upstream] if isinstance(upstream, str) else list(upstream or ())
    for name in names:
        if name not in known:
            here = path if isinstance(upstream, str) else (*path, name)
            yield here, f"there is no upstream {name!r}{suggestion(name, known)}"
    if isinstance(upstream, Mapping) and not any(upstream.values()):
        yield path, "all shares are 0, so nobody answers: give one of them more"
