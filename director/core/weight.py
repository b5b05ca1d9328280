"""The weight a real server should have now, and why.

One rule: one pure function decides, and its answer feeds the kernel, `status`, `explain` and the logs alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from director.core.model import RealServer, RealState
from director.core.policy import DEFAULT_POLICY, OnStart, Policy
from director.kit.health import Asks, HealthState, ProbeResult, Status

RAMP_STEPS = 20
"""A weight that comes back slowly does so in so many steps: each is a write to the kernel."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Taken out by the operator, until `until` (seconds since the epoch) or for good."""

    reason: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of one real server, apart from the file. `weight` None leaves the file's."""

    drain: bool = False
    weight: int | None = None
    maintenance: Maintenance | None = None


class Factor(NamedTuple):
    """One step on the way to a weight: what it is, and what the weight is after it."""

    what: str
    value: int


@dataclass(frozen=True, slots=True)
class Weight:
    """An effective weight, 0 to 65535, and the reason in a few words; `factors` lead to it one by one.

    `is_down`: because checks failed, or are taken to.
    """

    value: int
    reason: str
    is_down: bool = False
    factors: tuple[Factor, ...] = ()


class Facts(NamedTuple):
    """What is known of one real server at `now` (monotonic).

    `adopted` is the weight found in the kernel when the server was taken over; `unproven` says that it is new
    beside servers that take connections; `presumed` is what it was when a director last knew. `probed` says that
    somebody probes: otherwise no verdict is to come. `load` is the last good answer of who is asked for its load.
    `panic`: too many are down for the probes to be trusted. `whole`: its scheduler wants the nominal weight or none.
    `silent` says why `load` is not heard now.
    """

    health: HealthState
    wish: Wish
    now: float = 0.0
    adopted: int | None = None
    unproven: bool = False
    presumed: Status | None = None
    probed: bool = True
    load: ProbeResult | None = None
    panic: bool = False
    whole: bool = False
    silent: str = ""


NO_WISH = Wish()
UNKNOWN = HealthState()
NOTHING_KNOWN = Facts(UNKNOWN, NO_WISH)
_OF_THE_FILE = "the file's weight"


def effective_weight(server: RealServer, facts: Facts = NOTHING_KNOWN, policy: Policy = DEFAULT_POLICY) -> Weight:
    """The first rule that applies decides; factors round up, and never to 0.

    >>> from ipaddress import ip_address
    >>> drained = Facts(HealthState(), Wish(drain=True))
    >>> effective_weight(RealServer("a", ip_address("10.0.0.1"), 100), drained).reason
    'drained by the operator'
    """
    wish = facts.wish
    if server.state is RealState.DISABLED:
        return _zero(server.weight, "disabled in the file: not in the table")
    if wish.maintenance is not None:
        return _zero(server.weight, f"in maintenance{_said(wish.maintenance.reason)}")
    if wish.drain:
        return _zero(server.weight, "drained by the operator")
    if server.state is RealState.DRAINED:
        return _zero(server.weight, "drained in the file")
    fixed = "" if wish.weight is None else f"weight {wish.weight} by the operator"
    nominal = server.weight if wish.weight is None else wish.weight
    if server.check is None:
        return _shared(server, facts, policy, nominal, "not checked", fixed)
    health = facts.health
    seen = health.seen
    match health.status:
        case Status.DOWN if facts.panic:
            distrusted = f"too many are down for probes to be trusted; down: {seen}"
            return _shared(server, facts, policy, nominal, distrusted, fixed)
        case Status.DOWN:
            held = ", held down: it went up and down too often" if health.held else ""
            return _zero(server.weight, f"down: {seen}{held}", is_down=True)
        case Status.PENDING:
            return _unproved(server, facts, policy, nominal, fixed)
        case Status.UP:
            return _shared(server, facts, policy, nominal, f"up: {seen}", fixed)


def _unproved(server: RealServer, facts: Facts, policy: Policy, nominal: int, fixed: str) -> Weight:
    pending = "no verdict yet" if facts.probed else ""
    if facts.adopted is not None and fixed and nominal < facts.adopted:
        return _plain(server.weight, nominal, ": ".join(filter(None, (pending, fixed))), "")
    if facts.adopted is not None:
        return _plain(server.weight, facts.adopted, ": ".join(filter(None, (pending, "keeps the kernel's weight"))), "")
    if facts.probed and policy.on_start is OnStart.DOWN:
        return _zero(server.weight, f"{pending}: down until one, by on_start", is_down=True)
    if facts.probed and policy.on_start is OnStart.LAST and facts.presumed is Status.DOWN:
        if not facts.panic:
            return _zero(server.weight, f"{pending}: it was down when last known", is_down=True)
    elif facts.unproven and policy.on_start is not OnStart.UP and facts.presumed is not Status.UP:
        return _zero(server.weight, "no verdict yet: waits for one while others serve")
    if fixed or not facts.probed:
        return _plain(server.weight, nominal, ": ".join(filter(None, (pending, fixed))), "")
    return _plain(server.weight, nominal, f"{pending}: {_OF_THE_FILE}", "")


def _shared(server: RealServer, facts: Facts, policy: Policy, nominal: int, why: str, fixed: str) -> Weight:
    """The weight of a server that serves: what it asks for, its load, and the time since it came back."""
    is_up = server.check is not None and facts.health.status is Status.UP
    result = facts.health.said if is_up else None
    load = facts.load if facts.load is not None and facts.load.ok else None
    asks = (result.asks if result else None) or (load.asks if load else None)
    if asks is not None:
        wanted = "to be drained" if asks is Asks.DRAIN else "for maintenance"
        return _zero(server.weight, f"{why}, and it asks {wanted}")
    ramp = ramp_percent(facts.health, policy, facts.now) if policy.slow_start_s and is_up else 100
    said = (("its check", result), (_whose_load(facts), load))
    asked = [(who, each) for who, each in said if each is not None and _asks(each)]
    if fixed or not (asked or ramp < 100):
        return _plain(server.weight, nominal, why, fixed)
    factors = [Factor("configured weight", server.weight)]
    value, told = nominal, [why]
    for who, each in asked:
        whole = facts.whole and each.weight != 0  # none at all is whole, too
        if each.weight is not None and not whole:
            value = each.weight
            factors.append(Factor(f"weight {each.weight} by {who}", value))
        if each.percent is not None and not whole:
            value = _share(value, each.percent)
            factors.append(Factor(f"{each.percent}% by {who}", value))
        if whole:
            factors.append(Factor(f"what {who} asks for is left out: the scheduler wants whole weights", value))
    if ramp < 100 and facts.whole:
        factors.append(Factor("slow start is left out: the scheduler wants whole weights", value))
    elif ramp < 100:
        value = _share(value, ramp)
        factors.append(Factor(f"{ramp}% by slow start", value))
    told += [factor.what for factor in factors[1:]]
    factors.insert(1, Factor(why, nominal))
    return Weight(value, ", ".join(told), False, tuple(factors))


def _whose_load(facts: Facts) -> str:
    return f"its load, which is not heard now ({facts.silent})" if facts.silent else "its load"


def _asks(result: ProbeResult) -> bool:
    return result.weight is not None or result.percent is not None


def ramp_percent(health: HealthState, policy: Policy, now: float) -> int:
    """The share of its weight, 1 to 100, that a server which came back at `health.since_at` has by now."""
    passed_s = max(0.0, now - health.since_at)
    if not health.was_down or passed_s >= policy.slow_start_s:
        return 100
    return (_steps(passed_s, policy) + 1) * 100 // RAMP_STEPS


def next_ramp_s(health: HealthState, policy: Policy, now: float) -> float | None:
    """Time until `ramp_percent` grows; None when it is complete."""
    if not policy.slow_start_s or health.status is not Status.UP or ramp_percent(health, policy, now) >= 100:
        return None
    passed_s = max(0.0, now - health.since_at)
    return (_steps(passed_s, policy) + 1) * policy.slow_start_s / RAMP_STEPS - passed_s


def _steps(passed_s: float, policy: Policy) -> int:
    return int(passed_s / policy.slow_start_s * RAMP_STEPS)


def _share(value: int, percent: int) -> int:
    """`percent` (1 to 100) of `value`, rounded up: never 0 where there was more."""
    return -(-value * percent // 100)


@lru_cache(maxsize=4096)  # thousands of servers have the same weight for the same reason: one value serves them all
def _plain(configured: int, value: int, why: str, fixed: str) -> Weight:
    reason = ", ".join(filter(None, (why, fixed)))
    return Weight(value, reason, False, (Factor("configured weight", configured), Factor(reason, value)))


@lru_cache(maxsize=4096)
def _zero(configured: int, reason: str, *, is_down: bool = False) -> Weight:
    return Weight(0, reason, is_down, (Factor("configured weight", configured), Factor(reason, 0)))


def _said(reason: str) -> str:
    return f": {reason}" if reason else ""
