"""A virtual server's address as a thing that the director keeps on an interface."""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.net import IPAddress


@dataclass(frozen=True, slots=True)
class Vip:
    """`address` is held alone (/32 or /128) on `interface`.

    >>> from ipaddress import ip_address
    >>> print(Vip(ip_address("192.0.2.10"), "eth0"))
    192.0.2.10 on eth0
    """

    address: IPAddress
    interface: str

    def __str__(self) -> str:
        return f"{self.address} on {self.interface}"
