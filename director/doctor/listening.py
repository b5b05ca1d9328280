"""Looks at a real server's own sockets: somebody must wait where the director sends clients."""

from __future__ import annotations

from collections.abc import Iterator

from director.core.table import Protocol
from director.doctor.facts import Facts, Unseen, skipped
from director.doctor.finding import Code, Finding, error, listed
from director.doctor.situation import Virtual
from director.kit.net import Endpoint, IPAddress

SEEN = {Protocol.TCP, Protocol.UDP}


def listeners(facts: Facts) -> Iterator[Finding]:
    """Whether each address and port that packets arrive at has a socket."""
    for virtual, address, port in targets(facts):
        if port is None:
            why = "every port is served" if virtual.key else "without a file the port is not known"
            yield skipped(Unseen(f"whether anybody listens on {address}", why, "look at ss -ltu, or give the file"))
        elif virtual.protocol not in SEEN:
            why = f"sockets of {virtual.protocol.value} are not looked at"
            yield skipped(Unseen(f"whether anybody listens on {address}", why, "look at ss --all"))
        elif not _is_served(facts, virtual.protocol, address, port):
            at_port = [each for each in facts.sockets if (each.protocol, each.port) == (virtual.protocol, port)]
            there = listed(dict.fromkeys(str(Endpoint(each.address, port)) for each in at_port))
            besides = f" (but on {there})" if there else ""
            yield error(
                Code.NOT_LISTENING,
                virtual.name,
                f"nothing on this real server listens on {virtual.protocol.value} {Endpoint(address, port)}{besides}",
                f"start the server, and have it listen on {address} or on all addresses",
            )


def targets(facts: Facts) -> Iterator[tuple[Virtual, IPAddress, int | None]]:
    """Where packets arrive on this real server."""
    held = facts.network.addresses()
    for virtual in facts.serves:
        if not virtual.vip_is_at_real_servers:
            for real in virtual.reals:
                yield virtual, real.address, real.port
        elif virtual.vip in held:  # else `addresses.held` says so
            yield virtual, virtual.vip, virtual.port


def doubtful(facts: Facts) -> Iterator[tuple[IPAddress, int]]:
    """Where a socket of IPv6 may or may not take IPv4 too (IPV6_V6ONLY): only a connection can tell."""
    for virtual, address, port in targets(facts):
        if port is None or virtual.protocol is not Protocol.TCP or address.version == 6:
            continue
        if _by_name(facts, virtual.protocol, address, port) is None:
            yield address, port


def _is_served(facts: Facts, protocol: Protocol, address: IPAddress, port: int) -> bool:
    found = _by_name(facts, protocol, address, port)
    return facts.answering.get((address, port), True) if found is None else found


def _by_name(facts: Facts, protocol: Protocol, address: IPAddress, port: int) -> bool | None:
    """Whether a socket is bound to it; None when it is one of IPv6 that may take IPv4 too."""
    at_port = [each.address for each in facts.sockets if each.protocol is protocol and each.port == port]
    if address in at_port or any(each.is_unspecified and each.version == address.version for each in at_port):
        return True
    return None if any(each.is_unspecified and each.version == 6 for each in at_port) else False
