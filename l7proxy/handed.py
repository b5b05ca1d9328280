"""Listening sockets that the service manager has bound: matched with addresses, lent, and kept as they are.

One rule: they outlive this process. Nobody is turned away at them and nobody who queues there is cut off: the next
process lets them in. So what is lent is a copy, and the socket itself stays open whatever becomes of that.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from director.kit import service
from director.kit.errors import HostError
from director.kit.net import Endpoint
from l7proxy.core.model import overlap
from l7proxy.http.listening import look_after_quiet_clients

log = logging.getLogger("l7proxy")

UNIT = "l7proxy.socket"
THEN = f"then `systemctl daemon-reload && systemctl restart {UNIT} l7proxy.service`"


class HandedSockets:
    """Those of this process."""

    def __init__(self, handed: Iterable[service.Handed] = ()) -> None:
        self._descriptors: dict[Endpoint, int] = {}
        """They are never closed, also for a program that follows in this process."""
        self._of_both: list[Endpoint] = []
        """Of `[::]`, which take IPv4 too: clients of IPv4 would come in at a listener for IPv6."""
        self._useless: dict[str, str] = {}
        """What no listener can have, and why."""
        self._told: set[str] = set()
        for each in handed:
            self._take(each)

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._descriptors

    def lend(self, endpoint: Endpoint) -> socket.socket | None:
        """A copy of the socket at `endpoint`; None where there is none, and it may be bound.

        Raises: HostError: one that was handed is in the way.
        """
        if endpoint in self._descriptors:
            return _copy(self._descriptors[endpoint])
        for of_both in self._of_both:
            if of_both.port == endpoint.port and (endpoint.address.version == 4 or endpoint.address.is_unspecified):
                raise HostError(
                    f"{endpoint} cannot be bound: the service manager has bound {of_both} for IPv6 and IPv4 together; "
                    f"write `BindIPv6Only=ipv6-only` and `ListenStream={endpoint}` into {UNIT}, {THEN}"
                )
        for other in self._descriptors:
            if overlap(other, endpoint):
                raise HostError(
                    f"{endpoint} cannot be bound: the service manager has bound {other}, which covers it; write the "
                    f"same address into {UNIT} (`ListenStream={endpoint}`) and the configuration, {THEN}"
                )
        return None

    def tell(self, wanted: Collection[Endpoint]) -> None:
        """Log what was handed and is not among `wanted`, once for as long as that is so."""
        idle = {
            str(endpoint): "no listener has this address, and whoever connects there waits: add one, or remove "
            f"`ListenStream={endpoint}` from {UNIT}, {THEN}"
            for endpoint in self._descriptors
            if endpoint not in wanted
        } | self._useless
        for name, reason in idle.items():
            if name not in self._told:
                log.warning("socket of the service manager is not used", extra={"socket": name, "reason": reason})
        self._told = set(idle)

    def _take(self, handed: service.Handed) -> None:
        what = f"{handed.name} (descriptor {handed.descriptor})"
        try:
            found = _copy(handed.descriptor)
        except OSError:
            self._useless[what] = f"it is no socket: remove what opens it from {UNIT}"
            return
        with found:
            endpoint = _endpoint_of(found)
            is_for_both = endpoint is not None and _takes_both(found, endpoint)
            if endpoint is not None:
                with suppress(OSError):
                    look_after_quiet_clients(found)
        if endpoint is None:
            self._useless[what] = f"a listener has an address of IP and a port of TCP: remove this one from {UNIT}"
        elif is_for_both:
            self._of_both.append(endpoint)
            self._useless[str(endpoint)] = (
                "it takes IPv4 too, which a listener at [::] does not: write `BindIPv6Only=ipv6-only` into "
                f"{UNIT}, {THEN}"
            )
        elif endpoint in self._descriptors:
            self._useless[what] = f"there is another one at {endpoint}: remove one `ListenStream=` from {UNIT}"
        else:
            self._descriptors[endpoint] = handed.descriptor


def _copy(descriptor: int) -> socket.socket:
    duplicate = os.dup(descriptor)
    try:
        copy = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
    copy.setblocking(False)
    return copy


def _endpoint_of(found: socket.socket) -> Endpoint | None:
    """Where it listens; None where no listener of ours could."""
    if found.family not in {socket.AF_INET, socket.AF_INET6} or found.type != socket.SOCK_STREAM:
        return None
    if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    host, port = found.getsockname()[:2]
    address = ip_address(host)
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        return None
    return Endpoint(address, port)


def _takes_both(found: socket.socket, endpoint: Endpoint) -> bool:
    return (
        endpoint.address.version == 6
        and endpoint.address.is_unspecified
        and not found.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )
