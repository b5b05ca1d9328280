"""Addresses and endpoints as both tiers write them.

One rule: an endpoint's text is unambiguous: IPv6 stands in brackets before a port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, inet_pton

IPAddress = IPv4Address | IPv6Address
Answer = tuple[IPAddress, ...] | str
"""What a lookup of a name gave: addresses in any order, or why there are none."""

_PORT = re.compile(r"[0-9]{1,5}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?!(?:[0-9]+\.){3}[^.]+\Z)"
    rf"(?:(?:{_LABEL}\.)+(?=[A-Za-z]){_LABEL}|(?!0[xX][0-9A-Fa-f]*\Z)(?=[0-9_-]*[A-Za-z]){_LABEL})\.?"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port; `port` is 0 to 65535.

    >>> str(Endpoint(ip_address("2001:db8::1"), 80))
    '[2001:db8::1]:80'
    """

    address: IPAddress
    port: int

    def __hash__(self) -> int:  # an address's own hash writes it out in hexadecimal first
        return hash((int(self.address), self.port))

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"

    def __lt__(self, other: Endpoint) -> bool:
        return self.sort_key() < other.sort_key()

    def sort_key(self) -> tuple[int, int, int]:
        """IPv4 before IPv6, then by address, then by port: the order in which both directors insert."""
        return (self.address.version, int(self.address), self.port)


def parse_unicast(text: str) -> IPAddress:
    """An address that a server can have and a client can reach from another host.

    Raises: ValueError, with a message an operator can act on.

    >>> parse_unicast("2001:db8::10")
    IPv6Address('2001:db8::10')
    """
    try:
        address = _parsed(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address: use one such as 192.0.2.10 or 2001:db8::10") from None
    if not (_is_unicast4(int(address)) if isinstance(address, IPv4Address) else _is_unicast6(address)):
        raise ValueError(f"{text} cannot be used here: give a unicast address, neither link-local nor IPv4-mapped")
    return address


def _parsed(text: str) -> IPAddress:
    """`ip_address`, in a fifth of its time for IPv4. A file may have ten thousand."""
    try:
        return IPv4Address(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        return ip_address(text)


def _is_unicast4(address: int) -> bool:
    """Neither unspecified, nor multicast (224.0.0.0/4), nor the broadcast address."""
    return 0 < address < 0xE0000000 or 0xF0000000 <= address < 0xFFFFFFFF


def _is_unicast6(address: IPv6Address) -> bool:
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or address.scope_id
        or address.ipv4_mapped
    )


def parse_endpoint(text: str) -> Endpoint:
    """Read `192.0.2.1:80` or `[2001:db8::1]:80`. Port 0 is accepted: who reads a configuration refuses it.

    Raises: ValueError, with a message an operator can act on.

    >>> parse_endpoint("10.0.0.1:8080")
    Endpoint(address=IPv4Address('10.0.0.1'), port=8080)
    """
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: write address:port, without http:// and a path")
    host, colon, port_text = text.rpartition(":")
    if not colon or not host or text.endswith("]"):
        none = "address" if colon and not host else "port"
        raise ValueError(f"{text!r} has no {none}: write address:port, for example 10.0.0.1:8080 or [2001:db8::1]:8080")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets, [address]:port")
    if not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise ValueError(f"{port_text!r} is not a port: use 1 to 65535")
    try:
        address = IPv6Address(host[1:-1]) if bracketed else ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address: use one such as 10.0.0.1 or [2001:db8::1]") from None
    if isinstance(address, IPv6Address) and address.scope_id and not _ZONE.fullmatch(address.scope_id):
        raise ValueError(f"{host!r} has a zone that is no interface's name: use one that `ip link` shows")
    return Endpoint(address, int(port_text))


def is_host_name(text: str) -> bool:
    """Whether `text` has the shape of a host name, and is no address that was mistyped.

    >>> [text for text in ("db1", "db1.example.org.", "10.0.0.300", "1.2.3", "10.0.0.l0", "0x7f") if is_host_name(text)]
    ['db1', 'db1.example.org.']
    """
    return _HOST.fullmatch(text) is not None


def split_address(text: str) -> tuple[str, int]:
    """Read `app.internal:80`: a name and a port. What is an address is read by `parse_endpoint`.

    Raises: ValueError, with a message an operator can act on.
    """
    host, _, port = text.rpartition(":")
    if not is_host_name(host):
        parse_endpoint(text)
        raise ValueError(f"{text!r} is an address: it has no name")
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} is not a port: use 1 to 65535")
    return host.rstrip(".").lower(), int(port)
