"""Makes the kernel agree with what is wanted: wake, read, decide, apply, read again.

One rule: this is the only writer of IPVS and of the host's addresses, and it acts on what is, never on what
happened. At most three passes; then the caller waits. One virtual server's failure does not block the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from director.core.desired import desired_table, insertion_weights
from director.core.diff import AddVirtual, Change, EditReal, NamespaceChange, diff
from director.core.handover import hold_back
from director.core.model import Config, ServerRef
from director.core.plan import Plan
from director.core.steps import Step, steps, waiting_for
from director.core.table import Table, TableCounters, VirtualKey
from director.core.vip import Vip
from director.core.weight import Weight, Wish, effective_weights
from director.kit.errors import HostError
from director.kit.health import HealthState
from director.kit.net import Endpoint
from director.memory import Memory, Owned

log = logging.getLogger(__name__)

PASSES = 3


class Refusal(Protocol):
    """One change that the kernel did not make."""

    @property
    def change(self) -> Change: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_stale(self) -> bool: ...


class Kernel(Protocol):
    """The IPVS table of this network namespace."""

    def read(self) -> tuple[Table, TableCounters]: ...
    def write(self, changes: Iterable[Change]) -> Iterable[Refusal]: ...


class Addresses(Protocol):
    """The host's addresses."""

    def present(self, vips: Iterable[Vip]) -> frozenset[Vip]: ...
    def add(self, vip: Vip) -> bool: ...
    def remove(self, vip: Vip) -> bool: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a decision is made of, besides the kernel's own state.

    `ready` names the virtual servers whose address may be raised.
    """

    config: Config
    health: Mapping[ServerRef, HealthState] = field(default_factory=dict)
    wishes: Mapping[ServerRef, Wish] = field(default_factory=dict)
    adopted: Mapping[ServerRef, int] = field(default_factory=dict)
    unproven: frozenset[ServerRef] = frozenset()
    ready: frozenset[str] = frozenset()

    def weights(self) -> dict[ServerRef, Weight]:
        return effective_weights(self.config, self.health, self.wishes, self.adopted, self.unproven)


@dataclass(frozen=True, slots=True)
class Observation:
    """The kernel's state at one moment."""

    table: Table
    counters: TableCounters
    vips: frozenset[Vip]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconciliation did; `observed` is the state afterwards.

    `failures` are sentences for an operator; so is `waiting`, what a later look will do and this one could not.
    """

    converged: bool
    steps: tuple[Step, ...]
    failures: tuple[str, ...]
    waiting: tuple[str, ...]
    observed: Observation


class Reconciler:
    """Compares and writes. It blocks for milliseconds: an event loop calls it in a thread, one call at a time."""

    def __init__(
        self,
        kernel: Kernel,
        addresses: Addresses,
        memory: Memory,
        announce: Callable[[Vip], None] = lambda vip: None,
    ) -> None:
        self._kernel = kernel
        self._addresses = addresses
        self._memory = memory
        self._announce = announce
        self._reported: tuple[str, ...] = ()
        self._held: tuple[str, ...] = ()

    def observe(self, config: Config) -> Observation:
        """Read the kernel. Raises: KernelError, HostError."""
        table, counters = self._kernel.read()
        vips = {*config.vips(), *self._memory.load().vips}
        return Observation(table, counters, self._addresses.present(vips))

    def read_table(self) -> Table:
        """The kernel's table now. Raises: KernelError."""
        return self._kernel.read()[0]

    def plan(self, inputs: Inputs, observed: Observation) -> Plan:
        """What would have to change. Raises: HostError when the memory is damaged."""
        owned = self._memory.load()
        desired = desired_table(inputs.config, inputs.weights())
        wanted = inputs.config.vips()
        # Virtual servers that share an address wait for the last of them: raising it serves them all.
        early = {vip for vs in inputs.config.virtual_servers if vs.name not in inputs.ready for vip in vs.vips}
        missing = [vip for vip in wanted if vip not in observed.vips]
        homes = {vip.address: vip for vip in wanted}
        leaving = sorted((owned.vips & observed.vips) - set(wanted), key=str)
        aim, held = hold_back(observed.table, desired, observed.counters.reals)
        inserted_at = insertion_weights(inputs.config, inputs.wishes)
        return Plan(
            changes=diff(observed.table, aim, owned.virtual_servers, inserted_at),
            vips_remove=tuple(vip for vip in leaving if vip.address not in homes),
            # One that moves leaves its old interface last: where the new one is not there, it goes on being served.
            vips_replaced=tuple(vip for vip in leaving if vip.address in homes and homes[vip.address] not in early),
            vips_add=tuple(vip for vip in missing if vip not in early),
            waiting=tuple(vip for vip in missing if vip in early),
            held=held,
        )

    def reconcile(self, inputs: Inputs) -> Outcome:
        """Bring the kernel to what `inputs` ask for, as far as it lets.

        Raises: KernelError, HostError when the kernel cannot be read or does not answer, or the memory cannot be
        written. What was changed before that stands, and is in the log.
        """
        done: list[Step] = []
        failures: list[str] = []
        for _ in range(PASSES):
            observed = self.observe(inputs.config)
            plan = self.plan(inputs, observed)
            if not plan.acts:
                self._forget(inputs, observed)
                failures = []
                break
            made, failures, stale = self._apply(plan, inputs)
            done += made
            if failures and not stale:
                observed = self.observe(inputs.config)
                plan = self.plan(inputs, observed)
                break
        else:
            observed = self.observe(inputs.config)
            plan = self.plan(inputs, observed)
            if not failures and plan.acts:
                failures = ["the table keeps changing under us: is another program writing it?"]
        waiting = waiting_for(plan, inputs.config)
        self._report(tuple(failures), tuple(str(each.real) for each in plan.held), waiting)
        converged = not failures and not waiting
        return Outcome(converged, tuple(done), tuple(failures), tuple(waiting), observed)

    def _apply(self, plan: Plan, inputs: Inputs) -> tuple[list[Step], list[str], bool]:
        """Make one plan's changes: what was made, what failed, and whether a failure means "read again"."""
        owned = self._memory.load()
        declared = inputs.config.keys()
        # A VIP that was there before us is not ours to take away.
        owned = Owned(owned.virtual_servers | declared, owned.vips | set(plan.vips_add))
        self._memory.save(owned)
        made: list[Step] = []
        failures: list[str] = []
        weights = inputs.weights()

        def note(part: Plan) -> None:
            drained = tuple(each for each in plan.held if (each.key, each.real) in _edited(part))
            for step in steps(replace(part, held=drained), inputs.config, weights):
                made.append(step)
                log.info("changed", extra={"step": str(step)})

        for vip in plan.vips_remove:
            if self._address(self._addresses.remove, vip, failures):
                note(Plan(vips_remove=(vip,)))
        refused = list(self._kernel.write(plan.changes)) if plan.changes else []
        failed = {id(refusal.change) for refusal in refused}
        note(Plan(changes=tuple(change for change in plan.changes if id(change) not in failed)))
        unserved = {refusal.change.key for refusal in refused if isinstance(refusal.change, AddVirtual)}
        # Where the virtual server could not be made, its real servers' failures say nothing more.
        told = [
            refusal
            for refusal in refused
            if isinstance(refusal.change, AddVirtual | NamespaceChange) or refusal.change.key not in unserved
        ]
        failures += [refusal.reason for refusal in told]
        served = {vip for vs in inputs.config.virtual_servers if not unserved.intersection(vs.keys) for vip in vs.vips}
        not_ours = set()
        missing = {vip.address for vip in plan.vips_add}
        for vip in plan.vips_add:
            added = self._address(self._addresses.add, vip, failures) if vip in served else None
            if added:
                note(Plan(vips_add=(vip,)))
                self._announce(vip)
            else:  # it failed, or somebody added it since we looked: whoever adds it later owns it
                not_ours.add(vip)
            if added is not None:
                missing.discard(vip.address)
        for vip in plan.vips_replaced:
            if vip.address not in missing and self._address(self._addresses.remove, vip, failures):
                note(Plan(vips_replaced=(vip,)))
        self._memory.save(replace(owned, vips=owned.vips - not_ours))
        return made, failures, any(refusal.is_stale for refusal in told)

    def _address(self, act: Callable[[Vip], bool], vip: Vip, failures: list[str]) -> bool | None:
        """Whether `act` changed anything; None when it failed."""
        try:
            return act(vip)
        except HostError as error:
            failures.append(str(error))
            return None

    def _forget(self, inputs: Inputs, observed: Observation) -> None:
        """Drop what is neither declared nor there any more from the memory."""
        owned = self._memory.load()
        declared = inputs.config.keys()
        keys = frozenset(key for key in owned.virtual_servers | declared if key in declared or observed.table.get(key))
        self._memory.save(Owned(keys, owned.vips & observed.vips))

    def _report(self, failures: tuple[str, ...], held: tuple[str, ...], waiting: list[str]) -> None:
        if failures != self._reported:
            for failure in failures:
                log.error("could not change", extra={"reason": failure})
            if not failures:
                log.info("the kernel agrees again")
        if held != self._held:  # their connections are counted anew at every look, and that is no news
            for sentence in waiting:
                log.info("not changed yet", extra={"reason": sentence})
        self._reported, self._held = failures, held


def _edited(plan: Plan) -> set[tuple[VirtualKey, Endpoint]]:
    return {(change.key, change.real) for change in plan.changes if isinstance(change, EditReal)}
