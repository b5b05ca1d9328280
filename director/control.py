"""The configuration in force in a running director, and how another takes its place.

One rule: another one is taken whole or not at all, and until it is confirmed nothing is removed. Whoever changes what
this decides by (API, signals, probes) wakes the loop; only one at a time writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from director.announcements import Announcements
from director.api.metrics import MetricsEndpoint
from director.core.answers import Applied, Planned, Step
from director.core.before import Before
from director.core.desired import adopted_weights, unproven_servers
from director.core.event import Event
from director.core.explain import Probing
from director.core.metrics import Looks
from director.core.model import Config, ServerRef
from director.core.notifying import REFUSED
from director.core.plan import Plan
from director.core.removal import Removal
from director.core.table import Table
from director.core.weight import Wish, next_ramp_s
from director.driftlog import DriftLog
from director.journal import Entry, Journal
from director.kit.checks.check import Check
from director.kit.errors import ConfigError, DirectorError, HostError
from director.kit.health import Tally
from director.kit.prober import Punctuality
from director.monitor import Monitor
from director.reconcile import Reconciler
from director.terms import Inputs, Observation, Outcome
from director.undertaking import NotAppliedError, begin, clock, configuration_event, later, planned, refusal
from director.witness import Witness
from director.worker import Worker

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration, and what was found in the kernel when it was taken.

    `text` is what the file held. `former` is the one before it, while what that had and this has not is still there;
    until `drain_until_at` (monotonic) its connections are waited for.
    """

    config: Config
    source: str
    text: str = ""
    adopted: Mapping[ServerRef, int] = field(default_factory=dict)
    unproven: frozenset[ServerRef] = frozenset()
    former: Config | None = None
    drain_until_at: float | None = None

    @staticmethod
    def taken(config: Config, source: str, text: str, table: Table, former: Config | None = None) -> InForce:
        """With the weights of `table` for servers that await a verdict."""
        return InForce(config, source, text, adopted_weights(config, table), unproven_servers(config, table), former)


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What comes back at `until_at` (monotonic), unless it is confirmed: then removals drain for `drain_s`."""

    former: InForce
    before: Before
    until_at: float
    until: str
    drain_s: float | None


class Control:
    """Reconciles what is in force, and replaces it.

    `wishes` are the operator's, `text` is what the file of `config` held, `advice` says what the host lacks for a
    configuration, `wake` has the loop look again, `tell` hears of events.

    Its methods raise DirectorError; each holds `writing` while it works, but for those that say otherwise.
    """

    def __init__(
        self,
        config: Config,
        source: str,
        reconciler: Reconciler,
        journal: Journal,
        monitor: Monitor,
        wishes: Callable[[], Mapping[ServerRef, Wish]],
        announcements: Announcements,
        witness: Witness,
        advice: Callable[[Config], tuple[str, ...]],
        wake: Callable[[], None],
        text: str = "",
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.force = InForce(config, source, text)
        self.undone = ""  # a sentence, while the file that a reload reads is one that was taken back
        self._own_file = source
        self.unconfirmed: Unconfirmed | None = None
        self.last: Outcome | None = None
        self.trouble = ""
        self.failed = 0  # looks in a row that did not bring the kernel to agree
        self.looks = Looks()
        self.taken_at = 0.0  # the time of day at which a configuration was taken last
        self.metrics = MetricsEndpoint()
        self.writing = asyncio.Lock()
        self.worker = Worker()
        self.drift = DriftLog(tell)
        self._tell = tell
        self._reconciler = reconciler
        self._journal = journal
        self._monitor = monitor
        self._wishes = wishes
        self._announcements = announcements
        self._witness = witness
        self._advice = advice
        self._wake = wake
        self._ends = False
        self._unwatched = False
        self._agreed: Table | None = None  # the table as it was left at the last look; None for a new configuration
        self._owed: Before | None = None  # to be put back, which has not succeeded yet
        self._unserved: frozenset[str] = frozenset()
        self._serving = 0  # real servers that take connections, as of the last look
        self._thorough_at = 0.0
        self._advised: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        return self.force.config

    @property
    def converged(self) -> bool:
        return not self.trouble and self.last is not None and self.last.converged

    async def start(self) -> Outcome:
        """Adopt what is there, and do what can be done. An apply that was cut short is not finished."""
        async with self.writing:
            left = await self.on_worker(self._journal.load)
            table = await self.on_worker(self._reconciler.read_table)
            if left is not None:
                log.warning(
                    "an apply was cut short, and this configuration takes its place",
                    extra={"apply": str(left), "config": self.force.source},
                )
                table, self._owed = left.before.over(table), left.before.besides(self.config)
            self._put_in_force(InForce.taken(self.config, self.force.source, self.force.text, table))
            self.metrics.use(self.config.metrics)
            self.taken_at = time.time()
            return await self._reconcile()

    async def look(self) -> bool:
        """The loop's turn; whether it looked at all that is around the table, too."""
        began_at = time.monotonic()
        async with self.writing:
            if self.unconfirmed is not None and time.monotonic() >= self.unconfirmed.until_at:
                await self._undo(self.unconfirmed, "not confirmed in time")
            else:
                looked_s = time.monotonic() - self._thorough_at
                await self._reconcile(thorough=bool(self.failed) or looked_s >= self.config.drift_interval_s)
            if self.last is not None and not self.last.plan.leaving:
                self._forget_former()
            return self._thorough_at >= began_at

    async def change(
        self,
        config: Config,
        source: str,
        text: str,
        confirm_s: float | None = None,
        drain_s: float | None = None,
        in_place_of: Config | None = None,
    ) -> Applied:
        """Put `config` in force; its removals come at the end, or when it is confirmed, or have drained.

        One that comes while another drains joins it. Given `in_place_of`, it is the same file read anew, and taken only
        while that is in force.
        Raises: NotAppliedError when a part failed that had not failed before, and then the former one is back.
        """
        async with self.writing, self._metrics_for(config, source):
            self._refuse_meanwhile(in_place_of)
            if self._ends and confirm_s is not None:
                raise DirectorError(f"{source} was not applied: the director is stopping, and could not undo it later")
            former, standing = self.force, set(self.last.failures if self.last else ())
            table = await self.on_worker(self._reconciler.read_table)
            self._put_in_force(InForce.taken(config, source, text, table, former.config))
            is_own = self._is_own(source)
            if drain_s is None and former.drain_until_at is not None:
                drain_s = max(0.0, former.drain_until_at - time.monotonic())
            stages = [Removal.HELD]
            if confirm_s is None:
                stages.append(Removal.AT_ONCE if drain_s is None else Removal.WHILE_CONNECTED)
            entry: Entry | None = None
            made: list[Step] = []
            try:
                inputs = self.inputs(removal=Removal.HELD)
                entry = await self.on_worker(lambda: begin(self._reconciler, self._journal, inputs, source, text))
                for removal in stages:
                    outcome = await self.settle(removal)
                    made += [step for step in outcome.steps if not step.interim]
                    failures = [failure for failure in outcome.failures if failure not in standing]
                    if failures:
                        raise await self._not_applied(former, entry, failures, standing)
                drains = drain_s is not None
                to_come = await self.on_worker(lambda: later(self._reconciler, inputs, outcome.observed, drains))
                waits = confirm_s if made or to_come or config != former.config else None
                if waits is not None:
                    awaiting = replace(entry, until=clock(waits))
                    await self.on_worker(lambda: self._journal.save(awaiting))
                    self.unconfirmed = Unconfirmed(
                        former, entry.before, time.monotonic() + waits, awaiting.until, drain_s
                    )
            except NotAppliedError:
                raise
            except DirectorError as error:
                raise await self._not_applied(former, entry, str(error).splitlines(), standing) from error
            if is_own and in_place_of is None:
                self.undone = ""
            still = [f"as before: {failure}" for failure in outcome.failures]
            if waits is None:
                if drain_s is not None:
                    self.force = replace(self.force, drain_until_at=time.monotonic() + drain_s)
                if not outcome.plan.leaving:
                    self._forget_former()
                    to_come = ()
                await self.on_worker(self._journal.remove)
            log.info(
                "configuration is in force",
                extra={"config": source, **({"confirm_until": self.unconfirmed.until} if self.unconfirmed else {})},
            )
            self._tell_configuration("awaits confirmation" if self.unconfirmed else "applied", source)
        await self.advise()
        told = () if is_own else (f"the director's next reload or restart goes back to {self._own_file}",)
        return Applied(tuple(made), (), (*still, *outcome.waiting), to_come, waits, told)

    async def confirm(self) -> Applied:
        """Keep what awaits confirmation, and remove what was held."""
        async with self.writing:
            pending = self._awaited()
            self.unconfirmed = None
            await self.on_worker(self._journal.remove)
            if pending.drain_s is not None:
                self.force = replace(self.force, drain_until_at=time.monotonic() + pending.drain_s)
            log.info("confirmed", extra={"config": self.force.source})
            self._tell_configuration("confirmed", self.force.source)
            outcome = await self.settle()
            inputs = self.inputs()
            leaving = bool(outcome.plan.leaving)
            to_come: tuple[Step, ...] = ()
            if leaving:  # they drain
                to_come = await self.on_worker(lambda: later(self._reconciler, inputs, outcome.observed, True))
            if not leaving:
                self._forget_former()
        made = tuple(step for step in outcome.steps if not step.interim)
        return Applied(made, outcome.failures, outcome.waiting, to_come)

    async def undo(self) -> Applied:
        """Take back what awaits confirmation."""
        async with self.writing:
            outcome = await self._undo(self._awaited(), "undone on request")
        return Applied(outcome.steps, outcome.failures, outcome.waiting, notes=(self.undone,) if self.undone else ())

    async def stop(self) -> None:
        """Take back what nobody has confirmed, and let nothing more wait for that; all else stays as it is."""
        async with self.writing:
            self._ends = True
            if self.unconfirmed is not None:
                try:
                    await self._undo(self.unconfirmed, "told to stop before it was confirmed")
                except DirectorError as error:
                    log.error("could not take it back: `director undo` does", extra={"reason": str(error)})

    async def advise(self) -> None:
        """Log what this host's settings lack for the configuration in force, once. Needs no `writing`."""
        config = self.config
        found = await self.on_worker(lambda: self._advice(config))
        for sentence in found:
            if sentence not in self._advised:
                log.warning("a setting of this host does not fit", extra={"reason": sentence})
        self._advised = found

    async def on_worker(self, act: Callable[[], Answer]) -> Answer:
        """`act` in the worker's thread: netlink and fsync answer in milliseconds mostly, and not always."""
        return await self.worker.run(act)

    # These are called with `writing` held.

    async def observe(self, config: Config) -> Observation:
        """The kernel's state, for `config`."""
        return await self.on_worker(lambda: self._reconciler.observe(config))

    async def plan(self, inputs: Inputs, observed: Observation) -> Plan:
        """What is to be done now."""
        return await self.on_worker(lambda: self._reconciler.plan(inputs, observed))

    async def preview(self, config: Config) -> Planned:
        """What `change` to `config` would do, all of it."""
        observed = await self.observe(config)
        force = InForce.taken(config, "", "", observed.table, self.config)
        inputs = self.inputs(force, Removal.AT_ONCE)
        return await self.on_worker(lambda: planned(self._reconciler, inputs, observed))

    async def settle(self, removal: Removal | None = None) -> Outcome:
        """Reconcile for whoever asked, and let the loop look at its deadlines anew."""
        try:
            return await self._reconcile(removal)
        except Exception as error:
            self.tell_trouble(error)
            raise
        finally:
            self._wake()

    def inputs(self, force: InForce | None = None, removal: Removal | None = None) -> Inputs:
        """What decides now."""
        agreed = self._agreed if force is None else None  # another configuration makes all agree
        force = force or self.force
        config, monitor, witness = force.config, self._monitor, self._witness
        return Inputs(
            *(config, monitor.health(config), self._wishes(), force.adopted, force.unproven, monitor.ready(config)),
            *(removal or self._removal(), force.former),
            agreed=agreed,
            presumed=witness.presumed(config),
            loads=monitor.loads(config),
            silent=monitor.silent(config),
            quorate=witness.quorate,
            now=time.monotonic(),
        )

    def next_ramp_s(self) -> float | None:
        """Time until a weight that comes back slowly is due for its next step; None when there is none."""
        slow = [virtual for virtual in self.config.virtual_servers if virtual.starts_slowly]
        if not slow:
            return None
        now, health = time.monotonic(), self._monitor.health(replace(self.config, virtual_servers=tuple(slow)))
        steps = [
            step_s
            for virtual in slow
            for ref in virtual.refs
            if ref in health and (step_s := next_ramp_s(health[ref], virtual.policy, now)) is not None
        ]
        return min(steps, default=None)

    def standing(self) -> str:
        """How it is, in a line: for the service manager. Needs no `writing`."""
        virtuals = self.config.virtual_servers
        many = len(virtuals)
        total = sum(len(virtual.real_servers) for virtual in virtuals)
        parts = [f"{many} virtual server{'' if many == 1 else 's'}, {self._serving} of {total} real servers serve"]
        if self.unconfirmed is not None:
            parts.append(f"not confirmed, undone at {self.unconfirmed.until}")
        if self.trouble:
            parts.append(f"could not reconcile: {self.trouble}")
        elif self.last is not None and self.last.failures:
            parts.append(f"could not change: {self.last.failures[0]}")
        return "; ".join(parts)

    def troubles(self) -> dict[ServerRef, str]:
        """Which real servers cannot be probed, and why. Needs no `writing`."""
        return self._monitor.troubles(self.config)

    def probes(self) -> tuple[dict[ServerRef, Tally], Punctuality]:
        """What is counted of probes, of each real server's and of all. Needs no `writing`."""
        return self._monitor.tallies(self.config), self._monitor.punctuality

    def probing(self, check: Check) -> Probing:
        """What is known of `check`. Needs no `writing`."""
        return self._monitor.probing(check)

    def tell_trouble(self, error: Exception) -> None:
        """Log, once, that it could not even be tried."""
        expected = isinstance(error, DirectorError)
        trouble = str(error) if expected else f"internal error: {error!r}"
        if trouble != self.trouble:
            log.error(
                "could not reconcile, trying again",
                extra={"reason": trouble},
                exc_info=None if expected else error,
            )
        self.trouble = trouble
        self.failed += 1
        self.looks = self.looks.another(None)

    @asynccontextmanager
    async def _metrics_for(self, config: Config, source: str) -> AsyncIterator[None]:
        """Have the address at hand that `config` serves metrics at, and serve what is in force then."""
        try:
            self.metrics.reserve(config.metrics)
        except HostError as error:
            self._tell_configuration(REFUSED, source, str(error))
            raise refusal(source, [str(error)]) from error
        try:
            yield
        finally:
            self.metrics.use(self.config.metrics)

    def _removal(self) -> Removal:
        if self.unconfirmed is not None:
            return Removal.HELD
        drains = self.force.drain_until_at is not None and time.monotonic() < self.force.drain_until_at
        return Removal.WHILE_CONNECTED if drains else Removal.AT_ONCE

    async def _reconcile(self, removal: Removal | None = None, *, thorough: bool = True) -> Outcome:
        inputs = replace(self.inputs(removal=removal), thorough=thorough)
        if thorough:
            self._thorough_at = time.monotonic()
        save = self._witness.look(inputs)  # the cause is told before what it leads to
        owed, back = self._owed, None
        if owed is not None:
            back = await self.on_worker(lambda: self._reconciler.put_back(owed, inputs))
        try:
            outcome = await self.on_worker(lambda: self._reconciler.reconcile(inputs))
        finally:
            self._watch()
        if back is not None and back.failures:
            outcome = replace(outcome, converged=False, failures=(*back.failures, *outcome.failures))
        elif owed is not None:
            self._owed = None
            await self.on_worker(self._journal.remove)
        self.last, self._agreed = outcome, outcome.agreed
        self.drift.tell(outcome.drifts, inputs.config)
        if self.trouble:
            log.info("reconciles again")
        self.trouble = ""
        self.failed = self.failed + 1 if outcome.failures else 0
        self.looks = self.looks.another(None if outcome.failures else time.time())
        self._announcements.keep(outcome.observed.vips)
        await self.on_worker(save)
        self._tell_unserved(inputs)
        return outcome

    def _watch(self) -> None:
        """Probe for what is in force: after its first look, for the way of some probes leads through the table."""
        if self._unwatched:
            self._unwatched = False
            self._monitor.watch(self.force.config, self.force.former or Config())

    async def _not_applied(
        self, former: InForce, entry: Entry | None, failures: Sequence[str], standing: set[str]
    ) -> NotAppliedError:
        """Put `former` back in force; the error that says why."""
        source = self.force.source
        self._put_in_force(former)
        self._tell_configuration(REFUSED, source, "; ".join(failures))
        if entry is None:  # nothing was begun
            return refusal(source, failures)
        self._owed = entry.before.besides(former.config)
        try:
            left = [failure for failure in (await self.settle()).failures if failure not in standing]
        except DirectorError as error:
            left = [str(error)]
        return refusal(source, failures, left, "the director goes on trying")

    async def _undo(self, pending: Unconfirmed, why: str) -> Outcome:
        undone = self.force.source
        self.unconfirmed, self._owed = None, pending.before.besides(pending.former.config)
        self._put_in_force(pending.former)
        self.metrics.use(self.config.metrics)
        log.warning("taken back", extra={"config": undone, "reason": why, "in_force": self.force.source})
        self._tell_configuration("taken back", undone, why)
        if self._is_own(undone):
            self.undone = f"{self._own_file} still holds what was undone: a reload or restart applies it again"
            log.warning("a reload or restart would apply it again", extra={"config": self._own_file})
        return await self.settle()

    def _tell_configuration(self, now: str, source: str, why: str = "") -> None:
        if now in {"applied", "awaits confirmation"}:
            self.taken_at = time.time()
        self._tell(configuration_event(now, source, why))

    def _is_own(self, source: str) -> bool:
        """Whether a reload reads `source`."""
        return Path(source).absolute() == Path(self._own_file).absolute()

    def _put_in_force(self, force: InForce) -> None:
        if force.config is not self.force.config:
            self._agreed = None
        self.force = force
        self._unwatched = True

    def _forget_former(self) -> None:
        """Nothing of it is there any more."""
        if self.force.former is not None and self.unconfirmed is None:
            self._put_in_force(replace(self.force, former=None, drain_until_at=None))

    def _awaited(self) -> Unconfirmed:
        if self.unconfirmed is None:
            raise ConfigError("nothing awaits confirmation: `director status` shows what is in force")
        return self.unconfirmed

    def _refuse_meanwhile(self, in_place_of: Config | None) -> None:
        if self.unconfirmed is not None:
            raise ConfigError(
                f"{self.force.source} awaits confirmation until {self.unconfirmed.until}: "
                "`director confirm` or `director undo` comes first"
            )
        if in_place_of is not None and self.config is not in_place_of:
            raise DirectorError("another configuration has come into force meanwhile")

    def _tell_unserved(self, inputs: Inputs) -> None:
        """Log, once, which virtual servers refuse every connection for want of a real server."""
        weights = inputs.weights()
        serving = {
            vs.name: sum(weights[vs.ref(real)].value > 0 for real in vs.real_servers)
            for vs in inputs.config.virtual_servers
        }
        self._serving = sum(serving.values())
        unserved = frozenset(name for name, number in serving.items() if not number)
        for name in sorted(unserved - self._unserved):
            log.error("no real server takes connections", extra={"vs": name})
        for name in sorted(self._unserved - unserved):
            log.info("real servers take connections again", extra={"vs": name})
        self._unserved = unserved
