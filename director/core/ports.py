"""Which ports a virtual server listens on, as it is written: one, several, a range, or any.

One rule: the value is sorted, without duplicates and bounded, for the kernel gets an entry for each of them.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from director.kit.shown import shown

ANY = 0
"""IPVS's port 0: whatever port a client names (persistent virtual servers only)."""
MOST = 4096


def parse_ports(value: object) -> tuple[int, ...]:
    """The ports that `80`, `8000-8099`, a list of these, or `any` mean.

    Raises: ValueError, with a message an operator can act on.

    >>> parse_ports([443, "8000-8002"])
    (443, 8000, 8001, 8002)
    """
    if value == "any":
        return (ANY,)
    found: set[int] = set()
    for item in value if isinstance(value, list | tuple) else [value]:
        ports = _range(item)
        twice = found.intersection(ports)
        if twice:
            raise ValueError(f"port {min(twice)} stands here twice: remove one")
        found.update(ports)
    if not found:
        raise ValueError("no port is given: write one, a list, or a range such as 8000-8099")
    if len(found) > MOST:
        raise ValueError(
            f"{len(found)} ports would be as many virtual servers in the kernel: use at most {MOST}, or one `fwmark` "
            "with `traffic`"
        )
    return tuple(sorted(found))


def describe_ports(ports: tuple[int, ...]) -> str:
    """`parse_ports` the other way: runs are joined.

    >>> describe_ports((80, 8000, 8001, 8002))
    '80,8000-8002'
    """
    if ports == (ANY,):
        return "any"
    runs: list[list[int]] = []
    for port in ports:
        if runs and runs[-1][-1] == port - 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    return ",".join("-".join(map(str, run)) for run in runs)


def _range(item: object) -> range:
    low = high = item if isinstance(item, int) and not isinstance(item, bool) else 0
    match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", item) if isinstance(item, str) else None
    if match is not None:
        low, high = int(match[1]), int(match[2])
        if low > high:
            raise ValueError(f"the range {item} is upside down: write {high}-{low}")
    if not (low >= 1 and high <= 65535):
        if isinstance(item, str) and item.isascii() and item.isdigit():
            raise ValueError(f"{item!r} is text: write it without quotes")
        raise ValueError(
            f"{shown(item)} is not a port: use a number from 1 to 65535, a range such as 8000-8099, a list of these, "
            "or any"
        )
    return range(low, high + 1)


Ports = Annotated[
    tuple[int, ...],
    BeforeValidator(parse_ports),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string"},
                {"type": "array", "items": {"type": ["integer", "string"]}},
            ]
        }
    ),
]
