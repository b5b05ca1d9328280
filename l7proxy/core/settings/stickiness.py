"""How clients keep their backend: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class StickySection(Section):
    """`{cookie: SRV, mode: insert}`"""


@dataclass(frozen=True, slots=True)
class Sticky:
    """What that means."""


def build_sticky(section: StickySection) -> Sticky:
    """`section`, which has no findings."""
    return Sticky()
