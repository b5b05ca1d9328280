"""`check: {type: tcp}`: a connection that is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from director.kit.checks.base import StreamSection


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A TCP connection that is accepted."""

    def __str__(self) -> str:
        return "tcp"


class TcpCheckSection(StreamSection):
    """`check: {type: tcp}`"""

    type: Literal["tcp"]

    def probe(self) -> TcpProbe:
        return TcpProbe()
