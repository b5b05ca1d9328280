"""A plan as lines for people: what, why, and what it does to traffic.

One rule: one line for what people call one change, in the order in which it is made. How a table's values are worded
stands in `describe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import assert_never

from director.core.answers import Step
from director.core.describe import describe_path, describe_real, describe_sync, describe_timeouts, describe_virtual
from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    NamespaceChange,
    RealChange,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
    VirtualChange,
)
from director.core.handover import Held
from director.core.model import Config, ServerRef
from director.core.plan import Plan
from director.core.removal import Leaving
from director.core.steering import is_given_away
from director.core.table import RealCounters, RealRow, VirtualKey
from director.core.weight import Weight
from director.kit.net import Endpoint

Carried = Mapping[tuple[VirtualKey, Endpoint], RealCounters]
_NOTHING_CARRIED: Carried = MappingProxyType({})
_NOBODY = RealCounters()


@dataclass(frozen=True, slots=True)
class Names:
    """What people call the entries of a table."""

    virtuals: Mapping[VirtualKey, str]
    reals: Mapping[tuple[VirtualKey, Endpoint], ServerRef]
    counts: Mapping[str, int]
    paths: Mapping[VirtualKey, str] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def of(config: Config, former: Config | None = None) -> Names:
        """The names in `config`, and in `former` for what that one had and `config` has not."""
        virtuals: dict[VirtualKey, str] = {}
        reals: dict[tuple[VirtualKey, Endpoint], ServerRef] = {}
        for each in (config, former):
            for virtual in each.virtual_servers if each else ():
                for key in virtual.keys:
                    virtuals.setdefault(key, virtual.name)
            for virtual, (key, real, endpoint) in each.placed() if each else ():
                reals.setdefault((key, endpoint), virtual.ref(real))
        paths: dict[VirtualKey, str] = {}
        for each in (config, former):
            for steering in each.steerings if each else ():
                paths.setdefault(steering.key, str(steering))
        return Names(virtuals, reals, Counter(virtuals.values()), paths)

    def has_several(self, key: VirtualKey) -> bool:
        """Whether the virtual server of `key` has more of them, so that its real servers need telling apart."""
        return self.counts.get(self.virtuals.get(key, ""), 0) > 1

    def real(self, key: VirtualKey, real: Endpoint) -> str:
        """`web/a`; `web/10.0.0.1:80` where only the kernel knows it."""
        return str(self.reals.get((key, real)) or f"{self.virtuals.get(key, key)}/{real}")

    def subject(self, key: VirtualKey, real: Endpoint) -> str:
        """What a line about a real server begins with; it names the entry where its virtual server has several."""
        ref = self.reals.get((key, real))
        name = self.real(key, real) if ref is None else f"{ref} ({real})"
        return f"real server {name}{f' of {key}' if self.has_several(key) else ''}"

    def path(self, key: VirtualKey) -> str:
        """What an entry is called that is there for probes alone; empty for others."""
        unnamed = "probe path" if is_given_away(key) and key not in self.virtuals else ""
        return self.paths.get(key, unnamed)

    def leaving(self, each: Leaving) -> str:
        """As `real`."""
        return self.real(each.key, each.real) if each.real else str(self.virtuals.get(each.key, each.key))


def steps(
    plan: Plan,
    config: Config,
    weights: Mapping[ServerRef, Weight],
    carried: Carried = _NOTHING_CARRIED,
    former: Config | None = None,
) -> list[Step]:
    """The plan's lines, in order, with the names and reasons that `config` and `weights` give.

    `carried` are the connections of now: what a removal would break. `former` names what `config` has no more.
    """
    names = Names({}, {}, {}) if plan.is_empty else Names.of(config, former)
    return _lines(plan, names, weights, carried)


class Account:
    """Plans that were carried out, to be told as lines if anybody asks: those of ten thousand changes take longer to
    word than to make."""

    def __init__(self, config: Config, weights: Mapping[ServerRef, Weight], former: Config | None = None) -> None:
        self._config = config
        self._weights = weights
        self._former = former
        self._names: Names | None = None
        self._parts: list[Plan] = []

    def add(self, part: Plan) -> None:
        """`part` was done."""
        self._parts.append(part)

    def lines_of(self, part: Plan) -> list[Step]:
        """The lines of one part."""
        if self._names is None:
            self._names = Names.of(self._config, self._former)
        return _lines(part, self._names, self._weights, _NOTHING_CARRIED)

    def steps(self) -> tuple[Step, ...]:
        """The lines of all that was done, in order."""
        return tuple(step for part in self._parts for step in self.lines_of(part))


def _lines(plan: Plan, names: Names, weights: Mapping[ServerRef, Weight], carried: Carried) -> list[Step]:
    held = {(each.key, each.real): each for each in plan.held}
    leaving = {(each.key, each.real): each for each in plan.leaving}

    details = _Details()

    def lines_of(changes: Iterable[Change]) -> Iterator[Step]:
        for change in _joined(changes):
            if isinstance(change, (SetTimeouts, StopSync, StartSync)):
                yield _namespace_step(change)
                continue
            if change.key.mark is not None and (path := names.path(change.key)):
                yield from _path_steps(change, path)
                continue
            place = (change.key, change.real) if isinstance(change, EditReal) else None
            drained, leaves = held.pop(place, None) if place else None, leaving.pop(place, None) if place else None
            if drained:
                yield _held_step(drained, names)
            elif leaves and isinstance(change, EditReal):
                yield _leaving_step(leaves, names, f"weight {change.before.weight} -> 0, ")
            else:
                yield _step(change, names, weights, carried, details)

    lines = [Step("~", each.subject, each.detail, each.effect) for each in plan.around]
    lines += lines_of(plan.settles)
    lines += [_held_step(each, names) for each in held.values()]
    lines += [Step("+", f"address {vip}", "") for vip in plan.vips_add]
    lines += [Step("-", f"address {vip}", "") for vip in plan.vips_remove]
    lines += lines_of(plan.removes)
    lines += [Step("-", f"address {vip}", "") for vip in plan.vips_replaced]
    lines += [_leaving_step(each, names) for each in leaving.values()]
    lines += [Step("+", f"address {vip}", "once its real servers' first verdicts are in") for vip in plan.waiting]
    return lines


def waiting_for(plan: Plan, config: Config, former: Config | None = None) -> list[str]:
    """One sentence for each real server whose forwarding method cannot change, or which cannot go, yet."""
    names = Names.of(config, former) if plan.held or plan.leaving else Names({}, {}, {})
    return [
        f"waiting for {_connections(each.connections)} of {names.real(each.key, each.real)} under "
        f"{describe_path(each.before, each.tunnel)} to end before it changes to "
        f"{describe_path(each.after, each.new_tunnel)}"
        + ("" if each.drains else "; it serves on meanwhile, and is drained when others have changed")
        for each in plan.held
    ] + [
        f"waiting for {_connections(each.connections)} of {names.leaving(each)} to end before it is removed"
        for each in plan.leaving
        if each.drains
    ]


@dataclass(frozen=True, slots=True)
class _Changed:
    """A real server made anew under another method: `RemoveReal` and `AddReal`, in one line."""

    key: VirtualKey
    real: Endpoint
    before: RealRow
    row: RealRow


def _joined(changes: Iterable[Change]) -> list[Change | _Changed]:
    """`changes` with those to one real server that follow each other in one: what people call one change."""
    joined: list[Change | _Changed] = []
    for change in changes:
        last = joined[-1] if joined else None
        if not (
            isinstance(change, (AddReal, EditReal))  # tuples of classes: a union takes five times as long
            and isinstance(last, (RemoveReal, AddReal, _Changed))
            and last.real == change.real
        ):
            joined.append(change)
            continue
        match last, change:
            case (RemoveReal(key, real, before), AddReal(same_key, same, row)) if (key, real) == (same_key, same):
                joined[-1] = _Changed(key, real, before, row)
            case (AddReal(key, real, _), EditReal(same_key, same, _, row)) if (key, real) == (same_key, same):
                joined[-1] = AddReal(key, real, row)
            case (_Changed(key, real, before, _), EditReal(same_key, same, _, row)) if (key, real) == (same_key, same):
                joined[-1] = _Changed(key, real, before, row)
            case _:
                joined.append(change)
    return joined


def _connections(number: int) -> str:
    return f"{number} connection{'' if number == 1 else 's'}"


def _leaving_step(leaving: Leaving, names: Names, lowered: str = "") -> Step:
    when = f"when its {_connections(leaving.connections)} have ended" if leaving.drains else "last of all"
    if leaving.real is None:
        return Step("~", f"virtual server {names.leaving(leaving)}", f"removed {when}", interim=True)
    return Step("~", names.subject(leaving.key, leaving.real), f"{lowered}removed {when}", interim=True)


def _held_step(held: Held, names: Names) -> Step:
    change = f"{describe_path(held.before, held.tunnel)} -> {describe_path(held.after, held.new_tunnel)}"
    if not held.drains:
        detail = f"{change} later: it serves on until others have changed, and is drained then"
    elif held.connections:
        # ip_vs_proto_tcp.c: FIN_WAIT and TIME_WAIT 2 min, SYN_RECV 1 min, idle ESTABLISHED 15 min.
        detail = (
            f"{change} drains it first: its {_connections(held.connections)} end by themselves (closed ones within "
            "2m, idle ones within 15m); until then it gets no new ones"
        )
    else:
        detail = f"{change}: weight 0, and made anew at once if nothing came meanwhile"
    return Step("~", names.subject(held.key, held.real), detail)


def _namespace_step(change: NamespaceChange) -> Step:
    match change:
        case SetTimeouts(before, after):
            was = f"{describe_timeouts(before)} -> " if before else ""
            effect = "connections that exist take theirs with their next packet"
            return Step("~", "timeouts", was + describe_timeouts(after), effect)
        case StopSync(daemon):
            return Step("-", f"sync {daemon.role.value}", describe_sync(daemon))
        case StartSync(daemon):
            return Step("+", f"sync {daemon.role.value}", describe_sync(daemon))
        case _:
            assert_never(change)


def _breaks(connections: int) -> str:
    if not connections:
        return ""
    what = "1 active connection" if connections == 1 else f"{connections} active connections"
    return f"{what} would break; drain first?"


def _because(weight: Weight | None) -> str:
    return f" ({weight.reason})" if weight is not None and weight.reason else ""


class _Details:
    """What is said of real servers that are added: of one after the other the same, as a rule, and then once."""

    def __init__(self) -> None:
        self._row: RealRow | None = None
        self._weight: Weight | None = None
        self._added = ""

    def added(self, row: RealRow, weight: Weight | None) -> str:
        if row is not self._row or weight is not self._weight:
            self._row, self._weight, self._added = row, weight, describe_real(row) + _because(weight)
        return self._added


def _step(
    change: VirtualChange | RealChange | _Changed,
    names: Names,
    weights: Mapping[ServerRef, Weight],
    carried: Carried,
    details: _Details,
) -> Step:
    if isinstance(change, (AddVirtual, EditVirtual, RemoveVirtual)):
        return _virtual_step(change, names, carried)
    ref = names.reals.get((change.key, change.real))
    real = names.subject(change.key, change.real)
    weight = weights.get(ref) if ref is not None else None
    because = _because(weight)
    match change:
        case AddReal(_, _, row_real):
            return Step("+", real, details.added(row_real, weight))
        case _Changed(_, _, before_real, row_real):
            path = describe_path(before_real.forward, before_real.tunnel)
            return Step("~", real, f"{path} -> {describe_real(row_real)}{because}")
        case EditReal(_, _, before_real, row_real):
            return Step("~", real, _edited(before_real, row_real) + because)
        case RemoveReal(_, _, before_real):
            active = carried.get((change.key, change.real), _NOBODY).active
            return Step("-", real, describe_real(before_real), _breaks(active))
        case _:
            assert_never(change)


def _virtual_step(change: VirtualChange, names: Names, carried: Carried) -> Step:
    name = names.virtuals.get(change.key)
    virtual = f"virtual server {name} ({change.key})" if name else f"virtual server {change.key}"
    match change:
        case AddVirtual(_, row):
            return Step("+", virtual, describe_virtual(row))
        case EditVirtual(_, before, row):
            return Step("~", virtual, f"{describe_virtual(before)} -> {describe_virtual(row)}")
        case RemoveVirtual(_, entry):
            count = len(entry.reals)
            active = sum(carried.get((change.key, real), _NOBODY).active for real in entry.reals)
            return Step("-", virtual, f"with {count} real server{'' if count == 1 else 's'}", _breaks(active))
        case _:
            assert_never(change)


def _path_steps(change: VirtualChange | RealChange | _Changed, path: str) -> Iterator[Step]:
    """At most one line: such an entry is made and removed whole."""
    match change:
        case AddVirtual():
            pass  # its real server is told
        case EditVirtual(_, before, row):
            yield Step("~", path, f"{describe_virtual(before)} -> {describe_virtual(row)}")
        case RemoveVirtual(key, entry):
            yield Step("-", path, f"{key} to {', '.join(str(real.address) for real in entry.reals) or 'nobody'}")
        case AddReal(key, real, row_real):
            yield Step("+", path, f"{key} to {real.address} by {describe_path(row_real.forward, row_real.tunnel)}")
        case EditReal(_, _, before_real, row_real):
            yield Step("~", path, f"{describe_real(before_real)} -> {describe_real(row_real)}")
        case RemoveReal(_, real, before_real):
            yield Step("-", path, f"{real.address}: {describe_real(before_real)}")
        case _Changed(_, _, before_real, row_real):
            yield Step("~", path, f"{describe_real(before_real)} -> {describe_real(row_real)}")
        case _:
            assert_never(change)


def _edited(before: RealRow, row: RealRow) -> str:
    parts = []
    if before.weight != row.weight:
        parts.append(f"weight {before.weight} -> {row.weight}")
    if (before.upper_threshold, before.lower_threshold) != (row.upper_threshold, row.lower_threshold):
        parts.append(
            f"thresholds {before.lower_threshold}-{before.upper_threshold} -> "
            f"{row.lower_threshold}-{row.upper_threshold}"
        )
    return ", ".join(parts)
