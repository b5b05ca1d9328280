"""The scenes' names, and what each shows in a line.

One rule: listing them loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "nat": "one address before two web servers; packets pass the director both ways",
        "dr": "direct routing: requests pass the director, answers do not",
        "failover": "an l7proxy dies; its traffic moves, and comes back with it",
        "drain": "a web server leaves without hurting a download that it serves",
        "canary": "5 of 100 clients get the new version, then half of them",
        "crash": "the director is killed under traffic, and nobody notices",
    }
)
"""In the order in which they are best seen."""
