"""Which requests a route takes: the keys, and what they mean.

One rule: what is left out matches anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from director.kit.configfile import Section
from l7proxy.core.settings.fields import ONE_OR_SEVERAL


class MatchSection(Section):
    """Which requests a route takes; what is left out matches anything."""

    host: Annotated[tuple[str, ...], ONE_OR_SEVERAL, Field(min_length=1)] = Field(
        (), description="a name, *.example.org, or a list of them"
    )
    path: str = Field("/", description="/prefix by whole segments, `= /exact`, or `~ regular expression`")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request must have beyond its host and path."""


NO_CONDITIONS = Conditions()


def build_conditions(section: MatchSection) -> Conditions:
    """`section`, which has no findings."""
    return Conditions()
