"""How much of a route one client, or all of them, may use: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class LimitingSection(Section):
    """`{rate: {limit: 100/s, burst: 50, by: client}, concurrency: 200}`"""


@dataclass(frozen=True, slots=True)
class Limiting:
    """What that means."""


def build_limiting(section: LimitingSection) -> Limiting:
    """`section`, which has no findings."""
    return Limiting()
