"""What every check has, whatever its type: when it probes, how many results decide, and how its packets leave.

One rule: values here are complete and hashable; what YAML leaves out is filled in by `resolve` in `check.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from director.kit.configfile import Section
from director.kit.duration import Duration, parse_duration
from director.kit.net import IPAddress, parse_unicast
from director.kit.shown import shown


@dataclass(frozen=True, slots=True)
class Flapping:
    """When a server changes too often: `changes` within `within_s`, and then it must be good for `hold_s` to be up."""

    changes: int
    within_s: float
    hold_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """When to probe, and how many equal results in a row decide.

    `fast_interval_s` holds while a change is suspected. `jitter` is the share of the interval by which a probe may
    come sooner or later. `flapping` None: changes are never held back.
    """

    interval_s: float = 2.0
    timeout_s: float = 1.0
    fast_interval_s: float = 0.5
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    flapping: Flapping | None = None


def worst_case_s(timing: Timing, failing_s: float | None = None) -> tuple[float, float]:
    """The longest times from a failure to the verdict "down", and from a recovery to "up".

    `failing_s` is how long a probe takes at most that fails; None: its timeout.

    It happens right after a probe, and every probe takes its whole timeout: a server that refuses is found sooner.

    >>> worst_case_s(Timing(interval_s=2.0, timeout_s=1.0, fast_interval_s=0.5, rise=2, fall=3, jitter=0.0))
    (6.0, 4.5)
    """

    def verdict_s(results: int, probe_s: float) -> float:
        waits_s = timing.interval_s + (results - 1) * timing.fast_interval_s
        return waits_s * (1 + timing.jitter) + results * probe_s

    down_s = verdict_s(timing.fall, timing.timeout_s if failing_s is None else failing_s)
    return down_s, verdict_s(timing.rise, timing.timeout_s)


@dataclass(frozen=True, slots=True)
class Route:
    """How a probe's packets leave: from which address, and with which firewall mark (0: none).

    `real` None: the probe goes to the real server itself. Otherwise it goes through the forwarding path (`via: vip`),
    which is steered by `mark` to that real server's address.
    """

    source: IPAddress | None = None
    mark: int = 0
    real: IPAddress | None = None


WARN_S = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS on a probe's connection.

    `server_name` is what to ask for and to verify; None means the target's address. `ca`, `certificate` and `key` are
    files. `warn_s`: a certificate that ends sooner is a warning, 0 never. `alpn`: protocols to offer (RFC 7301).
    """

    verify: bool = True
    server_name: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    warn_s: float = WARN_S
    alpn: tuple[str, ...] = ()


Count = Annotated[int, Field(strict=True, ge=1, le=100)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Mark = Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)]


def _source(value: object) -> IPAddress:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an IP address: use one of this host's own")
    return parse_unicast(value)


def _percent(value: object) -> float:
    match = re.fullmatch(r"([0-9]{1,2})%", value) if isinstance(value, str) else None
    if match is None or int(match[1]) > 50:
        raise ValueError(f"{shown(value)} is not a jitter: write a share of the interval, 0% to 50%")
    return int(match[1]) / 100


Source = Annotated[IPAddress, BeforeValidator(_source), WithJsonSchema({"type": "string", "format": "ip"})]
Percent = Annotated[float, BeforeValidator(_percent), WithJsonSchema({"type": "string", "examples": ["10%"]})]


class FlapSection(Section):
    """A server that goes up and down too often is held down until it has been good for a while."""

    changes: Annotated[int, Field(strict=True, ge=2, le=20)] = Field(5, description="so many changes")
    within: Duration = Field(600.0, description="in so long a time are too many")
    hold: Duration = Field(300.0, description="and then it must be good for so long to be up again")


class TimingSection(Section):
    """Keys that every check has. What is not written comes from `defaults.check`, then from `Timing`.

    `over`: the only protocol whose ports it speaks of, None if any. `measured`: a single result may err, so that
    several in a row decide; otherwise one is enough, whatever the defaults are.
    """

    over: ClassVar[Literal["tcp", "udp"] | None] = None
    measured: ClassVar[bool] = True

    interval: Duration | None = Field(None, description="time between two probes; default 2s")
    timeout: Duration | None = Field(None, description="a probe that takes longer has failed; default 1s")
    fast_interval: Duration | None = Field(
        None, description="time between two probes while a change is suspected; default a quarter of interval"
    )
    jitter: Percent | None = Field(
        None, description="share of the interval by which a probe may come sooner or later; default 10%"
    )
    rise: Count | None = Field(None, description="successes in a row that make a server up; default 2")
    fall: Count | None = Field(None, description="failures in a row that make a server down; default 3")
    flap: FlapSection | None = Field(None, description="damping of a server that goes up and down; default none")

    @property
    def needs_port(self) -> bool:
        """Whether there is nothing to probe without a port."""
        return False


class RoutedSection(TimingSection):
    """Keys of checks that send packets."""

    source: Source | None = Field(None, description="send from this address of this host; default: the system's choice")
    fwmark: Mark | None = Field(None, description="firewall mark of the probe's packets, for policy routing")


class NetworkSection(RoutedSection):
    """Keys of checks that send packets to a port."""

    port: Port | None = Field(None, description="probe this port; default the server's own")
    via: Literal["real", "vip"] | None = Field(
        None,
        description="director: vip probes the VIP itself, through the forwarding path to this real server (dr, tun): "
        "it finds a server without its VIP and a broken tunnel; default: real",
    )

    @property
    def needs_port(self) -> bool:
        return True


class StreamSection(NetworkSection):
    """Keys of checks that open a TCP connection."""

    over: ClassVar[Literal["tcp", "udp"] | None] = "tcp"

    _ends: ClassVar[bool] = False
    """Whether its protocol ends the conversation, so that there is no connection to keep."""

    sentinel: bool | None = Field(
        None,
        strict=True,
        description="keep a connection open between two probes, and probe at once when the peer ends it; default: "
        "only towards l7proxy",
    )

    @field_validator("sentinel")
    @classmethod
    def _sentinel(cls, value: bool | None) -> bool | None:
        if value and cls._ends:
            raise ValueError("this check takes its leave after each probe, and has no connection to keep: remove it")
        return value


_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def is_name(text: str) -> bool:
    """Whether `text` is a host name or an IPv4 address (RFC 1123 2.1; underscores are tolerated).

    >>> is_name("www.example.org"), is_name("a..b"), is_name("a:80")
    (True, False, False)
    """
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


def _file(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not the full path of a file: begin with /")
    return value


def _warn(value: object) -> float:
    return 0.0 if value == "never" else parse_duration(value)


def _word(value: str) -> str:
    if not value or len(value) > 128 or not value.isprintable():
        raise ValueError(f"{shown(value)} cannot be sent: write 1 to 128 printable characters")
    return value


File = Annotated[str, AfterValidator(_file)]
Word = Annotated[str, AfterValidator(_word)]
"""A name that a server knows."""
Warn = Annotated[float, BeforeValidator(_warn), WithJsonSchema({"type": "string", "examples": ["14d", "never"]})]


_TLS_KEYS = ("server_name", "verify", "ca", "certificate", "key", "warn_expiry")


class TlsSection(StreamSection):
    """Keys of checks that can speak TLS. Whether they do, another key of theirs says."""

    _without_tls: ClassVar[str] = "add `tls: true`"
    """What to write so that keys of TLS have a meaning."""

    server_name: str | None = Field(None, description="TLS: the name to ask for and to verify (SNI)")
    verify: bool = Field(True, strict=True, description="TLS: verify the certificate; default true")
    ca: File | None = Field(
        None, description="TLS: file of the authorities to trust (PEM); default those of the system"
    )
    certificate: File | None = Field(None, description="TLS: file of a certificate to show to the server (PEM)")
    key: File | None = Field(None, description="TLS: file of its key; default: `certificate` has both")
    warn_expiry: Warn | None = Field(
        None, description="TLS: warn when the certificate ends within this time, or never; default 14d"
    )

    @field_validator("server_name")
    @classmethod
    def _server_name(cls, value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise ValueError(f"{value!r} is not a host name: use letters, digits, dots and hyphens, and no port")
        return value

    @model_validator(mode="after")
    def _tls_keys(self) -> Self:
        written = [key for key in _TLS_KEYS if key in self.model_fields_set]
        if written and not self.speaks_tls():
            *others, last = written
            names = f"{', '.join(others)} and {last} belong" if others else f"{last} belongs"
            raise ValueError(f"{names} to TLS: {self._without_tls}, or remove {'them' if others else 'it'}")
        if self.key is not None and self.certificate is None:
            raise ValueError("key is of no use alone: add `certificate:`, the file that it belongs to")
        if self.ca is not None and not self.verify:
            raise ValueError("ca has no use with `verify: false`: remove one of them")
        return self

    def speaks_tls(self) -> bool:
        """Whether the probe's connection is, or becomes, one of TLS."""
        raise NotImplementedError

    def tls_of(self, server_name: str | None = None, alpn: tuple[str, ...] = ()) -> Tls | None:
        """What the keys amount to; `server_name` is what to ask for where no key says it."""
        if not self.speaks_tls():
            return None
        return Tls(
            self.verify,
            self.server_name or server_name,
            self.ca,
            self.certificate,
            self.key,
            WARN_S if self.warn_expiry is None else self.warn_expiry,
            alpn,
        )
