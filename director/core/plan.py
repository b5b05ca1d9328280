"""What would change, as a value and as lines for people.

One rule: a plan says all that an apply would do, and nothing that it would not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual
from director.core.handover import Held
from director.core.model import Config, ServerRef
from director.core.table import RealRow, SchedulerFlags, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.core.weight import Weight
from director.kit.duration import format_duration
from director.kit.net import Endpoint


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in their order: addresses that go, the table, addresses that come, and those that these replace.

    `vips_replaced` are on another interface than they should be, and go when they have come to the right one.
    `waiting` are addresses that come only when their virtual server's first verdicts are in; `held` are real servers
    whose forwarding method changes only when their connections have ended.
    """

    changes: tuple[Change, ...] = ()
    vips_remove: tuple[Vip, ...] = ()
    vips_add: tuple[Vip, ...] = ()
    vips_replaced: tuple[Vip, ...] = ()
    waiting: tuple[Vip, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def acts(self) -> bool:
        """There is something to do now, and not only to wait for."""
        return bool(self.changes or self.vips_remove or self.vips_add or self.vips_replaced)

    @property
    def is_empty(self) -> bool:
        return not (self.acts or self.waiting or self.held)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `sign` is `+` adds, `~` changes, `-` removes."""

    sign: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.sign} {self.subject}{': ' + self.detail if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. `failures` and `waiting` are sentences: what it could not do, what is still to come."""

    steps: tuple[Step, ...] = ()
    failures: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def steps(plan: Plan, config: Config, weights: Mapping[ServerRef, Weight]) -> list[Step]:
    """The plan's lines, in order, with the names and reasons that `config` and `weights` give."""
    names = {virtual.key: virtual.name for virtual in config.virtual_servers}
    refs = _refs(config)
    held = {(each.key, each.real): each for each in plan.held}
    lines = [Step("-", f"address {vip}", "") for vip in plan.vips_remove]
    for change in _joined(plan.changes):
        drained = held.pop((change.key, change.real), None) if isinstance(change, EditReal) else None
        lines.append(_held_step(drained, refs) if drained else _step(change, names, refs, weights))
    lines += [_held_step(each, refs) for each in held.values()]
    lines += [Step("+", f"address {vip}", "") for vip in plan.vips_add]
    lines += [Step("-", f"address {vip}", "") for vip in plan.vips_replaced]
    lines += [Step("+", f"address {vip}", "once its real servers' first verdicts are in") for vip in plan.waiting]
    return lines


def waiting_for(plan: Plan, config: Config) -> list[str]:
    """One sentence for each real server whose forwarding method cannot change yet."""
    refs = _refs(config)
    return [
        f"waiting for {_connections(each)} of {_named(refs.get((each.key, each.real)), each.real)} under "
        f"{each.before.value} to end before it changes to {each.after.value}"
        + ("" if each.drains else "; it serves on meanwhile, and is drained when others have changed")
        for each in plan.held
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
        match (joined[-1] if joined else None), change:
            case (RemoveReal(key, real, before), AddReal(same_key, same, row)) if (key, real) == (same_key, same):
                joined[-1] = _Changed(key, real, before, row)
            case (AddReal(key, real, _), EditReal(same_key, same, _, row)) if (key, real) == (same_key, same):
                joined[-1] = AddReal(key, real, row)
            case (_Changed(key, real, before, _), EditReal(same_key, same, _, row)) if (key, real) == (same_key, same):
                joined[-1] = _Changed(key, real, before, row)
            case _:
                joined.append(change)
    return joined


def _refs(config: Config) -> dict[tuple[VirtualKey, Endpoint], ServerRef]:
    return {(v.key, real.endpoint): v.ref(real) for v in config.virtual_servers for real in v.real_servers}


def _named(ref: ServerRef | None, real: Endpoint) -> str:
    return str(ref or real)


def _connections(held: Held) -> str:
    return f"{held.connections} connection{'' if held.connections == 1 else 's'}"


def _held_step(held: Held, refs: Mapping[tuple[VirtualKey, Endpoint], ServerRef]) -> Step:
    change = f"{held.before.value} -> {held.after.value}"
    if not held.drains:
        detail = f"{change} later: it serves on until others have changed, and is drained then"
    elif held.connections:
        # ip_vs_proto_tcp.c: FIN_WAIT and TIME_WAIT 2 min, SYN_RECV 1 min, idle ESTABLISHED 15 min.
        detail = (
            f"{change} drains it first: its {_connections(held)} end by themselves (closed ones within 2m, idle ones "
            "within 15m); until then it gets no new ones"
        )
    else:
        detail = f"{change}: weight 0, and made anew at once if nothing came meanwhile"
    return Step("~", f"real server {_named(refs.get((held.key, held.real)), held.real)} ({held.real})", detail)


def _step(
    change: Change | _Changed,
    names: Mapping[VirtualKey, str],
    refs: Mapping[tuple[VirtualKey, Endpoint], ServerRef],
    weights: Mapping[ServerRef, Weight],
) -> Step:
    name = names.get(change.key, "not in the file")
    virtual = f"virtual server {name} ({change.key})"
    match change:
        case AddVirtual(_, row):
            return Step("+", virtual, describe_virtual(row))
        case EditVirtual(_, before, row):
            return Step("~", virtual, f"{describe_virtual(before)} -> {describe_virtual(row)}")
        case RemoveVirtual(_, entry):
            count = len(entry.reals)
            return Step("-", virtual, f"with {count} real server{'' if count == 1 else 's'}")
    ref = refs.get((change.key, change.real))
    real = f"real server {ref or f'{name}/?'} ({change.real})"
    reason = weights[ref].reason if ref is not None and ref in weights else ""
    because = f" ({reason})" if reason else ""
    match change:
        case AddReal(_, _, row_real):
            return Step("+", real, describe_real(row_real) + because)
        case _Changed(_, _, before_real, row_real):
            return Step("~", real, f"{before_real.forward.value} -> {describe_real(row_real)}{because}")
        case EditReal(_, _, before_real, row_real):
            return Step("~", real, _edited(before_real, row_real) + because)
        case RemoveReal(_, _, before_real):
            return Step("-", real, describe_real(before_real))
        case _:
            assert_never(change)


def describe_virtual(row: VirtualRow) -> str:
    """Scheduler, flags and persistence in a few words."""
    parts = [row.scheduler, *flag_names(row)]
    if row.persistence_s:
        parts.append(f"persistence {format_duration(row.persistence_s)} by /{row.persistence_prefix}")
    if row.one_packet:
        parts.append("one-packet")
    return " ".join(parts)


def flag_names(row: VirtualRow) -> list[str]:
    """ipvsadm's names of the scheduler's flags, such as `mh-port`."""
    words = {SchedulerFlags.FALLBACK: "fallback", SchedulerFlags.PORT: "port", SchedulerFlags.THIRD: "flag-3"}
    return [f"{row.scheduler}-{words[flag]}" for flag in words if flag in row.flags]


def describe_real(row: RealRow) -> str:
    """Forwarding method, weight and thresholds in a few words."""
    limits = f", at most {row.upper_threshold} connections" if row.upper_threshold else ""
    return f"{row.forward.value}, weight {row.weight}{limits}"


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
