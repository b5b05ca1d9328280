"""Packet filter rules as values, and what they may do with a packet of which not everything is known.

One rule: whatever is not understood, or depends on what the packet does not say, may match and may not. So a
packet is called dropped only where every way through the rules drops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

from director.kit.net import IPAddress

Network = IPv4Network | IPv6Network
PROTOCOLS = {
    "icmp": 1, "ipencap": 4, "ipip": 4, "ipv4": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
    "icmpv6": 58, "ipv6-icmp": 58, "sctp": 132, "udplite": 136,
}  # fmt: skip
"""Names of protocols in rules (/etc/protocols) and their numbers."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from the network; None is unknown, so any.

    `state` is what connection tracking calls it: new, established, invalid or untracked. `interfaces` are those it
    may come in by, `leaves` those it may go out by; empty is any.
    `translated` is dnat or snat where connection tracking changes its addresses.
    """

    version: int
    protocol: int
    source: IPAddress | None = None
    destination: IPAddress | None = None
    source_port: int | None = None
    destination_port: int | None = None
    state: str | None = "new"
    interfaces: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    translated: str = "not"


class Match(Enum):
    """Whether a condition or a rule fits."""

    NO = 0
    MAYBE = 1
    YES = 2

    def __invert__(self) -> Match:
        return Match(2 - self.value)


class Field(Enum):
    """What of a packet a condition looks at; UNKNOWN is anything else."""

    VERSION = "version"
    PROTOCOL = "protocol"
    SOURCE = "source"
    DESTINATION = "destination"
    SOURCE_PORT = "source_port"
    DESTINATION_PORT = "destination_port"
    STATE = "state"
    INTERFACE = "interfaces"
    LEAVES = "leaves"
    TRANSLATED = "translated"
    UNKNOWN = "unknown"


Value = Network | tuple[int, int] | tuple[IPAddress, IPAddress] | str
"""A network, a range of numbers or of addresses, a state, or an interface's name (`*` at its end: any rest)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """That a field has one of some values, or none of them."""

    field: Field
    values: tuple[Value, ...] = ()
    negated: bool = False

    def of(self, packet: Packet) -> Match:
        """Whether it holds for `packet`."""
        found = Match.MAYBE if self.field is Field.UNKNOWN else self._found(packet)
        return ~found if self.negated else found

    def _found(self, packet: Packet) -> Match:
        actual = getattr(packet, self.field.value)
        if self.field in {Field.INTERFACE, Field.LEAVES}:
            return _of_all([_names(self.values, name) for name in actual])
        if actual is None:
            everything = any(isinstance(v, IPv4Network | IPv6Network) and v.prefixlen == 0 for v in self.values)
            return Match.YES if everything else Match.MAYBE
        return Match.YES if any(_holds(value, actual) for value in self.values) else Match.NO


def unknown() -> Condition:
    """A condition that nobody here understands."""
    return Condition(Field.UNKNOWN)


def _of_all(found: list[bool]) -> Match:
    if not found:
        return Match.MAYBE
    return Match.YES if all(found) else Match.MAYBE if any(found) else Match.NO


def _names(values: Iterable[Value], name: str) -> bool:
    return any(
        name.startswith(value[:-1]) if value.endswith("*") else name == value
        for value in values
        if isinstance(value, str)
    )


def _holds(value: Value, actual: object) -> bool:
    match value:
        case IPv4Network() | IPv6Network():
            return isinstance(actual, IPv4Address | IPv6Address) and actual in value
        case (int(low), int(high)):
            return isinstance(actual, int) and low <= actual <= high
        case (IPv4Address() | IPv6Address() as first, IPv4Address() | IPv6Address() as last):
            if not isinstance(actual, IPv4Address | IPv6Address) or actual.version != first.version:
                return False
            return int(first) <= int(actual) <= int(last)
        case _:
            return value == actual


class Verdict(Enum):
    """What a rule does with a packet that fits. CONTINUE: the next rule. UNKNOWN: it may let it through."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NOTRACK = "notrack"
    CONTINUE = "continue"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all fit, and what happens then; `target` is the chain of JUMP and GOTO.

    `clamps`: it makes TCP segments smaller.
    """

    text: str
    conditions: tuple[Condition, ...]
    verdict: Verdict
    target: str = ""
    clamps: bool = False

    def fits(self, packet: Packet) -> Match:
        """As well as the weakest of its conditions."""
        return min(
            (condition.of(packet) for condition in self.conditions), key=lambda match: match.value, default=Match.YES
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. A chain with a `hook` (input, forward, prerouting, ...) begins there, and ends in `policy`."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str | None = None
    priority: int = 0
    policy: Verdict = Verdict.ACCEPT


@dataclass(frozen=True, slots=True)
class Table:
    """Chains that can jump to each other, for the IP `versions` they see; `origin` names who shows it."""

    origin: str
    name: str
    versions: frozenset[int]
    chains: Mapping[str, Chain] = field(default_factory=lambda: MappingProxyType({}))


class Fate(Enum):
    """What can become of a packet. ENDED: the chain came to its end, or returned."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    UNTRACKED = "untracked"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that can become of a packet at a hook, and what may drop it, in the order of the walk."""

    fates: frozenset[Fate]
    droppers: tuple[str, ...] = ()

    @property
    def certainly_dropped(self) -> bool:
        return self.fates == {Fate.DROPPED}

    @property
    def certainly_accepted(self) -> bool:
        return Fate.DROPPED not in self.fates


def at_hook(tables: Iterable[Table], hook: str, packet: Packet) -> Outcome:
    """What can become of `packet` at `hook`: any base chain may drop it, and all must accept it."""
    fates: set[Fate] = {Fate.ACCEPTED}
    droppers: list[str] = []
    for table, chain in _bases(tables, hook, packet.version):
        outcome = walk(table, chain, packet)
        if outcome.certainly_dropped:
            return Outcome(frozenset({Fate.DROPPED}), (*droppers, *outcome.droppers))
        fates |= outcome.fates - {Fate.ENDED}
        droppers += outcome.droppers
    return Outcome(frozenset(fates), tuple(droppers))


def may_be_clamped(tables: Iterable[Table], packet: Packet) -> bool:
    """Whether some rule may make the segments smaller that `packet`, a SYN, asks for."""
    return any(
        rule.clamps and rule.fits(packet) is not Match.NO
        for table in tables
        if packet.version in table.versions
        for chain in table.chains.values()
        for rule in chain.rules
    )


def _bases(tables: Iterable[Table], hook: str, version: int) -> list[tuple[Table, Chain]]:
    found = [
        (table, chain)
        for table in tables
        if version in table.versions
        for chain in table.chains.values()
        if chain.hook == hook
    ]
    return sorted(found, key=lambda each: each[1].priority)


def walk(table: Table, base: Chain, packet: Packet) -> Outcome:
    """What a base chain can do with `packet`.

    >>> drop = Rule("-p tcp --dport 80 -j DROP", (Condition(Field.DESTINATION_PORT, ((80, 80),)),), Verdict.DROP)
    >>> chain = Chain("INPUT", (drop,), "input")
    >>> walk(Table("iptables", "filter", frozenset({4})), chain, Packet(4, 6, destination_port=80)).certainly_dropped
    True
    """
    outcome = _Walk(table, packet).through(base)
    fates = set(outcome.fates)
    droppers = outcome.droppers
    if Fate.ENDED in fates:
        fates.remove(Fate.ENDED)
        if base.policy is Verdict.DROP:
            fates.add(Fate.DROPPED)
            droppers = (*droppers, f"{table.origin} {table.name}: policy of {base.name} is DROP")
        else:
            fates.add(Fate.ACCEPTED)
    return Outcome(frozenset(fates), droppers)


class _Walk:
    """One packet's walk through a table; a chain is walked once however often it is jumped to."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self._known: dict[str, Outcome] = {}

    def through(self, chain: Chain) -> Outcome:
        fates: set[Fate] = set()
        droppers: list[str] = []
        for rule in chain.rules:
            fits = rule.fits(self._packet)
            if fits is Match.NO:
                continue
            then = self._then(rule)
            fates |= then.fates - {Fate.ENDED}
            droppers += then.droppers
            leaves = Fate.ENDED not in then.fates or rule.verdict in {Verdict.RETURN, Verdict.GOTO}
            if leaves and Fate.ENDED in then.fates:
                fates.add(Fate.ENDED)
            if leaves and fits is Match.YES:
                return Outcome(frozenset(fates), tuple(dict.fromkeys(droppers)))
        return Outcome(frozenset(fates | {Fate.ENDED}), tuple(dict.fromkeys(droppers)))

    def _then(self, rule: Rule) -> Outcome:
        match rule.verdict:
            case Verdict.ACCEPT:
                return Outcome(frozenset({Fate.ACCEPTED}))
            case Verdict.DROP:
                where = f"{self._table.origin} {self._table.name}: {rule.text}"
                return Outcome(frozenset({Fate.DROPPED}), (where,))
            case Verdict.NOTRACK:
                return Outcome(frozenset({Fate.UNTRACKED, Fate.ENDED}))
            case Verdict.UNKNOWN:
                return Outcome(frozenset({Fate.ACCEPTED, Fate.ENDED}))
            case Verdict.RETURN | Verdict.CONTINUE:
                return Outcome(frozenset({Fate.ENDED}))
            case Verdict.JUMP | Verdict.GOTO:
                return self._chain(rule.target)

    def _chain(self, name: str) -> Outcome:
        chain = self._table.chains.get(name)
        if chain is None:
            return Outcome(frozenset({Fate.ACCEPTED, Fate.ENDED}))
        if name not in self._known:
            self._known[name] = Outcome(frozenset({Fate.ACCEPTED, Fate.ENDED}))  # the kernel refuses loops
            self._known[name] = self.through(chain)
        return self._known[name]
