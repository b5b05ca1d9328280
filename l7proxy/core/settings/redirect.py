"""An answer that sends the client elsewhere: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class RedirectSection(Section):
    """`{to: "https://{host}{path}", status: 308}`"""


@dataclass(frozen=True, slots=True)
class Redirect:
    """What that means."""


def build_redirect(section: RedirectSection) -> Redirect:
    """`section`, which has no findings."""
    return Redirect()
