"""How many requests a backend has at one time, and who waits: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class QueueSection(Section):
    """`{length: 100, timeout: 5s}`"""


@dataclass(frozen=True, slots=True)
class Queue:
    """What that means."""


def build_queue(section: QueueSection) -> Queue:
    """`section`, which has no findings."""
    return Queue()
