"""Keeps forged packets out where `accept_local` lets the answers to probes of the forwarding path in.

One rule: of all that the setting admits, the answers pass and nothing else.

Such an answer comes from a VIP, which is an address of this host, too. The kernel drops every packet from outside that
has an own address as its source (fib_validate_source in net/ipv4/fib_frontend.c), unless the interface, or `all`, has
net.ipv4.conf.*.accept_local=1; that then admits any own address, and packets to any port. So what comes in by such an
interface from an own address is dropped here instead, in the table `raw`: before connection tracking, before routing,
before IPVS. An answer is known by the VIP and port that were probed, by the address that the probes are sent from, and
by its end: none goes to a port below 1024, where services listen and no probe begins, and in TCP none is a mere SYN, so
that nobody opens a connection in a VIP's name. What is left to a forger is what any connection has: to guess its ports
and its sequence numbers.

IPv6 has neither such a check nor the setting: nothing is opened there, and nothing is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from director.kit.net import Endpoint, IPAddress

_UNPRIVILEGED = "1024:65535"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a real server sends back to probes: from the VIP and port `origin` to this host's own address `to`.

    `datagrams`: UDP as well as TCP, and word that nobody listens there.
    """

    origin: Endpoint
    to: IPAddress
    datagrams: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """An interface that admits own addresses as sources for the sake of `answers`, all IPv4."""

    interface: str
    answers: tuple[Answer, ...]


def guard_rules(guards: Iterable[Guard]) -> list[str]:
    """The rules for packets whose source is an own address, as iptables-save(8) spells them.

    >>> from ipaddress import ip_address
    >>> answer = Answer(Endpoint(ip_address("192.0.2.10"), 80), ip_address("192.0.2.2"))
    >>> for rule in guard_rules([Guard("eth0", (answer,))]):
    ...     print(rule.replace(" --sport", "\\n   --sport"))
    -s 192.0.2.10/32 -d 192.0.2.2/32 -i eth0 -p tcp -m tcp
       --sport 80 --dport 1024:65535 ! --tcp-flags SYN,ACK SYN -j RETURN
    -i eth0 -j DROP
    """
    guards = tuple(guards)
    passing = {rule: None for guard in guards for answer in guard.answers for rule in _passing(guard.interface, answer)}
    return [*passing, *dict.fromkeys(f"-i {guard.interface} -j DROP" for guard in guards)]


def _passing(interface: str, answer: Answer) -> list[str]:
    way = f"-s {answer.origin.address}/32 -d {answer.to}/32 -i {interface}"
    ports = f"--sport {answer.origin.port} --dport {_UNPRIVILEGED}"
    rules = [f"{way} -p tcp -m tcp {ports} ! --tcp-flags SYN,ACK SYN -j RETURN"]
    if answer.datagrams:
        rules.append(f"{way} -p udp -m udp {ports} -j RETURN")
        rules.append(f"{way} -p icmp -m icmp --icmp-type 3 -j RETURN")
    return rules
