"""What a configuration has and nobody uses.

One rule: it is served all the same, and the operator is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from director.kit.configfile import Finding
from l7proxy.core.model import Config


def unused_findings(config: Config) -> Iterator[Finding]:
    """Upstreams that no route and no listener leads to."""
    used = {name for route in config.routes for name in route.upstreams}
    for listener in config.listeners:
        used.update(_texts(listener.tcp))
        used.update(_texts(listener.acme))
    for name in config.upstreams:
        if name not in used:
            yield ("upstreams", name), "no route and no listener uses it: name it in one, or remove it"


def idle_findings(config: Config) -> Iterator[Finding]:
    """Settings of upstreams that are about requests, where only forwarded connections come."""
    forwarded = {name for listener in config.listeners if listener.tcp is not None for name in listener.tcp.upstreams}
    asked = {name for route in config.routes for name in route.upstreams}
    for listener in config.listeners:
        asked.update(_texts(listener.acme))
    for name in sorted(forwarded - asked):
        upstream = config.upstreams[name]
        path = ("upstreams", name)
        said = "is about requests, and only connections that are forwarded come here: it does nothing, remove it"
        limited = [backend.name for backend in upstream.backends if backend.max_connections is not None]
        if limited:
            where = ("max_connections",) if len(limited) == len(upstream.backends) else ("backends", limited[0])
            yield (*path, *where), f"max_connections {said}, or limit them at the backend"
        if upstream.queue is not None:
            yield (*path, "queue"), f"queue {said}"
        if upstream.sorry is not None:
            yield (*path, "sorry"), f"sorry {said}"
        if upstream.sticky is not None and upstream.sticky.cookie:
            yield (*path, "sticky"), f"a session by cookie {said}, or say `sticky: {{source: true}}`"


def _texts(value: object) -> Iterator[str]:
    """All that a setting names, in whatever key: what is an upstream's name among it counts as its use."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _texts(each)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _texts(getattr(value, part.name))
