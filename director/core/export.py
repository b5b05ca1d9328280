"""The kernel's table as director.yaml.

One rule: what is exported comes back exactly; what cannot is left out whole and named, so that applying an export
changes nothing. Whatever is written goes through the file's own checks before it counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from director.core.aroundread import Around, read_around
from director.core.config import build
from director.core.describe import describe_real, describe_virtual
from director.core.desired import desired_table
from director.core.findings import findings
from director.core.model import Config
from director.core.ports import ANY, MOST, describe_ports
from director.core.schema import FileSection
from director.core.standing import Standing
from director.core.table import Foreign, Forward, Protocol, Table, VirtualEntry, VirtualKey
from director.core.vip import Vip
from director.core.weight import Weight
from director.core.written import Group, Member, namespace, virtual_server
from director.kit.configfile import InvalidConfigError, load
from director.kit.yamltext import Value, render
from director.kit.yamltree import dotted

_WRITABLE = {Forward.NAT, Forward.DR, Forward.TUN}
_NAME_OF_PORT = {
    21: "ftp", 22: "ssh", 25: "smtp", 53: "dns", 80: "http", 110: "pop3", 123: "ntp", 143: "imap", 389: "ldap",
    443: "https", 465: "submissions", 514: "syslog", 587: "submission", 636: "ldaps", 853: "dns-tls", 993: "imaps",
    995: "pop3s", 1812: "radius", 1883: "mqtt", 3306: "mysql", 5060: "sip", 5432: "postgresql", 6379: "redis",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that the kernel holds and the file does not: `what` names it, `reason` says why.

    `keys` are its entries in the table.
    """

    what: str
    reason: str
    keys: tuple[VirtualKey, ...] = ()

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Export:
    """`file` is director.yaml as plain values; `comments` stand behind keys of it, by their path."""

    file: dict[str, Value]
    comments: Mapping[tuple[str, ...], str]
    left_out: tuple[LeftOut, ...]

    def text(self, *head: str) -> str:
        """The YAML document, after `head` and what is left out as comments."""
        return render(self.file, self.comments, [*head, *(f"not exported: {each}" for each in self.left_out)])


def export(
    table: Table,
    kept: Iterable[Vip] = (),
    foreign: Iterable[Foreign] = (),
    standing: Standing = Standing(),  # noqa: B008 -- a frozen value
    *,
    own_timeouts: bool = False,
    report_settings: bool = False,
) -> Export:
    """`table` as a file; equal tables give equal files, to the letter.

    `kept` are the addresses that the director keeps: a virtual server that has one gets its `interface:`. `foreign` is
    what the kernel holds besides; a virtual server with such a real server is left out. `standing` is what the director
    keeps around the table, by which full NAT is told from NAT; `own_timeouts`: they are its own. `report_settings`: the
    host's settings are others than the virtual servers need, and the file is not to change them.
    """
    around = read_around(standing)
    kept = sorted(kept, key=str)
    interfaces = {vip.address: vip.interface for vip in kept}
    top, left_out = _namespace(table, own_timeouts)
    if around.expires:
        top = {"dead_connections": "expire", **top}
    if report_settings:
        top = {"settings": "report", **top}
    strange: set[VirtualKey] = set()
    for each in foreign:
        within = each.key is not None and each.key in table.entries
        keys = (each.key,) if each.key is not None and each.key not in strange else ()
        left_out.append(LeftOut(each.what, each.reason, keys if within else ()))
        strange.update(keys)
    groups = _named(_groups(table, [key for key in table if key not in strange], around))
    reasons = {name: _unwritable(group) for name, group in groups.items()}
    servers: dict[str, Value] = {}
    for name, group in groups.items():
        if not reasons[name]:
            found_on = {interfaces.get(address) for address in group.addresses}
            servers[name] = virtual_server(group, found_on.pop() if len(found_on) == 1 else None)
    while found := _refusals(top, servers, groups, table):
        reasons |= found
        for name in found:
            del servers[name]
    left_out += [LeftOut(str(groups[name]), why, groups[name].keys) for name, why in reasons.items() if why]
    served = {address for name in servers for address in groups[name].addresses}
    left_out += [
        LeftOut(f"address {vip}", "director keeps it there, and no virtual server of the file has it")
        for vip in kept
        if vip.address not in served
    ]
    comments: dict[tuple[str, ...], str] = {
        ("virtual_servers", name, "forward"): "a guess: there is no real server to tell by"
        for name in servers
        if not (groups[name].members or groups[name].full_nat)
    }
    if report_settings:
        comments["settings",] = "not all are as these virtual servers need them: `manage` sets them"
    return Export({**top, "virtual_servers": servers}, comments, tuple(left_out))


# Which entries are one virtual server, and its name.


def _groups(table: Table, rest: list[VirtualKey], around: Around) -> list[Group]:
    """`rest` of the table: ports of one address whose entries say the same are joined; all else stands alone."""
    groups: list[Group] = []
    for members in (_by_own_port, _by_fixed_port):
        alike: dict[object, list[VirtualKey]] = {}
        for key in rest:
            endpoint = key.endpoint
            if endpoint is None or endpoint.port == ANY:
                alike[key] = [key]
            else:
                entry = table.entries[key]
                kind = (key.protocol, endpoint.address, entry.row, around.full_nat(key), members(key, entry))
                alike.setdefault(kind, []).append(key)
        rest = [keys[0] for keys in alike.values() if len(keys) == 1]
        groups += [group for keys in alike.values() if len(keys) > 1 for group in _joined(keys, table, members)]
    groups += [Group((key,), table.entries[key].row, _by_own_port(key, table.entries[key])) for key in rest]
    told = (
        Group(group.keys, group.row, group.members, *around.full_nat(group.keys[0]), around.traffic(group.keys[0]))
        for group in groups
    )
    return sorted(told, key=lambda group: group.keys[0].sort_key())


def _joined(
    keys: list[VirtualKey], table: Table, members: Callable[[VirtualKey, VirtualEntry], frozenset[Member]]
) -> list[Group]:
    keys.sort(key=VirtualKey.sort_key)
    entry = table.entries[keys[0]]
    found = members(keys[0], entry)
    return [Group(tuple(keys[at : at + MOST]), entry.row, found) for at in range(0, len(keys), MOST)]


def _by_own_port(key: VirtualKey, entry: VirtualEntry) -> frozenset[Member]:
    """The real servers of `entry`, without a port where it is the virtual server's own."""
    own = key.endpoint.port if key.endpoint else 0
    return frozenset(Member(at.address, None if at.port == own else at.port, row) for at, row in entry.reals.items())


def _by_fixed_port(_: VirtualKey, entry: VirtualEntry) -> frozenset[Member]:
    """The real servers of `entry` with their ports: each listens on one, whatever port a client names."""
    return frozenset(Member(at.address, at.port, row) for at, row in entry.reals.items())


def _named(groups: Sequence[Group]) -> dict[str, Group]:
    """By name, in order: `http`, `tcp-8080`, `fwmark-7`; with the address where several would be called the same."""
    names = [_name(group) for group in groups]
    times = Counter(names)
    named: dict[str, Group] = {}
    for name, group in zip(names, groups, strict=True):
        named[name if times[name] == 1 else f"{name}-{str(group.address).replace(':', '-')}"] = group
    return named


def _name(group: Group) -> str:
    key = group.keys[0]
    if key.protocol is None:
        return f"fwmark-{key.mark}" + ("-ipv6" if key.family == 6 else "")
    known = _NAME_OF_PORT.get(group.ports[0])
    if known is not None:
        return known if key.protocol is Protocol.TCP else f"{known}-{key.protocol.value}"
    return f"{key.protocol.value}-{describe_ports(group.ports).partition(',')[0]}"


# What cannot be exported.


def _unwritable(group: Group) -> str:
    """Why no file can say `group`; empty when there is no such reason."""
    for member in sorted(group.members, key=Member.sort_key):
        if member.row.forward not in _WRITABLE:
            return f"real server {member} has forwarding method {member.row.forward.value}, which director does not use"
    return ""


def _namespace(table: Table, own_timeouts: bool) -> tuple[dict[str, Value], list[LeftOut]]:
    data = namespace(table, own_timeouts)
    left_out = []
    for name in list(data):
        said = _said({name: data[name], "virtual_servers": {}})
        if said:
            left_out.append(LeftOut(name, "; ".join(message.removeprefix(f"{name}.") for message in said)))
            del data[name]
    return data, left_out


def _refusals(
    top: Mapping[str, Value], servers: dict[str, Value], groups: Mapping[str, Group], table: Table
) -> dict[str, str]:
    """Why the file cannot have some of `servers`, by name."""
    try:
        file = FileSection.model_validate({**top, "virtual_servers": servers})
    except ValidationError as error:
        names = dict.fromkeys(str(each["loc"][1]) for each in error.errors(include_url=False))
        return {name: _said_of(name, servers[name], groups[name]) for name in names}
    reasons: dict[str, str] = {}
    for path, message in findings(file):
        name = str(path[1])
        reasons.setdefault(name, _worded(f"{dotted(path[2:])}: {message}", groups[name]))
    return reasons or _changes(build(file), groups, table)


def _said(file: dict[str, Value]) -> list[str]:
    """The problems of `file` as `director check` words them."""
    try:
        load(render(file), "", FileSection, findings)
    except InvalidConfigError as error:
        return [problem.message for problem in error.problems]
    return []


def _said_of(name: str, section: Value, group: Group) -> str:
    said = _said({"virtual_servers": {name: section}})
    worded = [_worded(message.removeprefix(f"virtual_servers.{name}."), group) for message in said]
    return "; ".join(worded) or "the file's checks refuse it"


def _worded(message: str, group: Group) -> str:
    """`message` with the address of a real server in place of the name that it was to get."""
    match = re.match(r"real_servers\.(\w+)(?:\.([\w.]+))?: ", message)
    if match is None:
        return message.removeprefix(": ")
    of = f", {match[2]}" if match[2] else ""
    return f"real server {group.named()[match[1]]}{of}: {message[match.end() :]}"


def _changes(config: Config, groups: Mapping[str, Group], table: Table) -> dict[str, str]:
    """What would not come back as it is: flags that do nothing, for instance."""
    weights = {
        virtual.ref(real): Weight(real.weight, "")
        for virtual in config.virtual_servers
        for real in virtual.real_servers
    }
    there = desired_table(config, weights)
    reasons: dict[str, str] = {}
    for virtual in config.virtual_servers:
        for key in groups[virtual.name].keys:
            have, want = table.entries[key], there.get(key)
            if have != want:
                reasons[virtual.name] = "no file says it exactly" + (f": {_difference(have, want)}" if want else "")
    return reasons


def _difference(have: VirtualEntry, want: VirtualEntry) -> str:
    if have.row != want.row:
        return f"{describe_virtual(have.row)!r} would become {describe_virtual(want.row)!r}"
    for real, row in have.reals.items():
        if want.reals.get(real) != row:
            return f"real server {real}, {describe_real(row)!r}, would become another"
    return "it would get other real servers"
