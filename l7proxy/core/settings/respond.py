"""Answers that a route gives by itself: a fixed one, and one for maintenance: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import Field

from director.kit.configfile import Finding
from director.kit.duration import Duration
from director.kit.yamltree import Path
from l7proxy.core.settings.content import NOTHING, Content, ContentSection, Headers, build_content, content_findings
from l7proxy.core.settings.fields import Networks

_BODILESS = frozenset({204, 205, 304})


class RespondSection(ContentSection):
    """`{status: 200, body: hello}`"""

    status: Annotated[int, Field(strict=True, ge=200, le=599)] = Field(200, description="the answer's status")
    headers: Headers = Field({}, description="headers of the answer")


@dataclass(frozen=True, slots=True)
class Respond:
    """What that means."""

    status: int = 200
    content: Content = NOTHING


def respond_findings(section: RespondSection, path: Path) -> Iterator[Finding]:
    """What is wrong about an answer."""
    yield from content_findings(section, path, section.headers)
    if section.status in _BODILESS and (said := "body" if section.body else "file" if section.file else ""):
        yield (*path, said), f"an answer {section.status} has no body: remove it, or use another status"


def build_respond(section: RespondSection) -> Respond:
    """`section`, which has no findings."""
    return Respond(section.status, build_content(section, "", section.headers))


class MaintenanceSection(ContentSection):
    """`{retry_after: 10m, allow: 10.0.0.0/8}`, or `true`"""

    retry_after: Duration = Field(300.0, description="when clients may try again: Retry-After")
    allow: Networks = Field((), description="networks whose clients are answered as if there were no maintenance")


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What that means."""

    content: Content = NOTHING
    allow: tuple[IPv4Network | IPv6Network, ...] = ()


def maintenance_findings(section: MaintenanceSection, path: Path) -> Iterator[Finding]:
    """What is wrong about a maintenance."""
    yield from content_findings(section, path)


def build_maintenance(section: MaintenanceSection) -> Maintenance:
    """`section`, which has no findings."""
    headers = {"Retry-After": f"{max(1, round(section.retry_after))}", "Cache-Control": "no-store"}
    content = build_content(section, "503 Service Unavailable: under maintenance\n", headers)
    return Maintenance(content, tuple(ip_network(text) for text in section.allow))
