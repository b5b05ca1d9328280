"""What sections without findings mean: a `Config`.

One rule: nothing is refused here; what could be wrong has been told before (`findings.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

from director.kit.checks.check import AnyCheckSection, Check, resolve
from director.kit.net import Answer, Endpoint, is_host_name, parse_endpoint, split_address
from director.kit.pattern import can_match_path, compile_pattern
from l7proxy.core.captures import path_groups
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
)
from l7proxy.core.routing import normal_path
from l7proxy.core.schema import BackendSection, ConfigSection, RouteSection, UpstreamSection
from l7proxy.core.settings.access import build_access
from l7proxy.core.settings.acme import build_acme
from l7proxy.core.settings.backside import ProxyVersion, build_backend_tls
from l7proxy.core.settings.balancing import build_balance
from l7proxy.core.settings.capacity import build_queue
from l7proxy.core.settings.compression import build_compression
from l7proxy.core.settings.https import build_to_https, hsts_line
from l7proxy.core.settings.limiting import build_limiting
from l7proxy.core.settings.marking import build_marking
from l7proxy.core.settings.match import Conditions, build_conditions
from l7proxy.core.settings.redirect import build_redirect
from l7proxy.core.settings.resilience import (
    build_breaker,
    build_outlier,
    build_retry_budget,
)
from l7proxy.core.settings.respond import build_maintenance, build_respond
from l7proxy.core.settings.rewrite import build_rewrite
from l7proxy.core.settings.sorry import build_sorry
from l7proxy.core.settings.split import build_split, main_upstream
from l7proxy.core.settings.stickiness import build_sticky
from l7proxy.core.settings.tcp import build_tcp
from l7proxy.core.settings.tls import build_tls

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


def matching(section: RouteSection, place: int = 0) -> Route:
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
        matching(section, place),
        redirect=build_redirect(section.redirect, groups) if section.redirect is not None else None,
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
                lambda endpoint: check_of(section.check, default, endpoint),
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


def check_of(own: AnyCheckSection | None, default: AnyCheckSection | None, endpoint: Endpoint) -> Check | None:
    section = own or default
    return resolve(section, (default,) if default else (), endpoint) if section is not None else None
