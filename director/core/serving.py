"""Who serves: the weights of all real servers of a configuration, and of each virtual server whether quorum is held.

One rule: like a single weight it is a pure function of what is known; its only memory is whether quorum was held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from director.core.model import Config, RealServer, RealState, ServerRef, VirtualServer
from director.core.policy import Quorum
from director.core.weight import NO_WISH, UNKNOWN, Factor, Facts, Weight, Wish, effective_weight
from director.kit.health import HealthState, ProbeResult, Status


@dataclass(frozen=True, slots=True)
class Standing:
    """One virtual server: `alive` real servers take connections, or would, were there no sorry server in their place.

    `panic`: so many are down that the probes are not trusted.
    """

    alive: int
    quorate: bool
    panic: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """The weight of every real server, and the standing of every virtual server by its name."""

    weights: Mapping[ServerRef, Weight]
    standings: Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known at `now` (monotonic): see `Facts`. `quorate` are the standings before, by virtual server."""

    health: Mapping[ServerRef, HealthState] = field(default_factory=dict)
    wishes: Mapping[ServerRef, Wish] = field(default_factory=dict)
    adopted: Mapping[ServerRef, int] = field(default_factory=dict)
    unproven: Collection[ServerRef] = ()
    presumed: Mapping[ServerRef, Status] = field(default_factory=dict)
    loads: Mapping[ServerRef, ProbeResult] = field(default_factory=dict)
    quorate: Mapping[str, bool] = field(default_factory=dict)
    now: float = 0.0
    probed: bool = True
    silent: Mapping[ServerRef, str] = field(default_factory=dict)


def serving(config: Config, known: Known) -> Serving:
    """Who serves in `config`."""
    weights: dict[ServerRef, Weight] = {}
    standings: dict[str, Standing] = {}
    for virtual in config.virtual_servers:
        standings[virtual.name] = _decide(virtual, known, weights)
    return Serving(weights, standings)


def is_held(quorum: Quorum, alive: int, before: bool | None) -> bool:
    """Whether quorum is held with so many that take connections; None: nobody knows whether it was.

    >>> two = Quorum(up=2, down=1)
    >>> is_held(two, 1, True), is_held(two, 1, False), is_held(two, 2, False), is_held(two, 0, True)
    (True, False, True, False)
    """
    if alive >= quorum.up:
        return True
    return alive >= quorum.down and before is not False


def _decide(virtual: VirtualServer, known: Known, weights: dict[ServerRef, Weight]) -> Standing:
    panic = _panics(virtual, known)
    # A look into what is empty costs as much as one into what is not, and most of these are.
    health, wishes, adopted, presumed = known.health, known.wishes, known.adopted, known.presumed
    unproven, loads, whole = known.unproven, known.loads, virtual.wants_whole_weights
    alive, sorry = 0, None
    for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
        facts = Facts(
            health.get(ref, UNKNOWN) if health else UNKNOWN,
            wishes.get(ref, NO_WISH) if wishes else NO_WISH,
            known.now,
            adopted.get(ref) if adopted else None,
            ref in unproven if unproven else False,
            presumed.get(ref) if presumed else None,
            known.probed,
            loads.get(ref) if loads else None,
            panic,
            whole,
            known.silent.get(ref, "") if known.silent else "",
        )
        weight = weights[ref] = effective_weight(real, facts, virtual.policy)
        if real.is_sorry:
            sorry = ref
        elif weight.value:
            alive += 1
    quorate = is_held(virtual.policy.quorum, alive, known.quorate.get(virtual.name))
    if sorry is not None:
        _stand_in(virtual, sorry, alive, quorate, weights)
    return Standing(alive, quorate, panic)


def _stand_in(
    virtual: VirtualServer, sorry: ServerRef, alive: int, quorate: bool, weights: dict[ServerRef, Weight]
) -> None:
    """Either the real servers or the sorry server: who does not serve has weight 0, and its connections finish."""
    own = weights[sorry]
    if not own.value:
        return  # the operator took it out: real servers that are left are better than nobody
    if quorate:
        weights[sorry] = _instead(own, 0, "stands by: it serves while quorum is lost")
        return
    needed = virtual.policy.quorum.up
    lost = f"quorum is lost ({alive} of {needed})"
    weights[sorry] = _instead(own, own.value, f"serves: {lost}")
    for ref in virtual.refs:
        if ref != sorry and weights[ref].value:
            weights[ref] = _instead(weights[ref], 0, f"{lost}: the sorry server serves; {weights[ref].reason}")


def _instead(weight: Weight, value: int, reason: str) -> Weight:
    return replace(weight, value=value, reason=reason, factors=(*weight.factors, Factor(reason, value)))


def _panics(virtual: VirtualServer, known: Known) -> bool:
    """Whether more of those who are meant to serve are down than is believed."""
    if virtual.policy.panic_share is None:
        return False
    meant = [
        known.health.get(ref, UNKNOWN).status
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
        if real.check is not None and _is_meant(real, known.wishes.get(ref, NO_WISH))
    ]
    down, percent = meant.count(Status.DOWN), round(virtual.policy.panic_share * 100)
    return down * 100 > len(meant) * percent  # in whole numbers: 29 of 100 are not more than 0.29


def _is_meant(real: RealServer, wish: Wish) -> bool:
    """Whether `real` would serve if it were up."""
    nominal = real.weight if wish.weight is None else wish.weight
    return real.state is RealState.ENABLED and not wish.drain and wish.maintenance is None and nominal > 0
