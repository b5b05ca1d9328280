"""The director's own kernel settings that its forwarding methods need: what they are, and which are wrong.

One rule: this only looks; it never changes a setting of the director.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from director.host.sysctl import Key, conf, name, read

CONNTRACK: Key = ("net", "ipv4", "vs", "conntrack")
IP_FORWARD: Key = ("net", "ipv4", "ip_forward")


Method = Literal["nat", "dr", "tun", "fullnat"]


@dataclass(frozen=True, slots=True)
class Use:
    """That a virtual server of this name forwards by `method`; `version` is its IP version, 4 or 6."""

    virtual_server: str
    method: Method
    version: int


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a setting must be: one of `allowed`, best `advised`, for the virtual servers `needed_by`."""

    key: Key
    allowed: tuple[str, ...]
    advised: str
    because: str
    needed_by: tuple[str, ...]


def required(uses: Iterable[Use], interfaces: Sequence[str]) -> tuple[Requirement, ...]:
    """The settings that `uses` need on a director with these network interfaces.

    >>> [name(r.key) for r in required([Use("web", "nat", 4)], ["eth0"])]
    ['net.ipv4.ip_forward', 'net.ipv4.conf.all.send_redirects', 'net.ipv4.conf.eth0.send_redirects']
    """
    uses = tuple(uses)
    return (
        *_forwarding(uses, interfaces),
        *_redirects(uses, interfaces),
        *_conntrack(uses),
    )


def check(uses: Iterable[Use], interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
    """One sentence for every setting of this host that is not as `uses` need it; none when all is well.

    `interfaces` are all but lo when not given. A setting that this kernel lacks (IPVS not loaded yet,
    no IPv6) is passed over.
    Raises: HostError when a setting cannot be read.
    """
    if interfaces is None:
        interfaces = [found for _, found in socket.if_nameindex() if found != "lo"]
    findings = []
    for requirement in required(uses, interfaces):
        value = read(requirement.key)
        if value is not None and value not in requirement.allowed:
            findings.append(finding(requirement, value))
    return tuple(findings)


def finding(requirement: Requirement, value: str) -> str:
    """What to tell the operator about a setting that is `value` and should not be."""
    setting = name(requirement.key)
    return (
        f"{setting} is {value}, and {', '.join(requirement.needed_by)} needs {requirement.advised} "
        f"({requirement.because}): sysctl -w {setting}={requirement.advised}"
    )


def _forwarding(uses: Sequence[Use], interfaces: Sequence[str]) -> list[Requirement]:
    through: Sequence[Method] = ("nat", "fullnat")
    because = "replies pass through the director"
    found = []
    if names := _names(uses, through, 4):
        found.append(Requirement(IP_FORWARD, ("1",), "1", because, names))
    if names := _names(uses, through, 6):
        found.append(Requirement(conf(6, "all", "forwarding"), ("1",), "1", because, names))
        # A forwarding host ignores router advertisements at accept_ra=1: its default route would expire.
        because = "forwarding makes 1 ignore router advertisements"
        found += [
            Requirement(conf(6, interface, "accept_ra"), ("0", "2"), "2", because, names) for interface in interfaces
        ]
    return found


def _redirects(uses: Sequence[Use], interfaces: Sequence[str]) -> list[Requirement]:
    names = _names(uses, ("nat", "dr", "tun", "fullnat"), 4)
    if not names:
        return []
    # `all` OR the interface (IN_DEV_TX_REDIRECTS): both must be off.
    because = "redirects lead clients and real servers around the director"
    return [
        Requirement(conf(4, interface, "send_redirects"), ("0",), "0", because, names)
        for interface in ("all", *interfaces)
    ]


def _conntrack(uses: Sequence[Use]) -> list[Requirement]:
    # One switch for the whole namespace. Full NAT cannot do without; the others only prefer it off.
    if names := _names(uses, ("fullnat",)):
        return [Requirement(CONNTRACK, ("1",), "1", "SNAT needs connection tracking", names)]
    if names := _names(uses, ("dr", "tun")):
        because = "only half of each flow is seen, and a rule dropping invalid packets would cut it"
        return [Requirement(CONNTRACK, ("0",), "0", because, names)]
    return []


def _names(uses: Sequence[Use], methods: Sequence[Method], version: int | None = None) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(use.virtual_server for use in uses if use.method in methods and version in (None, use.version))
    )
