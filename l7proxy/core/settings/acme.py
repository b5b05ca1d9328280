"""ACME's HTTP-01 challenges: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class AcmeSection(Section):
    """`{folder: /var/lib/acme/challenges}`"""


@dataclass(frozen=True, slots=True)
class Acme:
    """What that means."""


def build_acme(section: AcmeSection) -> Acme:
    """`section`, which has no findings."""
    return Acme()
