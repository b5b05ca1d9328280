"""What an answer of the proxy's own says: the keys that all such answers have, and what they mean.

One rule: what has no findings can be built. A file's content is not known here: who reads files fills it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.yamltree import Path
from l7proxy.core.settings.fields import FileText, header_name, header_value

LARGEST_BYTES = 1 << 20
"""Of a body: it is held in memory, by every worker."""
_TYPES = {
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "htm": "text/html; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "pem": "application/x-pem-file",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "xml": "application/xml",
}
_OWN = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "proxy-status",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that follow from the rest of an answer."""


def _type(text: str) -> str:
    if "/" not in text:
        raise ValueError(f"{text!r} is not a media type: write one such as text/html; charset=utf-8")
    return header_value(text)


Type = Annotated[str, AfterValidator(_type)]


class ContentSection(Section):
    """`{body: "soon back", type: text/plain}`"""

    body: Annotated[str, Field(max_length=LARGEST_BYTES // 4)] | None = Field(
        None, description="what the answer says, as it stands here"
    )
    file: FileText | None = Field(
        None, description="a file that holds what it says, at most 1 MiB; read at the start and on a reload"
    )
    type: Type | None = Field(
        None, description="its Content-Type; default: by the file's name, or text/plain; charset=utf-8"
    )


Headers = dict[Annotated[str, AfterValidator(header_name)], Annotated[str, AfterValidator(header_value)]]


@dataclass(frozen=True, slots=True)
class Content:
    """An answer's body, and the header lines that go with it, each with its line end. A `file` that is not empty
    holds the body."""

    fields: bytes = b""
    body: bytes = field(default=b"", repr=False)
    file: str = ""


NOTHING = Content()


def content_findings(
    section: ContentSection, path: Path, headers: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """What is wrong about a content."""
    if section.body is not None and section.file is not None:
        yield (*path, "file"), "the answer has a `body` already: remove one of them"
    for name in headers or ():
        if name.lower() in _OWN:
            remedy = "say it with `type`" if name.lower() == "content-type" else "remove it"
            yield (*path, "headers", name), f"{name} follows from the rest of the answer: {remedy}"


def build_content(section: ContentSection, default: str = "", headers: Mapping[str, str] | None = None) -> Content:
    """`section`, which has no findings; `default` is the body where it says none."""
    body = (section.body if section.body is not None else "" if section.file else default).encode()
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or section.file or section.type:
        lines.insert(0, f"Content-Type: {section.type or _type_of(section.file)}")
    return Content("".join(line + "\r\n" for line in lines).encode(), body, section.file or "")


def _type_of(file: str | None) -> str:
    if file is None:
        return "text/plain; charset=utf-8"
    return _TYPES.get(PurePath(file).suffix[1:].lower(), "application/octet-stream")
