"""Which answers are compressed, and how: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.yamltree import Path
from l7proxy.core.settings.fields import ONE_OR_SEVERAL, Count

_NAME = r"[a-z0-9][a-z0-9!#$&^_.-]*"
_TYPE = re.compile(rf"{_NAME}/(?:{_NAME}(?:\+{_NAME})?|\*(?:\+{_NAME})?)")
_PACKED = re.compile(
    r"(?:video|audio)/.*|image/(?:png|jpe?g|gif|webp|avif|heic|jxl|\*)|font/woff2?"
    r"|application/(?:zip|gzip|x-gzip|zstd|x-xz|x-bzip2|x-7z-compressed|x-rar-compressed|pdf|\*)"
)
TYPES = (
    "text/*",
    "application/*+json",
    "application/*+xml",
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/x-icon",
)


def _media_type(text: str) -> str:
    text = text.lower()
    if not _TYPE.fullmatch(text):
        raise ValueError(f"{text!r} is not a media type: write one such as text/html, text/* or application/*+json")
    if _PACKED.fullmatch(text):
        raise ValueError(f"{text!r} is compressed already, or may be: name types that gain by it")
    return text


Algorithm = Literal["zstd", "br", "gzip"]


class CompressionSection(Section):
    """`{algorithms: [zstd, br, gzip], minimum_bytes: 1024}`, or `true`"""

    algorithms: Annotated[tuple[Algorithm, ...], ONE_OR_SEVERAL, Field(min_length=1)] = Field(
        ("zstd", "br", "gzip"), description="which are used, the first one first where the client likes several alike"
    )
    types: Annotated[tuple[Annotated[str, AfterValidator(_media_type)], ...], ONE_OR_SEVERAL, Field(min_length=1)] = (
        Field(TYPES, description="media types; text/event-stream only where it is named in full")
    )
    minimum_bytes: Count = Field(1024, description="answers that are known to be shorter are left as they are")
    level: Literal["fast", "balanced", "small"] = Field("balanced", description="how much time it takes for how much")


class Level(Enum):
    """What compressors are told, for gzip, br and zstd."""

    FAST = (1, 1, -1)
    BALANCED = (4, 3, 1)
    SMALL = (6, 5, 3)


@dataclass(frozen=True, slots=True)
class Compression:
    """What that means. `types` are in lower case, as they are written."""

    algorithms: tuple[str, ...] = ("zstd", "br", "gzip")
    types: tuple[str, ...] = TYPES
    minimum_bytes: int = 1024
    level: Level = Level.BALANCED


def compression_findings(section: CompressionSection, path: Path) -> Iterator[Finding]:
    """What is wrong about it."""
    for place, name in enumerate(section.algorithms):
        if name in section.algorithms[:place]:
            yield (*path, "algorithms", place), f"{name} is there already: remove it"


def build_compression(section: CompressionSection) -> Compression:
    """`section`, which has no findings."""
    return Compression(section.algorithms, section.types, section.minimum_bytes, Level[section.level.upper()])
