"""Headers that are set, added, removed and renamed, on requests and on answers: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class MarkingSection(Section):
    """`{request: {set: {X-Tier: l7}}, response: {remove: [Server]}}`"""


@dataclass(frozen=True, slots=True)
class Marking:
    """What that means. `request_id` is the header that brings it; None where requests get none."""

    request_id: str | None = None


def build_marking(section: MarkingSection) -> Marking:
    """`section`, which has no findings."""
    return Marking()
