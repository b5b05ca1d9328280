"""`nft --json list ruleset`'s answer as tables of rules (libnftables-json(5)).

One rule: an expression that is not known here makes its rule one that may fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from director.doctor.packets.rules import PROTOCOLS, Chain, Condition, Field, Rule, Table, Value, Verdict, unknown
from director.kit.statefile import Json

Object = dict[str, Any]
_Key = tuple[str, str, str]
"""A family, a table's name, and a chain's or a set's."""

_VERSIONS = {"ip": frozenset({4}), "ip6": frozenset({6}), "inet": frozenset({4, 6})}
_VERDICTS = {
    "accept": Verdict.ACCEPT, "drop": Verdict.DROP, "reject": Verdict.DROP, "return": Verdict.RETURN,
    "jump": Verdict.JUMP, "goto": Verdict.GOTO, "notrack": Verdict.NOTRACK, "continue": Verdict.CONTINUE,
}  # fmt: skip
_SAYS_NOTHING = {"counter", "log", "comment", "mangle", "meter", "set", "map", "ct helper", "ct timeout"}
_HIDING = {"queue", "fwd", "tproxy", "synproxy", "redirect", "dnat", "snat", "masquerade", "dup"}
_PAYLOADS = {
    ("ip", "saddr"): Field.SOURCE, ("ip6", "saddr"): Field.SOURCE,
    ("ip", "daddr"): Field.DESTINATION, ("ip6", "daddr"): Field.DESTINATION,
    ("ip", "protocol"): Field.PROTOCOL, ("ip6", "nexthdr"): Field.PROTOCOL,
}  # fmt: skip
_METAS = {
    "iifname": Field.INTERFACE, "iif": Field.INTERFACE, "oifname": Field.LEAVES, "oif": Field.LEAVES,
    "l4proto": Field.PROTOCOL, "nfproto": Field.VERSION,
}  # fmt: skip
_NAMED = {Field.STATE, Field.INTERFACE, Field.LEAVES}


def parse(text: str, without: frozenset[tuple[str, str]] = frozenset()) -> tuple[Table, ...]:
    """The tables in `text`, but for those of a family and a name in `without`.

    Raises: ValueError when it is not what nft prints.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("nftables"), list):
        raise ValueError("it has no list of nftables")
    reader = _Reader(without)
    for each in content["nftables"]:
        if isinstance(each, dict):
            for kind, thing in each.items():
                reader.take(kind, thing)
    return reader.tables()


class _Reader:
    """Gathers what belongs to a table: nft prints its parts one by one, and sets before the rules that use them."""

    def __init__(self, without: frozenset[tuple[str, str]]) -> None:
        self._without = without
        self._chains: dict[_Key, Object] = {}
        self._rules: dict[_Key, list[Rule]] = {}
        self._sets: dict[_Key, Json] = {}

    def take(self, kind: str, thing: Object) -> None:
        family = str(thing.get("family", ""))
        name = str(thing.get("name" if kind == "table" else "table", ""))
        if family not in _VERSIONS or (family, name) in self._without:
            return
        if kind == "chain":
            self._chains[family, name, str(thing["name"])] = thing
        elif kind in {"set", "map"}:
            self._sets[family, name, str(thing["name"])] = thing.get("elem", [])
        elif kind == "rule":
            rules = self._rules.setdefault((family, name, str(thing["chain"])), [])
            rules += self._read(family, name, thing)

    def tables(self) -> tuple[Table, ...]:
        found: dict[tuple[str, str], dict[str, Chain]] = {}
        for (family, table, name), chain in self._chains.items():
            is_filter = chain.get("type") in {"filter", None}  # nat and route chains see a part of the packets
            found.setdefault((family, table), {})[name] = Chain(
                name,
                tuple(self._rules.get((family, table, name), ())),
                str(chain["hook"]) if "hook" in chain and is_filter else None,
                _number(chain.get("prio")),
                Verdict.DROP if chain.get("policy") == "drop" else Verdict.ACCEPT,
            )
        return tuple(
            Table("nft", f"{family} {table}", _VERSIONS[family], MappingProxyType(chains))
            for (family, table), chains in found.items()
        )

    def _read(self, family: str, table: str, thing: Object) -> Iterator[Rule]:
        """A rule, or for a verdict map one for each of its elements."""
        conditions: list[Condition] = []
        text = f"chain {thing.get('chain')} handle {thing.get('handle')}"
        for expression in thing.get("expr", []):
            [(kind, what)] = expression.items()
            if kind == "match":
                conditions += self._conditions(family, table, what)
            elif kind == "vmap":
                for key, verdict in self._elements(family, table, what["data"]):
                    match: Object = {"op": "==", "left": what["key"], "right": key}
                    yield _rule(text, (*conditions, *self._conditions(family, table, match)), verdict)
            elif kind in _VERDICTS:
                yield _rule(text, tuple(conditions), expression)
            elif kind == "mangle" and _is_segment_size(what.get("key")):
                yield Rule(text, tuple(conditions), Verdict.CONTINUE, clamps=True)
            elif kind in _HIDING:
                yield Rule(text, tuple(conditions), Verdict.UNKNOWN)
            elif kind not in _SAYS_NOTHING:
                conditions.append(unknown())  # limit, quota, xt, connlimit, ...

    def _elements(self, family: str, table: str, data: Json) -> list[tuple[Json, Object]]:
        if isinstance(data, str):
            data = self._sets.get((family, table, data.removeprefix("@")), [])
        elif isinstance(data, dict):
            data = data.get("set", [])
        pairs = data if isinstance(data, list) else []
        return [(pair[0], pair[1]) for pair in pairs if isinstance(pair, list) and isinstance(pair[1], dict)]

    def _conditions(self, family: str, table: str, match: Object) -> Iterator[Condition]:
        """A match, and what it asks besides: `tcp dport` fits no udp packet, `ip saddr` none of IPv6."""
        field = _field(match["left"])
        values = self._values(family, table, field, match["right"])
        if isinstance(match["left"], dict) and isinstance(payload := match["left"].get("payload"), dict):
            protocol = payload.get("protocol")
            if protocol in {"ip", "ip6"}:
                number = 4 if protocol == "ip" else 6
                yield Condition(Field.VERSION, ((number, number),))
            elif protocol in PROTOCOLS:
                yield Condition(Field.PROTOCOL, ((PROTOCOLS[str(protocol)], PROTOCOLS[str(protocol)]),))
        if field is Field.UNKNOWN or values is None or match["op"] not in {"==", "!=", "in"}:
            yield unknown()
        else:
            yield Condition(field, values, match["op"] == "!=")

    def _values(self, family: str, table: str, field: Field, right: Json) -> tuple[Value, ...] | None:
        """The values on a condition's right side; None when one of them is not understood."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._sets.get((family, table, right[1:]))
        elif isinstance(right, dict) and "set" in right:
            right = right["set"]
        items = right if isinstance(right, list) else [right]
        found = [_value(field, item) for item in items]
        return None if None in found else tuple(value for value in found if value is not None)


def _rule(text: str, conditions: tuple[Condition, ...], expression: Object) -> Rule:
    [(kind, what)] = expression.items()
    target = str(what["target"]) if isinstance(what, dict) and "target" in what else ""
    return Rule(text, conditions, _VERDICTS.get(kind, Verdict.UNKNOWN), target)


def _is_segment_size(key: Json) -> bool:
    match key:
        case {"tcp option": {"name": "maxseg"}}:
            return True
    return False


def _field(left: Json) -> Field:
    match left:
        case {"payload": {"protocol": "tcp" | "udp" | "th" | "sctp", "field": "sport" | "dport" as name}}:
            return Field.SOURCE_PORT if name == "sport" else Field.DESTINATION_PORT
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            return _PAYLOADS.get((protocol, name), Field.UNKNOWN)
        case {"meta": {"key": str(key)}}:
            return _METAS.get(key, Field.UNKNOWN)
        case {"ct": {"key": "state"}}:
            return Field.STATE
        case {"ct": {"key": "status"}}:
            return Field.TRANSLATED
    return Field.UNKNOWN


def _value(field: Field, item: Json) -> Value | None:
    try:
        match item:
            case {"elem": {"val": inner}}:
                return _value(field, inner)
            case {"prefix": {"addr": str(address), "len": int(length)}}:
                return ip_network(f"{address}/{length}", strict=False)
            case {"range": [low, high]} if field in {Field.SOURCE, Field.DESTINATION}:
                return (ip_address(str(low)), ip_address(str(high)))
            case {"range": [int(low), int(high)]}:
                return (low, high)
            case bool() | None:
                return None
            case int(number) if field not in _NAMED:
                return (number, number)
            case str(text) if field in {Field.SOURCE, Field.DESTINATION}:
                return ip_network(text)
            case str(text) if field is Field.PROTOCOL and text in PROTOCOLS:
                return (PROTOCOLS[text], PROTOCOLS[text])
            case "ipv4" | "ipv6" if field is Field.VERSION:
                number = 4 if item == "ipv4" else 6
                return (number, number)
            case "dnat" | "snat" if field is Field.TRANSLATED:
                return str(item)
            case str(text) if field in _NAMED:
                return text
    except ValueError:
        return None
    return None


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
