"""Virtual IP addresses on interfaces: which are there, add one, take one off.

One rule: a VIP is a host route's worth of address (/32, /128); an address with another prefix length
belongs to someone else, counts as present, and is never taken off.

These calls block and cannot run on a thread whose event loop is running (director/host/rtnetlink.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from director.core.vip import Vip
from director.host.rtnetlink import FAMILIES, IFF_UP, iproute
from director.kit.errors import HostError

# linux/if_addr.h, linux/rtnetlink.h's INFINITY_LIFE_TIME
IFA_F_NODAD = 0x02
FOREVER = 0xFFFFFFFF
# Made by the kernel in every network namespace, some with their modules (net/ipv4/ipip.c, ip_gre.c, net/ipv6/sit.c).
NOBODYS = frozenset({"lo", "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"})


def present(vips: Iterable[Vip]) -> frozenset[Vip]:
    """Those of `vips` whose interface holds their address, with whatever prefix length.

    A VIP whose interface does not exist is absent.
    Raises: HostError when the kernel refuses to list addresses.
    """
    wanted = frozenset(vips)
    return wanted & held() if wanted else wanted


def held() -> frozenset[Vip]:
    """Every address of this network namespace, whoever put it there.

    Raises: HostError when the kernel refuses to list addresses.
    """
    with iproute("list addresses") as ipr:
        names = dict(socket.if_nameindex())
        return frozenset(_held(ipr.get_addr(), names))
    return frozenset()


def missing(vips: Iterable[Vip]) -> dict[Vip, str]:
    """Those of `vips` whose interface does not exist, and what to say of them: the same for all of one interface."""
    there = [name for _, name in socket.if_nameindex()]
    names = ", ".join(name for name in there if name not in NOBODYS)
    use = f"use one of {names}, or make it first" if names else "make it first"
    return {
        vip: f"interface {vip.interface} does not exist, and addresses are to be on it: {use}"
        for vip in vips
        if vip.interface not in there
    }


def add(vip: Vip) -> bool:
    """Put `vip` on its interface; False when it was there already.

    Meant for what is not `present`: IPv4 allows the same address twice with different prefix lengths.
    Raises: HostError when the interface is missing or down, or the kernel refuses.
    """
    with iproute(f"add {vip}", already_so={errno.EEXIST}) as ipr:
        index = _index(vip)
        if index is None:
            names = ", ".join(name for _, name in socket.if_nameindex() if name not in NOBODYS)
            raise HostError(
                f"interface {vip.interface} does not exist, so {vip.address} was not added: use one of {names}"
            )
        if not ipr.link("get", index=index)[0]["flags"] & IFF_UP:
            raise HostError(f"{vip.interface} is down, so {vip.address} was not added: ip link set {vip.interface} up")
        ipr.addr("add", **_request(vip, index), **_LIFETIME[vip.address.version])
        return True
    return False


def remove(vip: Vip) -> bool:
    """Take `vip` off its interface; False when it was not there, or the interface is gone.

    Raises: HostError when the kernel refuses.
    """
    with iproute(f"remove {vip}", already_so={errno.EADDRNOTAVAIL}) as ipr:
        index = _index(vip)
        if index is None:
            return False
        # The kernel matches the prefix length too (inet_rtm_deladdr, inet6_addr_del): an operator's /24 stays.
        ipr.addr("del", **_request(vip, index))
        return True
    return False


# IPv6: no duplicate detection, since the address moves and its last holder may still answer. Preferred for 0 s
# (deprecated): RFC 6724 rule 3 keeps it from becoming the source of the host's own connections.
_LIFETIME: dict[int, dict[str, int]] = {
    4: {},
    6: {"flags": IFA_F_NODAD, "preferred_lft": 0, "valid_lft": FOREVER},
}


def _request(vip: Vip, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "family": FAMILIES[vip.address.version],
        "address": str(vip.address),
        "prefixlen": vip.address.max_prefixlen,
    }


def _index(vip: Vip) -> int | None:
    try:
        return socket.if_nametoindex(vip.interface)
    except OSError:
        return None


def _held(messages: Iterable[Any], names: dict[int, str]) -> Iterator[Vip]:
    for message in messages:
        # IFA_LOCAL is ours and IFA_ADDRESS the peer's on a point-to-point link; IPv6 mostly has only the latter.
        text = message.get("local") or message.get("address")
        if text and message["index"] in names:
            yield Vip(ip_address(text), names[message["index"]])
