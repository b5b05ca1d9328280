"""What path and query a backend sees: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class RewriteSection(Section):
    """`{strip_prefix: /app, add_prefix: /v2}`"""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What that means."""


def build_rewrite(section: RewriteSection) -> Rewrite:
    """`section`, which has no findings."""
    return Rewrite()
