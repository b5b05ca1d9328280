"""What is wrong across the sections of l7proxy.yaml, all of it at once.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from director.kit.checks.check import AnyCheckSection, goes_through_vip, resolve, timing_findings
from director.kit.configfile import Finding
from director.kit.net import Endpoint, parse_endpoint
from director.kit.yamltree import Path
from l7proxy.core.build import matching, parse_host, parse_path, where_is
from l7proxy.core.captures import path_groups
from l7proxy.core.model import (
    Route,
    overlap,
)
from l7proxy.core.routing import ties
from l7proxy.core.schema import ConfigSection, ListenerSection, RouteSection, UpstreamSection
from l7proxy.core.settings.access import access_findings
from l7proxy.core.settings.acme import acme_findings
from l7proxy.core.settings.admin import admin_findings
from l7proxy.core.settings.backside import backend_tls_findings
from l7proxy.core.settings.balancing import balance_findings
from l7proxy.core.settings.capacity import queue_findings
from l7proxy.core.settings.compression import compression_findings
from l7proxy.core.settings.https import https_findings
from l7proxy.core.settings.marking import marking_findings
from l7proxy.core.settings.match import NO_CONDITIONS, match_findings
from l7proxy.core.settings.redirect import leads_back, redirect_findings
from l7proxy.core.settings.resilience import (
    breaker_findings,
    outlier_findings,
)
from l7proxy.core.settings.respond import maintenance_findings, respond_findings
from l7proxy.core.settings.rewrite import rewrite_findings
from l7proxy.core.settings.sorry import sorry_findings
from l7proxy.core.settings.split import split_findings
from l7proxy.core.settings.stickiness import sticky_findings
from l7proxy.core.settings.tcp import tcp_findings
from l7proxy.core.settings.tls import tls_findings


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
        yield from redirect_findings(route.redirect, (*path, "redirect"), path_groups(route.match.path) or ())
    if route.respond is not None:
        yield from respond_findings(route.respond, (*path, "respond"))
    if route.compress is not None:
        yield from compression_findings(route.compress, (*path, "compress"))
    if route.access is not None:
        yield from access_findings(route.access, (*path, "access"))
    if route.maintenance is not None:
        yield from maintenance_findings(route.maintenance, (*path, "maintenance"))


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
            good[index] = matching(route)
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
