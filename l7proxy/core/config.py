"""l7proxy.yaml: its sections, and the way from them to a `Config`.

One rule: what the sections accept can be built. `findings` names everything that spans sections, all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from director.kit.configfile import Finding, Section, load
from director.kit.duration import Duration
from director.kit.net import Endpoint, parse_endpoint
from director.kit.probespec import AnyCheckSection, Check, CheckSection, resolve, timing_findings
from director.kit.schemawalk import suggestion
from l7proxy.core.model import (
    Backend,
    Balance,
    ClientTimeouts,
    Config,
    Limits,
    Listener,
    PathKind,
    PathPattern,
    Route,
    Upstream,
    UpstreamTimeouts,
)
from l7proxy.core.routing import normal_path, ties

_LABELS = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_LITERAL_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")


def _endpoint(text: str) -> str:
    if parse_endpoint(text).port == 0:
        raise ValueError(f"{text!r} has port 0: use 1 to 65535")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network: {error}; write one such as 10.0.0.0/8 or 192.0.2.7") from None
    return text


def _host(text: str) -> str:
    if not _LABELS.fullmatch(text.lower()) and not _LITERAL_IPV6.fullmatch(text.lower()):
        raise ValueError(
            f"{text!r} is not a host: write a name without port (shop.example.org), or *.example.org for all below it"
            "; leave host out to match any"
        )
    return text.lower()


def parse_path(text: str) -> PathPattern:
    """`/v1` (a prefix by whole segments), `= /exact`, `~ regex`.

    Raises: ValueError.

    >>> str(parse_path("= /login")), parse_path("/v1").kind
    ('= /login', <PathKind.PREFIX: 'prefix'>)
    """
    if text.startswith("~"):
        pattern = text[1:].strip()
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return PathPattern(PathKind.REGEX, pattern)
    kind = PathKind.EXACT if text.startswith("=") else PathKind.PREFIX
    path = text.removeprefix("=").strip()
    if not re.fullmatch(r"/[!-~]*", path) or set(path) & set("?#*"):
        raise ValueError(
            f"{path!r} is not a path: begin with / and percent-encode what is not ASCII; /v1 matches /v1 and all "
            "below it, `= /v1` only itself, `~ ^/v[12]/` is a regular expression"
        )
    if normal_path(path) != path:
        raise ValueError(f"{path!r} can never match: paths are compared in normal form, write {normal_path(path)!r}")
    return PathPattern(kind, path)


def _path(text: str) -> str:
    parse_path(text)
    return text


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
EndpointText = Annotated[str, AfterValidator(_endpoint)]
Flag = Annotated[bool, Field(strict=True)]


class ListenerSection(Section):
    """`http: {bind: "0.0.0.0:80"}`"""

    bind: Annotated[tuple[EndpointText, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        description="address:port to listen at, or a list of them"
    )
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_listed), Field(validate_default=False)
    ] = Field((), description="networks whose X-Forwarded-* headers are believed and extended; others' are replaced")


class MatchSection(Section):
    """Which requests a route takes; what is left out matches anything."""

    host: Annotated[
        tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_listed), Field(min_length=1)
    ] = Field((), description="a name, *.example.org, or a list of them")
    path: Annotated[str, AfterValidator(_path)] = Field(
        "/", description="/prefix by whole segments, `= /exact`, or `~ regular expression`"
    )


class RouteSection(Section):
    """`{match: {host: shop.example.org, path: /v1}, upstream: shop}`; the order of routes does not matter."""

    name: Name | None = Field(None, description="what logs call it; default its host and path")
    match: MatchSection = MatchSection()
    upstream: str = Field(description="the upstream that answers")


class UpstreamTimeoutsSection(Section):
    """Timeouts towards backends."""

    connect: Duration = Field(2.0, description="to open a connection; default 2s")
    response: Duration = Field(30.0, description="from the request sent to the head of the answer; default 30s")
    idle: Duration = Field(60.0, description="between two pieces of a body; default 60s")
    keepalive: Duration = Field(4.0, description="an unused connection is kept this long; default 4s")


class BackendSection(Section):
    """`a: {address: 10.0.1.11:8000, weight: 2}`"""

    address: EndpointText = Field(description="address:port")
    weight: Annotated[int, Field(strict=True, ge=0, le=1000)] = Field(1, description="its share; 0 drains; default 1")


class UpstreamSection(Section):
    """A pool of backends."""

    balance: Literal["round_robin"] = Field("round_robin", description="how backends take turns")
    check: CheckSection | None = Field(None, description="how backends are probed; default `defaults.check`, or never")
    timeouts: UpstreamTimeoutsSection = UpstreamTimeoutsSection()
    backends: Annotated[dict[Name, BackendSection], Field(min_length=1)]


class DefaultsSection(Section):
    """What upstreams have that do not say otherwise."""

    check: CheckSection | None = None


class LimitsSection(Section):
    """What clients can take at most."""

    connections: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        10_000, description="client connections at one time; more are answered 503 and closed"
    )
    head_bytes: Annotated[int, Field(strict=True, ge=1024, le=1_048_576)] = Field(
        32 * 1024, description="size of a request's head; a larger one is answered 431"
    )


class ClientTimeoutsSection(Section):
    """Timeouts towards clients."""

    head: Duration = Field(10.0, description="for the head of a request; default 10s")
    idle: Duration = Field(60.0, description="between two pieces of a body, either way; default 60s")
    keepalive: Duration = Field(75.0, description="an unused connection is kept this long; default 75s")
    drain: Duration = Field(10.0, description="on SIGTERM, requests may take this long to finish; default 10s")


class AdminSection(Section):
    """The admin endpoint: GET /healthz and /v1/status."""

    bind: EndpointText = Field(description="address:port; there is no login, so keep it local")


class ConfigSection(Section):
    """The whole file."""

    listeners: Annotated[dict[Name, ListenerSection], Field(min_length=1)]
    routes: Annotated[tuple[RouteSection, ...], Field(min_length=1)]
    upstreams: Annotated[dict[Name, UpstreamSection], Field(min_length=1)]
    defaults: DefaultsSection = DefaultsSection()
    timeouts: ClientTimeoutsSection = ClientTimeoutsSection()
    limits: LimitsSection = LimitsSection()
    admin: AdminSection | None = None
    access_log: Flag = Field(True, description="a line for each request on standard output; default true")
    via: Flag = Field(True, description="add Via to requests (RFC 9110 7.6.3); default true")


def load_config(text: str, source: str) -> Config:
    """The configuration in `text`; `source` names it in messages.

    Raises: InvalidConfigError with every problem that was found.
    """
    return build(load(text, source, ConfigSection, findings))


def findings(section: ConfigSection) -> Iterator[Finding]:
    """What is wrong across sections."""
    yield from _bind_findings(section)
    for index, route in enumerate(section.routes):
        if route.upstream not in section.upstreams:
            yield (
                ("routes", index, "upstream"),
                f"there is no upstream {route.upstream!r}{suggestion(route.upstream, section.upstreams)}",
            )
    names: dict[str, int] = {}
    for index, route in enumerate(section.routes):
        if route.name is not None and names.setdefault(route.name, index) != index:
            yield ("routes", index, "name"), f"routes.{names[route.name]} is called {route.name!r} too: rename one"
    for later, earlier in ties([_route(route) for route in section.routes]):
        yield (
            ("routes", later),
            f"matches the same host and path as routes.{earlier}: order does not decide; change or remove one",
        )
    for name, upstream in section.upstreams.items():
        yield from _upstream_findings(name, upstream, section.defaults.check)


def _bind_findings(section: ConfigSection) -> Iterator[Finding]:
    taken: dict[Endpoint, str] = {}
    for name, listener in section.listeners.items():
        for index, text in enumerate(listener.bind):
            bind = parse_endpoint(text)
            first = taken.setdefault(bind, f"listeners.{name}.bind.{index}")
            if first != f"listeners.{name}.bind.{index}":
                yield ("listeners", name, "bind", index), f"{bind} is bound by {first} already: remove one"
    if section.admin is not None and (bind := parse_endpoint(section.admin.bind)) in taken:
        yield ("admin", "bind"), f"{bind} is bound by {taken[bind]} already: use another port"


def _upstream_findings(name: str, upstream: UpstreamSection, default: AnyCheckSection | None) -> Iterator[Finding]:
    taken: dict[Endpoint, str] = {}
    for backend_name, backend in upstream.backends.items():
        endpoint = parse_endpoint(backend.address)
        path = ("upstreams", name, "backends", backend_name, "address")
        first = taken.setdefault(endpoint, backend_name)
        if first != backend_name:
            yield path, f"{endpoint} is backend {first!r} already: use `weight` to give it more"
        if upstream.check is not None and first == backend_name and len(taken) == 1:
            check = resolve(upstream.check, (default,) if default else (), endpoint)
            yield from ((("upstreams", name, "check"), message) for message in timing_findings(check))


def build(section: ConfigSection) -> Config:
    """The configuration that a section without findings means."""
    return Config(
        listeners=tuple(
            Listener(
                name,
                tuple(parse_endpoint(text) for text in listener.bind),
                tuple(ip_network(text) for text in listener.trusted_proxies),
            )
            for name, listener in section.listeners.items()
        ),
        routes=tuple(_route(route) for route in section.routes),
        upstreams={
            name: _upstream(name, upstream, section.defaults.check) for name, upstream in section.upstreams.items()
        },
        timeouts=ClientTimeouts(
            section.timeouts.head, section.timeouts.idle, section.timeouts.keepalive, section.timeouts.drain
        ),
        limits=Limits(section.limits.connections, section.limits.head_bytes),
        admin=parse_endpoint(section.admin.bind) if section.admin is not None else None,
        access_log=section.access_log,
        via=section.via,
    )


def _route(section: RouteSection) -> Route:
    path = parse_path(section.match.path)
    name = section.name or f"{','.join(section.match.host) or '*'} {path}"
    return Route(name, section.upstream, section.match.host, path)


def _upstream(name: str, section: UpstreamSection, default: AnyCheckSection | None) -> Upstream:
    timeouts = section.timeouts
    return Upstream(
        name,
        tuple(
            Backend(backend, endpoint, part.weight, _check(section.check, default, endpoint))
            for backend, part in section.backends.items()
            for endpoint in [parse_endpoint(part.address)]
        ),
        Balance(section.balance),
        UpstreamTimeouts(timeouts.connect, timeouts.response, timeouts.idle, timeouts.keepalive),
    )


def _check(own: AnyCheckSection | None, default: AnyCheckSection | None, endpoint: Endpoint) -> Check | None:
    section = own or default
    return resolve(section, (default,) if default else (), endpoint) if section is not None else None
