"""What has changed between two looks at who serves, as events.

One rule: it compares two states and knows nothing of how one became the other, so that no change is told twice and
none that lasts is missed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from director.core.event import Event, EventKind
from director.core.model import Config, RealServer, ServerRef, VirtualServer
from director.core.serving import Serving
from director.core.weight import NO_WISH, Weight, Wish
from director.kit.health import HealthState, Status


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: who serves in `config`, and what that was decided by."""

    config: Config
    serving: Serving
    health: Mapping[ServerRef, HealthState] = field(default_factory=dict)
    wishes: Mapping[ServerRef, Wish] = field(default_factory=dict)


def transitions(before: Seen | None, after: Seen, now: float, at: float) -> Iterator[Event]:
    """What is another than `before`. `now` (monotonic) and `at` (seconds since the epoch) are one moment.

    What is new in `after` is compared with nothing known; servers that left are not told of.
    """
    if before is not None and before.serving is after.serving:
        return
    weights, health = after.serving.weights, after.health
    former_weights, former_health = (before.serving.weights, before.health) if before else ({}, {})
    for virtual in after.config.virtual_servers:
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
            # Of thousands, nearly all are as they were: equal weights are one value.
            if former_weights.get(ref) is weights[ref] and former_health.get(ref) is health.get(ref):
                continue
            yield from _of_real(before, after, ref, real, now, at)
        yield from _of_virtual(before, after, virtual, at)


def _of_real(
    before: Seen | None, after: Seen, ref: ServerRef, real: RealServer, now: float, at: float
) -> Iterator[Event]:
    weight = after.serving.weights[ref]
    former = before.serving.weights.get(ref) if before else None
    state = after.health.get(ref)
    was = before.health.get(ref) if before else None
    names = (ref.virtual_server, ref.real_server)
    was_status = was.status if was is not None else Status.PENDING
    if state is not None and state.status is not was_status:
        yield _health(real, state, was_status, former, weight, names, at - max(0.0, now - state.since_at))
    elif former is not None and former.value != weight.value:
        yield Event(
            at,
            EventKind.WEIGHT,
            *names,
            reason=weight.reason,
            weight_before=former.value,
            weight_after=weight.value,
        )
    if state is not None and (warning := _warning(state)) and warning != _warning(was):
        yield Event(at, EventKind.CERTIFICATE, *names, now="warning", reason=warning, check=str(real.check))
    yield from _maintenance(before, after, ref, at)


def _health(
    real: RealServer,
    state: HealthState,
    was: Status,
    former: Weight | None,
    weight: Weight,
    names: tuple[str, str],
    since: float,
) -> Event:
    last = state.last
    return Event(
        since,
        EventKind.HEALTH,
        *names,
        was=was.value,
        now=state.status.value,
        reason=last.reason if last else "",
        weight_before=former.value if former else None,
        weight_after=weight.value,
        check=str(real.check),
        output=last.output.decode(errors="replace") if last else "",
        errno=errno.errorcode.get(last.errno, "") if last and last.errno else "",
        duration_ms=last.duration_s * 1000 if last else None,
    )


def _warning(state: HealthState | None) -> str:
    return state.last.warning if state is not None and state.last is not None else ""


def _maintenance(before: Seen | None, after: Seen, ref: ServerRef, at: float) -> Iterator[Event]:
    was = before.wishes.get(ref, NO_WISH).maintenance if before else None
    now = after.wishes.get(ref, NO_WISH).maintenance
    if before is None or (was is None) is (now is None):
        return
    reason = now.reason if now is not None else "its time is over, or the operator has ended it"
    yield Event(
        at,
        EventKind.MAINTENANCE,
        ref.virtual_server,
        ref.real_server,
        was="in service" if now is not None else "in maintenance",
        now="in maintenance" if now is not None else "in service",
        reason=reason,
    )


def _of_virtual(before: Seen | None, after: Seen, virtual: VirtualServer, at: float) -> Iterator[Event]:
    standing = after.serving.standings[virtual.name]
    former = before.serving.standings.get(virtual.name) if before else None
    quorum, name = virtual.policy.quorum, virtual.name
    if former is not None and former.quorate is not standing.quorate:
        count = f"{standing.alive} of {quorum.up if standing.quorate else quorum.down} real servers take connections"
        was, now = ("lost", "held") if standing.quorate else ("held", "lost")
        yield Event(at, EventKind.QUORUM, name, was=was, now=now, reason=count)
        if virtual.sorry is not None:
            was, now = ("serves", "stands by") if standing.quorate else ("stands by", "serves")
            reason = "quorum is held" if standing.quorate else "quorum is lost"
            yield Event(at, EventKind.SORRY, name, virtual.sorry.name, was=was, now=now, reason=reason)
    if former is not None and former.panic is not standing.panic:
        was, now = ("trusts its probes", "panics") if standing.panic else ("panics", "trusts its probes")
        share = f"{virtual.policy.panic_share:.0%}" if virtual.policy.panic_share is not None else ""
        reason = f"more than {share} are down: all are used" if standing.panic else f"no more than {share} are down"
        yield Event(at, EventKind.PANIC, name, was=was, now=now, reason=reason)
