"""A prober on virtual time, with probes whose end the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import pairwise

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from tests.director.kit.clock import Clock, settle

OK, BAD = ProbeResult(True, "fine"), ProbeResult(False, "refused")


def a_check(host: int = 1, rise: int = 2, fall: int = 2, timing: Timing | None = None) -> Check:
    """Host 1 to 65535 of a network; by default every ten seconds, two while a change is suspected."""
    return Check(Endpoint(ip_address(0x0A000000 + host), 80), TcpProbe(), timing or Timing(10.0, 1.0, 2.0, rise, fall))


A, B = a_check(1), a_check(2)


def watched(*checks: Check) -> dict[Check, HealthState]:
    """`checks` of which nothing is known."""
    return dict.fromkeys(checks, HealthState())


def seen(status: Status, *checks: Check) -> dict[Check, HealthState]:
    """`checks` that have been `status` for five results."""
    return dict.fromkeys(checks, HealthState(status, 5, 0.0, OK if status is Status.UP else BAD, 0.0))


class World:
    """Probes answer from a script, and are fine where it says nothing; None is a probe that hangs until `finish`."""

    def __init__(self, at_once: int | None = None) -> None:
        self.clock = Clock(100.0)
        self.begun: list[tuple[float, Check]] = []
        self.running: list[Check] = []
        self.most_running: dict[Check, int] = {}
        self.script: dict[Check, list[ProbeResult | BaseException | None]] = {}
        self.changes: list[tuple[Check, Status, Status]] = []
        self.listener: Callable[[Check], None] | None = None
        self._hanging: dict[Check, asyncio.Future[ProbeResult]] = {}
        self.use(self.probe, at_once)

    @property
    def now(self) -> float:
        return self.clock.now_s

    def use(self, probe: Callable[[Check], Coroutine[None, None, ProbeResult]], at_once: int | None = None) -> None:
        """Have a prober that probes so."""
        self.prober = Prober(self._changed, probe, self.clock.now, self.clock.call_at, at_once)

    def _changed(self, check: Check, before: HealthState, after: HealthState) -> None:
        self.changes.append((check, before.status, after.status))
        if self.listener is not None:
            self.listener(check)

    async def probe(self, check: Check) -> ProbeResult:
        self.begun.append((self.now, check))
        self.running.append(check)
        self.most_running[check] = max(self.most_running.get(check, 0), self.running.count(check))
        try:
            script = self.script.get(check)
            answer = script.pop(0) if script else OK
            if answer is None:
                self._hanging[check] = asyncio.get_running_loop().create_future()
                answer = await self._hanging[check]
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            self.running.remove(check)

    def finish(self, check: Check, result: ProbeResult) -> None:
        self._hanging[check].set_result(result)

    async def settle(self) -> None:
        """What is due now happens."""
        await self.clock.go(0.0)

    async def advance(self, seconds: float) -> None:
        await self.clock.go(seconds)

    @asynccontextmanager
    async def running_prober(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.prober.run())
            await self.settle()
            try:
                yield
            finally:
                task.cancel()
        await settle()
        assert self.running == []

    def times(self, check: Check) -> list[float]:
        return [at for at, each in self.begun if each == check]

    def gaps(self, check: Check) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times(check))]


def run(story: Callable[[World], Coroutine[None, None, None]], at_once: int | None = None) -> World:
    world = World(at_once)
    asyncio.run(story(world))
    return world
