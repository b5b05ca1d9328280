"""`check: {type: icmp}`: an echo that a host answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from director.kit.checks.base import RoutedSection

LEAST_DATA_BYTES = 8


@dataclass(frozen=True, slots=True)
class IcmpProbe:
    """One echo request with `size` bytes of data, 8 to 65507 (RFC 792, RFC 4443 4.1)."""

    size: int = 56

    def __str__(self) -> str:
        return "icmp"


class IcmpCheckSection(RoutedSection):
    """`check: {type: icmp}`: the host answers an echo request (ping), whatever its services do.

    It needs CAP_NET_RAW, or the director's group in `net.ipv4.ping_group_range`.
    """

    type: Literal["icmp"]
    size: Annotated[int, Field(strict=True, ge=LEAST_DATA_BYTES, le=65507)] = Field(
        56, description="bytes of data; more than fits the network's packets is sent in fragments"
    )

    def probe(self) -> IcmpProbe:
        return IcmpProbe(self.size)
