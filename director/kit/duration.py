"""Durations as operators write them: a number and a unit.

One rule: a bare number is refused, because nobody remembers whether it meant seconds.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST_S = 31 * 86400.0


def parse_duration(value: object) -> float:
    """Seconds in `500ms`, `2s`, `5m`, `1h`, `1d`.

    Raises: ValueError.

    >>> parse_duration("1.5s"), parse_duration("5m")
    (1.5, 300.0)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} is negative: write a duration such as 2s")
        raise ValueError(f"{value} has no unit: write {value}s, {value}ms or {value}m")
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration: write a number and ms, s, m, h or d, for example 2s")
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"{value!r} is too long: use at most 31d")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact way to write `seconds`, to the microsecond.

    >>> format_duration(0.25), format_duration(2.0), format_duration(300)
    ('250ms', '2s', '5m')
    """
    for unit in ("d", "h", "m", "s"):
        count = seconds / _UNIT_S[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    # At most 2,678,400 s with six digits behind the point: 13 digits are exact, and no exponent comes out.
    return f"{seconds * 1000:.13g}ms" if seconds < 1 else f"{seconds:.13g}s"


def _positive(value: object) -> float:
    seconds = parse_duration(value)
    if seconds < 0.001:
        raise ValueError(f"{value!r} is too short: use at least 1ms")
    return seconds


_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", "examples": ["2s", "500ms"]})
Duration = Annotated[float, BeforeValidator(_positive), _SCHEMA]
"""A duration of at least a millisecond, in seconds."""
