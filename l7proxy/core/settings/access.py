"""Who may use a route: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class AccessSection(Section):
    """`{allow: 10.0.0.0/8, basic: {users: {ann: "$2b$..."}}}`"""


@dataclass(frozen=True, slots=True)
class Access:
    """What that means."""


def build_access(section: AccessSection) -> Access:
    """`section`, which has no findings."""
    return Access()
