"""Answers that a route gives by itself: a fixed one, and one for maintenance: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class RespondSection(Section):
    """`{status: 200, body: hello}`"""


@dataclass(frozen=True, slots=True)
class Respond:
    """What that means."""


def build_respond(section: RespondSection) -> Respond:
    """`section`, which has no findings."""
    return Respond()


class MaintenanceSection(Section):
    """`{retry_after: 10m, allow: 10.0.0.0/8}`"""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What that means."""


def build_maintenance(section: MaintenanceSection) -> Maintenance:
    """`section`, which has no findings."""
    return Maintenance()
