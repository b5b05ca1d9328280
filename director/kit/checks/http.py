"""`check: {type: http}` and `https`: one request, judged by status and body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from director.kit.checks.base import StreamSection
from director.kit.configfile import Section
from director.kit.pattern import compile_pattern

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A GET whose answer has one of `statuses` (inclusive ranges) and, where `body` is set, a body it matches.

    `server_name` is the TLS name to ask for and to verify; None means the `host`, or the address itself.
    """

    tls: bool = False
    verify: bool = True
    server_name: str | None = None
    path: str = "/"
    host: str | None = None
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    body: str | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'} GET {self.path}"


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _status(value: object) -> object:
    parse_statuses(value)
    return value


StatusRange = Annotated[
    str | int, BeforeValidator(_status), Field(description="a status (200) or a range of them (200-299)")
]


class ExpectSection(Section):
    """What an answer must be like."""

    status: Annotated[tuple[StatusRange, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        ("200-399",), description="one status, a range, or a list of them"
    )
    body: str | None = Field(
        None, description="a regular expression (RE2) that the first 64 KiB of the body must match somewhere"
    )

    @field_validator("body")
    @classmethod
    def _body(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value


_HOST_PORT = re.compile(r":[0-9]{1,5}\Z")
_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def is_name(text: str) -> bool:
    """Whether `text` is a host name or an IPv4 address (RFC 1123 2.1; underscores are tolerated).

    >>> is_name("www.example.org"), is_name("a..b"), is_name("a:80")
    (True, False, False)
    """
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


class HttpCheckSection(StreamSection):
    """`check: {type: http, path: /healthz}`; redirects are not followed."""

    type: Literal["http", "https"]
    path: str = Field("/", description="path and query to GET")
    host: str | None = Field(None, description="the Host header; default the server's address and port")
    expect: ExpectSection = ExpectSection()
    server_name: str | None = Field(None, description="https: the name to ask for and to verify (SNI)")
    verify: bool = Field(True, strict=True, description="https: verify the certificate; default true")

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or not value.isascii() or any(c <= " " or c in "\x7f#" for c in value):
            raise ValueError(f"{value!r} is not a request path: begin with / and percent-encode spaces and non-ASCII")
        return value

    @field_validator("host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and not is_name(_HOST_PORT.sub("", value)) and not _BRACKETED.fullmatch(value):
            raise ValueError(f"{value!r} is not a host: write a name or an address, and :port if it needs one")
        return value

    @field_validator("server_name")
    @classmethod
    def _server_name(cls, value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise ValueError(f"{value!r} is not a host name: use letters, digits, dots and hyphens, and no port")
        return value

    @model_validator(mode="after")
    def _tls_keys(self) -> HttpCheckSection:
        if self.type == "http" and self.model_fields_set & {"server_name", "verify"}:
            raise ValueError("server_name and verify belong to TLS: use `type: https`, or remove them")
        return self

    def probe(self) -> HttpProbe:
        return HttpProbe(
            tls=self.type == "https",
            verify=self.verify,
            server_name=self.server_name,
            path=self.path,
            host=self.host,
            statuses=tuple(sorted(parse_statuses(item) for item in self.expect.status)),
            body=self.expect.body,
        )


def parse_statuses(item: object) -> tuple[int, int]:
    """The inclusive range that `200` or `200-299` means.

    Raises: ValueError.

    >>> parse_statuses("200-299"), parse_statuses(204)
    ((200, 299), (204, 204))
    """
    match = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", str(item))
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise ValueError(f"{item!r} is not a status: write one such as 200, or a range such as 200-299")
    return int(match[1]), int(match[2] or match[1])
