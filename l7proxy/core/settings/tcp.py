"""Connections that are forwarded as they are: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class TcpSection(Section):
    """`{upstream: db, idle: 1h}`"""


@dataclass(frozen=True, slots=True)
class Tcp:
    """What that means."""


def build_tcp(section: TcpSection) -> Tcp:
    """`section`, which has no findings."""
    return Tcp()
