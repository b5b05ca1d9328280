"""From l7proxy.yaml's sections to a `Config`.

One rule: what has no findings can be built. `findings` names everything that spans sections, all at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from itertools import chain

from director.kit.checks.check import AnyCheckSection, Check, goes_through_vip, resolve, timing_findings
from director.kit.configfile import Finding, load
from director.kit.net import Answer, Endpoint, is_host_name, parse_endpoint, split_address
from director.kit.pattern import can_match_path, compile_pattern
from director.kit.yamltree import Path
from l7proxy.core.captures import groups_of, path_groups
from l7proxy.core.model import (
    AccessLogFormat,
    Backend,
    ClientTimeouts,
    Config,
    DangerousPath,
    Limits,
    Listener,
    PathKind,
    PathPattern,
    Route,
    Upstream,
    UpstreamTimeouts,
    overlap,
)
from l7proxy.core.routing import normal_path, ties
from l7proxy.core.schema import BackendSection, ConfigSection, ListenerSection, RouteSection, UpstreamSection
from l7proxy.core.settings.access import access_findings, build_access
from l7proxy.core.settings.acme import acme_findings, build_acme
from l7proxy.core.settings.admin import admin_findings
from l7proxy.core.settings.backside import ProxyVersion, backend_tls_findings, build_backend_tls
from l7proxy.core.settings.balancing import balance_findings, build_balance
from l7proxy.core.settings.capacity import build_queue, queue_findings
from l7proxy.core.settings.compression import build_compression, compression_findings
from l7proxy.core.settings.https import build_to_https, hsts_line, https_findings
from l7proxy.core.settings.limiting import build_limiting
from l7proxy.core.settings.marking import build_marking, marking_findings
from l7proxy.core.settings.match import NO_CONDITIONS, Conditions, build_conditions, match_findings
from l7proxy.core.settings.redirect import build_redirect, leads_back, redirect_findings
from l7proxy.core.settings.resilience import (
    breaker_findings,
    build_breaker,
    build_outlier,
    build_retry_budget,
    outlier_findings,
)
from l7proxy.core.settings.respond import build_maintenance, build_respond, maintenance_findings, respond_findings
from l7proxy.core.settings.rewrite import build_rewrite, rewrite_findings
from l7proxy.core.settings.sorry import build_sorry, sorry_findings
from l7proxy.core.settings.split import build_split, main_upstream, split_findings
from l7proxy.core.settings.stickiness import build_sticky, sticky_findings
from l7proxy.core.settings.tcp import build_tcp, tcp_findings
from l7proxy.core.settings.tls import build_tls, tls_findings

LONGEST_NAME = 200
NO_ANSWERS: Mapping[str, Answer] = {}
Where = tuple[Endpoint, str, str]
_NOWHERE = IPv4Address(0)
_LABELS = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_LITERAL_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")


def parse_host(text: str) -> str:
    """A host to match, in lower case.

    Raises: ValueError.
    """
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
        compile_pattern(pattern)
        if not can_match_path(pattern):
            raise ValueError(f"{pattern!r} can never match: every path begins with /, so begin with ^/")
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


def no_answers(_: Iterable[str]) -> Mapping[str, Answer]:
    """Nobody is asked."""
    return {}


def no_findings(_: ConfigSection) -> Iterator[Finding]:
    """Nothing more is wrong."""
    yield from ()


def load_config(
    text: str,
    source: str,
    more: Callable[[ConfigSection], Iterable[Finding]] = no_findings,
    look_up: Callable[[Iterable[str]], Mapping[str, Answer]] = no_answers,
) -> Config:
    """The configuration in `text`; `source` names it in messages. `more` looks at what only an edge can: files;
    `look_up` says what names are.

    Raises: InvalidConfigError with every problem that was found.
    """
    section = load(text, source, ConfigSection, lambda section: chain(findings(section), more(section)))
    hosts = {
        host
        for upstream in section.upstreams.values()
        for backend in upstream.backends.values()
        if (host := where_is(backend.address, {})[1])
    }
    return build(section, look_up(hosts) if hosts else {})


def where_is(address: str, answers: Mapping[str, Answer]) -> Where:
    """Where a backend is, its name if it has one, and why that has no address.

    >>> from ipaddress import ip_address
    >>> str(where_is("app.internal:80", {"app.internal": (ip_address("10.0.0.7"),)})[0])
    '10.0.0.7:80'
    """
    host, _, _ = address.rpartition(":")
    if not is_host_name(host):
        return parse_endpoint(address), "", ""
    host, port = split_address(address)
    answer = answers.get(host, "it was not looked up")
    if isinstance(answer, str):
        return Endpoint(_NOWHERE, port), host, answer
    if not answer:
        return Endpoint(_NOWHERE, port), host, "it has no address"
    return Endpoint(answer[0], port), host, ""


def findings(section: ConfigSection) -> Iterator[Finding]:
    """What is wrong across sections."""
    yield from _bind_findings(section)
    yield from admin_findings(section.admin, section.state)
    for name, listener in section.listeners.items():
        yield from _listener_findings(name, listener)
        yield from _https_findings(name, listener, section)
        if listener.tcp is not None:
            yield from _tcp_findings(name, listener, section)
    if not section.routes and any(listener.tcp is None for listener in section.listeners.values()):
        yield ("routes",), "there are none, and listeners that speak HTTP: add one, or `tcp` to each listener"
    for index, route in enumerate(section.routes):
        yield from _answer_findings(index, route, section)
        yield from _own_answer_findings(("routes", index), route)
        yield from _unasked_findings(("routes", index, "access", "client_certificate"), route, section)
        yield from _circle_findings(("routes", index, "redirect", "to"), route, section)
        if route.upstream is None and (route.redirect is not None or route.respond is not None):
            yield from _unused_findings(("routes", index), route)
        if route.rewrite is not None:
            path = route.match.path
            yield from rewrite_findings(route.rewrite, ("routes", index, "rewrite"), path, path_groups(path))
        if route.headers is not None:
            yield from marking_findings(route.headers, ("routes", index, "headers"), path_groups(route.match.path))
    names: dict[str, int] = {}
    for index, route in enumerate(section.routes):
        if route.name is not None and names.setdefault(route.name, index) != index:
            yield ("routes", index, "name"), f"routes.{names[route.name]} is called {route.name!r} too: rename one"
    yield from _match_findings(section.routes, section.underscores == "drop")
    yield from _health_findings(section)
    for name, upstream in section.upstreams.items():
        yield from _upstream_findings(name, upstream, section.defaults.check)


def _answer_findings(index: int, route: RouteSection, section: ConfigSection) -> Iterator[Finding]:
    """What is wrong about who answers: exactly one must."""
    said = [key for key in ("upstream", "redirect", "respond") if getattr(route, key) is not None]
    if not said:
        yield ("routes", index), "nobody answers: name an `upstream`, or say `redirect` or `respond`"
    elif len(said) > 1:
        yield ("routes", index, said[1]), f"{said[0]} answers already: remove one of them"
    yield from split_findings(route.upstream, section.upstreams, ("routes", index, "upstream"))


def _unasked_findings(path: Path, route: RouteSection, section: ConfigSection) -> Iterator[Finding]:
    """Who is to show a certificate has to be asked for one."""
    wanted = route.access.client_certificate if route.access is not None else None
    if wanted is None or any(each.tls is not None and each.tls.clients for each in section.listeners.values()):
        return
    yield path, "no listener asks for certificates: write `tls: {clients: {ca: FILE, mode: optional}}` at one"


def _circle_findings(path: Path, route: RouteSection, section: ConfigSection) -> Iterator[Finding]:
    """Routes are those of all listeners: one to https also meets who came by it."""
    for name, listener in section.listeners.items():
        scheme = "http" if listener.tls is None else "https"
        if listener.tcp is None and route.redirect is not None and leads_back(route.redirect, scheme):
            yield path, f"leads clients of listener {name!r} back to where they are: change host, port or path in it"
            return


def _unused_findings(path: Path, route: RouteSection) -> Iterator[Finding]:
    """What is said about backends by a route that has none."""
    if route.rewrite is not None:
        yield (*path, "rewrite"), "this route answers by itself, and no backend sees what is rewritten: remove it"
    for name in ("request", "forwarded", "traceparent"):
        if route.headers is not None and name in route.headers.model_fields_set:
            yield (*path, "headers", name), "this route answers by itself, and no backend sees it: remove it"


def _own_answer_findings(path: Path, route: RouteSection) -> Iterator[Finding]:
    if route.redirect is not None:
        yield from redirect_findings(route.redirect, (*path, "redirect"), _groups(route.match.path))
    if route.respond is not None:
        yield from respond_findings(route.respond, (*path, "respond"))
    if route.compress is not None:
        yield from compression_findings(route.compress, (*path, "compress"))
    if route.access is not None:
        yield from access_findings(route.access, (*path, "access"))
    if route.maintenance is not None:
        yield from maintenance_findings(route.maintenance, (*path, "maintenance"))


def _groups(path: str) -> tuple[str, ...]:
    """The names of a path's groups; none where it is none."""
    try:
        return groups_of(path[1:].strip()) if path.startswith("~") else ()
    except ValueError:
        return ()


def _listener_findings(name: str, listener: ListenerSection) -> Iterator[Finding]:
    if listener.proxy_protocol and not listener.trusted_proxies:
        yield (
            ("listeners", name, "proxy_protocol"),
            "nobody may send a PROXY header: name in trusted_proxies the networks of those who do",
        )


def _health_findings(section: ConfigSection) -> Iterator[Finding]:
    """Routes of exactly the path that every listener answers by itself."""
    answered = {listener.health for listener in section.listeners.values() if listener.tcp is None}
    for index, route in enumerate(section.routes):
        exact = route.match.path.removeprefix("=").strip() if route.match.path.startswith("=") else None
        if exact is not None and answered == {exact}:
            yield (
                ("routes", index, "match", "path"),
                f"can never match: {exact} is the `health` of every listener, and answered before any route",
            )


def _https_findings(name: str, listener: ListenerSection, section: ConfigSection) -> Iterator[Finding]:
    path = ("listeners", name)
    if listener.tls is not None:
        yield from tls_findings(listener.tls, (*path, "tls"))
    if listener.acme is not None:
        yield from acme_findings(listener.acme, section.upstreams, (*path, "acme"))
    has_tls = listener.tls is not None
    yield from https_findings(listener.redirect_to_https, listener.hsts, has_tls=has_tls, path=path)


_HTTP_ONLY = ("tls", "health", "acme", "redirect_to_https", "hsts")
"""Keys of a listener that have no place beside `tcp`."""


def _tcp_findings(name: str, listener: ListenerSection, section: ConfigSection) -> Iterator[Finding]:
    """What is wrong about a listener that forwards connections as they are."""
    tcp = listener.tcp
    if tcp is None:
        return
    yield from tcp_findings(tcp, section.upstreams, ("listeners", name, "tcp"))
    for key in _HTTP_ONLY:
        if getattr(listener, key, None):
            yield ("listeners", name, key), f"`tcp` forwards connections as they are: remove {key}, or tcp"
    if listener.trusted_proxies and not listener.proxy_protocol:
        yield (
            ("listeners", name, "trusted_proxies"),
            "with `tcp` nothing else than a PROXY header is believed: add `proxy_protocol: true`, or remove it",
        )
    if "hello" in tcp.model_fields_set and not tcp.sni and not listener.proxy_protocol:
        yield ("listeners", name, "tcp", "hello"), "nothing is waited for without `sni` or `proxy_protocol`: remove it"
    for upstream in sorted({*tcp.sni.values(), *([tcp.upstream] if tcp.upstream is not None else [])}):
        found = section.upstreams.get(upstream)
        if found is not None and found.tls is not None:
            yield (
                ("upstreams", upstream, "tls"),
                f"listeners.{name}.tcp forwards to it as it came, and speaks no TLS itself: remove tls, or name "
                "another upstream",
            )


def _match_findings(routes: Sequence[RouteSection], drop_underscores: bool) -> Iterator[Finding]:
    """What is wrong in each match, then ties among the good ones: a bad one must not be taken for something else."""
    good: dict[int, Route] = {}
    for index, route in enumerate(routes):
        found: list[Finding] = []
        found += [(("routes", index, "match", "path"), what) for what in _problem(parse_path, route.match.path)]
        for place, host in enumerate(route.match.host):
            found += [(("routes", index, "match", "host", place), what) for what in _problem(parse_host, host)]
        found += match_findings(route.match, ("routes", index, "match"), drop_underscores)
        yield from found
        if not found:
            good[index] = _matching(route)
    for later, earlier in ties(good):
        yield (
            ("routes", later),
            f"matches the same {_alike(good[later])} as routes.{earlier}: order does not decide; change or remove one",
        )


def _alike(route: Route) -> str:
    return "host and path" if route.conditions == NO_CONDITIONS else "host, path and conditions"


def _problem(parse: Callable[[str], object], text: str) -> list[str]:
    try:
        parse(text)
    except ValueError as error:
        return [str(error)]
    return []


def _bind_findings(section: ConfigSection) -> Iterator[Finding]:
    taken: dict[Endpoint, str] = {}

    def clash(bind: Endpoint, remedy: str) -> str:
        for other, where in taken.items():
            if other == bind:
                return f"{bind} is bound by {where} already: {remedy}"
            if overlap(other, bind):
                return f"{bind} and {other}, bound by {where}, overlap: {remedy}"
        return ""

    for name, listener in section.listeners.items():
        for index, text in enumerate(listener.bind):
            bind = parse_endpoint(text)
            if said := clash(bind, "remove one"):
                yield ("listeners", name, "bind", index), said
            taken.setdefault(bind, f"listeners.{name}.bind.{index}")
    if section.admin is not None and section.admin.bind is not None:
        bind = parse_endpoint(section.admin.bind)
        if said := clash(bind, "use another port"):
            yield ("admin", "bind"), said
        taken.setdefault(bind, "admin.bind")
    for index, text in enumerate(section.agent.bind if section.agent is not None else ()):
        bind = parse_endpoint(text)
        if said := clash(bind, "use another port"):
            yield ("agent", "bind", index), said
        taken.setdefault(bind, f"agent.bind.{index}")


def _upstream_findings(name: str, upstream: UpstreamSection, default: AnyCheckSection | None) -> Iterator[Finding]:
    if upstream.sorry is not None:
        yield from sorry_findings(upstream.sorry, ("upstreams", name, "sorry"))
    yield from balance_findings(upstream.balance, ("upstreams", name, "balance"))
    if upstream.sticky is not None:
        yield from sticky_findings(upstream.sticky, ("upstreams", name, "sticky"))
    if upstream.outlier is not None:
        yield from outlier_findings(upstream.outlier, len(upstream.backends), ("upstreams", name, "outlier"))
    if upstream.breaker is not None:
        yield from breaker_findings(upstream.breaker, ("upstreams", name, "breaker"))
    limits = {backend_name: backend.max_connections for backend_name, backend in upstream.backends.items()}
    yield from queue_findings(upstream.queue, ("upstreams", name, "queue"), upstream.max_connections, limits)
    taken: dict[str, str] = {}
    if upstream.tls is not None:
        yield from backend_tls_findings(upstream.tls, ("upstreams", name, "tls"))
    for backend_name, backend in upstream.backends.items():
        endpoint, host, _ = where_is(backend.address, {})
        shown = f"{host}:{endpoint.port}" if host else str(endpoint)
        path = ("upstreams", name, "backends", backend_name, "address")
        first = taken.setdefault(shown, backend_name)
        if first != backend_name:
            yield path, f"{shown} is backend {first!r} already: use `weight` to give it more"
        if upstream.check is not None and first == backend_name and len(taken) == 1:
            check = resolve(upstream.check, (default,) if default else (), endpoint)
            yield from ((("upstreams", name, "check"), message) for message in timing_findings(check))
            if goes_through_vip((upstream.check, *((default,) if default else ()))):
                yield ("upstreams", name, "check", "via"), "only a director has a path to probe: remove it"


def build(section: ConfigSection, answers: Mapping[str, Answer] = NO_ANSWERS) -> Config:
    """The configuration that a section without findings means; `answers` are what names are."""
    return Config(
        listeners=tuple(
            Listener(
                name,
                tuple(parse_endpoint(text) for text in listener.bind),
                tuple(ip_network(text) for text in listener.trusted_proxies),
                listener.health,
                listener.proxy_protocol,
                build_tls(listener.tls) if listener.tls is not None else None,
                build_acme(listener.acme) if listener.acme is not None else None,
                build_tcp(listener.tcp) if listener.tcp is not None else None,
                build_to_https(listener.redirect_to_https) if listener.redirect_to_https is not None else None,
                hsts_line(listener.hsts) if listener.hsts is not None else b"",
            )
            for name, listener in section.listeners.items()
        ),
        routes=tuple(_route(route, place) for place, route in enumerate(section.routes)),
        upstreams={
            name: _upstream(name, upstream, section.defaults.check, answers)
            for name, upstream in section.upstreams.items()
        },
        timeouts=ClientTimeouts(
            section.timeouts.head,
            section.timeouts.idle,
            section.timeouts.keepalive,
            section.timeouts.tunnel,
            section.timeouts.drain,
            section.timeouts.notice,
        ),
        limits=Limits(
            section.limits.connections,
            section.limits.request_line,
            section.limits.headers,
            section.limits.head_bytes,
            section.limits.body,
            section.limits.body_rate,
            "connections" in section.limits.model_fields_set,
        ),
        admin=parse_endpoint(section.admin.bind)
        if section.admin is not None and section.admin.bind is not None
        else None,
        admin_socket=(section.admin.socket or "") if section.admin is not None else "",
        agent=tuple(parse_endpoint(text) for text in section.agent.bind) if section.agent is not None else (),
        access_log=_log_format(section.access_log),
        via=section.via,
        name=section.name or "",
        drop_underscores=section.underscores == "drop",
        workers=0 if section.workers == "auto" else section.workers,
        state=section.state or "",
    )


def _matching(section: RouteSection, place: int = 0) -> Route:
    """What a route matches: without findings about that, it can be built."""
    path = parse_path(section.match.path)
    conditions = build_conditions(section.match)
    hosts = tuple(parse_host(host) for host in section.match.host)
    return Route(
        section.name or default_name(section.match.host, path, conditions),
        main_upstream(section.upstream),
        hosts,
        path,
        DangerousPath(section.dangerous_path),
        place,
        conditions,
    )


def _route(section: RouteSection, place: int = 0) -> Route:
    groups = path_groups(section.match.path) or ()
    return replace(
        _matching(section, place),
        redirect=build_redirect(section.redirect, _groups(section.match.path))
        if section.redirect is not None
        else None,
        respond=build_respond(section.respond) if section.respond is not None else None,
        maintenance=build_maintenance(section.maintenance) if section.maintenance is not None else None,
        access=build_access(section.access) if section.access is not None else None,
        limits=build_limiting(section.limits) if section.limits is not None else None,
        rewrite=build_rewrite(section.rewrite, groups) if section.rewrite is not None else None,
        marking=build_marking(section.headers, groups) if section.headers is not None else None,
        compression=build_compression(section.compress) if section.compress is not None else None,
        split=build_split(section.upstream),
    )


def default_name(hosts: Iterable[str], path: PathPattern, conditions: Conditions) -> str:
    """What a route is called that has no name: what it matches, in short. Where that is long, a part of it, with a
    number made of all of it.

    >>> default_name(["shop.example.org"], parse_path("/v1"), Conditions(("GET", "POST")))
    'shop.example.org /v1 GET|POST'
    """
    name = f"{','.join(hosts).lower() or '*'} {path} {conditions}".rstrip()
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 12]}... {hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _log_format(value: bool | str) -> AccessLogFormat:
    if isinstance(value, bool):
        return AccessLogFormat.COMBINED if value else AccessLogFormat.NONE
    return AccessLogFormat(value)


def _backend(
    name: str, part: BackendSection, check: Callable[[Endpoint], Check | None], where: Where, most: int | None
) -> Backend:
    endpoint, host, why = where
    return Backend(name, endpoint, part.weight, None if why else check(endpoint), host, why, most)


def _upstream(
    name: str, section: UpstreamSection, default: AnyCheckSection | None, answers: Mapping[str, Answer]
) -> Upstream:
    timeouts = section.timeouts
    balance, hashing = build_balance(section.balance)
    return Upstream(
        name,
        tuple(
            _backend(
                backend,
                part,
                lambda endpoint: _check(section.check, default, endpoint),
                where_is(part.address, answers),
                part.max_connections or section.max_connections,
            )
            for backend, part in section.backends.items()
        ),
        balance,
        UpstreamTimeouts(timeouts.connect, timeouts.response, timeouts.idle, timeouts.keepalive),
        hashing,
        sticky=build_sticky(section.sticky) if section.sticky is not None else None,
        tls=build_backend_tls(section.tls) if section.tls is not None else None,
        proxy_protocol=ProxyVersion(section.proxy_protocol) if section.proxy_protocol is not None else None,
        dscp=section.dscp,
        queue=build_queue(section.queue) if section.queue is not None else None,
        slow_start_s=section.slow_start,
        outlier=build_outlier(section.outlier) if section.outlier is not None else None,
        breaker=build_breaker(section.breaker) if section.breaker is not None else None,
        retry_budget=build_retry_budget(section.retry_budget) if section.retry_budget is not None else None,
        sorry=build_sorry(section.sorry) if section.sorry is not None else None,
    )


def _check(own: AnyCheckSection | None, default: AnyCheckSection | None, endpoint: Endpoint) -> Check | None:
    section = own or default
    return resolve(section, (default,) if default else (), endpoint) if section is not None else None
