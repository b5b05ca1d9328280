"""Packet-filter rules that some virtual servers need beside IPVS: marks for one that is known by a mark, a new
source address under full NAT, a guard where probes through a VIP are answered (`guard.py`). What our chains should
hold, what they do hold, and the text that makes up for it.

One rule: what is ours is one chain in a table and the rules that jump to it; no other line is ever written.

The texts are those of iptables-save(8), in the order and spelling of iptables 1.8, whether nft or legacy.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain as chained
from itertools import count

from director.core.guard import Guard, guard_rules
from director.core.model import Config, Method
from director.core.table import Protocol, VirtualKey
from director.kit.net import IPAddress

SNAT_CHAIN = "LVS-DIRECTOR-SNAT"
MARK_CHAIN = "LVS-DIRECTOR-MARK"
GUARD_CHAIN = "LVS-DIRECTOR-GUARD"
# XT_MULTI_PORTS in linux/netfilter/xt_multiport.h; a range takes two of them.
MULTIPORT_SLOTS = 15
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}

PortRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Packets to `address` get `mark`, 1 to 2**32-1: those to `ports` (first and last of each range), or all.

    Raises: ValueError for what no such rule could hold.
    """

    mark: int
    protocol: Protocol
    address: IPAddress
    ports: tuple[PortRange, ...] = ()

    def __post_init__(self) -> None:
        _check_mark(self.mark)
        _check_address(self.address)
        for first, last in self.ports:
            if not 0 < first <= last < 65536:
                raise ValueError(f"{first}-{last} is not a range of ports: use 1 to 65535, the lower one first")


@dataclass(frozen=True, slots=True)
class Snat:
    """Connections of the full-NAT virtual server `key` reach real servers from `source`.

    None: from the address of the interface that they leave by (MASQUERADE).
    Raises: ValueError for what no such rule could hold.
    """

    key: VirtualKey
    source: IPAddress | None = None

    def __post_init__(self) -> None:
        _check_key(self.key)
        if self.source is not None:
            _check_address(self.source)
            if self.source.version != self.key.family:
                raise ValueError(
                    f"{self.source} cannot be the source of an IPv{self.key.family} virtual server's connections"
                )


@dataclass(frozen=True, slots=True)
class Rules:
    """All that a configuration asks of the packet filter.

    `plain` names the virtual servers that forward by NAT without a new source: where an entry of `snats` is wider
    than a virtual server, it must not catch the connections of these. `guards` are what the host, and no file, tells.
    """

    marks: tuple[Mark, ...] = ()
    snats: tuple[Snat, ...] = ()
    plain: frozenset[VirtualKey] = frozenset()
    guards: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        for key in self.plain:
            _check_key(key)


@dataclass(frozen=True, slots=True)
class Jump:
    """How packets come into a chain: from `origin`, those that `condition` (an iptables match, or none) fits."""

    origin: str
    condition: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of ours as it should be; without `rules` it should not be there, nor a jump to it."""

    table: str
    name: str
    jumps: tuple[Jump, ...]
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """One chain of ours as it is: its rules (None: there is no such chain), and whole lines that jump to it."""

    rules: tuple[str, ...] | None = None
    jumps: tuple[str, ...] = ()


def rules_of(config: Config) -> Rules:
    """What the virtual servers of `config` ask of the packet filter."""
    marks = [
        Mark(key.mark, traffic.protocol, traffic.address, tuple((port, port) for port in traffic.ports))
        for virtual in config.virtual_servers
        for key in virtual.keys
        for traffic in virtual.traffic
        if key.mark is not None and traffic.address.version == key.family
    ]
    by_method = [(virtual.methods(), key, virtual.source) for virtual in config.virtual_servers for key in virtual.keys]
    return Rules(
        tuple(marks),
        tuple(Snat(key, source) for methods, key, source in by_method if Method.FULLNAT in methods),
        frozenset(key for methods, key, _ in by_method if Method.NAT in methods),
    )


# First in its place: another's MASQUERADE or ACCEPT before it would be the answer, and for others ours is none.
_SNAT_JUMPS = (Jump("POSTROUTING", first=True),)
# Last in its place: IPVS looks at the mark that was set last. A local client's packet keeps a mark that it has
# from its socket (SO_MARK: a probe through a mark of its own).
_MARK_JUMPS = (Jump("PREROUTING"), Jump("OUTPUT", "-m mark --mark 0x0"))
# First in its place: what another accepts there is not looked at again.
_GUARD_JUMPS = (Jump("PREROUTING", "-m addrtype --src-type LOCAL", first=True),)


def chains(rules: Rules, version: int) -> tuple[Chain, ...]:
    """Our chains for IPv4 or IPv6, also those that should not be there.

    >>> from ipaddress import ip_address
    >>> web = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
    >>> chains(Rules(snats=(Snat(web),)), 4)[1].rules
    ('-m ipvs --vproto 6 --vaddr 192.0.2.10 --vport 80 --vmethod MASQ -j MASQUERADE',)
    """
    both = (
        Chain("mangle", MARK_CHAIN, _MARK_JUMPS, tuple(_mark_rules(rules.marks, version))),
        Chain("nat", SNAT_CHAIN, _SNAT_JUMPS, tuple(_snat_rules(rules, version))),
    )
    if version == 6:
        return both
    return (*both, Chain("raw", GUARD_CHAIN, _GUARD_JUMPS, tuple(guard_rules(rules.guards))))


def parse(saved: str, chain: Chain) -> Found:
    """What of `chain` stands in the output of `iptables-save -t TABLE`."""
    rules: list[str] = []
    jumps: list[str] = []
    exists = False
    for line in saved.splitlines():
        if line.startswith(f":{chain.name} "):
            exists = True
        elif line.startswith(f"-A {chain.name} "):
            rules.append(line.removeprefix(f"-A {chain.name} "))
        elif line.startswith("-A ") and chain.name in line and _target(line) == chain.name:
            jumps.append(line)
    return Found(tuple(rules) if exists else None, tuple(jumps))


def kept_name(chain: Chain, saved: str) -> str:
    """What `chain` is called once it is the operator's: a name that nothing in the output of iptables-save has.

    >>> kept_name(Chain("nat", SNAT_CHAIN, ()), ":LVS-KEPT-SNAT - [0:0]")
    'LVS-KEPT-SNAT-2'
    """
    taken = {line[1:].split(" ")[0] for line in saved.splitlines() if line.startswith(":")}
    name = chain.name.replace("DIRECTOR", "KEPT")
    return next(each for each in chained([name], (f"{name}-{number}" for number in count(2))) if each not in taken)


def differences(chain: Chain, found: Found) -> tuple[str, ...]:
    """What is not as it should be, in words; nothing when they agree."""
    if not chain.rules:
        return () if found.rules is None else ("the chain is there and nothing needs it",)
    said = []
    if found.rules is None:
        said.append("the chain is missing")
    else:
        have, want = Counter(map(plain_words, found.rules)), Counter(map(plain_words, chain.rules))
        if missing := (want - have).total():
            said.append(f"{missing} of its {len(chain.rules)} rules missing")
        said += [f"a rule too many: {_spelled(rule, found.rules)}" for rule in have - want]
        if have == want and [*map(plain_words, found.rules)] != [*map(plain_words, chain.rules)]:
            said.append("its rules are in another order")
    for jump in chain.jumps:
        times = _times(chain, jump, found)
        if times == 0 and found.rules is not None:
            said.append(f"the jump from {jump.origin} is missing")
        if times > 1:
            said.append(f"the jump from {jump.origin} is there {times} times")
    said += [f"a jump too many: {line}" for line in _strange_jumps(chain, found)]
    return tuple(said)


def with_more(chain: Chain, lines: Iterable[str]) -> Chain:
    """`chain`, and behind its rules those of `lines` that it does not have."""
    have = {plain_words(rule) for rule in chain.rules}
    return replace(chain, rules=(*chain.rules, *(line for line in lines if plain_words(line) not in have)))


def restoring(chain: Chain, found: Found) -> str:
    """What `iptables-restore --noflush` must read to make `found` what `chain` says; empty when they agree."""
    if not differences(chain, found):
        return ""
    if not chain.rules:
        lines = [*_delete(found.jumps), f"-F {chain.name}", f"-X {chain.name}"]
    else:
        lines = []
        if found.rules is None or [*map(plain_words, found.rules)] != [*map(plain_words, chain.rules)]:
            # Declared anew, a chain that exists is emptied in the same transaction.
            lines.append(f":{chain.name} - [0:0]")
            lines += [f"-A {chain.name} {rule}" for rule in chain.rules]
        lines += _delete(_strange_jumps(chain, found))
        for jump in chain.jumps:
            times = _times(chain, jump, found)
            if times == 0:
                lines.append(_line(chain, jump, "-I" if jump.first else "-A"))
            lines += _delete([_line(chain, jump)] * (times - 1))
    return "\n".join([f"*{chain.table}", *lines, "COMMIT", ""])


def _mark_rules(marks: Iterable[Mark], version: int) -> list[str]:
    lines = []
    for each in marks:
        if each.address.version == version:
            to = f"-d {each.address}/{each.address.max_prefixlen} -p {each.protocol.value}"
            target = f"-j MARK --set-xmark {each.mark:#x}/0xffffffff"
            lines += [f"{to}{ports} {target}" for ports in _multiports(each.ports)]
    return lines


def _multiports(ports: Sequence[PortRange]) -> list[str]:
    """As few matches as hold these ports; one that fits all without any.

    >>> _multiports([(443, 443), (80, 80), (81, 90)])
    [' -m multiport --dports 80:90,443']
    """
    merged: list[PortRange] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    matches: list[list[str]] = []
    free = 0
    for first, last in merged:
        slots = 1 if first == last else 2
        if free < slots:
            matches.append([])
            free = MULTIPORT_SLOTS
        matches[-1].append(str(first) if first == last else f"{first}:{last}")
        free -= slots
    return [f" -m multiport --dports {','.join(words)}" for words in matches] or [""]


def _snat_rules(rules: Rules, version: int) -> list[str]:
    """The most particular first: IPVS looks for a mark, then for a port, then for any port (ip_vs_service_find)."""
    snats = [snat for snat in rules.snats if snat.key.family == version]
    caught = [key for key in rules.plain if key.family == version and any(_is_wider(snat.key, key) for snat in snats)]
    targets = dict.fromkeys(caught, "RETURN") | {
        snat.key: "MASQUERADE" if snat.source is None else f"SNAT --to-source {snat.source}" for snat in snats
    }
    return [f"{match_of(key)} -j {targets[key]}" for key in sorted(targets, key=_particular_first)]


def _is_wider(snat: VirtualKey, plain: VirtualKey) -> bool:
    """Whether the match of `snat` also fits connections that IPVS schedules by `plain`."""
    if snat.endpoint is None:
        return False
    if plain.endpoint is None:  # its connections are known by the address and port that they came to
        return True
    return (snat.protocol, snat.endpoint.address, snat.endpoint.port) == (plain.protocol, plain.endpoint.address, 0)


def _particular_first(key: VirtualKey) -> tuple[bool, bool, tuple[int, str, tuple[int, int, int], int]]:
    return (key.endpoint is not None, key.endpoint is not None and key.endpoint.port == 0, key.sort_key())


def match_of(key: VirtualKey) -> str:
    """The match of connections that `key` gets under NAT."""
    # In this table the kernel looks at a connection's first packet only: no --vdir is needed. MASQ is what IPVS
    # calls NAT; a connection to another kind of real server keeps its client's address.
    if key.protocol is None or key.endpoint is None:
        # xt_ipvs knows no marks, and the packet still carries its own.
        return f"-m mark --mark {key.mark:#x} -m ipvs --vmethod MASQ"
    port = f" --vport {key.endpoint.port}" if key.endpoint.port else ""
    return f"-m ipvs --vproto {NUMBERS[key.protocol]} --vaddr {key.endpoint.address}{port} --vmethod MASQ"


def _line(chain: Chain, jump: Jump, verb: str = "-A") -> str:
    return " ".join(word for word in (verb, jump.origin, jump.condition, "-j", chain.name) if word)


def _times(chain: Chain, jump: Jump, found: Found) -> int:
    return [*map(plain_words, found.jumps)].count(plain_words(_line(chain, jump)))


def _strange_jumps(chain: Chain, found: Found) -> list[str]:
    ours = {plain_words(_line(chain, jump)) for jump in chain.jumps}
    return [line for line in found.jumps if plain_words(line) not in ours]


def _delete(lines: Iterable[str]) -> list[str]:
    return [f"-D{line.removeprefix('-A')}" for line in lines]


def _target(line: str) -> str | None:
    words = _words(line)
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-j", "-g")), None)


def plain_words(line: str) -> tuple[str, ...]:
    """A rule's words in one spelling: versions of iptables differ in names, bases and full-length prefixes.

    >>> plain_words("-d 192.0.2.1/32 -p tcp -j MARK --set-xmark 0x7/0xffffffff")
    ('-d', '192.0.2.1', '-p', '6', '-j', 'MARK', '--set-mark', '7')
    """
    words = (_FULL_MASK.sub("", word) for word in _words(line.replace("--set-xmark", "--set-mark")))
    decimals = (str(int(word, 16)) if _HEXADECIMAL.fullmatch(word) else word for word in words)
    return tuple(_PROTOCOL_NUMBERS.get(word, word) for word in decimals)


_FULL_MASK = re.compile(r"/(32|128|0xffffffff)$")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_PROTOCOL_NUMBERS = {protocol.value: str(number) for protocol, number in NUMBERS.items()}


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that does not end
        return line.split()


def _spelled(plain: tuple[str, ...], lines: Iterable[str]) -> str:
    return next(line for line in lines if plain_words(line) == plain)


def _check_mark(mark: int | None) -> None:
    if mark is None or not 0 < mark < 2**32:
        raise ValueError(f"{mark} is not a firewall mark: use 1 to {2**32 - 1}")


def _check_address(address: IPAddress) -> None:
    if getattr(address, "scope_id", None):  # it may hold any text
        raise ValueError(f"{address} has a zone: give an address without")


def _check_key(key: VirtualKey) -> None:
    if key.endpoint is None:
        _check_mark(key.mark)
    else:
        _check_address(key.endpoint.address)
