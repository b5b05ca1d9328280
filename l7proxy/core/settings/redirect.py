"""An answer that sends the client elsewhere: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from director.kit.configfile import Finding, Section
from director.kit.yamltree import Path
from l7proxy.core.settings.fields import Flag
from l7proxy.core.template import Place, Template, compile_template

_SCHEME = re.compile(r"(?:https?|\{scheme\})://")
_PART = re.compile(r"\{\{|\}\}|\{[^{}]*\}|.", re.DOTALL)
_PATHS = frozenset({"{path}", "{uri}"})
_LOCAL = ("/", *_PATHS)


class RedirectSection(Section):
    """`{to: "https://{host}{path}", status: 308}`"""

    to: str = Field(
        description="where: a URL, or a path on the same host; variables in braces stand for parts of the request"
    )
    status: Literal[301, 302, 303, 307, 308] = Field(
        302, description="301 and 308 are kept by browsers for good; 307 and 308 keep method and body, 303 makes it GET"
    )
    keep_query: Flag = Field(
        True, description="the query goes along, unless `to` has one of its own or names {query} or {uri}"
    )


@dataclass(frozen=True, slots=True)
class Redirect:
    """What that means: `start` is the scheme and `authority` the host and port, of a URL; `rest` is all else."""

    start: Template
    authority: Template
    rest: Template
    status: int = 302
    keep_query: bool = True


def redirect_findings(section: RedirectSection, path: Path, captures: Collection[str]) -> Iterator[Finding]:
    """What is wrong about it; `captures` are the groups of the route's path."""
    text = section.to
    if not _SCHEME.match(text) and not text.startswith(_LOCAL):
        yield (*path, "to"), f"{text!r} is neither a URL nor a path: begin with https://, http:// or /"
        return
    if text in _PATHS:
        yield (*path, "to"), f"{text!r} leads back to where the client comes from: change something in it"
        return
    if text.startswith("//"):
        yield (*path, "to"), f"{text!r} leads to another host: write its scheme, such as https:{text}"
        return
    try:
        build_redirect(section, captures)
    except ValueError as error:
        yield (*path, "to"), str(error)
        return
    if _SCHEME.match(text) and not _split(text)[1]:
        yield (*path, "to"), f"{text!r} names no host: write one, or {{host}}"


def leads_back(section: RedirectSection, scheme: str) -> bool:
    """Whether it leads who asks by `scheme` to where that came from: the same host, port, and path.

    >>> leads_back(RedirectSection(to="https://{host}{uri}"), "https")
    True
    """
    start, authority, rest = _split(section.to)
    return start in {f"{scheme}://", "{scheme}://"} and authority in {"{host}", "{host}:{port}"} and rest in _PATHS


def build_redirect(section: RedirectSection, captures: Collection[str]) -> Redirect:
    """`section`, which has no findings."""
    start, authority, rest = (compile_template(part, captures, Place.URL) for part in _split(section.to))
    keeps = section.keep_query and "?" not in section.to and not {"query", "uri"} & set(rest.names)
    return Redirect(start, authority, rest, section.status, keeps)


def _split(text: str) -> tuple[str, str, str]:
    """A URL's beginning, its authority, and the rest; of a path the first two are empty.

    >>> _split("https://{host}:8443{path}?a"), _split("/x")
    (('https://', '{host}:8443', '{path}?a'), ('', '', '/x'))
    """
    found = _SCHEME.match(text)
    if found is None:
        return "", "", text
    for part in _PART.finditer(text, found.end()):
        if part[0] in {"/", "?", "#", *_PATHS}:
            return found[0], text[found.end() : part.start()], text[part.start() :]
    return found[0], text[found.end() :], ""
