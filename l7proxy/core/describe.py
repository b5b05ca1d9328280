"""What a route's settings do to a request, told without doing it.

One rule: what a setting does is worked out by the code that does it. A setting tells it by a method `describe(asking)`
that gives lines, or by a function in `DESCRIBERS`; of others, what they are set to is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from l7proxy.core.access import NetworkRules
from l7proxy.core.captures import captures_of
from l7proxy.core.compression import coding_for
from l7proxy.core.forwarded import TrustedNetworks, client_of
from l7proxy.core.head import RequestHead
from l7proxy.core.lookup import Fields, query_of
from l7proxy.core.model import DangerousPath, Listener, Route
from l7proxy.core.paths import Danger, danger_of
from l7proxy.core.proxystatus import Cause
from l7proxy.core.rewrite import Rewriter, host_of
from l7proxy.core.settings.access import Access
from l7proxy.core.settings.compression import Compression
from l7proxy.core.settings.limiting import By, Concurrency, Limiting, Rate, rate_text
from l7proxy.core.settings.marking import Forwarding, HeaderRules, Marking
from l7proxy.core.settings.redirect import Redirect
from l7proxy.core.settings.respond import Maintenance, Respond
from l7proxy.core.settings.rewrite import Rewrite
from l7proxy.core.template import came_target


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
            peer, trusted, claims_of(head, b"x-forwarded-for"), claims_of(head, b"forwarded")
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


def claims_of(head: RequestHead, name: bytes) -> list[bytes]:
    """The values of all lines `name` (lower-case) in which a client says where it comes from."""
    parts = [line.partition(b":") for line in head.claims]
    return [value.strip(b" \t") for key, _, value in parts if key.lower() == name]


def answer(cause: Cause, reason: str) -> str:
    """What a refusal is answered, in words."""
    return f"{cause.status} {cause.text}: {reason}"


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


def _access(access: Access, asking: Asking) -> Iterator[str]:
    if access.allow or access.deny:
        passes = NetworkRules(access.allow, access.deny, others=access.others).let_pass(asking.asker)
        yield f"client {asking.asker} may pass" if passes else f"client {asking.asker} is refused"
    if access.basic is not None:
        yield f"asks for a user and a password, for {access.basic.realm!r}"
    if access.forward_auth is not None:
        yield f"asks {access.forward_auth.url} whether it may pass"
    if access.client_certificate is not None and access.client_certificate.required:
        yield "asks for a client's certificate"


def _limits(limiting: Limiting, asking: Asking) -> Iterator[str]:
    if (rate := limiting.rate) is not None:
        yield f"{rate_text(rate)} for {_whom(rate, asking)}, {rate.burst} at once; 429 beyond"
    if (concurrency := limiting.concurrency) is not None:
        status = 503 if concurrency.by is By.ROUTE else 429
        yield f"{concurrency.most} at one time for {_whom(concurrency, asking)}; {status} beyond"


def _whom(limit: Rate | Concurrency, asking: Asking) -> str:
    match limit.by:
        case By.ROUTE:
            return "the whole route"
        case By.CLIENT:
            return f"client {asking.asker}"
        case By.HEADER:
            values = asking.seen.all(limit.header.encode("ascii"))
            said = b",".join(values).decode("latin-1")
            return f"{limit.header} {said!r}" if values else f"all without {limit.header}"


def _compression(compression: Compression, asking: Asking) -> Iterator[str]:
    coding = coding_for(compression, asking.seen, asking.head.method)
    if coding is None:
        yield "answers stay as they are: this request takes none of " + ", ".join(compression.algorithms)
    else:
        yield f"answers are sent in {coding}, of the types that are named and from {compression.minimum_bytes} bytes on"


def _rewrite(rewrite: Rewrite, asking: Asking) -> Iterator[str]:
    route = asking.route
    checked = route is None or route.dangerous_path is not DangerousPath.FORWARD
    came = came_target(asking.head)
    made = Rewriter(rewrite, checked=checked).target(came, asking)
    if isinstance(made, Danger):
        yield f"answers {answer(Cause.DANGEROUS_PATH, made.value)}"
    elif made != came:
        yield f"{came.decode('latin-1')} goes on as {made.decode('latin-1')}"
    else:
        yield f"{came.decode('latin-1')} stays as it is"
    if rewrite.host is not None and (host := host_of(rewrite.host, asking)) is not None:
        yield f"Host is {host.decode('latin-1')}"


def _marking(marking: Marking, asking: Asking) -> Iterator[str]:
    for what, rules in (("request", marking.request), ("answer", marking.response)):
        yield from (f"on the {what}, {line}" for line in _rules(rules, asking))
    if marking.forwarded is not Forwarding.X_FORWARDED:
        yield f"on the request, who asks is told by {marking.forwarded.value}"
    if marking.request_id is not None:
        yield f"on both, {marking.request_id} is set"
    if marking.traceparent is not None:
        yield "on the request, traceparent is set"


def _rules(rules: HeaderRules, asking: Asking) -> Iterator[str]:
    yield from (f"{name} is called {new} from then on" for name, new in rules.renames)
    yield from (f"{name} is removed" for name in rules.removes)
    yield from (f"{name} is set to {value.fill(asking).decode('latin-1')!r}" for name, value in rules.sets)
    yield from (f"{name}: {value.fill(asking).decode('latin-1')} is added" for name, value in rules.adds)


DESCRIBERS: dict[type, Describer] = {
    Access: _access,
    Limiting: _limits,
    Compression: _compression,
    Redirect: _redirect,
    Respond: _respond,
    Maintenance: _maintenance,
    Rewrite: _rewrite,
    Marking: _marking,
}
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
                yield f"answers {answer(Cause.DANGEROUS_PATH, danger.value)}; dangerous_path says otherwise"
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
