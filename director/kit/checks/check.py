"""A check as a whole: one probe of one target with its timing, or several of them combined.

One rule: a `Check` is complete and hashable: equal checks are one probe, however many servers share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from director.kit.checks.agent import AgentCheckSection, AgentProbe
from director.kit.checks.base import (
    Flapping,
    NetworkSection,
    Route,
    RoutedSection,
    StreamSection,
    Timing,
    TimingSection,
)
from director.kit.checks.dns import DnsCheckSection, DnsProbe
from director.kit.checks.file import FileCheckSection, FileProbe
from director.kit.checks.http import HttpCheckSection, HttpProbe
from director.kit.checks.icmp import IcmpCheckSection, IcmpProbe
from director.kit.checks.mail import ImapCheckSection, MailProbe, Pop3CheckSection, SmtpCheckSection
from director.kit.checks.mysql import MysqlCheckSection, MysqlProbe
from director.kit.checks.postgresql import PostgresqlCheckSection, PostgresqlProbe
from director.kit.checks.redis import RedisCheckSection, RedisProbe
from director.kit.checks.script import ScriptCheckSection, ScriptProbe
from director.kit.checks.tcp import TcpCheckSection, TcpProbe
from director.kit.checks.udp import UdpCheckSection, UdpProbe
from director.kit.duration import format_duration
from director.kit.net import Endpoint, IPAddress

Probe = (
    TcpProbe
    | HttpProbe
    | UdpProbe
    | DnsProbe
    | IcmpProbe
    | MailProbe
    | RedisProbe
    | PostgresqlProbe
    | MysqlProbe
    | AgentProbe
    | ScriptProbe
    | FileProbe
)

DEFAULT_TIMING = Timing()
DIRECT = Route()


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of one target, its timing, and how its packets leave. The target's port is 0 where there is none.

    `sentinel`: a connection is kept open between two probes, whose end makes the next one come at once; None: only
    towards an l7proxy, which an open connection costs next to nothing.
    """

    target: Endpoint
    probe: Probe
    timing: Timing = DEFAULT_TIMING
    route: Route = DIRECT
    sentinel: bool | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.target, self.probe, self.timing, self.route, self.sentinel)
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:
        return self._hash  # checks are keys of every look, thousands of times

    @property
    def failing_s(self) -> float:
        """How long a probe takes at most that fails: one through the VIP is followed by another (`SecondLook`)."""
        return self.timing.timeout_s * (1 if self.route.real is None else 2)

    def __str__(self) -> str:
        probed = Endpoint(self.route.real or self.target.address, self.target.port)
        text = f"{self.probe} {probed if probed.port else probed.address}"
        return text if self.route.real is None else f"{text} through {self.target.address}"


@dataclass(frozen=True, slots=True)
class Combination:
    """Several checks that decide together: `every` one must be good, or any one is enough."""

    every: bool
    parts: tuple[Check, ...]

    def __str__(self) -> str:
        return f"{'all' if self.every else 'any'} of ({', '.join(map(str, self.parts))})"


AnyCheck = Check | Combination


def leaves(check: AnyCheck | None) -> tuple[Check, ...]:
    """The checks that are probed for `check`."""
    if check is None:
        return ()
    return (check,) if isinstance(check, Check) else check.parts


AnyCheckSection = (
    TcpCheckSection
    | HttpCheckSection
    | UdpCheckSection
    | DnsCheckSection
    | IcmpCheckSection
    | ScriptCheckSection
    | FileCheckSection
    | SmtpCheckSection
    | ImapCheckSection
    | Pop3CheckSection
    | RedisCheckSection
    | PostgresqlCheckSection
    | MysqlCheckSection
    | AgentCheckSection
)
CheckSection = Annotated[AnyCheckSection, Field(discriminator="type")]


class CombinedCheckSection(TimingSection):
    """`check: {type: all, of: [...]}`: several checks that decide together. Timing here is its parts' default."""

    type: Literal["all", "any"]
    of: Annotated[tuple[CheckSection, ...], Field(min_length=1, max_length=16)] = Field(
        description="all: a server is up while every one of these is good; any: while one of them is"
    )


def resolve(
    section: AnyCheckSection,
    defaults: Sequence[TimingSection],
    server: Endpoint,
    vip: IPAddress | None = None,
) -> Check:
    """The check of `server`: `section`, with what it leaves out taken from `defaults`, nearest first.

    `vip` is the address that `via: vip` probes, by a way that leads to `server` (its mark is for others to give).
    `server`'s port is 0 where it is not known; then `section` has one, or needs none.
    """
    sources: tuple[TimingSection, ...] = (section, *defaults)

    def timing(name: str, otherwise: float, among: Iterable[TimingSection] = sources) -> float:
        for source in among:
            value = getattr(source, name)
            if value is not None:
                return float(value)
        return otherwise

    interval_s = timing("interval", DEFAULT_TIMING.interval_s)
    flap = next((source.flap for source in sources if source.flap is not None), None)
    counted = sources if section.measured else (section,)
    once = DEFAULT_TIMING if section.measured else Timing(rise=1, fall=1)
    address, real = server.address, None
    if vip is not None and isinstance(section, NetworkSection) and goes_through_vip(sources):
        address, real = vip, server.address
    return Check(
        Endpoint(address, _port(section, server)),
        section.probe(),
        Timing(
            interval_s=interval_s,
            timeout_s=timing("timeout", DEFAULT_TIMING.timeout_s),
            fast_interval_s=timing("fast_interval", min(interval_s, max(0.05, interval_s / 4))),
            rise=int(timing("rise", once.rise, counted)),
            fall=int(timing("fall", once.fall, counted)),
            jitter=timing("jitter", DEFAULT_TIMING.jitter),
            flapping=Flapping(flap.changes, flap.within, flap.hold) if flap else None,
        ),
        _route(sources, address, real) if isinstance(section, RoutedSection) else DIRECT,
        _sentinel(sources) if isinstance(sources[0], StreamSection) else False,
    )


def _port(section: AnyCheckSection, server: Endpoint) -> int:
    """0 for what has no use for one: then checks of servers at one address are equal."""
    if isinstance(section, NetworkSection):
        return section.port or server.port
    return server.port if section.needs_port else 0


def _route(sources: Sequence[TimingSection], target: IPAddress, real: IPAddress | None) -> Route:
    """A source of the other IP version is not inherited: there may be servers of both."""
    network = [source for source in sources if isinstance(source, RoutedSection)]
    given = [(each.source, each is sources[0]) for each in network if each.source is not None]
    source = next((source for source, is_own in given if is_own or source.version == target.version), None)
    mark = next((each.fwmark for each in network if each.fwmark is not None), 0)
    return Route(source, mark) if real is None else Route(source, 0, real)


def goes_through_vip(sources: Iterable[TimingSection]) -> bool:
    """Whether the nearest of `sources` that says so says `via: vip`."""
    said = (each.via for each in sources if isinstance(each, NetworkSection))
    return next((each for each in said if each is not None), "real") == "vip"


def _sentinel(sources: Iterable[TimingSection]) -> bool | None:
    chosen = (each.sentinel for each in sources if isinstance(each, StreamSection))
    return next((each for each in chosen if each is not None), None)


def timing_findings(check: Check) -> Iterable[str]:
    """What cannot work in a check's timing, once defaults are in."""
    timing = check.timing
    if timing.fast_interval_s > timing.interval_s:
        yield (
            f"fast_interval {format_duration(timing.fast_interval_s)} is longer than interval "
            f"{format_duration(timing.interval_s)}: write a shorter fast_interval"
        )
    source, target = check.route.source, check.target.address
    if source is not None and source.version != target.version and check.route.real is None:
        yield f"source {source} cannot reach {target}, which is IPv{target.version}: give that a check of its own"
