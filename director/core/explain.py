"""Why every weight of a virtual server is what it is, and when it would be another, as plain JSON values.

One rule: the weight's own factors are told, as they were decided; nothing is decided here a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from director.core.model import RealServer, ServerRef, VirtualServer
from director.core.moves import told_resolution
from director.core.naming import Named
from director.core.serving import Serving
from director.core.weight import NO_WISH, Maintenance, Wish
from director.kit.checks.check import Check, leaves
from director.kit.duration import format_duration
from director.kit.health import HealthState, ProbeResult, Status


class FactorLine(TypedDict):
    """One step on the way to a weight, and the weight after it."""

    what: str
    weight: int


class ResultLine(TypedDict):
    """One probe, `ago_s` seconds ago. `output` is what was seen first, `warning` what will fail later."""

    ago_s: float
    ok: bool
    reason: str
    duration_ms: float
    output: str
    warning: str


class CheckLine(TypedDict):
    """One check. `next_s` is the time until its next probe, None while one runs; `at` is its place in the file.

    `changes_after` says what would have to come for its verdict to be another, `trouble` why no probe can be made.
    """

    check: str
    at: str
    status: str
    since_s: float | None
    interval_s: float
    timeout_s: float
    fast_interval_s: float
    rise: int
    fall: int
    recent: list[ResultLine]
    next_s: float | None
    changes_after: str
    trouble: str


class RealServerLine(TypedDict):
    """One real server. `factors` lead from the configured weight to `weight`; `kernel_weight` None: not in the table.

    `back` says what brings it back, empty where it serves. `resolution` is what is known of `host`, the name that it is
    given by; both are empty where it is given by address.
    """

    name: str
    address: str
    host: str
    resolution: str
    configured_weight: int
    at: str
    factors: list[FactorLine]
    weight: int
    reason: str
    kernel_weight: int | None
    health: str
    checks: list[CheckLine]
    load: CheckLine | None
    back: str


class Explanation(TypedDict):
    """What `director explain --json` prints: one virtual server."""

    virtual_server: str
    at: str
    source: str
    quorum: str
    panic: bool
    real_servers: list[RealServerLine]


Places = Callable[[tuple[str | int, ...]], str]
"""The place in the file, `file:line:column`, of a key by its path; the nearest one that is there."""


@dataclass(frozen=True, slots=True)
class Probing:
    """What is known of one check: its last results with their times (monotonic), and when it is next due.

    `trouble` says why it cannot be probed at all, for want of something on this host.
    """

    state: HealthState
    recent: Sequence[tuple[float, ProbeResult]] = ()
    next_at: float | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an explanation is made of, at `now` (monotonic) and `clock` (seconds since the epoch)."""

    serving: Serving
    health: Mapping[ServerRef, HealthState]
    wishes: Mapping[ServerRef, Wish]
    kernel: Mapping[ServerRef, int]
    probing: Callable[[Check], Probing]
    places: Places
    source: str
    now: float
    clock: float
    names: Mapping[str, Named] = field(default_factory=dict)


def explain(virtual: VirtualServer, asked: Asked, real_server: str | None = None) -> Explanation:
    """All real servers of `virtual`, or one."""
    standing = asked.serving.standings[virtual.name]
    quorum = virtual.policy.quorum
    count = f"{standing.alive} real server{'' if standing.alive == 1 else 's'}"
    if not standing.quorate and virtual.sorry is not None and asked.serving.weights[virtual.ref(virtual.sorry)].value:
        takes = "would take connections in place of the sorry server"
    else:
        takes = f"take{'s' if standing.alive == 1 else ''} connections"
    bounds = f"held from {quorum.up} on, lost below {quorum.down}"
    return {
        "virtual_server": virtual.name,
        "at": asked.places(("virtual_servers", virtual.name)),
        "source": asked.source,
        "quorum": f"{'held' if standing.quorate else 'lost'}: {count} {takes} ({bounds})",
        "panic": standing.panic,
        "real_servers": [
            _real_server(virtual, ref, real, asked)
            for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
            if real_server in {None, real.name}
        ],
    }


def _real_server(virtual: VirtualServer, ref: ServerRef, real: RealServer, asked: Asked) -> RealServerLine:
    weight = asked.serving.weights[ref]
    own = ("virtual_servers", virtual.name)
    here = (*own, real.name) if real.is_sorry else (*own, "real_servers", real.name)
    state = asked.health.get(ref) if real.check is not None else None
    check_at = _path_of(asked.places, (*here, "check"), (*own, "check"), ("defaults", "check"))
    load_at = asked.places(_path_of(asked.places, (*here, "load"), (*own, "load")))
    checks = leaves(real.check)
    is_one = isinstance(real.check, Check)
    ats = [asked.places(check_at if is_one else (*check_at, "of", index)) for index in range(len(checks))]
    return {
        "name": real.name,
        "address": str(real.at(virtual.keys[0])),
        "host": real.host,
        "resolution": told_resolution(virtual, real, asked.names.get(real.host)),
        "configured_weight": real.weight,
        "at": asked.places((*here, "weight")),
        "factors": [{"what": factor.what, "weight": factor.value} for factor in weight.factors],
        "weight": weight.value,
        "reason": weight.reason,
        "kernel_weight": asked.kernel.get(ref),
        "health": state.status.value if state is not None else "unchecked",
        "checks": [_check(check, at, asked) for check, at in zip(checks, ats, strict=True)],
        "load": _check(real.load, load_at, asked) if real.load is not None else None,
        "back": "" if weight.value else _back(virtual, real, state, asked, asked.wishes.get(ref, NO_WISH)),
    }


def _path_of(places: Places, *paths: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The first of `paths` that is in the file by itself, not by what is around it."""
    return next((path for path in paths if places(path) != places(path[:-1])), paths[-1])


def _check(check: Check, at: str, asked: Asked) -> CheckLine:
    known, timing = asked.probing(check), check.timing
    state = known.state
    waits_s = None if known.next_at is None else max(0.0, known.next_at - asked.now)
    return {
        "check": str(check),
        "at": at,
        "status": state.status.value,
        "since_s": round(asked.now - state.since_at, 3) if state.last is not None else None,
        "interval_s": timing.interval_s,
        "timeout_s": timing.timeout_s,
        "fast_interval_s": timing.fast_interval_s,
        "rise": timing.rise,
        "fall": timing.fall,
        "recent": [_result(at_s, result, asked.now) for at_s, result in reversed(known.recent)],
        "next_s": None if waits_s is None else round(waits_s, 3),
        "changes_after": changes_after(check, state, asked.now),
        "trouble": known.trouble,
    }


def _result(at: float, result: ProbeResult, now: float) -> ResultLine:
    return {
        "ago_s": round(now - at, 3),
        "ok": result.ok,
        "reason": result.reason,
        "duration_ms": round(result.duration_s * 1000, 3),
        "output": "".join(c if c.isprintable() else "." for c in result.output.decode(errors="replace")),
        "warning": result.warning,
    }


def changes_after(check: Check, state: HealthState, now: float) -> str:
    """What would have to be seen for `state` to be another."""
    timing, last = check.timing, state.last
    good = state.streak if last is not None and last.ok else 0
    bad = state.streak if last is not None and not last.ok else 0
    if state.held and timing.flapping is not None:
        left_s = max(0.0, timing.flapping.hold_s - (now - state.streak_at))
        return f"up when it stays good for {_about(left_s)} more: it went up and down too often"
    match state.status:
        case Status.UP:
            return f"down after {_more(timing.fall - bad, 'failure')}"
        case Status.DOWN:
            return f"up after {_more(timing.rise - good, 'success')}, about {_about(_time_up(check, good))}"
        case Status.PENDING:
            up, down = _more(timing.rise - good, "success"), _more(timing.fall - bad, "failure")
            return f"up after {up}, down after {down}"


def _time_up(check: Check, good: int) -> float:
    """The time until it is up, were every probe good from now on; at most so long until the first one."""
    timing = check.timing
    first_s = timing.fast_interval_s if good else timing.interval_s
    return first_s + max(0, timing.rise - good - 1) * timing.fast_interval_s


def _more(count: int, noun: str) -> str:
    many = {"success": "successes", "failure": "failures"}[noun]
    return f"{count} more {noun if count == 1 else many}" + (" in a row" if count > 1 else "")


def _about(seconds: float) -> str:
    return format_duration(round(seconds, 1) if seconds < 60 else round(seconds))


def _back(virtual: VirtualServer, real: RealServer, state: HealthState | None, asked: Asked, wish: Wish) -> str:
    """What brings a server at weight 0 back."""
    health = ""
    if state is not None and state.status is not Status.UP and real.state.value != "disabled":
        health = _up(virtual, real, state, asked)
    taken_out = _wanted_back(virtual, real, asked, wish)
    if taken_out:
        is_down = state is not None and state.status is Status.DOWN
        return f"{taken_out}; and it is down: {health}" if health and is_down else taken_out
    if health:
        return health
    if virtual.sorry is not None and not asked.serving.standings[virtual.name].quorate:
        return f"when {virtual.policy.quorum.up} real servers are up: quorum is lost"
    return "when it asks for traffic again"


def _wanted_back(virtual: VirtualServer, real: RealServer, asked: Asked, wish: Wish) -> str:
    """How what the file or the operator wants is ended; empty where neither has taken it out."""
    ref = f"{virtual.name} {real.name}"
    if real.state.value != "enabled":
        return f"when the file no longer has `state: {real.state.value}`"
    if wish.maintenance is not None:
        return _back_from(wish.maintenance, ref, asked.clock)
    if wish.drain or wish.weight == 0:
        return f"by `director enable {ref}`"
    if real.is_sorry:
        return "when quorum is lost"
    if real.weight == 0 and wish.weight is None:
        return "when the file gives it a weight above 0"
    return ""


def _up(virtual: VirtualServer, real: RealServer, state: HealthState, asked: Asked) -> str:
    """When its checks would have it up; who was never down does not come back slowly."""
    is_one = isinstance(real.check, Check)
    parts = [
        after if is_one else f"{part} is {after}"
        for part in leaves(real.check)
        if (known := asked.probing(part).state).status is not Status.UP
        and (after := changes_after(part, known, asked.now).partition(", down after")[0])
    ]
    is_slow = virtual.starts_slowly and state.status is Status.DOWN
    return "; ".join(parts) + (f", and then over {format_duration(virtual.policy.slow_start_s)}" if is_slow else "")


def _back_from(maintenance: Maintenance, ref: str, clock: float) -> str:
    by_hand = f"by `director enable {ref}`"
    if maintenance.until is None:
        return by_hand
    return f"in {_about(max(0.0, maintenance.until - clock))}, or {by_hand}"
