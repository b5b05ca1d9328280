"""What is answered where no backend can: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from director.kit.configfile import Finding
from director.kit.duration import Duration
from director.kit.yamltree import Path
from l7proxy.core.settings.content import NOTHING, Content, ContentSection, build_content, content_findings


class SorrySection(ContentSection):
    """`{status: 503, file: /etc/l7proxy/sorry.html}`"""

    status: Annotated[int, Field(strict=True, ge=200, le=599)] = Field(503, description="the answer's status")
    retry_after: Duration = Field(5.0, description="when clients may try again: Retry-After, with 429 and 503")


@dataclass(frozen=True, slots=True)
class Sorry:
    """What that means."""

    status: int = 503
    content: Content = NOTHING


def sorry_findings(section: SorrySection, path: Path) -> Iterator[Finding]:
    """What is wrong about it."""
    yield from content_findings(section, path)
    if section.body is None and section.file is None:
        yield path, "there is nothing to say: give it a `body` or a `file`, or remove it"


def build_sorry(section: SorrySection) -> Sorry:
    """`section`, which has no findings."""
    headers = {"Cache-Control": "no-store"}
    if section.status in {429, 503}:
        headers["Retry-After"] = f"{max(1, round(section.retry_after))}"
    return Sorry(section.status, build_content(section, "", headers))
