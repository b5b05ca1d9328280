"""The director's own kernel settings that a configuration needs: what they should be, and which are not.

One rule: this only looks; `kept.py` changes settings and remembers what they were.

`net.ipv4.vs.*` exist once ip_vs is loaded, in each network namespace its own: they are looked at after the IPVS
table has been read. They hold for every virtual server of the namespace: one choice for a director.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from director.host import sysctl
from director.host.sysctl import IP_FORWARD, IPV6_FORWARDING, Key, conf, name

CONNTRACK: Key = ("net", "ipv4", "vs", "conntrack")
EXPIRE_NODEST: Key = ("net", "ipv4", "vs", "expire_nodest_conn")
EXPIRE_QUIESCENT: Key = ("net", "ipv4", "vs", "expire_quiescent_template")
SLOPPY_TCP: Key = ("net", "ipv4", "vs", "sloppy_tcp")
CONN_REUSE: Key = ("net", "ipv4", "vs", "conn_reuse_mode")

Method = Literal["nat", "dr", "tun", "fullnat"]
DeadConnections = Literal["keep", "expire"]
Read = Callable[[Key], str | None]

_EVERYWHERE = "it holds for every virtual server of this network namespace"


@dataclass(frozen=True, slots=True)
class Use:
    """That a virtual server of this name forwards by `method`; `version` is its IP version, 4 or 6.

    `resumes`: another director, with the same Maglev (mh) table, may hand it a connection in its middle.
    """

    virtual_server: str
    method: Method
    version: int
    persistent: bool = False
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a setting must be: one of `allowed`, best `advised`, for the virtual servers (or keys) `needed_by`.

    `effect` says what else an operator will notice.
    """

    key: Key
    allowed: tuple[str, ...]
    advised: str
    because: str
    needed_by: tuple[str, ...]
    effect: str = ""


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting that is to become different, and why.

    >>> print(SettingChange(IP_FORWARD, "0", "1", "replies pass through the director", ("web",), "it routes"))
    net.ipv4.ip_forward: 0 -> 1 (web: replies pass through the director); it routes
    """

    key: Key
    before: str
    after: str
    because: str
    needed_by: tuple[str, ...] = ()
    effect: str = ""

    def __str__(self) -> str:
        return f"{name(self.key)}: {self.detail}{'; ' + self.effect if self.effect else ''}"

    @property
    def detail(self) -> str:
        """From what to what, and why."""
        why = f"{', '.join(self.needed_by)}: {self.because}" if self.needed_by else self.because
        return f"{self.before} -> {self.after} ({why})"


def required(
    uses: Iterable[Use], interfaces: Sequence[str], dead_connections: DeadConnections | None = None
) -> tuple[Requirement, ...]:
    """The settings that `uses` need on a director with these network interfaces, in the order to make them.

    `dead_connections` is the operator's choice for all of them; None leaves the setting alone.

    >>> [name(r.key) for r in required([Use("web", "nat", 4)], ["eth0"])][:3]
    ['net.ipv4.ip_forward', 'net.ipv4.conf.all.send_redirects', 'net.ipv4.conf.eth0.send_redirects']
    """
    uses = tuple(uses)
    return (
        *_forwarding(uses, interfaces),
        *_redirects(uses, interfaces),
        *_conntrack(uses),
        *_dead_connections(uses, dead_connections),
        *_scheduling(uses),
    )


def pending(requirements: Iterable[Requirement], read: Read = sysctl.read) -> tuple[SettingChange, ...]:
    """What `read` shows not to be as required, and what each such setting would become.

    A setting that this kernel lacks is passed over: see `lacking`.
    """
    found = []
    for requirement in requirements:
        value = read(requirement.key)
        if value is not None and value not in requirement.allowed:
            found.append(
                SettingChange(
                    requirement.key,
                    value,
                    requirement.advised,
                    requirement.because,
                    requirement.needed_by,
                    requirement.effect,
                )
            )
    return tuple(found)


def lacking(requirements: Iterable[Requirement], read: Read = sysctl.read) -> tuple[str, ...]:
    """A sentence for each required setting of IPVS that does not exist; meant for when ip_vs is loaded."""
    return tuple(
        f"{name(each.key)} does not exist, and {', '.join(each.needed_by)} needs it to be {each.advised} "
        f"({each.because}): use a kernel that has it, and in a container one whose /proc/sys shows net.ipv4.vs"
        for each in requirements
        if each.key[:3] == CONNTRACK[:3] and read(each.key) is None
    )


def check(
    uses: Iterable[Use],
    interfaces: Sequence[str] | None = None,
    dead_connections: DeadConnections | None = None,
    more: Iterable[Requirement] = (),
) -> tuple[str, ...]:
    """One sentence for every setting of this host that is not as `uses` and `more` need it; none when all is well.

    `interfaces` are all but lo when not given. A setting that this kernel lacks (IPVS not loaded yet,
    no IPv6) is passed over.
    Raises: HostError when a setting cannot be read.
    """
    wanted = required(uses, all_interfaces() if interfaces is None else interfaces, dead_connections)
    return tuple(
        f"{name(each.key)} is {each.before}, and {', '.join(each.needed_by)} needs {each.after} "
        f"({each.because}): sysctl -w {name(each.key)}={each.after}"
        for each in pending((*wanted, *more))
    )


def all_interfaces() -> list[str]:
    """The network interfaces of this namespace, without lo."""
    return [found for _, found in socket.if_nameindex() if found != "lo"]


def _forwarding(uses: Sequence[Use], interfaces: Sequence[str]) -> list[Requirement]:
    through: Sequence[Method] = ("nat", "fullnat")
    because = "replies pass through the director"
    effect = "this host forwards between all its interfaces: what must not pass, the firewall has to say"
    found = []
    if names := _names(uses, through, 4):
        found.append(Requirement(IP_FORWARD, ("1",), "1", because, names, effect))
    if names := _names(uses, through, 6):
        # A forwarding host ignores router advertisements at accept_ra=1, and the moment that it begins to forward
        # it drops the default route it has from one (rt6_purge_dflt_routers): this comes first.
        accept = "forwarding makes 1 ignore router advertisements"
        found += [
            Requirement(conf(6, interface, "accept_ra"), ("0", "2"), "2", accept, names) for interface in interfaces
        ]
        found.append(Requirement(IPV6_FORWARDING, ("1",), "1", because, names, effect))
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
        effect = f"new connections of all virtual servers are tracked; {_EVERYWHERE}"
        if others := _names(uses, ("dr", "tun")):
            effect += f": a firewall rule that drops invalid packets would cut {', '.join(others)}"
        return [Requirement(CONNTRACK, ("1",), "1", "SNAT needs connection tracking", names, effect)]
    if names := _names(uses, ("dr", "tun")):
        because = "only half of each flow is seen, and a rule dropping invalid packets would cut it"
        return [Requirement(CONNTRACK, ("0",), "0", because, names, _EVERYWHERE)]
    return []


def _dead_connections(uses: Sequence[Use], wish: DeadConnections | None) -> list[Requirement]:
    if wish is None or not uses:
        return []
    needed_by = (f"dead_connections: {wish}",)
    if wish == "expire":
        # ip_vs_in_hook and expire_nodest_conn_handler (net/netfilter/ipvs), 6.1
        because = "connections to a removed or dead server end at once"
        effect = f"UDP flows move to another server, TCP clients see a reset; {_EVERYWHERE}"
        return [Requirement(EXPIRE_NODEST, ("1",), "1", because, needed_by, effect)]
    because = "connections to a removed or dead server are kept for its return"
    effect = f"until then, or until they time out, their packets are dropped; {_EVERYWHERE}"
    return [Requirement(EXPIRE_NODEST, ("0",), "0", because, needed_by, effect)]


def _scheduling(uses: Sequence[Use]) -> list[Requirement]:
    found = []
    if names := tuple(dict.fromkeys(use.virtual_server for use in uses if use.persistent)):
        because = "known clients would still be sent to a real server at weight 0, drained or dead"
        effect = f"a drain ends persistence at once, not with its timeout; {_EVERYWHERE}"
        found.append(Requirement(EXPIRE_QUIESCENT, ("1",), "1", because, names, effect))
    if names := tuple(dict.fromkeys(use.virtual_server for use in uses if use.resumes)):
        because = "another director's connections are taken over in their middle"
        effect = f"any TCP packet, not only a SYN, may open a connection to a real server; {_EVERYWHERE}"
        found.append(Requirement(SLOPPY_TCP, ("1",), "1", because, names, effect))
    if names := _names(uses, ("nat", "dr", "tun", "fullnat")):
        # ipvs-sysctl.rst: a bit mask; 0 gives a new connection from a client's used port to its old server.
        because = "with 0 a new connection from a port used before goes to its old server, also a drained or dead one"
        found.append(Requirement(CONN_REUSE, ("1", "2", "3"), "1", because, names, _EVERYWHERE))
    return found


def _names(uses: Sequence[Use], methods: Sequence[Method], version: int | None = None) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(use.virtual_server for use in uses if use.method in methods and version in (None, use.version))
    )
