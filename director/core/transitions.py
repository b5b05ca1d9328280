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
from director.core.weight import NO_WISH, Wish
from director.kit.health import HealthState, Status

MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: who serves in `config`, and what that was decided by. `silent` are loads that fail, and why."""

    config: Config
    serving: Serving
    health: Mapping[ServerRef, HealthState] = field(default_factory=dict)
    wishes: Mapping[ServerRef, Wish] = field(default_factory=dict)
    silent: Mapping[ServerRef, str] = field(default_factory=dict)


def transitions(before: Seen | None, after: Seen, now: float, at: float) -> Iterator[Event]:
    """What is another than `before`. `now` (monotonic) and `at` (seconds since the epoch) are one moment.

    What is new in `after` is compared with nothing known; servers that left are not told of.
    """
    if before is None or before.serving is not after.serving:
        # Causes before what they lead to.
        yield from sorted(_transitions(before, after, now, at), key=lambda event: _RANKS.get(event.kind, 0))


_RANKS = {EventKind.QUORUM: 1, EventKind.SORRY: 1, EventKind.PANIC: 1, EventKind.WEIGHT: 2}


def _transitions(before: Seen | None, after: Seen, now: float, at: float) -> Iterator[Event]:
    weights, health = after.serving.weights, after.health
    former_weights, former_health = (before.serving.weights, before.health) if before else ({}, {})
    for virtual in after.config.virtual_servers:
        sorry: ServerRef | None = None
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
            if real.is_sorry:
                sorry = ref
            # Of thousands, nearly all are as they were: equal weights are one value.
            elif former_weights.get(ref) is not weights[ref] or former_health.get(ref) is not health.get(ref):
                yield from _of_real(before, after, ref, real, now, at)
        yield from _of_virtual(before, after, virtual, at)
        if sorry is not None:
            yield from _of_sorry(before, after, sorry, at)
    yield from _of_loads(before, after, at)


def _of_loads(before: Seen | None, after: Seen, at: float) -> Iterator[Event]:
    """Whoever is asked for load and fails to say: the weight stays, so that nothing else would tell."""
    was = before.silent if before is not None else {}
    for ref in sorted(was.keys() ^ after.silent.keys()):
        if ref not in after.serving.weights:
            continue
        words = ("load answers", "load fails") if ref in after.silent else ("load fails", "load answers")
        reason = f"{after.silent[ref]}: its last good answer holds" if ref in after.silent else ""
        yield Event(at, EventKind.WEIGHT, *_names(ref), *words, reason)


def _of_real(
    before: Seen | None, after: Seen, ref: ServerRef, real: RealServer, now: float, at: float
) -> Iterator[Event]:
    weights = _weights(before, after, ref)
    state = after.health.get(ref)
    was = before.health.get(ref) if before else None
    was_status = was.status if was is not None else Status.PENDING
    told = [*_maintenance(before, after, ref, weights, at)]
    if state is not None and state.status is not was_status:
        yield _health(real, state, was_status, weights, ref, at - max(0.0, now - state.since_at))
    elif not told:
        yield from _weight(after, ref, weights, at)
    if state is not None and state.warning and state.warning != (was.warning if was is not None else ""):
        yield Event(
            at,
            EventKind.CERTIFICATE,
            *_names(ref),
            now="warning",
            reason=state.warning,
            check=str(real.check),
        )
    yield from told


def _of_sorry(before: Seen | None, after: Seen, ref: ServerRef, at: float) -> Iterator[Event]:
    was, now = weights = _weights(before, after, ref)
    told = [*_maintenance(before, after, ref, weights, at)]
    if was is not None and bool(was) is not bool(now):
        quorate = after.serving.standings[ref.virtual_server].quorate
        reason = "quorum is lost" if now else "quorum is held" if quorate else after.serving.weights[ref].reason
        words = ("stands by", "serves") if now else ("serves", "stands by")
        yield Event(at, EventKind.SORRY, *_names(ref), *words, reason, weight_before=was, weight_after=now)
    elif not told:
        yield from _weight(after, ref, weights, at)
    yield from told


def _weights(before: Seen | None, after: Seen, ref: ServerRef) -> tuple[int | None, int]:
    former = before.serving.weights.get(ref) if before else None
    return former.value if former is not None else None, after.serving.weights[ref].value


def _names(ref: ServerRef) -> tuple[str, str]:
    return ref.virtual_server, ref.real_server


def _weight(after: Seen, ref: ServerRef, weights: tuple[int | None, int], at: float) -> Iterator[Event]:
    was, now = weights
    reason = after.serving.weights[ref].reason
    if was is not None and was != now:
        yield Event(at, EventKind.WEIGHT, *_names(ref), reason=reason, weight_before=was, weight_after=now)


def _health(
    real: RealServer,
    state: HealthState,
    was: Status,
    weights: tuple[int | None, int],
    ref: ServerRef,
    since: float,
) -> Event:
    last = state.last
    return Event(
        since,
        EventKind.HEALTH,
        *_names(ref),
        was=was.value,
        now=state.status.value,
        reason=last.reason if last else "",
        weight_before=weights[0],
        weight_after=weights[1],
        check=str(real.check),
        output=last.output.decode(errors="replace") if last else "",
        errno=errno.errorcode.get(last.errno, "") if last and last.errno else "",
        duration_ms=last.duration_s * 1000 if last else None,
    )


def _maintenance(
    before: Seen | None, after: Seen, ref: ServerRef, weights: tuple[int | None, int], at: float
) -> Iterator[Event]:
    was = before.wishes.get(ref, NO_WISH).maintenance if before else None
    now = after.wishes.get(ref, NO_WISH).maintenance
    if before is None or (was is None) is (now is None):
        return
    if now is not None:
        reason, back = now.reason, ""
    else:
        is_over = was is not None and was.until is not None and at >= was.until
        reason = "its time is over" if is_over else "the operator has ended it"
        back = "drained" if after.wishes.get(ref, NO_WISH).drain else "in service"
    yield Event(
        at,
        EventKind.MAINTENANCE,
        *_names(ref),
        was="in service" if now is not None else "in maintenance",
        now=back or "in maintenance",
        reason=reason,
        weight_before=weights[0],
        weight_after=weights[1],
    )


def _of_virtual(before: Seen | None, after: Seen, virtual: VirtualServer, at: float) -> Iterator[Event]:
    standing = after.serving.standings[virtual.name]
    former = before.serving.standings.get(virtual.name) if before else None
    quorum, name = virtual.policy.quorum, virtual.name
    if former is not None and former.quorate is not standing.quorate:
        takes = "real server takes" if standing.alive == 1 else "real servers take"
        needed = quorum.up if standing.quorate else quorum.down
        count = f"{standing.alive} {takes} connections, {needed} needed"
        was, now = ("lost", "held") if standing.quorate else ("held", "lost")
        yield Event(at, EventKind.QUORUM, name, was=was, now=now, reason=count)
    if former is not None and former.panic is not standing.panic:
        was, now = ("trusts its probes", "panics") if standing.panic else ("panics", "trusts its probes")
        yield Event(at, EventKind.PANIC, name, was=was, now=now, reason=_panic_reason(virtual, standing.panic, after))


def _panic_reason(virtual: VirtualServer, panics: bool, after: Seen) -> str:
    if virtual.policy.panic_share is None:
        return "it has no panic_threshold any more"
    share = f"{virtual.policy.panic_share:.0%}"
    if not panics:
        return f"no more than {share} are down"
    down = [ref.real_server for ref in virtual.refs if (at := after.health.get(ref)) and at.status is Status.DOWN]
    named = ", ".join(down[:MOST_NAMED]) + (", ..." if len(down) > MOST_NAMED else "")
    return f"more than {share} are down ({len(down)}: {named}): all are used"
