"""What a check is: how it is written in YAML, and the frozen value that a probe runs from.

One rule: a `Check` is complete and hashable: equal checks are one probe, however many servers share it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from director.kit.configfile import Section
from director.kit.duration import Duration, format_duration
from director.kit.net import Endpoint
from director.kit.pattern import compile_pattern

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timing:
    """When to probe, and how many equal results in a row decide.

    `fast_interval_s` holds while a change is suspected.
    """

    interval_s: float = 2.0
    timeout_s: float = 1.0
    fast_interval_s: float = 0.5
    rise: int = 2
    fall: int = 3


_DEFAULT = Timing()


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A TCP connection that is accepted."""

    def __str__(self) -> str:
        return "tcp"


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


Probe = TcpProbe | HttpProbe


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of one target, and its timing."""

    target: Endpoint
    probe: Probe
    timing: Timing = Timing()

    def __str__(self) -> str:
        return f"{self.probe} {self.target}"


Count = Annotated[int, Field(strict=True, ge=1, le=100)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class TimingSection(Section):
    """Keys that every check has. What is not written comes from `defaults.check`, then from `Timing`."""

    interval: Duration | None = Field(None, description="time between two probes; default 2s")
    timeout: Duration | None = Field(None, description="a probe that takes longer has failed; default 1s")
    fast_interval: Duration | None = Field(
        None, description="time between two probes while a change is suspected; default a quarter of interval"
    )
    rise: Count | None = Field(None, description="successes in a row that make a server up; default 2")
    fall: Count | None = Field(None, description="failures in a row that make a server down; default 3")
    port: Port | None = Field(None, description="probe this port; default the server's own")


class TcpCheckSection(TimingSection):
    """`check: {type: tcp}`"""

    type: Literal["tcp"]


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


class HttpCheckSection(TimingSection):
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


CheckSection = Annotated[TcpCheckSection | HttpCheckSection, Field(discriminator="type")]
AnyCheckSection = TcpCheckSection | HttpCheckSection


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


def resolve(section: AnyCheckSection, defaults: Sequence[TimingSection], server: Endpoint) -> Check:
    """The check of `server`: `section`, with the timing it leaves out taken from `defaults`, nearest first."""

    def timing(name: str, otherwise: float) -> float:
        for source in (section, *defaults):
            value = getattr(source, name)
            if value is not None:
                return float(value)
        return otherwise

    interval_s = timing("interval", _DEFAULT.interval_s)
    return Check(
        Endpoint(server.address, section.port or server.port),
        _probe(section),
        Timing(
            interval_s=interval_s,
            timeout_s=timing("timeout", _DEFAULT.timeout_s),
            fast_interval_s=timing("fast_interval", min(interval_s, max(0.05, interval_s / 4))),
            rise=int(timing("rise", _DEFAULT.rise)),
            fall=int(timing("fall", _DEFAULT.fall)),
        ),
    )


def _probe(section: AnyCheckSection) -> Probe:
    if isinstance(section, TcpCheckSection):
        return TcpProbe()
    return HttpProbe(
        tls=section.type == "https",
        verify=section.verify,
        server_name=section.server_name,
        path=section.path,
        host=section.host,
        statuses=tuple(sorted(parse_statuses(item) for item in section.expect.status)),
        body=section.expect.body,
    )


def timing_findings(check: Check) -> Iterable[str]:
    """What cannot work in a check's timing, once defaults are in."""
    timing = check.timing
    if timing.fast_interval_s > timing.interval_s:
        yield (
            f"fast_interval {format_duration(timing.fast_interval_s)} is longer than interval "
            f"{format_duration(timing.interval_s)}: write a shorter fast_interval"
        )
