"""How clients keep their backend: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.duration import Duration
from director.kit.yamltree import Path
from l7proxy.core.settings.balancing import TOKEN, Hashing, KeyKind
from l7proxy.core.settings.fields import FileText, Flag

_DOMAIN = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_PATH = re.compile(r"/[!-:<-~]*")
SHORTEST_KEY_BYTES = 16


class CookieMode(Enum):
    """Who sets the cookie, and what it holds."""

    INSERT = "insert"
    REWRITE = "rewrite"
    PREFIX = "prefix"
    PASSIVE = "passive"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a cookie of ours says of itself. `secure` None is as the client came."""

    domain: str = ""
    path: str = "/"
    secure: bool | None = None
    http_only: bool = True
    same_site: str = ""


@dataclass(frozen=True, slots=True)
class Sticky:
    """Clients keep their backend by `cookie`, or by `hashing` where that is empty.

    `keys` are what `key_file` held: the first makes what clients are told, all are believed. `drain_s`: how long a
    backend of weight 0 keeps its sessions.
    """

    cookie: str = ""
    mode: CookieMode = CookieMode.INSERT
    hashing: Hashing | None = None
    key_file: str = ""
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    plain_names: bool = False
    indirect: bool = True
    maxidle_s: float | None = None
    maxlife_s: float | None = None
    drain_s: float = 3600.0
    attributes: Attributes = Attributes()


def _token(text: str) -> str:
    if not TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a cookie or header: use letters, digits, - and _")
    return text


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f"{text!r} is no domain: write one such as example.org; hosts below it get the cookie too")
    return text


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text!r} is no path of a cookie: begin with /, without blanks and semicolons")
    return text


Token = Annotated[str, AfterValidator(_token)]


class StickySection(Section):
    """`{cookie: SRV, mode: insert}`"""

    cookie: Token | None = Field(None, description="the cookie that says which backend is the client's")
    mode: Literal["insert", "rewrite", "prefix", "passive"] = Field(
        "insert",
        description="insert: l7proxy sets it; rewrite: where the backend sets it, its value becomes l7proxy's; "
        "prefix: the backend's value gets `id~` before it; passive: it is only read",
    )
    source: Flag = Field(False, description="by the client's address instead, by consistent hash")
    header: Token | None = Field(None, description="by this header instead, by consistent hash")
    signed: Flag | None = Field(
        None,
        description="nobody can make such a cookie, or tell names from it, without the key; default: where there is "
        "a `key_file`",
    )
    key_file: FileText | None = Field(
        None, description="its lines are keys: the first one signs, all are believed; the same for all l7proxy"
    )
    plain_names: Flag | None = Field(
        None, description="the cookie holds the backend's name as it is; default: only with `passive`"
    )
    indirect: Flag = Field(True, description="insert: backends do not see the cookie")
    maxidle: Duration | None = Field(None, description="insert: a session ends that was not used for so long")
    maxlife: Duration | None = Field(None, description="insert: a session ends so long after it began")
    drain_sessions: Duration = Field(3600.0, description="how long a backend with weight 0 keeps its sessions")
    domain: Annotated[str, AfterValidator(_domain)] | None = Field(
        None, description="insert: the hosts that get the cookie; default: the one that was asked"
    )
    path: Annotated[str, AfterValidator(_path)] = Field("/", description="insert: below which the cookie is sent")
    secure: Flag | None = Field(None, description="insert: only over https; default: where the client came by https")
    http_only: Flag = Field(True, description="insert: scripts do not see it")
    same_site: Literal["strict", "lax", "none"] | None = Field(
        None, description="insert: whether it is sent where another site leads here; default: as browsers do"
    )


_OF_COOKIES = ("mode", "signed", "key_file", "plain_names", "drain_sessions")
_OF_INSERT = ("indirect", "maxidle", "maxlife", "domain", "path", "secure", "http_only", "same_site")


def sticky_findings(section: StickySection, path: Path) -> Iterator[Finding]:
    """What is wrong across its keys."""
    by = [key for key in ("cookie", "source", "header") if getattr(section, key)]
    if not by:
        yield path, "nothing says whose session it is: name a `cookie`, or say `source: true` or `header: NAME`"
        return
    if len(by) > 1:
        yield (*path, by[1]), f"{by[0]} says whose session it is already: remove one of them"
    said = section.model_fields_set
    if by[0] != "cookie":
        for key in (*_OF_COOKIES, *_OF_INSERT):
            if key in said:
                yield (*path, key), f"{key} is about a cookie, and sessions go by {by[0]}: remove it"
        return
    if section.mode != "insert":
        for key in _OF_INSERT:
            if key in said:
                yield (*path, key), f"{key} is about a cookie that l7proxy sets: remove it, or write mode: insert"
    else:
        yield from _insert_findings(section, path)
    yield from _key_findings(section, path)


def _key_findings(section: StickySection, path: Path) -> Iterator[Finding]:
    if section.signed and section.key_file is None:
        yield (
            (*path, "signed"),
            "there is no key: write `head -c 32 /dev/urandom | base64` into a file, and name it in key_file",
        )
    if section.signed is False and section.key_file is not None:
        yield (*path, "key_file"), "nothing is signed with it: remove it, or write signed: true"
    is_signed = section.key_file is not None
    if section.mode == "passive":
        if is_signed:
            yield (*path, "key_file"), "passive reads names that the application writes, and it has no key: remove it"
        if section.plain_names is False:
            yield (*path, "plain_names"), "passive reads names that the application writes: remove it"
    elif is_signed and section.plain_names:
        yield (*path, "plain_names"), "a signed cookie tells no names: remove plain_names, or key_file"


def _insert_findings(section: StickySection, path: Path) -> Iterator[Finding]:
    if section.same_site == "none" and not section.secure:
        yield (*path, "same_site"), "browsers drop such a cookie unless it is secure: add secure: true"
    if section.maxidle is not None and section.maxlife is not None and section.maxlife < section.maxidle:
        yield (*path, "maxidle"), "no session gets so old, maxlife is less: remove it, or make it less than maxlife"
    name = section.cookie or ""
    if name.startswith(("__Secure-", "__Host-")) and not section.secure:
        yield (*path, "cookie"), f"browsers drop {name} unless it is secure: add secure: true"
    if name.startswith("__Host-") and (section.domain is not None or section.path != "/"):
        yield (*path, "cookie"), f"browsers drop {name} unless it is of one host and path /: remove domain and path"


def build_sticky(section: StickySection) -> Sticky:
    """`section`, which has no findings; `keys` are for who reads files."""
    if section.cookie is None:
        kind = KeyKind.SOURCE if section.source else KeyKind.HEADER
        return Sticky(hashing=Hashing(kind, (section.header or "").lower()))
    mode = CookieMode(section.mode)
    return Sticky(
        section.cookie,
        mode,
        key_file=section.key_file or "",
        plain_names=mode is CookieMode.PASSIVE or bool(section.plain_names),
        indirect=mode is CookieMode.INSERT and section.indirect,
        maxidle_s=section.maxidle,
        maxlife_s=section.maxlife,
        drain_s=section.drain_sessions,
        attributes=Attributes(
            section.domain or "",
            section.path,
            section.secure,
            section.http_only,
            (section.same_site or "").capitalize(),
        ),
    )
