"""A check as a whole: one probe of one target with its timing, or several of them combined.

One rule: a `Check` is complete and hashable: equal checks are one probe, however many servers share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from director.kit.checks.base import Flapping, NetworkSection, Route, StreamSection, Timing, TimingSection
from director.kit.checks.http import HttpCheckSection, HttpProbe
from director.kit.checks.tcp import TcpCheckSection, TcpProbe
from director.kit.duration import format_duration
from director.kit.net import Endpoint, IPAddress

Probe = TcpProbe | HttpProbe

DEFAULT_TIMING = Timing()
DIRECT = Route()


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of one target, its timing, and how its packets leave.

    `sentinel`: a connection is kept open between two probes, whose end makes the next one come at once.
    """

    target: Endpoint
    probe: Probe
    timing: Timing = DEFAULT_TIMING
    route: Route = DIRECT
    sentinel: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.target, self.probe, self.timing, self.route, self.sentinel)
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:
        return self._hash  # checks are keys of every look, thousands of times

    def __str__(self) -> str:
        if self.route.real is None:
            return f"{self.probe} {self.target}"
        return f"{self.probe} {Endpoint(self.route.real, self.target.port)} through {self.target.address}"


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


AnyCheckSection = TcpCheckSection | HttpCheckSection
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
    """
    sources: tuple[TimingSection, ...] = (section, *defaults)

    def timing(name: str, otherwise: float) -> float:
        for source in sources:
            value = getattr(source, name)
            if value is not None:
                return float(value)
        return otherwise

    interval_s = timing("interval", DEFAULT_TIMING.interval_s)
    flap = next((source.flap for source in sources if source.flap is not None), None)
    port = (sources[0].port if isinstance(sources[0], NetworkSection) else None) or server.port
    address, route = server.address, _route(sources)
    if vip is not None and goes_through_vip(sources):
        address, route = vip, Route(route.source, 0, server.address)
    return Check(
        Endpoint(address, port),
        section.probe(),
        Timing(
            interval_s=interval_s,
            timeout_s=timing("timeout", DEFAULT_TIMING.timeout_s),
            fast_interval_s=timing("fast_interval", min(interval_s, max(0.05, interval_s / 4))),
            rise=int(timing("rise", DEFAULT_TIMING.rise)),
            fall=int(timing("fall", DEFAULT_TIMING.fall)),
            jitter=timing("jitter", DEFAULT_TIMING.jitter),
            flapping=Flapping(flap.changes, flap.within, flap.hold) if flap else None,
        ),
        route,
        _sentinel(sources) if isinstance(sources[0], StreamSection) else False,
    )


def _route(sources: Iterable[TimingSection]) -> Route:
    network = [source for source in sources if isinstance(source, NetworkSection)]
    return Route(
        next((each.source for each in network if each.source is not None), None),
        next((each.fwmark for each in network if each.fwmark is not None), 0),
    )


def goes_through_vip(sources: Iterable[TimingSection]) -> bool:
    """Whether the nearest of `sources` that says so says `via: vip`."""
    said = (each.via for each in sources if isinstance(each, NetworkSection))
    return next((each for each in said if each is not None), "real") == "vip"


def _sentinel(sources: Iterable[TimingSection]) -> bool:
    chosen = (each.sentinel for each in sources if isinstance(each, StreamSection))
    return next((each for each in chosen if each is not None), False)


def timing_findings(check: Check) -> Iterable[str]:
    """What cannot work in a check's timing, once defaults are in."""
    timing = check.timing
    if timing.fast_interval_s > timing.interval_s:
        yield (
            f"fast_interval {format_duration(timing.fast_interval_s)} is longer than interval "
            f"{format_duration(timing.interval_s)}: write a shorter fast_interval"
        )
