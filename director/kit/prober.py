"""Keeps one task for each distinct check, and the health that its results amount to.

One rule: a check never overlaps itself, and equal checks run once however many servers share them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.health import HealthState, ProbeResult, observe
from director.kit.probes.run import run_check
from director.kit.troubles import Troubles
from director.kit.turns import Turns, probes_at_once

log = logging.getLogger(__name__)

Listener = Callable[[Check, HealthState, HealthState], None]
"""Called with the state before and after, whenever a check's status has changed."""

_JITTER = 0.1  # of the interval, to either side: checks of one start do not stay in step


class Prober:
    """Watches a set of checks that may be replaced at any time.

    `at_once` probes run at one time; further ones wait for their turn, and their timeout begins with it.
    """

    def __init__(
        self,
        on_change: Listener,
        probe: Callable[[Check], Awaitable[ProbeResult]] = run_check,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        at_once: int | None = None,
    ) -> None:
        self._on_change = on_change
        self._probe = probe
        self._now = now
        self._sleep = sleep
        self._random = random.Random()  # noqa: S311 -- jitter
        self._states: dict[Check, HealthState] = {}
        self._tasks: dict[Check, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._turns = Turns(at_once or probes_at_once(), now)
        self._troubles = Troubles(now)

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._start_missing()
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None
                self._tasks.clear()  # the group ends them; another run starts anew

    def watch(self, checks: Mapping[Check, HealthState] | None = None) -> None:
        """Probe exactly `checks` from now on; one already watched keeps its state, a new one begins with the given."""
        wanted = checks or {}
        for check in self._states.keys() - wanted.keys():
            del self._states[check]
            self._troubles.forget(check)
            task = self._tasks.pop(check, None)
            if task is not None:
                task.cancel()
        for check, state in wanted.items():
            self._states.setdefault(check, state)
        self._start_missing()

    def state(self, check: Check) -> HealthState:
        """What is known of `check`; PENDING when it is not watched."""
        return self._states.get(check, HealthState())

    def _start_missing(self) -> None:
        if self._group is None:
            return
        for check in self._states.keys() - self._tasks.keys():
            self._tasks[check] = self._group.create_task(self._watch_one(check), name=f"probe {check}")

    def _tell(self, check: Check, before: HealthState, after: HealthState) -> None:
        try:
            self._on_change(check, before, after)
        except Exception:
            log.exception("a change of health was not taken in", extra={"check": str(check)})

    async def _watch_one(self, check: Check) -> None:
        timing = check.timing
        while True:
            try:
                async with self._turns.turn(self.state(check), timing.interval_s):
                    result = await self._probe(check)
            except ProbeError as error:
                if not self._is_ours(check):
                    return
                self._troubles.met(check, str(error))
                await self._pause(timing.interval_s)
                continue
            except Exception as error:
                result = ProbeResult(False, f"the probe itself failed: {error!r}")
                last = self.state(check).last
                if last is None or last.reason != result.reason:
                    log.exception("probe failed in itself", extra={"check": str(check)})
            if not self._is_ours(check):
                return
            self._troubles.made(check)
            before = self._states[check]
            after = observe(before, result, timing, self._now())
            self._states[check] = after
            if after.status is not before.status:
                self._tell(check, before, after)
            await self._pause(timing.fast_interval_s if after.suspect else timing.interval_s)

    def _is_ours(self, check: Check) -> bool:
        """Whether the current task still watches `check`: a probe can end before the cancellation comes."""
        return self._tasks.get(check) is asyncio.current_task()

    async def _pause(self, pause_s: float) -> None:
        await self._sleep(pause_s * (1 + self._random.uniform(-_JITTER, _JITTER)))
