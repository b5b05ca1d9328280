"""Connections that are forwarded as they are: the keys, and what they mean.

One rule: what has no findings can be built. What speaks HTTP has no place beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from pydantic import Field

from director.kit.configfile import Finding, Section
from director.kit.duration import Duration, format_duration
from director.kit.schemawalk import suggestion

_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


class TcpSection(Section):
    """`{upstream: db, idle: 1h}`"""

    upstream: str | None = Field(
        None, description="the upstream that connections go to; with `sni`, those whose name is none of its names"
    )
    sni: dict[str, str] = Field(
        {},
        description="upstreams by the server name in the TLS ClientHello: `shop.example.org`, or `*.example.org` for "
        "all below it; nothing is decrypted",
    )
    idle: Duration = Field(3600.0, description="a connection on which nothing passes either way is closed after this")
    half_closed: Duration | None = Field(
        None, description="the same, once one side has said that it sends no more; default: `idle`"
    )
    hello: Duration = Field(5.0, description="for the whole ClientHello, where `sni` needs it, and for a PROXY header")


@dataclass(frozen=True, slots=True)
class Tcp:
    """Where connections go. `names` are exact, `below` what stands behind a `*.`. No `upstream`: others are closed."""

    upstream: str
    names: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, str] = field(default_factory=dict)
    idle_s: float = 3600.0
    half_closed_s: float = 3600.0
    hello_s: float = 5.0

    @property
    def looks(self) -> bool:
        """Whether the ClientHello decides."""
        return bool(self.names or self.below)

    @property
    def upstreams(self) -> frozenset[str]:
        """All that connections may go to."""
        return frozenset({self.upstream, *self.names.values(), *self.below.values()} - {""})

    def upstream_for(self, name: str | None) -> str:
        """The upstream for a server name: the exact one, then the longest `*.`, then the default; empty: none.

        >>> tcp = Tcp("rest", {"a.example": "a"}, {"example": "all", "b.example": "b"})
        >>> [tcp.upstream_for(name) for name in ("a.example", "x.b.example", "c.example", "example", None)]
        ['a', 'b', 'all', 'rest', 'rest']
        """
        if name is None:
            return self.upstream
        found = self.names.get(name)
        if found is not None:
            return found
        if self.below:
            _, _, rest = name.partition(".")
            while rest:
                found = self.below.get(rest)
                if found is not None:
                    return found
                _, _, rest = rest.partition(".")
        return self.upstream


def tcp_findings(section: TcpSection, upstreams: Collection[str], path: tuple[str | int, ...]) -> Iterator[Finding]:
    """What is wrong with it; `path` leads to it."""
    if section.upstream is None and not section.sni:
        yield path, "nobody answers: name an `upstream`, or say `sni`"
    if section.upstream is not None and section.upstream not in upstreams:
        yield (*path, "upstream"), f"there is no upstream {section.upstream!r}{suggestion(section.upstream, upstreams)}"
    taken: dict[str, str] = {}
    for name, upstream in section.sni.items():
        if problem := _wrong_with(name):
            yield (*path, "sni", name), problem
        elif name.lower() in taken:
            yield (*path, "sni", name), f"{taken[name.lower()]!r} is the same name: remove one"
        taken.setdefault(name.lower(), name)
        if upstream not in upstreams:
            yield (*path, "sni", name), f"there is no upstream {upstream!r}{suggestion(upstream, upstreams)}"
    if section.half_closed is not None and section.half_closed > section.idle:
        yield (
            (*path, "half_closed"),
            f"`idle` ({format_duration(section.idle)}) comes first: make it longer, or remove half_closed",
        )


def _wrong_with(name: str) -> str:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return f"{name!r} is an address: clients name no server then (RFC 6066 3); name its `upstream` as the default"
    if not _PATTERN.fullmatch(name.lower()):
        return (
            f"{name!r} is no server name: write a name without port (shop.example.org), or *.example.org for all below "
            "it; `upstream` is for all others"
        )
    return ""


def build_tcp(section: TcpSection) -> Tcp:
    """`section`, which has no findings."""
    names = {name.lower(): upstream for name, upstream in section.sni.items()}
    return Tcp(
        section.upstream or "",
        {name: upstream for name, upstream in names.items() if not name.startswith("*.")},
        {name[2:]: upstream for name, upstream in names.items() if name.startswith("*.")},
        section.idle,
        section.half_closed if section.half_closed is not None else section.idle,
        section.hello,
    )
