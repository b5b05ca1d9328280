"""A plan as lines for people: what, why, and what it does to traffic.

One rule: one line for what people call one change, in the order in which it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

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
from director.core.table import (
    Forward,
    RealCounters,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualKey,
    VirtualRow,
)
from director.core.weight import Weight
from director.kit.duration import format_duration
from director.kit.net import Endpoint

Carried = Mapping[tuple[VirtualKey, Endpoint], RealCounters]
_NOTHING_CARRIED: Carried = MappingProxyType({})
_NOBODY = RealCounters()


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `sign` is `+` adds, `~` changes, `-` removes; `effect` is what it does to traffic."""

    sign: str
    subject: str
    detail: str
    effect: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.sign} {self.subject}{detail}{'; ' + self.effect if self.effect else ''}"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. `failures` and `waiting` are sentences: what it could not do, what is still to come."""

    steps: tuple[Step, ...] = ()
    failures: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def steps(
    plan: Plan, config: Config, weights: Mapping[ServerRef, Weight], carried: Carried = _NOTHING_CARRIED
) -> list[Step]:
    """The plan's lines, in order, with the names and reasons that `config` and `weights` give.

    `carried` are the connections of now: what a removal would break.
    """
    names = {key: virtual.name for virtual in config.virtual_servers for key in virtual.keys}
    refs = _refs(config)
    held = {(each.key, each.real): each for each in plan.held}
    lines = [Step("-", f"address {vip}", "") for vip in plan.vips_remove]
    for change in _joined(plan.changes):
        drained = held.pop((change.key, change.real), None) if isinstance(change, EditReal) else None
        if drained:
            lines.append(_held_step(drained, refs))
        elif isinstance(change, NamespaceChange):
            lines.append(_namespace_step(change))
        else:
            lines.append(_step(change, names, refs, weights, carried))
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
        f"{describe_path(each.before, each.tunnel)} to end before it changes to "
        f"{describe_path(each.after, each.new_tunnel)}"
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
    return {(key, endpoint): virtual.ref(real) for virtual, (key, real, endpoint) in config.placed()}


def _named(ref: ServerRef | None, real: Endpoint) -> str:
    return str(ref or real)


def _connections(held: Held) -> str:
    return f"{held.connections} connection{'' if held.connections == 1 else 's'}"


def _held_step(held: Held, refs: Mapping[tuple[VirtualKey, Endpoint], ServerRef]) -> Step:
    change = f"{describe_path(held.before, held.tunnel)} -> {describe_path(held.after, held.new_tunnel)}"
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


def _step(
    change: VirtualChange | RealChange | _Changed,
    names: Mapping[VirtualKey, str],
    refs: Mapping[tuple[VirtualKey, Endpoint], ServerRef],
    weights: Mapping[ServerRef, Weight],
    carried: Carried,
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
            active = sum(carried.get((change.key, real), _NOBODY).active for real in entry.reals)
            return Step("-", virtual, f"with {count} real server{'' if count == 1 else 's'}", _breaks(active))
    ref = refs.get((change.key, change.real))
    real = f"real server {ref or f'{name}/?'} ({change.real})"
    reason = weights[ref].reason if ref is not None and ref in weights else ""
    because = f" ({reason})" if reason else ""
    match change:
        case AddReal(_, _, row_real):
            return Step("+", real, describe_real(row_real) + because)
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


def describe_virtual(row: VirtualRow) -> str:
    """Scheduler, flags and persistence in a few words."""
    parts = [row.scheduler, *flag_names(row)]
    if row.persistence_s:
        by = "" if row.persistence_prefix is None else f" by /{row.persistence_prefix}"
        parts.append(f"persistence {format_duration(row.persistence_s)}{by}")
    if row.engine:
        parts.append(f"by {row.engine}")
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
    limits += f", again below {row.lower_threshold}" if row.lower_threshold else ""
    return f"{describe_path(row.forward, row.tunnel)}, weight {row.weight}{limits}"


def describe_path(forward: Forward, tunnel: Tunnel) -> str:
    """`nat`, `tun` or `tun by gue port 6080`."""
    if forward is not Forward.TUN or (tunnel.kind is TunnelKind.IPIP and not tunnel.flags):
        return forward.value
    port = f" port {tunnel.port}" if tunnel.port else ""
    sums = {TunnelFlags.CHECKSUM: " with checksums", TunnelFlags.REMOTE_CHECKSUM: " with remote checksums"}
    return f"{forward.value} by {tunnel.kind.value}{port}{sums.get(tunnel.flags, '')}"


def describe_timeouts(timeouts: Timeouts) -> str:
    """The three in the order of `ipvsadm --set`, named."""
    parts = (("tcp", timeouts.tcp_s), ("tcpfin", timeouts.tcpfin_s), ("udp", timeouts.udp_s))
    return " ".join(f"{name} {format_duration(value)}" for name, value in parts)


def describe_sync(daemon: SyncDaemon) -> str:
    """Interface, id and where it sends to or listens."""
    maxlen = f", at most {daemon.maxlen} bytes" if daemon.maxlen else ""
    return f"id {daemon.id} on {daemon.interface}, {daemon.group} port {daemon.port}, ttl {daemon.ttl}{maxlen}"


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
