"""Files that a configuration names for what they hold: bodies of answers, and whatever else is read as a whole.

One rule: they are read when the configuration is, and never again: what is served is what was read then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from director.kit.yamltree import Path
from l7proxy.certificates import unreadable, whole_file
from l7proxy.core.model import Config, Route, Upstream
from l7proxy.core.schema import ConfigSection
from l7proxy.core.settings.content import LARGEST_BYTES, Content


def named(section: ConfigSection) -> Iterator[tuple[Path, str]]:
    """Every such file, and the key that names it."""
    for index, route in enumerate(section.routes):
        for key in ("respond", "maintenance"):
            part = getattr(route, key)
            if part is not None and part.file is not None:
                yield ("routes", index, key, "file"), part.file
    for name, upstream in section.upstreams.items():
        if upstream.sorry is not None and upstream.sorry.file is not None:
            yield ("upstreams", name, "sorry", "file"), upstream.sorry.file


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
