"""Which requests a route takes: the keys, and what they mean.

One rule: what is left out matches anything, and conditions that mean the same are equal: names and lists in one order,
names of headers and types in lower case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.pattern import compile_pattern
from l7proxy.core.settings.fields import ONE_OR_SEVERAL, Networks


def _quoted(value: object) -> object:
    if isinstance(value, bool | int | float) or value is None:
        raise ValueError('not a text: write it in quotes, such as "1"; "*" is any value, "!" is none')
    return value


Wanted = Annotated[dict[str, Annotated[str, BeforeValidator(_quoted)]], Field(min_length=1)]


class MatchSection(Section):
    """Which requests a route takes; what is left out matches anything."""

    host: Annotated[tuple[str, ...], ONE_OR_SEVERAL, Field(min_length=1)] = Field(
        (), description="a name, *.example.org, or a list of them"
    )
    path: str = Field("/", description="/prefix by whole segments, `= /exact`, or `~ regular expression`")
    method: Annotated[tuple[str, ...], ONE_OR_SEVERAL, Field(min_length=1)] = Field(
        (), description="a method, or a list of them; GET alone is without HEAD"
    )
    header: Wanted = Field(
        {},
        description='by name: the value that it must have, "*" for any, "~ regular expression", or "!" where it must '
        "not be there",
    )
    query: Wanted = Field({}, description="the same for entries of the query, decoded")
    cookie: Wanted = Field({}, description="the same for cookies")
    client: Annotated[Networks, Field(min_length=1)] = Field(
        (), description="networks that the client is in, as far as trusted proxies vouch for its address"
    )
    type: Annotated[tuple[str, ...], ONE_OR_SEVERAL, Field(min_length=1)] = Field(
        (),
        description="what is asked for: an extension of the path (jpg), or a media type that Accept names (image/png, "
        "image/*); one of the list is enough",
    )


class Want(Enum):
    """What a header, an entry of the query or a cookie must be."""

    EQUAL = "="
    PRESENT = "*"
    MATCHING = "~"
    ABSENT = "!"


@dataclass(frozen=True, slots=True)
class Wish:
    """One of them. `text` is the value or the regular expression."""

    name: str
    want: Want
    text: str = ""

    def said(self, where: str) -> str:
        """In short, such as `header.x-tier=gold`.

        >>> Wish("x-tier", Want.EQUAL, "gold").said("header"), Wish("a", Want.ABSENT).said("cookie")
        ('header.x-tier=gold', '!cookie.a')
        """
        name = f"{where}.{_plain(self.name)}"
        match self.want:
            case Want.PRESENT:
                return name
            case Want.ABSENT:
                return "!" + name
            case Want.EQUAL | Want.MATCHING:
                return f"{name}{self.want.value}{_plain(self.text)}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request must have beyond its host and path; an empty part asks for nothing."""

    methods: tuple[str, ...] = ()
    headers: tuple[Wish, ...] = ()
    cookies: tuple[Wish, ...] = ()
    queries: tuple[Wish, ...] = ()
    clients: tuple[IPv4Network | IPv6Network, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int, int, int, int]:
        """How many of each kind, in the order in which kinds decide."""
        return (
            bool(self.methods),
            len(self.headers),
            len(self.cookies),
            len(self.queries),
            bool(self.clients),
            bool(self.types),
        )

    @property
    def rank(self) -> tuple[int, tuple[int, ...], str]:
        """What orders routes of one host and one path: the lowest is asked first."""
        return -sum(self.counts), tuple(-count for count in self.counts), str(self)

    def __str__(self) -> str:
        """All of them in short; others have another text."""
        return " ".join(
            [
                *(["|".join(self.methods)] if self.methods else []),
                *(wish.said("header") for wish in self.headers),
                *(wish.said("cookie") for wish in self.cookies),
                *(wish.said("query") for wish in self.queries),
                *(["client=" + ",".join(map(str, self.clients))] if self.clients else []),
                *(["type=" + ",".join(self.types)] if self.types else []),
            ]
        )


NO_CONDITIONS = Conditions()

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN = re.compile(r"[!-~]+")
_EXTENSION = re.compile(r"[A-Za-z0-9_+-]+")
_MEDIA_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+)/(\*|[A-Za-z0-9!#$&^_.+-]+)")
_NEVER_ROUTED = {"CONNECT", "TRACE"}
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "http2-settings"),
    *("proxy-authenticate", "proxy-authorization", "proxy-authentication-info"),
}


def _plain(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and '"' not in text else json.dumps(text)


def build_conditions(section: MatchSection) -> Conditions:
    """`section`, which has no findings."""
    if section.model_fields_set <= {"host", "path"}:
        return NO_CONDITIONS
    return Conditions(
        tuple(sorted(set(section.method))),
        _wishes({name.lower(): text for name, text in section.header.items()}),
        _wishes(section.cookie),
        _wishes(section.query),
        tuple(sorted({ip_network(text) for text in section.client}, key=lambda net: (net.version, net))),
        tuple(sorted({text.lower() for text in section.type})),
    )


def _wishes(wanted: Mapping[str, str]) -> tuple[Wish, ...]:
    return tuple(read_wish(name, wanted[name]) for name in sorted(wanted))


def read_wish(name: str, text: str) -> Wish:
    """What `text` wants of `name`.

    Raises: ValueError.
    """
    if text == Want.PRESENT.value:
        return Wish(name, Want.PRESENT)
    if text.startswith("!"):
        if text != "!":
            raise ValueError(
                f"{text!r}: `!` alone is for what must not be there, and there is none for any other value: write "
                f"the wanted one here, and leave the rest to a route without it (the very text is `~ ^\\Q{text}\\E$`)"
            )
        return Wish(name, Want.ABSENT)
    if text.startswith("~"):
        pattern = text[1:].strip()
        if not pattern:
            raise ValueError('`~` without a regular expression: write one, or "*" for any value')
        compile_pattern(pattern)
        return Wish(name, Want.MATCHING, pattern)
    if text != text.strip(" \t") or not text.isprintable():
        raise ValueError(f"{text!r} can never match: values come without blanks around them and without line breaks")
    return Wish(name, Want.EQUAL, text)


Place = tuple[str | int, ...]


def match_findings(section: MatchSection, path: Place, drop_underscores: bool = True) -> Iterator[Finding]:
    """What is wrong with the conditions of a match, at `path`."""
    for place, method in enumerate(section.method):
        if message := _of_method(method):
            yield (*path, "method", place), message
    lowered: dict[str, str] = {}
    for name, text in section.header.items():
        here = (*path, "header", name)
        first = lowered.setdefault(name.lower(), name)
        if first != name:
            yield here, f"{first} is the same header: remove one of them"
        if message := _of_header(name, drop_underscores):
            yield here, message
        yield from _of_wish(name, text, here)
    for name, text in section.cookie.items():
        here = (*path, "cookie", name)
        if not _TOKEN.fullmatch(name):
            yield here, f"{name!r} is not the name of a cookie (RFC 6265 4.1.1)"
        elif ";" in text and not text.startswith("~"):
            yield here, f"{text!r} can never match: a `;` ends a cookie"
        yield from _of_wish(name, text, here)
    for name, text in section.query.items():
        if not name:
            yield (*path, "query", name), "an entry without a name can never match: name it"
        yield from _of_wish(name, text, (*path, "query", name))
    for place, text in enumerate(section.type):
        if message := _of_type(text):
            yield (*path, "type", place), message
    yield from _contradictions(section, path)


def _of_wish(name: str, text: str, here: Place) -> Iterator[Finding]:
    try:
        read_wish(name, text)
    except ValueError as error:
        yield here, str(error)


def _of_method(method: str) -> str:
    if not _TOKEN.fullmatch(method):
        return f"{method!r} is not a method: write one such as GET"
    if method in _NEVER_ROUTED:
        return f"{method} can never match: it is answered 405 before any route"
    if method != method.upper():
        return f"{method!r} can never match what clients send: write {method.upper()}"
    return ""


def _of_header(name: str, drop_underscores: bool) -> str:
    lower = name.lower()
    plain = lower.replace("_", "-")
    if not _TOKEN.fullmatch(name):
        return f"{name!r} is not the name of a header"
    if plain.startswith("x-forwarded-") or plain in {"forwarded", "x-real-ip"}:
        return f"{name} is a claim that routes do not see, as any client can make it: use `client`, or another header"
    if lower in _HOP_BY_HOP:
        return f"{name} is about one connection only, and routes do not see it: use another header"
    if "_" in name and drop_underscores:
        return f"{name} is dropped, as CGI takes `_` for `-`: write {name.replace('_', '-')}, or `underscores: forward`"
    return ""


def _of_type(text: str) -> str:
    if text == "*/*":
        return "*/* asks for nothing by name, so it can never match: leave `type` out"
    if _EXTENSION.fullmatch(text) or _MEDIA_TYPE.fullmatch(text):
        return ""
    hint = f": write {text[1:]}" if _EXTENSION.fullmatch(text[1:]) and text[0] == "." else ""
    if not hint and text.startswith("*.") and _EXTENSION.fullmatch(text[2:]):
        hint = f": write {text[2:]}"
    return f"{text!r} is neither an extension (jpg) nor a media type (image/png, image/*){hint}"


def _contradictions(section: MatchSection, path: Place) -> Iterator[Finding]:
    """Conditions of which no request has both."""
    headers = {name.lower(): (name, text) for name, text in section.header.items()}
    if headers.get("cookie", ("", ""))[1] == "!":
        for name, text in section.cookie.items():
            if text != "!":
                yield (*path, "cookie", name), "can never match: header.Cookie must not be there; remove one of them"
    types: Sequence[str] = section.type
    if types and headers.get("accept", ("", ""))[1] == "!" and all("/" in text for text in types):
        yield (*path, "type"), "can never match: header.Accept must not be there; remove one of them"
    exact = section.path.removeprefix("=").strip() if section.path.startswith("=") else ""
    if exact and types and not any("/" in text for text in types):
        found = extension_of(exact)
        if found not in {text.lower() for text in types}:
            yield (
                (*path, "type"),
                f"can never match: the path has the extension {found!r}"
                if found
                else ("can never match: the path has no extension"),
            )


def extension_of(path: str) -> str:
    """What stands behind the last dot of a path's last segment, in lower case; empty where there is no dot.

    >>> extension_of("/a.b/photo.JPG"), extension_of("/a.b/c")
    ('jpg', '')
    """
    return path[path.rfind("/") + 1 :].rpartition(".")[2].lower() if "." in path[path.rfind("/") + 1 :] else ""
