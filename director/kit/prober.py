"""Probes each distinct check when it is due, and keeps the health that its results amount to.

One rule: a check never overlaps itself, and equal checks run once however many servers share them.

All checks share one heap of due times and one timer. A probe that is a dialogue (probes/dialogue.py) runs by callbacks;
only one that is a coroutine has a task, while it runs. Time is monotonic: the wall clock plays no part.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from random import random

from director.kit.alarm import Alarm, CallAt
from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.health import HealthState, ProbeResult, Tally, observe
from director.kit.probes.attempt import Done, Outcome
from director.kit.probes.files import CheckedFiles
from director.kit.probes.run import Runs
from director.kit.probes.secondlook import Stoppable
from director.kit.probes.sentinels import Place, may_have_sentinel, place_of
from director.kit.schedule import FINEST_S, grid_s, next_due_at
from director.kit.troubles import Troubles
from director.kit.turns import Prospect, Turns, probes_at_once, prospect, sentinels_at_most

log = logging.getLogger(__name__)

Listener = Callable[[Check, HealthState, HealthState], None]
"""Called with the state before and after, whenever what a check says has changed: status, weight, wish or warning."""

RECENT = 8
"""Results of each check that are kept."""
ON_TIME_S = 0.1
_EARLY_S = 0.001  # how much before its time a loop's timer may go off: uvloop counts milliseconds
_STARTS = 64
"""Probes begun in one turn of the loop at most: what else runs in it has its turn between them."""
_MANY = 64
"""From so many checks on, those that begin together are spread over their interval after their first verdict."""


@dataclass(slots=True)
class Punctuality:
    """How many probes were due, and how many of them began within `ON_TIME_S` of that."""

    due: int = 0
    on_time: int = 0


class _Watch:
    """One check that is watched."""

    __slots__ = (
        "check",
        "done",
        "due_at",
        "early_at",
        "ended",
        "failed",
        "is_alarmed",
        "is_in_step",
        "is_planned",
        "kind",
        "recent",
        "run",
        "state",
        "waits",
        "was_due_at",
    )

    def __init__(self, check: Check, state: HealthState) -> None:
        self.check = check
        self.state = state
        self.due_at: float | None = None
        """When the next probe is due; None while one runs or waits."""
        self.was_due_at = 0.0
        self.run: Stoppable | None = None
        self.waits = False
        self.early_at = -inf
        """When it was, or will be, probed early because its sentinel has ended."""
        self.is_alarmed = False
        """Whether that is to be made sure of."""
        self.is_planned = False
        """Whether a probe is due, waits, runs or just ends."""
        self.kind = Prospect.UNKNOWN
        self.is_in_step = True
        """Whether it may be due at the same time as all others."""
        self.recent: deque[tuple[float, ProbeResult]] = deque(maxlen=RECENT)
        self.ended = 0
        self.failed = 0
        self.done: Done


class Prober:
    """Watches a set of checks that may be replaced at any time.

    `at_once` probes run at one time; further ones wait for their turn, and their timeout begins with it. `probe` stands
    in place of the checks' own probes, `now` and `call_at` in place of the loop's clock.
    """

    def __init__(
        self,
        on_change: Listener,
        probe: Callable[[Check], Awaitable[ProbeResult]] | None = None,
        now: Callable[[], float] = time.monotonic,
        call_at: CallAt | None = None,
        at_once: int | None = None,
    ) -> None:
        self._on_change = on_change
        self._probe = probe
        self._now = now
        self._call_at = call_at
        self._watches: dict[Check, _Watch] = {}
        self._places: dict[Place, list[_Watch]] = {}
        self._due: list[tuple[float, int, _Watch]] = []
        self._sequence = count()
        self._grid_s = grid_s(0.0)
        self._turns: Turns[_Watch] = Turns(at_once or probes_at_once())
        self._troubles = Troubles()
        self._runs: Runs | None = None
        self._files: CheckedFiles | None = None
        self._alarm: Alarm | None = None
        self.punctuality = Punctuality()

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            self._runs = Runs(group, self._now, self._probe, sentinels_at_most(), self._sentinel_ended)
            self._files = CheckedFiles(self._look_again)
            self._alarm = Alarm(self._call_at or loop.call_at, self._begin_due)
            self._start_missing()
            try:
                await asyncio.Event().wait()
            finally:
                self._alarm.off()
                self._alarm = None
                for watch in self._watches.values():
                    self._stop(watch)
                self._due.clear()
                self._turns.clear()
                self._files.close()
                self._files = None
                self._runs.close()
                self._runs = None

    def watch(self, checks: Mapping[Check, HealthState] | None = None) -> None:
        """Probe exactly `checks` from now on; one already watched keeps its state, a new one begins with the given."""
        wanted = checks or {}
        for check in self._watches.keys() - wanted.keys():
            self._stop(self._watches.pop(check))
            self._troubles.forget(check)
        for check, state in wanted.items():
            if check not in self._watches:
                watch = self._watches[check] = _Watch(check, state)
                watch.done = partial(self._ended, watch)
        self._places = _places(self._watches.values())
        self._grid_s = grid_s(sum(1 / max(FINEST_S, check.timing.interval_s) for check in self._watches))
        if self._runs is not None:
            self._runs.keep_at(self._places)
            self._start_missing()
            self._go_on(self._now())

    def state(self, check: Check) -> HealthState:
        """What is known of `check`; PENDING when it is not watched."""
        watch = self._watches.get(check)
        return watch.state if watch is not None else HealthState()

    def recent(self, check: Check) -> tuple[tuple[float, ProbeResult], ...]:
        """The last results of `check` and when they came, the oldest first."""
        watch = self._watches.get(check)
        return tuple(watch.recent) if watch is not None else ()

    def tally(self, check: Check) -> Tally:
        """What is counted of `check`."""
        watch = self._watches.get(check)
        if watch is None:
            return Tally()
        last = watch.state.last
        return Tally(watch.ended, watch.failed, last.duration_s if last is not None else None)

    def next_at(self, check: Check) -> float | None:
        """When the next probe of `check` is due; None while one runs or waits, and when it is not watched."""
        watch = self._watches.get(check)
        return watch.due_at if watch is not None else None

    @property
    def late_s(self) -> float:
        """How long ago the next probe should have begun; 0 when all are in time."""
        return max(0.0, self._now() - self._due[0][0]) if self._due else 0.0

    def trouble(self, check: Check) -> str:
        """What this host lacks to probe `check`, or has lacked until a while ago; empty when it can be probed."""
        return self._troubles.reason(check)

    def probe_now(self, check: Check) -> bool:
        """Probe `check` at once, unless that happens anyway; whether it is watched."""
        watch = self._watches.get(check)
        if watch is None:
            return False
        if watch.due_at is not None:
            self._expect(watch, min(watch.due_at, self._now()))
        return True

    def _sentinel_ended(self, place: Place, now: float) -> None:
        """Probe the checks of `place` soon, and often until it is sure what it means."""
        for watch in self._places.get(place, ()):
            watch.is_alarmed = True
            watch.early_at = max(now, watch.early_at + watch.check.timing.fast_interval_s)
            if watch.due_at is not None and watch.early_at < watch.due_at:
                self._expect(watch, watch.early_at)

    def _look_again(self, check: Check) -> bool:
        """Probe `check` at once; False while a probe of it runs, which may have begun too early."""
        watch = self._watches.get(check)
        return watch is None or (watch.run is None and self.probe_now(check))

    def _start_missing(self) -> None:
        if self._files is not None:
            self._files.watch(self._watches)
        now = self._now()
        for watch in self._watches.values():
            if not watch.is_planned:
                self._expect(watch, now)

    def _expect(self, watch: _Watch, due_at: float) -> None:
        watch.due_at = due_at
        watch.is_planned = True
        if len(self._due) > 2 * len(self._watches) + _STARTS:  # many of them were called off
            self._due = [each for each in self._due if each[2].due_at == each[0]]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (due_at, next(self._sequence), watch))
        if self._alarm is not None:
            self._alarm.by(due_at)

    def _stop(self, watch: _Watch) -> None:
        watch.due_at = None
        watch.is_planned = False
        if watch.run is not None:
            watch.run.cancel()
            watch.run = None
            self._turns.give(watch.kind)
        elif watch.waits:
            self._turns.forget(watch.kind, watch)
            watch.waits = False

    def _begin_due(self) -> None:
        now = self._now()
        due = self._due
        begun = 0
        while due and due[0][0] <= now + _EARLY_S and begun < _STARTS:
            due_at, _, watch = heapq.heappop(due)
            if watch.due_at != due_at:
                continue
            timing = watch.check.timing
            if now - due_at > timing.interval_s and len(self._watches) >= _MANY:
                # The machine has slept, or cannot keep up: not all of them at once.
                self.punctuality.due += 1
                self._expect(watch, now + random() * timing.interval_s)  # noqa: S311 -- no secret
                continue
            watch.due_at, watch.was_due_at = None, due_at
            begun += 1
            watch.kind = prospect(watch.state)
            if self._turns.take(watch.kind, watch, now, timing.interval_s):
                self._begin(watch, now)
            else:
                watch.waits = True
        if due and self._alarm is not None:
            self._alarm.by(due[0][0])

    def _begin(self, watch: _Watch, now: float) -> None:
        if self._runs is None:
            return
        self.punctuality.due += 1
        self.punctuality.on_time += now - watch.was_due_at <= ON_TIME_S
        watch.run = self._runs.begin(watch.check, watch.done, now)

    def _ended(self, watch: _Watch, outcome: Outcome, now: float) -> None:
        watch.run = None
        self._turns.give(watch.kind)
        if isinstance(outcome, ProbeError):
            self._troubles.met(watch.check, str(outcome), now)
        else:
            self._take(watch, outcome if isinstance(outcome, ProbeResult) else _failed(watch, outcome), now)
        if watch.is_planned:  # whoever was told has not put an end to it
            self._expect(watch, self._next_due_at(watch, isinstance(outcome, ProbeError), now))
        self._go_on(now)

    def _take(self, watch: _Watch, result: ProbeResult, now: float) -> None:
        if self._troubles:
            self._troubles.made(watch.check, now)
        before = watch.state
        after = watch.state = observe(before, result, watch.check.timing, now)
        watch.recent.append((now, result))
        watch.ended += 1
        watch.failed += not result.ok
        if after.status is not before.status or _says(before.last) != _says(result):
            try:
                self._on_change(watch.check, before, after)
            except Exception:
                log.exception("a change of health was not taken in", extra={"check": str(watch.check)})

    def _next_due_at(self, watch: _Watch, in_trouble: bool, now: float) -> float:
        timing = watch.check.timing
        if watch.early_at > watch.was_due_at:
            return max(watch.early_at, now)
        if watch.state.last is not None and (watch.state.last.ok or watch.state.streak >= timing.fall):
            watch.is_alarmed = False
        is_fast = watch.is_alarmed or (watch.state.suspect and not in_trouble)
        if watch.is_in_step and not is_fast:
            watch.is_in_step = False
            if len(self._watches) >= _MANY:
                return now + random() * timing.interval_s  # noqa: S311 -- no secret
        return next_due_at(watch.was_due_at, now, timing, is_fast, self._grid_s, random())  # noqa: S311 -- no secret

    def _go_on(self, now: float) -> None:
        """Begin those who waited for a turn that is free now."""
        while self._turns.waiting and (turn := self._turns.free(now, _interval_s)) is not None:
            watch, _ = turn
            watch.waits = False
            self._begin(watch, now)


def _interval_s(watch: _Watch) -> float:
    return watch.check.timing.interval_s


def _says(result: ProbeResult | None) -> tuple[object, ...]:
    if result is None:
        return _NOTHING
    return result.weight, result.percent, result.asks, result.warning


_NOTHING = (None, None, None, "")


def _failed(watch: _Watch, error: Exception) -> ProbeResult:
    """A defect of a probe counts as a failure; it is told when it begins."""
    result = ProbeResult(False, f"the probe itself failed: {error!r}")
    last = watch.state.last
    if last is None or last.reason != result.reason:
        log.error("probe failed in itself", extra={"check": str(watch.check)}, exc_info=error)
    return result


def _places(watches: Iterable[_Watch]) -> dict[Place, list[_Watch]]:
    """Who is to be told when a sentinel ends."""
    places: dict[Place, list[_Watch]] = {}
    for watch in watches:
        if may_have_sentinel(watch.check):
            places.setdefault(place_of(watch.check), []).append(watch)
    return places
