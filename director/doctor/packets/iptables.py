"""`iptables-save`'s text as tables of rules (iptables-extensions(8) for the words).

One rule: an option that is not known here makes its rule one that may fit.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from director.doctor.packets.rules import PROTOCOLS, Chain, Condition, Field, Rule, Table, Value, Verdict, unknown

# The priorities of a table's chains at every hook (linux/netfilter_ipv4.h).
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_HOOKS = {
    "PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"
}  # fmt: skip
_FINAL = {"ACCEPT": Verdict.ACCEPT, "DROP": Verdict.DROP, "REJECT": Verdict.DROP, "RETURN": Verdict.RETURN}
_GOES_ON = {
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "HMARK", "LOG", "MARK",
    "NFLOG", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG",
}  # fmt: skip


def parse(text: str, origin: str, version: int) -> tuple[Table, ...]:
    """The tables in `text`, what `origin` prints for an IP version; lines that are none of its are passed over."""
    tables: dict[str, dict[str, Chain]] = {}
    chains: dict[str, Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
            chains = tables.setdefault(table, {})
        elif line.startswith(":"):
            name, policy, *_ = (*line[1:].split(), "-")
            chains[name] = Chain(
                name,
                # Those of nat see the first packet of a connection alone, and cannot drop.
                hook=_HOOKS.get(name) if policy != "-" and table != "nat" else None,
                priority=_PRIORITIES.get(table, 0),
                policy=_FINAL.get(policy, Verdict.ACCEPT),
            )
        elif line.startswith("-A "):
            name, rule = _rule(line)
            known = chains.get(name, Chain(name))
            chains[name] = replace(known, rules=(*known.rules, rule))
    return tuple(Table(origin, name, frozenset({version}), MappingProxyType(found)) for name, found in tables.items())


def tables_that_need_nft(text: str) -> frozenset[str]:
    """The names of tables that `iptables-nft-save` says it cannot show whole."""
    return frozenset(
        line.partition("`")[2].partition("'")[0] for line in text.splitlines() if line.startswith("# Table `")
    )


@dataclass(frozen=True, slots=True)
class _Option:
    """One option of a rule with the words that follow it."""

    name: str
    values: tuple[str, ...]
    negated: bool


def _rule(line: str) -> tuple[str, Rule]:
    try:
        words = shlex.split(line)
    except ValueError:
        return line.split()[1], Rule(line, (unknown(),), Verdict.UNKNOWN)
    options = list(_options(words[2:]))
    conditions = tuple(condition for option in options for condition in _conditions(option))
    by_name = {option.name: option for option in options}
    verdict, target = _verdict(by_name)
    clamps = "-j" in by_name and by_name["-j"].values == ("TCPMSS",)
    return words[1], Rule(line, conditions, verdict, target, clamps)


def _options(words: list[str]) -> Iterator[_Option]:
    at = 0
    while at < len(words):
        negated = words[at] == "!"
        name = words[at + 1] if negated and at + 1 < len(words) else words[at]
        at += 2 if negated else 1
        start = at
        while at < len(words) and words[at] != "!" and (name == "--comment" or not words[at].startswith("-")):
            at += 1
            if name in {"--comment", "--log-prefix", "--nflog-prefix"}:
                break  # free text: one word, that may begin with anything
        yield _Option(name, tuple(words[start:at]), negated)


def _verdict(options: Mapping[str, _Option]) -> tuple[Verdict, str]:
    for name, verdict in (("-j", Verdict.JUMP), ("-g", Verdict.GOTO)):
        if name not in options or not options[name].values:
            continue
        target = options[name].values[0]
        if target in _FINAL:
            return _FINAL[target], ""
        if target == "NOTRACK" or (target == "CT" and "--notrack" in options):
            return Verdict.NOTRACK, ""
        if target in _GOES_ON:
            return Verdict.CONTINUE, ""
        # A target that is no chain is looked up in vain, and may then let the packet through.
        return verdict, target
    return Verdict.CONTINUE, ""


_PORTS = {
    "--dport": (Field.DESTINATION_PORT,), "--destination-port": (Field.DESTINATION_PORT,),
    "--dports": (Field.DESTINATION_PORT,), "--destination-ports": (Field.DESTINATION_PORT,),
    "--sport": (Field.SOURCE_PORT,), "--source-port": (Field.SOURCE_PORT,),
    "--sports": (Field.SOURCE_PORT,), "--source-ports": (Field.SOURCE_PORT,),
}  # fmt: skip
_SAY_NOTHING = {
    "-m", "-j", "-g", "--comment", "--notrack", "--reject-with", "--zone", "--helper", "--set-mark", "--set-xmark",
    "--log-prefix", "--log-level", "--log-tcp-options", "--log-ip-options", "--log-uid", "--log-tcp-sequence",
    "--nflog-group", "--nflog-prefix", "--nflog-size", "--nflog-threshold", "--clamp-mss-to-pmtu", "--set-mss",
    "--save-mark", "--restore-mark", "--nfmask", "--ctmask", "--set-dscp", "--ttl-set",
}  # fmt: skip


def _conditions(option: _Option) -> Iterator[Condition]:
    values = option.values
    if option.name in _SAY_NOTHING:
        return
    try:
        if option.name in {"-s", "-d"}:
            field = Field.SOURCE if option.name == "-s" else Field.DESTINATION
            yield Condition(
                field, tuple(ip_network(each, strict=False) for each in values[0].split(",")), option.negated
            )
        elif option.name == "-p":
            if values[0] != "all":
                yield Condition(Field.PROTOCOL, (_protocol(values[0]),), option.negated)
        elif option.name in {"-i", "-o"}:
            yield Condition(
                Field.INTERFACE if option.name == "-i" else Field.LEAVES, (_interface(values[0]),), option.negated
            )
        elif option.name in _PORTS:
            yield Condition(
                _PORTS[option.name][0], tuple(_ports(each) for each in values[0].split(",")), option.negated
            )
        elif option.name in {"--ctstate", "--state"}:
            yield Condition(Field.STATE, tuple(each.lower() for each in values[0].split(",")), option.negated)
        elif option.name in {"--src-range", "--dst-range"}:
            low, _, high = values[0].partition("-")
            field = Field.SOURCE if option.name == "--src-range" else Field.DESTINATION
            yield Condition(field, ((ip_address(low), ip_address(high)),), option.negated)
        else:
            yield unknown()
    except (ValueError, IndexError):
        yield unknown()


def _protocol(text: str) -> Value:
    number = PROTOCOLS.get(text)
    number = int(text) if number is None else number
    return (number, number)


def _interface(text: str) -> str:
    return text[:-1] + "*" if text.endswith("+") else text


def _ports(text: str) -> Value:
    low, colon, high = text.partition(":")
    return (int(low or 0), int(high or 65535)) if colon else (int(low), int(low))
