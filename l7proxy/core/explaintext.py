"""An explanation in words.

One rule: a line says one thing, and begins with what it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from l7proxy.core.explain import Candidate, Explanation, NearMiss, Target
from l7proxy.core.explainlive import UpstreamNow
from l7proxy.core.model import Config


def note_of(config: Config, asked: str, found: Explanation) -> str:
    """What may surprise about where it comes in."""
    by_name = {listener.name: listener for listener in config.listeners}
    if "https://" in asked[:40] and by_name[found.listener].tls is None:
        return f"{found.listener} speaks plain HTTP: for https, this is what comes from who speaks TLS before it"
    return ""


def told(found: Explanation, source: str, lines: Mapping[int, int], notes: Sequence[str] = ()) -> Iterator[str]:
    """In words; `lines` has the line of each route's place, as far as they are known."""

    def at(place: int | None) -> str:
        return f" ({source}:{lines[place]})" if place is not None and place in lines else ""

    yield f"{found.request}, from {found.client}, at listener {found.listener}"
    yield from (f"note       {note}" for note in notes)
    if found.route is None:
        yield f"answered   {found.answered}"
    else:
        yield f"route      {found.route}{at(found.place)}"
        for why in found.why:
            yield f"  because  {why}"
        for name, value in (found.captures or {}).items():
            yield f"  {{{name}}} is {value!r}"
        for step in found.steps:
            yield f"then       {step}"
        for limit in found.limits:
            verdict = f"is answered {limit.refused}" if limit.refused else "lets it pass"
            yield f"now        limits.{limit.kind} {verdict}: {limit.said}"
        for target in found.targets:
            yield from _told_target(target, alone=len(found.targets) == 1)
    if found.near:
        yield "not taken"
        for miss in found.near:
            yield f"  {_told_miss(miss)}{at(miss.place)}"
    if found.more_near:
        yield f"  and {found.more_near} more that lack as much or more"


def _told_miss(miss: NearMiss) -> str:
    return f"{miss.route}: {miss.why}"


def _told_target(target: Target, *, alone: bool) -> Iterator[str]:
    share = "" if alone else f", {target.percent:g} % of all"
    keeps = ", who has a session keeps its backend" if target.sticky else ""
    yield f"upstream   {target.upstream}{share}: {target.balance}{keeps}"
    if target.now is not None:
        yield from _told_now(target.now)
    for each in target.candidates:
        if each.down and each.now is None:
            yield f"  backend  {each.backend} {each.address}, down: it has no address ({each.down})"
            continue
        yield f"  backend  {each.backend} {each.address}, {_told_weight(each)}"


def _told_now(now: UpstreamNow) -> Iterator[str]:
    if now.refused:
        yield f"  now      is answered {now.refused}"
    for lead in now.leads:
        yield f"  session  {lead.by} " + (f"leads to {lead.backend}" if lead.backend else f"leads nowhere: {lead.why}")
    if now.breaker:
        yield f"  breaker  {now.breaker}"
    if now.queue is not None:
        yield f"  queue    {now.waiting} of {now.queue} wait"


def _told_weight(candidate: Candidate) -> str:
    now = candidate.now
    if now is None:
        if not candidate.weight:
            return "weight 0: only its sessions"
        return f"weight {candidate.weight}, {candidate.percent:g} %"
    of = f" of {candidate.weight}" if now.weight != candidate.weight else ""
    if now.max_connections is not None:
        busy = f"{now.placed} of {now.max_connections} requests"
    else:
        busy = f"{now.in_flight} request{'' if now.in_flight == 1 else 's'}"
    why = f": {'; '.join(now.why)}" if now.why else ""
    return f"{now.state}, weight {now.weight}{of}, {candidate.percent:g} %, {busy}{why}"
