"""What is answered where no backend can: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class SorrySection(Section):
    """`{status: 503, file: /etc/l7proxy/sorry.html}`"""


@dataclass(frozen=True, slots=True)
class Sorry:
    """What that means."""


def build_sorry(section: SorrySection) -> Sorry:
    """`section`, which has no findings."""
    return Sorry()
