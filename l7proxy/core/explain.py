"""What would become of a request: which route takes it and why, what others lacked, what is done to it, who can answer.

One rule: nothing is sent, counted or remembered, and what decides is asked itself: the reader of heads, the table of
routes and its conditions are those that serve.

A setting of a route tells what it does by a method `describe(asking)` that gives lines, or by a function in
`DESCRIBERS`; of others, what they are set to is shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from l7proxy.core.captures import captures_of
from l7proxy.core.conditions import Condition, compile_conditions
from l7proxy.core.forwarded import TrustedNetworks, client_of
from l7proxy.core.head import Refusal, RequestHead
from l7proxy.core.lookup import Fields, query_of
from l7proxy.core.model import Backend, Config, DangerousPath, Listener, PathKind, PathPattern, Route
from l7proxy.core.paths import danger_of
from l7proxy.core.proxystatus import Cause
from l7proxy.core.routing import RouteTable
from l7proxy.core.settings.redirect import Redirect
from l7proxy.core.settings.respond import Maintenance, Respond
from l7proxy.core.strict import read_request

MOST_NEAR = 8
"""Near misses that are told."""


class Asking:
    """A request that is only looked at; conditions and templates take it for an exchange."""

    user = ""
    subject = ""
    request_id = b"made-anew"
    backend_name = "(chosen later)"

    def __init__(self, head: RequestHead, peer: str, listener: Listener) -> None:
        self.head = head
        self.seen = Fields(head.fields)
        self.peer = peer
        self.listener = listener
        self.scheme = "https" if listener.tls is not None else "http"
        self.route: Route | None = None
        trusted = TrustedNetworks(listener.trusted_proxies)
        self.asker, self.from_proxy = client_of(
            peer, trusted, _claims(head, b"x-forwarded-for"), _claims(head, b"forwarded")
        )

    @property
    def captures(self) -> Mapping[str, bytes | None]:
        """The groups of the route's path."""
        return captures_of(self.route.path, self.head.path) if self.route is not None else {}

    @property
    def route_name(self) -> str:
        return self.route.name if self.route is not None else ""

    @property
    def upstream_name(self) -> str:
        return self.route.upstream if self.route is not None else ""

    @property
    def listener_name(self) -> str:
        return self.listener.name


def _claims(head: RequestHead, name: bytes) -> list[bytes]:
    parts = [line.partition(b":") for line in head.claims]
    return [value.strip(b" \t") for key, _, value in parts if key.lower() == name]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A route that was not taken. `fits`: it would have been, were there not a more specific one."""

    route: str
    place: int
    why: str
    fits: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend, and what it gets of all that the route takes, in percent, while all that have a weight are up."""

    backend: str
    address: str
    weight: int
    percent: float


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream of the route; `weight` is its share, None where it has all."""

    upstream: str
    weight: int | None
    percent: float
    balance: str
    sticky: bool
    candidates: tuple[Candidate, ...]


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
    targets: tuple[Target, ...] = ()
    near: tuple[NearMiss, ...] = ()
    more_near: int = 0
    is_unmatched: bool = False
    """Whether no route takes it."""


def explain(config: Config, listener: Listener, head: bytes, peer: str) -> Explanation:
    """What becomes of the request with this head (without its empty line) from the address `peer` at `listener`."""
    start = head.partition(b"\r\n")[0].rpartition(b" ")[0].decode("latin-1")
    if listener.tcp is not None:
        return Explanation(start, peer, listener.name, "nothing is read here: this listener forwards connections")
    found = read_request(head, most_headers=config.limits.headers, drop_underscores=config.drop_underscores)
    if isinstance(found, Refusal):
        return Explanation(start, peer, listener.name, _answer(found.cause, found.reason))
    asking = Asking(found, peer, listener)
    request = f"{found.method.decode('latin-1')} {found.host or '(no host)'} {found.path}"
    if listener.health is not None and found.path == listener.health:
        return Explanation(request, asking.asker, listener.name, "200, or 503 while it drains: this is its health path")
    if found.max_forwards == 0:
        return Explanation(request, asking.asker, listener.name, "200: Max-Forwards is 0")
    route = RouteTable(config.routes).find(found.host, found.path, asking)
    near = near_misses(config.routes, asking, route)
    told, more = tuple(near[:MOST_NEAR]), len(near[MOST_NEAR:])
    if route is None:
        answered = _answer(Cause.NO_ROUTE, "nothing matches")
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
        tuple(targets(config, route)),
        told,
        more,
    )


def _answer(cause: Cause, reason: str) -> str:
    return f"{cause.status} {cause.text}: {reason}"


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


# What a route does.

Describer = Callable[[Any, Asking], Iterable[str]]


def _redirect(redirect: Redirect, asking: Asking) -> Iterator[str]:
    to = redirect.start.fill(asking) + redirect.authority.fill(asking) + redirect.rest.fill(asking)
    if redirect.keep_query and (query := query_of(asking.head.target)):
        to += b"?" + query
    yield f"answers {redirect.status}, to {to.decode('latin-1')}"


def _respond(respond: Respond, _: Asking) -> Iterator[str]:
    yield f"answers {respond.status} by itself"


def _maintenance(maintenance: Maintenance, asking: Asking) -> Iterator[str]:
    if maintenance.allow and TrustedNetworks(maintenance.allow).trust(asking.asker):
        yield f"is under maintenance, but client {asking.asker} passes"
    else:
        yield "answers 503: under maintenance"


DESCRIBERS: dict[type, Describer] = {Redirect: _redirect, Respond: _respond, Maintenance: _maintenance}
"""By the type of a setting in the model. One that has a method `describe` needs none."""

IN_ORDER = ("access", "limits", "maintenance", "redirect", "respond", "compression", "rewrite", "marking")
"""The settings of a route, in the order in which they take effect (http/steps.py), by their names in the model."""
SAID = {"compression": "compress", "marking": "headers"}
"""What the file calls them, where that is another name."""


def steps(route: Route, asking: Asking) -> Iterator[str]:
    """What the route does with the request, in that order."""
    if asking.head.odd and (danger := danger_of(asking.head.target.partition(b"?")[0].decode("latin-1"))):
        match route.dangerous_path:
            case DangerousPath.REFUSE:
                yield f"answers {_answer(Cause.DANGEROUS_PATH, danger.value)}; dangerous_path says otherwise"
            case DangerousPath.NORMALISE:
                yield f"sends the path as {asking.head.path}: {danger.value}"
            case DangerousPath.FORWARD:
                yield f"sends the path as it came, though {danger.value}"
    for name in IN_ORDER:
        setting = getattr(route, name)
        if setting is not None:
            yield from (f"{SAID.get(name, name)}: {line}" for line in described(setting, asking))


def described(setting: Any, asking: Asking) -> Iterable[str]:
    """What a setting does, in lines."""
    own = getattr(setting, "describe", None)
    if own is not None:
        lines: Iterable[str] = own(asking)
        return lines
    if type(setting) in DESCRIBERS:
        return DESCRIBERS[type(setting)](setting, asking)
    return [_as_set(setting)]


def _as_set(setting: object) -> str:
    """What differs from the defaults of a setting."""
    if not is_dataclass(setting):
        return str(setting)
    said = [
        f"{part.name}={getattr(setting, part.name)}"
        for part in fields(setting)
        if part.repr and (part.default is MISSING or getattr(setting, part.name) != part.default)
    ]
    return ", ".join(said) or "as by default"


# Who can answer.


def targets(config: Config, route: Route, unusable: Collection[str] = ()) -> Iterator[Target]:
    """The upstreams of a route with their backends; `unusable` upstreams leave their shares to the others."""
    weights = {share.upstream: share.weight for share in route.split} or dict.fromkeys(route.upstreams, 1)
    usable = {name: weight for name, weight in weights.items() if name not in unusable}
    whole = sum(usable.values())
    for name, weight in weights.items():
        share = usable.get(name, 0) / whole if whole else 0.0
        upstream = config.upstreams[name]
        yield Target(
            name,
            weight if route.split else None,
            round(100 * share, 2),
            str(getattr(upstream.balance, "value", upstream.balance)),
            upstream.sticky is not None,
            tuple(_candidates(upstream.backends, share)),
        )


def _candidates(backends: Sequence[Backend], share: float) -> Iterator[Candidate]:
    whole = sum(backend.weight for backend in backends) or 1
    for backend in backends:
        percent = round(100 * share * backend.weight / whole, 2)
        yield Candidate(backend.name, str(backend.endpoint), backend.weight, percent)
