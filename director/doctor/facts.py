"""Everything that was gathered for one checkup, as values; what could not be seen says so itself.

One rule: a judgement takes nothing but `Facts`, so that every one of them can be tried with a table of cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from director.core.table import Protocol, Table
from director.doctor.finding import Code, Finding, note
from director.doctor.network import Neighbours, Network
from director.doctor.packets import rules
from director.doctor.situation import Situation, Virtual
from director.doctor.wire import Answers, Echo
from director.host.sysctl import Key
from director.kit.net import IPAddress

Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class Unseen:
    """A fact that could not be gathered: what it is, why, and what to do to see it."""

    what: str
    why: str
    remedy: str


class UnseenError(Exception):
    """A judgement needed a fact that is not there; the checkup makes a note of it."""

    def __init__(self, unseen: Unseen) -> None:
        super().__init__(unseen.what)
        self.unseen = unseen


def need(fact: Fact | Unseen) -> Fact:
    """The fact itself. Raises: UnseenError when it could not be gathered."""
    if isinstance(fact, Unseen):
        raise UnseenError(fact)
    return fact


def skipped(unseen: Unseen) -> Finding:
    """The note that a look was not made."""
    return note(Code.SKIPPED, unseen.what, f"not looked at: {unseen.why}", unseen.remedy)


@dataclass(frozen=True, slots=True)
class Modules:
    """Kernel modules by name: those in the kernel, and those that it could load.

    Not `complete` where the folder of modules is not visible: what is built in is not known then.
    """

    release: str
    loaded: frozenset[str] = frozenset()
    available: frozenset[str] = frozenset()
    may_load: bool = True
    complete: bool = True

    def has(self, name: str) -> bool:
        """Whether the kernel has it, or gets it when it is asked for."""
        return name in self.loaded or (self.may_load and name in self.available)


@dataclass(frozen=True, slots=True)
class Conntrack:
    """How full the table of tracked connections is."""

    count: int
    limit: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection that IPVS carries: whose, to which virtual server's address and port, to which real server."""

    protocol: str
    client: IPAddress
    vip: IPAddress
    port: int
    real: IPAddress


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this network namespace; `declares` says that its configuration has virtual servers of its own.

    None: its configuration could not be read.
    """

    pid: int
    name: str
    words: tuple[str, ...] = ()
    declares: bool | None = None


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket that waits for clients. `address` unspecified is every address of its IP version, and perhaps IPv4."""

    protocol: Protocol
    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class Facts:
    """`directs` is what this host serves as a director, `serves` what it serves as a real server; one may be empty."""

    situation: Situation
    directs: tuple[Virtual, ...] = ()
    serves: tuple[Virtual, ...] = ()
    network: Network = field(default_factory=Network)
    sysctls: Mapping[Key, str | None] = field(default_factory=lambda: MappingProxyType({}))
    modules: Modules = Modules("6.1")
    has_ipvs: bool = True
    table: Table | Unseen = field(default_factory=Table)
    flows: tuple[Flow, ...] | Unseen = ()
    processes: tuple[Process, ...] = ()
    conntrack: Conntrack | None = None
    filters: tuple[rules.Table, ...] | Unseen = ()
    heard: Answers | Unseen = field(default_factory=lambda: MappingProxyType({}))
    neighbours: Neighbours = field(default_factory=lambda: MappingProxyType({}))
    echoes: Mapping[IPAddress, Echo] | Unseen = field(default_factory=lambda: MappingProxyType({}))
    sockets: tuple[Socket, ...] = ()
    gue_ports: frozenset[int] | Unseen = frozenset()
    unseen: tuple[Unseen, ...] = ()
    answering: Mapping[tuple[IPAddress, int], bool] = field(default_factory=lambda: MappingProxyType({}))

    def sysctl(self, *key: str) -> str | None:
        """The value of a setting; None when this kernel has none such."""
        return self.sysctls.get(key)

    def number(self, *key: str) -> int:
        """The value of a setting that is a number; 0 when this kernel has none such."""
        text = self.sysctls.get(key) or "0"
        return int(text) if text.lstrip("-").isdigit() else 0

    def effective(self, setting: str, interface: str) -> int:
        """An IPv4 setting that holds by the maximum of `all` and the interface (IN_DEV_MAXCONF)."""
        return max(self.number("net", "ipv4", "conf", name, setting) for name in ("all", interface))
