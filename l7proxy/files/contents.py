"""Files that a configuration names for what they hold: bodies of answers, and whatever else is read as a whole.

One rule: they are read when the configuration is, and never again: what is served is what was read then.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from director.kit.yamltree import Path
from l7proxy.core.model import Config, Route, Upstream
from l7proxy.core.passwords import read_htpasswd
from l7proxy.core.schema import ConfigSection
from l7proxy.core.settings.access import Access, file_findings
from l7proxy.core.settings.content import LARGEST_BYTES, Content
from l7proxy.files.certificates import unreadable, whole_file

Judge = Callable[[bytes], Iterator[str]]
"""Says what is wrong in a file."""


def named(section: ConfigSection) -> Iterator[tuple[Path, str, Judge]]:
    """Every such file, the key that names it, and who judges what it holds."""
    for index, route in enumerate(section.routes):
        for key in ("respond", "maintenance"):
            part = getattr(route, key)
            if part is not None and part.file is not None:
                yield ("routes", index, key, "file"), part.file, _anything
        basic = route.access.basic if route.access is not None else None
        if basic is not None and basic.file is not None:
            judge = partial(file_findings, file=basic.file, users=basic.users)
            yield ("routes", index, "access", "basic", "file"), basic.file, judge
        asked = route.access.forward_auth if route.access is not None else None
        if asked is not None and asked.ca is not None:
            yield ("routes", index, "access", "forward_auth", "ca"), asked.ca, partial(_no_certificates, asked.ca)
    for name, upstream in section.upstreams.items():
        if upstream.sorry is not None and upstream.sorry.file is not None:
            yield ("upstreams", name, "sorry", "file"), upstream.sorry.file, _anything


def _anything(_: bytes) -> Iterator[str]:
    yield from ()


def _no_certificates(file: str, content: bytes) -> Iterator[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (ValueError, ssl.SSLError):
        yield f"{file} holds no certificate in PEM: name the one that the other side's is signed by"


def read(path: str, held: Mapping[str, str] | None = None) -> bytes:
    """What the file at `path` holds. `held` is what it held for who read it before (as latin-1).

    Raises: ValueError, with what to do.
    """
    if held is not None and path in held:
        return held[path].encode("latin-1")
    try:
        return whole_file(path, LARGEST_BYTES)
    except OSError as error:
        raise ValueError(unreadable(path, error)) from error


def filled(config: Config, contents: Mapping[str, bytes]) -> Config:
    """`config` with what the files hold."""
    if not contents:
        return config

    def of(content: Content) -> Content:
        return replace(content, body=contents[content.file]) if content.file else content

    def route_of(route: Route) -> Route:
        if route.respond is not None and route.respond.content.file:
            route = replace(route, respond=replace(route.respond, content=of(route.respond.content)))
        if route.maintenance is not None and route.maintenance.content.file:
            route = replace(route, maintenance=replace(route.maintenance, content=of(route.maintenance.content)))
        if route.access is not None:
            route = replace(route, access=_access(route.access, contents))
        return route

    def upstream_of(upstream: Upstream) -> Upstream:
        sorry = upstream.sorry
        if sorry is None or not sorry.content.file:
            return upstream
        return replace(upstream, sorry=replace(sorry, content=of(sorry.content)))

    return replace(
        config,
        routes=tuple(map(route_of, config.routes)),
        upstreams={name: upstream_of(upstream) for name, upstream in config.upstreams.items()},
    )


def _access(access: Access, contents: Mapping[str, bytes]) -> Access:
    basic, asked = access.basic, access.forward_auth
    if basic is not None and basic.file:
        users = {user: text for _, user, text in read_htpasswd(contents[basic.file])}
        basic = replace(basic, users={**users, **basic.users})
    if asked is not None and asked.ca:
        asked = replace(asked, ca_pem=contents[asked.ca])
    return replace(access, basic=basic, forward_auth=asked)
