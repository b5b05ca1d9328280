"""Probes the real servers of a configuration and knows what their checks amount to.

One rule: it only learns. Health goes to whoever asks, and a change of it wakes the reconcile loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from director.core.explain import Probing
from director.core.model import Config, RealServer, ServerRef, VirtualServer
from director.core.verdict import verdict
from director.core.vip import Vip
from director.kit.checks.check import Check, leaves
from director.kit.health import HealthState, ProbeResult, Status, Tally
from director.kit.prober import Prober, Punctuality

_NOTHING = Config()


@dataclass(frozen=True, slots=True)
class _Watched:
    config: Config = _NOTHING
    since_at: dict[tuple[str, tuple[Vip, ...]], float] = field(default_factory=dict)


class Monitor:
    """One probe for each distinct check of the configuration in force."""

    def __init__(self, wake: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._now = now
        self._prober = Prober(self._changed, now=now)
        self._watched = _Watched()

    async def run(self) -> None:
        """Probe until cancelled."""
        await self._prober.run()

    def watch(self, config: Config, also: Config = _NOTHING) -> None:
        """Probe `config`'s real servers from now on; checks that stay keep what they know.

        What is known of `also` is kept up to date too, for whoever may come back to it.
        """
        now = self._now()
        both = (*config.virtual_servers, *also.virtual_servers)
        checks = {check: None for virtual in both for real in virtual.real_servers for check in _probed(real)}
        before = self._watched.since_at
        # Whoever gets another address waits for verdicts again, as a new one does.
        since_at = {_place(vs): before.get(_place(vs), now) for vs in both}
        self._watched = _Watched(config, since_at)
        self._prober.watch({check: HealthState(since_at=now) for check in checks})

    def health(self, config: Config) -> dict[ServerRef, HealthState]:
        """What is known of every real server of `config` that has a check; PENDING where it is not watched yet."""
        state = self._prober.state
        return {
            ref: state(check) if isinstance(check, Check) else verdict(check, state)
            for virtual in config.virtual_servers
            for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
            if (check := real.check) is not None
        }

    def loads(self, config: Config) -> dict[ServerRef, ProbeResult]:
        """The last good answer of whoever is asked for a real server's load; what has not given one is left out."""
        return {
            virtual.ref(real): said
            for virtual in config.virtual_servers
            for real in virtual.real_servers
            if real.load is not None and (said := self._prober.state(real.load).said) is not None
        }

    def silent(self, config: Config) -> dict[ServerRef, str]:
        """Why whoever is asked for a real server's load does not say it, where that is so."""
        return {
            virtual.ref(real): state.last.reason
            for virtual in config.virtual_servers
            for real in virtual.real_servers
            if real.load is not None
            and (state := self._prober.state(real.load)).status is Status.DOWN
            and state.last is not None
        }

    def troubles(self, config: Config) -> dict[ServerRef, str]:
        """Why a real server cannot be probed, for want of something on this host."""
        return {
            ref: f"no probe can be made: {trouble}"
            for virtual in config.virtual_servers
            for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
            for check in _probed(real)
            if (trouble := self._prober.trouble(check))
        }

    def probing(self, check: Check) -> Probing:
        """What is known of `check` alone."""
        prober = self._prober
        return Probing(prober.state(check), prober.recent(check), prober.next_at(check), prober.trouble(check))

    def tallies(self, config: Config) -> dict[ServerRef, Tally]:
        """What is counted of the probes of every real server of `config` that has a check; where several checks decide,
        of all, and how long the slowest took."""
        return {
            ref: _sum([self._prober.tally(check) for check in leaves(real.check)])
            for virtual in config.virtual_servers
            for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
            if real.check is not None
        }

    @property
    def punctuality(self) -> Punctuality:
        """How many probes were due, and how many began in time."""
        return self._prober.punctuality

    def ready(self, config: Config) -> frozenset[str]:
        """Virtual servers of `config` whose real servers all have a verdict, or have had the time for one."""
        now = self._now()
        return frozenset(vs.name for vs in config.virtual_servers if self._is_ready(vs, now))

    @property
    def late_s(self) -> float:
        """How long ago the next probe should have begun; 0 when all are in time."""
        return self._prober.late_s

    def next_deadline_s(self) -> float | None:
        """Time until `ready` may grow without any verdict; None when nothing is waited for."""
        now = self._now()
        waits = [
            self._watched.since_at[_place(vs)] + grace_s(vs) - now
            for vs in self._watched.config.virtual_servers
            if not self._is_ready(vs, now)
        ]
        return max(0.0, min(waits)) if waits else None

    def _is_ready(self, virtual: VirtualServer, now: float) -> bool:
        if now - self._watched.since_at.get(_place(virtual), now) >= grace_s(virtual):
            return True
        checks = [real.check for real in virtual.real_servers if real.check is not None]
        return all(verdict(check, self._prober.state).status is not Status.PENDING for check in checks)

    def _changed(self, check: Check, before: HealthState, after: HealthState) -> None:
        del check, before, after  # the loop looks at all of it anew
        self._wake()


def _sum(tallies: list[Tally]) -> Tally:
    if len(tallies) == 1:
        return tallies[0]
    lasts = [each.last_s for each in tallies if each.last_s is not None]
    return Tally(sum(each.ended for each in tallies), sum(each.failed for each in tallies), max(lasts, default=None))


def _probed(real: RealServer) -> tuple[Check, ...]:
    return (*leaves(real.check), *leaves(real.load))


def _place(virtual: VirtualServer) -> tuple[str, tuple[Vip, ...]]:
    return virtual.name, virtual.vips


def grace_s(virtual: VirtualServer) -> float:
    """The longest time that first verdicts can take, with a second to spare; 0 without checks."""
    checks = [check for real in virtual.real_servers for check in leaves(real.check)]
    return max(map(_verdict_s, checks), default=-1.0) + 1.0


def _verdict_s(check: Check) -> float:
    timing = check.timing
    pause_s = 1.1 * timing.fast_interval_s
    return max(timing.rise * (timing.timeout_s + pause_s), timing.fall * (check.failing_s + pause_s))
