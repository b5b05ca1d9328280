"""What the operator wants of backends, apart from the file, and the weight that comes of both.

One rule: what the file says and what the operator wants are separate facts; `effective` is the one place where they
meet, and it can say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias

HEAVIEST = 1000


class Want(Enum):
    """Whether a backend is to be used.

    DRAINED: nobody new comes, sessions that it holds may stay. DISABLED: nobody comes.
    """

    ENABLED = "enabled"
    DRAINED = "drained"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of one backend. `weight` replaces the file's, unless it is None; `since` is when it was last
    wished, in seconds since the epoch."""

    want: Want = Want.ENABLED
    weight: int | None = None
    since: float = 0.0


BackendName: TypeAlias = tuple[str, str]
"""Upstream and backend."""
Wishes: TypeAlias = Mapping[BackendName, Wish]
Entry: TypeAlias = tuple[str, str, str, int | None, float]
"""A wish as it is sent and saved: upstream, backend, what is wanted, weight, since."""


@dataclass(frozen=True, slots=True)
class Effective:
    """A weight, and why it is not the file's; empty where it is."""

    weight: int
    why: str = ""


def effective(configured: int, wish: Wish | None) -> Effective:
    """The weight that a backend has, of the file's and what the operator wants. (What it has of that while it is new is
    `slowstart.scaled`.)

    >>> effective(2, Wish(Want.DRAINED, None, 0.0))
    Effective(weight=0, why='drained by the operator since 1970-01-01T00:00:00Z')
    >>> effective(2, Wish(weight=5)).weight, effective(2, None).why
    (5, '')
    """
    if wish is None:
        return Effective(configured)
    if wish.want is not Want.ENABLED:
        return Effective(0, f"{wish.want.value} by the operator since {moment(wish.since)}")
    if wish.weight is not None:
        why = f"weight {wish.weight} by the operator since {moment(wish.since)}, {configured} in the file"
        return Effective(wish.weight, why)
    return Effective(configured)


def changed(before: Wish | None, action: str, now: float, weight: int | None = None) -> Wish | None:
    """The wish after an operator's `drain`, `disable`, `weight` or `enable`; None is none. `enable` undoes them all.

    >>> changed(Wish(weight=5, since=1.0), "drain", 2.0)
    Wish(want=<Want.DRAINED: 'drained'>, weight=5, since=2.0)
    >>> changed(Wish(Want.DRAINED, since=1.0), "drain", 2.0).since, changed(Wish(), "enable", 2.0)
    (1.0, None)
    """
    wish = before or Wish(since=now)
    match action:
        case "drain":
            after = replace(wish, want=Want.DRAINED)
        case "disable":
            after = replace(wish, want=Want.DISABLED)
        case "weight":
            after = replace(wish, weight=weight)
        case _:
            return None
    return after if after == wish else replace(after, since=now)


def entries_of(wishes: Wishes) -> tuple[Entry, ...]:
    """`wishes` as they are sent and saved, in order."""
    return tuple(
        (upstream, backend, wish.want.value, wish.weight, wish.since)
        for (upstream, backend), wish in sorted(wishes.items())
    )


def wishes_of(entries: object) -> dict[BackendName, Wish]:
    """What `entries_of` made.

    Raises: ValueError where it is not that.
    """
    if not isinstance(entries, list | tuple):
        raise ValueError("there is no list of wishes")
    found: dict[BackendName, Wish] = {}
    for entry in entries:
        match entry:
            case [str(upstream), str(backend), str(want), None | int() as weight, int() | float() as since] if (
                weight is None or 0 <= weight <= HEAVIEST
            ):
                found[upstream, backend] = Wish(Want(want), weight, float(since))
            case _:
                raise ValueError(f"{entry!r} is no wish")
    return found


def moment(seconds: float) -> str:
    """A time since the epoch as it is shown."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
