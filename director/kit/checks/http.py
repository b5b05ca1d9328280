"""`check: {type: http}` and `https`: one request, judged by status, headers and body."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from director.kit.checks.base import Tls, TlsSection, is_name
from director.kit.configfile import Section
from director.kit.pattern import compile_pattern

MAX_BODY_BYTES = 64 * 1024
_LARGEST_BODY_BYTES = 16 * 1024 * 1024
_LARGEST_REQUEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A request whose answer has one of `statuses` (inclusive ranges), and headers and a body as they are expected.

    `host` None is the target's address and port. `headers` and `content` are what is sent, `expect_headers` are names
    with patterns, `digest` is "sha256:..." or "md5:..." in lower case. No more than `max_bytes` of a body are read.
    """

    tls: Tls | None = None
    method: str = "GET"
    path: str = "/"
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # they may hold secrets
    content: bytes | None = field(default=None, repr=False)
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    expect_headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    digest: str | None = None
    max_bytes: int = MAX_BODY_BYTES
    redirects: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sent = (self.tls, self.method, self.path, self.host, self.headers, self.content, self.redirects)
        expected = (self.statuses, self.expect_headers, self.body, self.digest, self.max_bytes)
        object.__setattr__(self, "_hash", hash((sent, expected)))

    def __hash__(self) -> int:
        return self._hash  # the key of what is made ready once and used by every probe

    def __str__(self) -> str:
        path, mark, query = self.path.partition("?")
        hidden = mark + "..." if query else mark  # it goes to logs and mails, and may hold a token
        return f"{'https' if self.tls else 'http'} {self.method} {path}{hidden}"


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _status(value: object) -> object:
    parse_statuses(value)
    return value


StatusRange = Annotated[
    str | int, BeforeValidator(_status), Field(description="a status (200) or a range of them (200-299)")
]

_DIGEST_LENGTHS = {"sha256": 64, "md5": 32}  # md5 is what keepalived's genhash prints
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FRAMING = {
    "connection": "how long the connection lasts is the check's to say",
    "keep-alive": "how long the connection lasts is the check's to say",
    "proxy-connection": "how long the connection lasts is the check's to say",
    "content-length": "it follows from `body:`",
    "transfer-encoding": "the length of the body follows from `body:`",
    "trailer": "nothing follows the body",
    "te": "it speaks of the connection, not of the request",
    "upgrade": "a check speaks HTTP/1.1 to the end",
    "expect": "the body is sent at once",
}
"""Headers of one hop and of framing (RFC 9110 7.6.1, 10.1.1), which no operator may write, and why."""


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header: use letters, digits and hyphens")
    return name


def _once(names: list[str]) -> None:
    lower = [name.lower() for name in names]
    for name in names:
        if lower.count(name.lower()) > 1:
            raise ValueError(f"{name!r} stands here twice, in other letters: remove one")


class ExpectSection(Section):
    """What an answer must be like."""

    status: Annotated[
        tuple[StatusRange, ...],
        BeforeValidator(_listed, json_schema_input_type=StatusRange | tuple[StatusRange, ...]),
        Field(min_length=1),
    ] = Field(("200-399",), description="one status, a range, or a list of them")
    headers: Annotated[dict[str, str], Field(max_length=32)] = Field(
        {}, description="names of headers, each with a regular expression (RE2) that its value must match somewhere"
    )
    body: str | None = Field(
        None, description="a regular expression (RE2) that the first `max_bytes` of the body must match somewhere"
    )
    digest: str | None = Field(
        None, description="`sha256:` or `md5:` and the digest of the whole body in hexadecimal digits"
    )

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, pattern in value.items():
            _header_name(name)
            compile_pattern(pattern)
        _once(list(value))
        return value

    @field_validator("body")
    @classmethod
    def _body(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value

    @field_validator("digest")
    @classmethod
    def _digest(cls, value: str | None) -> str | None:
        if value is None:
            return None
        name, _, digits = value.lower().partition(":")
        if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) != _DIGEST_LENGTHS.get(name, 0):
            raise ValueError(
                f"{value!r} is not a digest: write sha256: and 64 hexadecimal digits, or md5: and 32 of them "
                "(`curl URL | sha256sum` prints them)"
            )
        return value.lower()


_HOST_PORT = re.compile(r":[0-9]{1,5}\Z")
_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class HttpCheckSection(TlsSection):
    """`check: {type: http, path: /healthz}`; https is the same over TLS."""

    _without_tls: ClassVar[str] = "use `type: https`"

    type: Literal["http", "https"]
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: str = Field("/", description="path and query to ask for")
    host: str | None = Field(None, description="the Host header; default the server's address and port")
    headers: Annotated[dict[str, str], Field(max_length=64)] = Field({}, description="more headers of the request")
    body: str | None = Field(None, description="what to send with it")
    expect: ExpectSection = ExpectSection()
    max_bytes: Annotated[int, Field(strict=True, ge=1, le=_LARGEST_BODY_BYTES)] = Field(
        MAX_BODY_BYTES,
        description="read no more of a body than this; it is read only where something is expected of it",
    )
    follow_redirects: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        0, description="follow so many redirects, which must lead to the same host; 0: a redirect is an answer"
    )

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or not value.isascii() or any(c <= " " or c in "\x7f#" for c in value):
            raise ValueError(f"{value!r} is not a request path: begin with / and percent-encode spaces and non-ASCII")
        if len(value) > _LARGEST_REQUEST_BYTES:
            raise ValueError("it is longer than 64 KiB: shorten it")
        return value

    @field_validator("host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and not is_name(_HOST_PORT.sub("", value)) and not _BRACKETED.fullmatch(value):
            raise ValueError(f"{value!r} is not a host: write a name or an address, and :port if it needs one")
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            why = _FRAMING.get(_header_name(name).lower())
            if why is not None:
                raise ValueError(f"{name!r} cannot be set: {why}; remove it")
            if name.lower() == "host":
                raise ValueError(f"{name!r} has a key of its own: write `host:`")
            if _CONTROL.search(text):
                raise ValueError(f"the value of {name!r} has control characters, which no header may have: remove them")
        _once(list(value))
        _encoded("headers", "".join(f"{name}: {text}\r\n" for name, text in value.items()))
        return value

    @field_validator("body")
    @classmethod
    def _body(cls, value: str | None) -> str | None:
        if value is not None:
            _encoded("body", value)
        return value

    @model_validator(mode="after")
    def _together(self) -> HttpCheckSection:
        if self.body is not None and self.method in {"GET", "HEAD", "OPTIONS"}:
            raise ValueError(f"body is not sent with {self.method}: add `method: POST`, or remove the body")
        if self.method == "HEAD" and (self.expect.body is not None or self.expect.digest is not None):
            raise ValueError("an answer to HEAD has no body: use `method: GET`, or expect nothing of the body")
        return self

    def speaks_tls(self) -> bool:
        return self.type == "https"

    def probe(self) -> HttpProbe:
        return HttpProbe(
            tls=self.tls_of(_name_of(self.host), ("http/1.1",)),
            method=self.method,
            path=self.path,
            host=self.host,
            headers=tuple(self.headers.items()),
            content=None if self.body is None else self.body.encode(),
            statuses=tuple(sorted(parse_statuses(item) for item in self.expect.status)),
            expect_headers=tuple(sorted((name.lower(), pattern) for name, pattern in self.expect.headers.items())),
            body=self.expect.body,
            digest=self.expect.digest,
            max_bytes=self.max_bytes,
            redirects=self.follow_redirects,
        )


def _name_of(host: str | None) -> str | None:
    """What a Host header names, without its port.

    >>> _name_of("a.example:81"), _name_of("[2001:db8::1]:81")
    ('a.example', '2001:db8::1')
    """
    if host is None:
        return None
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _encoded(what: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} cannot be sent as UTF-8: remove what is half a character") from None
    if size > _LARGEST_REQUEST_BYTES:
        raise ValueError(f"{what} of {size} bytes are too large to be sent by a check: send at most 64 KiB")


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
