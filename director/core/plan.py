"""What would change, as a value and as lines for people.

One rule: a plan says all that an apply would do, and nothing that it would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual
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
    `waiting` are addresses that come only when their virtual server's first verdicts are in.
    """

    changes: tuple[Change, ...] = ()
    vips_remove: tuple[Vip, ...] = ()
    vips_add: tuple[Vip, ...] = ()
    vips_replaced: tuple[Vip, ...] = ()
    waiting: tuple[Vip, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.vips_remove or self.vips_add or self.vips_replaced or self.waiting)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `sign` is `+` adds, `~` changes, `-` removes."""

    sign: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.sign} {self.subject}{': ' + self.detail if self.detail else ''}"


def steps(plan: Plan, config: Config, weights: Mapping[ServerRef, Weight]) -> list[Step]:
    """The plan's lines, in order, with the names and reasons that `config` and `weights` give."""
    names = {virtual.key: virtual.name for virtual in config.virtual_servers}
    refs = {(v.key, real.endpoint): v.ref(real) for v in config.virtual_servers for real in v.real_servers}
    lines = [Step("-", f"address {vip}", "") for vip in plan.vips_remove]
    lines += [_step(change, names, refs, weights) for change in plan.changes]
    lines += [Step("+", f"address {vip}", "") for vip in plan.vips_add]
    lines += [Step("-", f"address {vip}", "") for vip in plan.vips_replaced]
    lines += [Step("+", f"address {vip}", "once its real servers' first verdicts are in") for vip in plan.waiting]
    return lines


def _step(
    change: Change,
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
