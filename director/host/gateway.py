"""The way back to the clients under NAT: whether a real server's answers pass its director.

One rule: this only looks. Under NAT the director must put the VIP back into every answer; one that takes
another way carries the real server's own address, and the client drops it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from director.host.rtnetlink import FAMILIES, iproute
from director.kit.errors import HostError
from director.kit.net import IPAddress

# linux/rtnetlink.h
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTN_LOCAL = 2

# What fib_lookup says where there is no way: no route, blackhole, unreachable, prohibit.
_NO_WAY = {errno.ENETUNREACH, errno.EINVAL, errno.EHOSTUNREACH, errno.EACCES}

# The routers that a route leads to; None stands for a network that this host is in itself.
Hops = tuple[IPAddress | None, ...]


def check(
    version: int, directors: Sequence[IPAddress], clients: Iterable[IPAddress] = (), source: IPAddress | None = None
) -> tuple[str, ...]:
    """One sentence for every way to a client that does not lead through one of `directors`; none when all is well.

    `clients` are looked up as the kernel routes to them, from `source` (this real server's own address); without
    any, the default route of the main table counts. All are of IP `version`, 4 or 6; `directors` is not empty.
    Raises: HostError when the kernel refuses to say, or a client is this host itself.
    """
    ways = {str(client): _way(client, source) for client in clients}
    if not ways:
        return _findings("default", default(version), version, directors)
    return tuple(
        finding
        for where, hops in ways.items()
        for finding in _findings(where, _foreign(where, hops), version, directors)
    )


def default(version: int) -> Hops:
    """Where the default route leads; empty when there is none.

    Raises: HostError when the kernel refuses to say.
    """
    with iproute("read the routing table") as ipr:
        routes = [
            route
            for route in ipr.route("dump", family=FAMILIES[version], table=RT_TABLE_MAIN)
            if route["dst_len"] == 0 and route["type"] == RTN_UNICAST
        ]
        return _hops(min(routes, key=lambda route: int(route.get("priority") or 0))) if routes else ()
    return ()


def is_on_link(vip: IPAddress) -> bool:
    """Whether this host is in the VIP's network: whoever else is in it is answered directly.

    Raises: HostError when the kernel refuses to say.
    """
    hops = _way(vip, None)
    return hops is not None and None in hops


def _findings(where: str, hops: Hops, version: int, directors: Sequence[IPAddress]) -> tuple[str, ...]:
    clients = "clients" if where == "default" else where
    mend = f"ip {'-6 ' if version == 6 else ''}route replace {where} via {directors[0]}"
    keep = f"{mend}, and in the network's own configuration"
    if not hops:
        return (f"there is no route to {clients}, so answers do not get to the director: {keep}",)
    names = " or ".join(map(str, directors))
    found = []
    for hop in hops:
        if hop is None:
            found.append(
                f"answers to {clients} leave directly, as this host is in their network, and not by the director "
                f"{names}; clients drop them: put the real servers into a network without clients, or {keep}"
            )
        elif hop not in directors:
            same = ", or name it as --director if it is the director's own" if hop.is_link_local else ""
            found.append(
                f"answers to {clients} leave by {hop} and not by the director {names}; clients drop them: {keep}{same}"
            )
    return tuple(found)


def _foreign(where: str, hops: Hops | None) -> Hops:
    if hops is None:
        raise HostError(f"{where} is an address of this host: name a client on another one")
    return hops


def _way(to: IPAddress, source: IPAddress | None) -> Hops | None:
    """Where the kernel would send it; None when that is here."""
    from_source = {} if source is None else {"src": str(source)}
    with iproute(f"find the way to {to}", already_so=_NO_WAY) as ipr:
        (route,) = ipr.route("get", dst=str(to), **from_source)
        return None if route["type"] == RTN_LOCAL else _hops(route)
    return ()


def _hops(route: Any) -> Hops:
    texts = [way.get_attr("RTA_GATEWAY") for way in route.get("multipath") or [route]]
    return tuple(ip_address(text) if text else None for text in texts)
