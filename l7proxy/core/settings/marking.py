"""Headers that are set, added, removed and renamed, on requests and on answers: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pydantic import Field

from director.kit.configfile import Finding, Section
from l7proxy.core.head import HOP_BY_HOP
from l7proxy.core.settings.fields import Flag
from l7proxy.core.settings.rewrite import Key, Names, Texts
from l7proxy.core.template import Template, compile_template

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FRAMING = frozenset({*HOP_BY_HOP, b"content-length", b"host", b"via", b"date", b"expect"})
"""No rule touches them: `remove` with a * passes them by."""


class HeaderRulesSection(Section):
    """`{set: {X-Tier: "l7 {client}"}, remove: [X-Debug, "X-Internal-*"]}`; rules see what came, not each other."""

    set: Texts = Field(
        {}, description="headers that are there once, with this value; where it turns out empty, not at all"
    )
    add: Texts = Field({}, description="headers that are added, whatever is there")
    remove: Names = Field((), description="headers that are taken away; with * at the end all that begin so")
    rename: dict[str, str] = Field({}, description="headers that get another name, and replace those that have it")


class RequestIdSection(Section):
    """`{header: X-Correlation-ID}`"""

    header: str = Field("X-Request-ID", description="the header that brings it, from trusted proxies, and takes it on")


class TraceparentSection(Section):
    """`{sampled: false}`"""

    sampled: Flag = Field(True, description="whether traces that begin here are flagged as sampled")


class MarkingSection(Section):
    """`{request: {set: {X-Tier: l7}}, response: {remove: [Server]}}`"""

    request: HeaderRulesSection | None = Field(None, description="what is changed on the way to a backend")
    response: HeaderRulesSection | None = Field(
        None, description="what is changed on every answer of this route, also on those of the proxy's own"
    )
    forwarded: Literal["x-forwarded", "rfc7239", "both", "none"] = Field(
        "x-forwarded",
        description="how a backend is told who asks: X-Forwarded-*, Forwarded (RFC 7239), both, or not at all",
    )
    request_id: Flag | RequestIdSection = Field(
        False,
        description="each request has an id, in a header to the backend and to the client, and in the log: as trusted "
        "proxies say it, else made anew",
    )
    traceparent: Flag | TraceparentSection = Field(
        False, description="W3C Trace Context: what came goes on with a parent-id of ours, else a trace begins here"
    )


class Forwarding(Enum):
    """How a backend is told who asks."""

    X_FORWARDED = "x-forwarded"
    RFC7239 = "rfc7239"
    BOTH = "both"
    NONE = "none"


Lines = tuple[tuple[str, Template], ...]


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """Names are as they are written."""

    sets: Lines = ()
    adds: Lines = ()
    removes: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Marking:
    """What that means. `request_id` is the header that brings it; None where requests get none. `traceparent` is
    whether new traces are sampled; None where there are none."""

    request: HeaderRules = HeaderRules()
    response: HeaderRules = HeaderRules()
    forwarded: Forwarding = Forwarding.X_FORWARDED
    request_id: str | None = None
    traceparent: bool | None = None


def marking_findings(section: MarkingSection, key: Key, groups: Collection[str] | None) -> Iterator[Finding]:
    """What is wrong; `key` is where the section stands, `groups` are those of the route's path, None where nobody can
    tell."""
    taken = {}
    if isinstance(section.request_id, RequestIdSection):
        name = section.request_id.header
        if message := _of_name(name, late=False):
            yield (*key, "request_id", "header"), message
    if section.request_id:
        taken[_request_id(section) or ""] = "request_id"
    if section.traceparent:
        taken["traceparent"] = "traceparent"
    for part, rules in (("request", section.request), ("response", section.response)):
        if rules is not None:
            late = part == "response"
            others = {name.lower(): by for name, by in taken.items() if not late or by == "request_id"}
            yield from _rule_findings(rules, (*key, part), groups, others, late=late)


def _rule_findings(
    rules: HeaderRulesSection, key: Key, groups: Collection[str] | None, taken: dict[str, str], *, late: bool
) -> Iterator[Finding]:
    said: dict[str, str] = dict(taken)

    def once(name: str, by: str) -> str:
        before = said.setdefault(name.lower(), by)
        return f"`{before}` says already what becomes of {name}: remove one of them" if before != by else ""

    for kind, texts in (("set", rules.set), ("add", rules.add)):
        seen: set[str] = set()
        for name, text in texts.items():
            here = (*key, kind, name)
            if message := _of_name(name, late=late):
                yield here, message
            elif name.lower() in seen:
                yield here, "names the same header twice, as case does not count: remove one of them"
            elif message := once(name, kind):
                yield here, message
            seen.add(name.lower())
            if groups is not None:
                try:
                    compile_template(text, groups, late=late)
                except ValueError as error:
                    yield here, str(error)
    for old, new in rules.rename.items():
        here = (*key, "rename", old)
        if message := _of_name(old, late=late) or _of_name(new, late=late):
            yield here, message
        elif old.lower() == new.lower():
            yield here, "is the same header, as case does not count: remove it"
        elif message := once(old, f"rename {old}") or once(new, f"rename {old}"):
            yield here, message
    for place, name in enumerate(rules.remove):
        here = (*key, "remove", place)
        plain = name.removesuffix("*")
        if not plain or (plain != name and not _TOKEN.fullmatch(plain.rstrip("*"))):
            yield here, f"{name!r} is not a name: write one, or the begin of one and * at its end, such as X-Internal-*"
        elif plain == name and (message := _of_name(name, late=late)):
            yield here, message
        elif not late and name.lower().startswith("x-forwarded-"):
            yield (
                here,
                "clients' own never go on, and what is told in their place is up to `forwarded`: write none there",
            )
        elif plain == name and (message := once(name, "remove")):
            yield here, message


def _of_name(name: str, *, late: bool) -> str:
    """Why no rule may touch a header; empty where it may."""
    lower = name.lower().encode("utf-8", "replace")
    if not _TOKEN.fullmatch(name):
        return f"{name!r} is not the name of a header: use letters, digits and `-`"
    if "*" in name:
        return f"{name!r}: only `remove` takes a *, at the end of a name"
    if lower == b"host":
        return "Host is changed by `rewrite.host`" if not late else "Host is no header of answers: remove it"
    if lower in {b"content-length", b"transfer-encoding"}:
        return f"{name} says where a body ends: only l7proxy itself writes it"
    if lower == b"via":
        return "Via is up to `via` at the top of the file"
    if lower == b"date" and late:
        return "Date is the backend's, or made where it has none (RFC 9110 6.6.1): remove this"
    if lower in HOP_BY_HOP or lower == b"expect":
        return f"{name} is about one connection (RFC 9110 7.6.1): only l7proxy itself writes it"
    return ""


def _request_id(section: MarkingSection) -> str | None:
    if isinstance(section.request_id, RequestIdSection):
        return section.request_id.header
    return "X-Request-ID" if section.request_id else None


def build_marking(section: MarkingSection, groups: Collection[str] = ()) -> Marking:
    """`section`, which has no findings; `groups` are those of the route's path."""
    trace = section.traceparent
    return Marking(
        _rules(section.request, groups, late=False),
        _rules(section.response, groups, late=True),
        Forwarding(section.forwarded),
        _request_id(section),
        trace.sampled if isinstance(trace, TraceparentSection) else trace or None,
    )


def _rules(section: HeaderRulesSection | None, groups: Collection[str], *, late: bool) -> HeaderRules:
    if section is None:
        return HeaderRules()
    return HeaderRules(
        tuple((name, compile_template(text, groups, late=late)) for name, text in section.set.items()),
        tuple((name, compile_template(text, groups, late=late)) for name, text in section.add.items()),
        section.remove,
        tuple(section.rename.items()),
    )
