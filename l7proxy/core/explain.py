"""What would become of a request: which route takes it and why, what others lacked, what is done to it, who can answer.

One rule: nothing is sent, counted or remembered, and what decides is asked itself: the reader of heads, the table of
routes and its conditions are those that serve.

What the settings of a route do is told by `core/describe.py`; how things are now, where there is a `Live` to ask.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from l7proxy.core.conditions import Condition, compile_conditions
from l7proxy.core.describe import Asking, answer, claims_of, steps
from l7proxy.core.explainlive import BackendNow, LimitNow, Live, UpstreamNow
from l7proxy.core.head import Refusal, RequestHead
from l7proxy.core.model import Config, Listener, PathKind, PathPattern, Route, Upstream
from l7proxy.core.proxystatus import Cause
from l7proxy.core.routing import RouteTable
from l7proxy.core.settings.acme import CHALLENGES
from l7proxy.core.settings.balancing import Balance
from l7proxy.core.settings.https import redirected
from l7proxy.core.strict import read_request

MOST_NEAR = 8
"""Near misses that are told."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A route that was not taken. `fits`: it would have been, were there not a more specific one."""

    route: str
    place: int
    why: str
    fits: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend, and what it gets of all that the route takes, in percent: as it is `now`, or where nobody knows that,
    while all that have a weight are up."""

    backend: str
    address: str
    weight: int
    percent: float
    down: str = ""
    """Why it gets nothing now: its name has no address."""
    now: BackendNow | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream of the route; `weight` is its share, None where it has all."""

    upstream: str
    weight: int | None
    percent: float
    balance: str
    sticky: bool
    candidates: tuple[Candidate, ...]
    now: UpstreamNow | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it. `answered` is what l7proxy answers before any route, or because there is none; then `route` is None.

    `place` is which of the configuration's routes it is, from 0.
    """

    request: str
    client: str
    listener: str
    answered: str = ""
    route: str | None = None
    place: int | None = None
    why: tuple[str, ...] = ()
    captures: Mapping[str, str] | None = None
    steps: tuple[str, ...] = ()
    limits: tuple[LimitNow, ...] = ()
    targets: tuple[Target, ...] = ()
    near: tuple[NearMiss, ...] = ()
    more_near: int = 0
    is_unmatched: bool = False
    """Whether no route takes it."""


def explain(config: Config, listener: Listener, head: bytes, peer: str, live: Live | None = None) -> Explanation:
    """What becomes of the request with this head (without its empty line) from the address `peer` at `listener`. `live`
    knows how things are now under the same `config`."""
    start = head.partition(b"\r\n")[0].rpartition(b" ")[0].decode("latin-1")
    if listener.tcp is not None:
        return Explanation(start, peer, listener.name, "nothing is read here: this listener forwards connections")
    found = read_request(head, most_headers=config.limits.headers, drop_underscores=config.drop_underscores)
    if isinstance(found, Refusal):
        return Explanation(start, peer, listener.name, answer(found.cause, found.reason))
    asking = Asking(found, peer, listener)
    if said := "".join(before_routes(listener, asking)):
        return Explanation(start, asking.asker, listener.name, said)
    request = f"{found.method.decode('latin-1')} {found.host or '(no host)'} {found.path}"
    if found.max_forwards == 0:
        return Explanation(request, asking.asker, listener.name, "200: Max-Forwards is 0")
    route = RouteTable(config.routes).find(found.host, found.path, asking)
    near = near_misses(config.routes, asking, route)
    told, more = tuple(near[:MOST_NEAR]), len(near[MOST_NEAR:])
    if route is None:
        answered = answer(Cause.NO_ROUTE, "nothing matches")
        return Explanation(request, asking.asker, listener.name, answered, near=told, more_near=more, is_unmatched=True)
    asking.route = route
    return Explanation(
        request,
        asking.asker,
        listener.name,
        "",
        route.name,
        route.place,
        tuple(why_it_fits(route, asking)),
        {name: (value or b"").decode("utf-8", "replace") for name, value in asking.captures.items()},
        tuple(steps(route, asking)),
        live.limits(route, asking) if live is not None else (),
        tuple(targets(config, route, asking, live)),
        told,
        more,
    )


def before_routes(listener: Listener, asking: Asking) -> Iterator[str]:
    """What the listener answers by itself, or has answered by an upstream."""
    head = asking.head
    if listener.health is not None and head.path == listener.health:
        yield "200, or 503 while it drains: this is its health path"
    elif listener.acme is not None and head.path.startswith(CHALLENGES):
        yield "by " + (f"upstream {listener.acme.upstream}" if listener.acme.upstream else str(listener.acme.folder))
        yield ": a challenge of ACME"
    elif listener.to_https is not None and not (asking.from_proxy and _came_by_tls(head)):
        if head.host:
            where = redirected(head.host, head.start.split(b" ")[1], listener.to_https)
            yield f"{listener.to_https.status}, to {where.decode('latin-1')}: redirect_to_https"
        else:
            yield answer(Cause.MALFORMED_REQUEST, "a request without a host cannot be sent to https://")


def _came_by_tls(head: RequestHead) -> bool:
    """What a trusted proxy says of the client's scheme."""
    said = claims_of(head, b"x-forwarded-proto")
    return bool(said) and said[0].partition(b",")[0].strip(b" \t").lower() == b"https"


# Why a route fits, and why not.


def why_it_fits(route: Route, asking: Asking) -> Iterator[str]:
    """What matched."""
    host = _fitting_host(route, asking.head.host)
    if not host:
        yield "any host"
    elif host.startswith("*."):
        yield f"host {asking.head.host} is below {host}"
    else:
        yield f"host is {host}"
    path, text = asking.head.path, route.path.text
    match route.path.kind:
        case PathKind.EXACT:
            yield f"path is {text}"
        case PathKind.REGEX:
            yield f"path {path} is matched by ~ {text}"
        case PathKind.PREFIX:
            yield f"path {path} is below {text}" if text != "/" else "any path"
    if str(route.conditions):
        yield f"it has all of: {route.conditions}"


def near_misses(routes: Sequence[Route], asking: Asking, taken: Route | None) -> list[NearMiss]:
    """Routes that fit but for one another, then those that lack the least: a condition, the path, the host."""
    ranked: list[tuple[tuple[int, int, float, int], NearMiss]] = []
    for route in routes:
        if taken is not None and route.place == taken.place:
            continue
        host, path = _fitting_host(route, asking.head.host), fits_path(route.path, asking.head.path)
        tests = compile_conditions(route.conditions)
        lacking = [test for test in tests if not test.fits(asking)]
        reason = _lacks(route, asking, host, lacking, path=path)
        if not reason:
            assert taken is not None  # noqa: S101 -- one that fits everything is taken, or another one is
            reason = f"it fits too, but {taken.name} is more specific by its {_more_specific(taken, route, asking)}"
            ranked.append(((0, 0, 0.0, route.place), NearMiss(route.name, route.place, reason, fits=True)))
            continue
        misses = 2 * (host is None) + (not path) + (1 if lacking and (host is None or not path) else 0)
        if host is None and not path:
            continue  # nothing of it is near
        unlike = 1 - _likeness(route.hosts, asking.head.host) if host is None else 0.0
        ranked.append(((1 + misses, len(lacking), unlike, route.place), NearMiss(route.name, route.place, reason)))
    ranked.sort(key=lambda each: each[0])
    return [miss for _, miss in ranked]


def _likeness(hosts: Sequence[str], asked: str) -> float:
    return max(difflib.SequenceMatcher(None, host, asked[:255]).ratio() for host in hosts)


def _lacks(route: Route, asking: Asking, host: str | None, lacking: Sequence[Condition], *, path: bool) -> str:
    """The first thing that did not fit; empty where all did."""
    if host is None:
        return f"host is {asking.head.host or 'not said'}, not {' or '.join(route.hosts)}"
    if not path:
        return _not_the_path(route.path, asking.head.path)
    return lacking[0].why_not(asking) if lacking else ""


def _not_the_path(pattern: PathPattern, path: str) -> str:
    match pattern.kind:
        case PathKind.EXACT:
            return f"path is {path}, not exactly {pattern.text}"
        case PathKind.REGEX:
            return f"path {path} is not matched by ~ {pattern.text}"
        case PathKind.PREFIX:
            hint = ""
            if path == pattern.text.rstrip("/"):
                hint = " (which has a / at its end)"
            elif path.startswith(pattern.text):
                hint = " (a prefix goes by whole segments)"
            return f"path {path} is not below {pattern.text}{hint}"


def fits_path(pattern: PathPattern, path: str) -> bool:
    """Whether a path, in normal form, is what `pattern` wants."""
    return RouteTable([Route("", "", (), pattern)]).find("", path) is not None


def _fitting_host(route: Route, host: str) -> str | None:
    """The most specific of the route's hosts that fits, empty where it takes any; None where none does."""
    if not route.hosts:
        return ""
    fitting = [each for each in route.hosts if each == host or (each.startswith("*.") and host.endswith(each[1:]))]
    return max(fitting, key=lambda each: (each == host, len(each)), default=None)


def _more_specific(taken: Route, other: Route, asking: Asking) -> str:
    """What puts `taken` above `other`, which both fit."""
    if _fitting_host(taken, asking.head.host) != _fitting_host(other, asking.head.host):
        return "host"
    return "path" if taken.path != other.path else "conditions"


# Who can answer.


def targets(config: Config, route: Route, asking: Asking, live: Live | None) -> Iterator[Target]:
    """The upstreams of a route with their backends."""
    weights = {share.upstream: share.weight for share in route.split} or dict.fromkeys(route.upstreams, 1)
    whole = sum(weights.values()) or 1
    percents = {name: 100 * weight / whole for name, weight in weights.items()}
    if live is not None:
        percents.update(live.shares(route, asking))
    for name, weight in weights.items():
        upstream = config.upstreams[name]
        now = live.upstream(name, asking) if live is not None else None
        yield Target(
            name,
            weight if route.split else None,
            round(percents[name], 2),
            str(getattr(upstream.balance, "value", upstream.balance)),
            upstream.sticky is not None,
            tuple(_candidates(upstream, percents[name], now)),
            now,
        )


def _candidates(upstream: Upstream, percent: float, live: UpstreamNow | None) -> Iterator[Candidate]:
    shares = _shares(upstream)
    for backend in upstream.backends:
        port, known = backend.endpoint.port, not backend.unresolved
        address = str(backend.endpoint) if known else f"{backend.host}:{port}"
        now = live.backends[backend.name] if live is not None else None
        share = now.share if now is not None else shares.get(backend.name, 0.0)
        yield Candidate(backend.name, address, backend.weight, round(percent * share, 2), backend.unresolved, now)


def _shares(upstream: Upstream) -> Mapping[str, float]:
    """What each backend gets where nobody knows more than the file does."""
    able = {each.name: each.weight for each in upstream.backends if each.weight and not each.unresolved}
    is_by_key = upstream.sticky is not None and upstream.sticky.hashing is not None
    if upstream.balance is Balance.FIRST and not is_by_key:
        return dict.fromkeys([*able][:1], 1.0)
    whole = sum(able.values())
    return {name: weight / whole for name, weight in able.items()}
