"""What makes clients come by TLS: the redirect of plain HTTP, and Strict-Transport-Security.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from director.kit.configfile import Finding, Section
from l7proxy.core.settings.fields import Flag, no_truth_value

YEAR_S = 365 * 86400
_AGE = re.compile(r"([0-9]{1,9})(s|m|h|d|y)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": YEAR_S}
LONGEST_AGE_S = 10 * YEAR_S


def _age(value: object) -> int:
    match = _AGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not an age: write a whole number and s, m, h, d or y, for example 1y")
    age_s = int(match[1]) * _UNIT_S[match[2]]
    if age_s > LONGEST_AGE_S:
        raise ValueError(f"{value!r} is too long: use at most 10y")
    return age_s


Age = Annotated[
    int,
    BeforeValidator(_age),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(s|m|h|d|y)$", "examples": ["1y", "30d"]}),
]
"""Whole seconds."""


class HstsSection(Section):
    """`{max_age: 1y, include_subdomains: true}`"""

    max_age: Age = Field(
        YEAR_S,
        json_schema_extra={"default": "1y"},
        description="how long browsers come by TLS alone; 0s makes them forget",
    )
    include_subdomains: Flag = Field(False, description="so do they for every name below")
    preload: Flag = Field(False, description="it may be built into browsers (hstspreload.org)")


class ToHttpsSection(Section):
    """`{port: 8443, status: 308}`"""

    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(443, description="where TLS is spoken")
    status: Literal[301, 302, 307, 308] = Field(308, description="308 and 307 keep method and body, 308 is for good")


def _section_of_true(value: object) -> object:
    """`true` is the section with its defaults, `false` is none."""
    if value is True:
        return {}
    no_truth_value(value)
    return None if value is False else value


ToHttpsValue = Annotated[
    ToHttpsSection | None, BeforeValidator(_section_of_true, json_schema_input_type=bool | ToHttpsSection | None)
]


@dataclass(frozen=True, slots=True)
class ToHttps:
    """Plain HTTP is sent to the same place by TLS."""

    port: int = 443
    status: int = 308


def build_to_https(section: ToHttpsSection) -> ToHttps:
    """`section`, which has no findings."""
    return ToHttps(section.port, section.status)


def hsts_line(section: HstsSection) -> bytes:
    """The header line (RFC 6797 6.1).

    >>> hsts_line(HstsSection(include_subdomains=True))
    b'Strict-Transport-Security: max-age=31536000; includeSubDomains\\r\\n'
    """
    parts = [f"max-age={section.max_age}"]
    if section.include_subdomains:
        parts.append("includeSubDomains")
    if section.preload:
        parts.append("preload")
    return f"Strict-Transport-Security: {'; '.join(parts)}\r\n".encode("ascii")


def https_findings(
    to_https: ToHttpsSection | None, hsts: HstsSection | None, *, has_tls: bool, path: tuple[str | int, ...]
) -> Iterator[Finding]:
    """What is wrong about a listener's redirect and header."""
    if to_https is not None and has_tls:
        yield (*path, "redirect_to_https"), "clients speak TLS here already: say it where they speak plain HTTP"
    if hsts is None:
        return
    if not has_tls:
        yield (*path, "hsts"), "browsers believe it over TLS alone: say it on the listener with `tls`"
    if hsts.preload and not hsts.include_subdomains:
        yield (*path, "hsts", "preload"), "lists of browsers take it with `include_subdomains: true` alone: say both"
    if hsts.preload and hsts.max_age < YEAR_S:
        yield (*path, "hsts", "preload"), "lists of browsers take it with a `max_age` of 1y or more: raise that"


def redirected(host: str, origin_form: bytes, to: ToHttps) -> bytes:
    """Where a request is sent: the same host and target, at the port of `to`.

    >>> redirected("[2001:db8::1]", b"/a?b", ToHttps(8443)), redirected("a.example", b"*", ToHttps())
    (b'https://[2001:db8::1]:8443/a?b', b'https://a.example/')
    """
    port = b"" if to.port == 443 else b":%d" % to.port
    return b"https://%b%b%b" % (host.encode("ascii"), port, origin_form if origin_form[:1] == b"/" else b"/")
