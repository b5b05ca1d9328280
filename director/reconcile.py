"""Makes the kernel agree with what is wanted: wake, read, decide, apply, read again.

One rule: this is the only writer of IPVS and of the host's addresses, and it acts on what is, never on what
happened. At most three passes; then the caller waits. One virtual server's failure does not block the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from director.core import namespace
from director.core.addressing import plan_addresses
from director.core.before import Before
from director.core.desired import desired_table, insertion_weights
from director.core.diff import AddVirtual, Change, EditReal, NamespaceChange, diff
from director.core.drift import Drift, merge, rebase, record, reporting
from director.core.foreign import obstacles, set_aside
from director.core.handover import hold_back
from director.core.model import Config
from director.core.plan import Plan
from director.core.removal import Removal, hold_removals, keep_methods
from director.core.steering import probe_paths
from director.core.steps import Account, waiting_for
from director.core.table import Table, VirtualKey
from director.core.vip import Vip
from director.kit import collector
from director.kit.errors import HostError
from director.kit.net import Endpoint
from director.memory import Memory, Owned
from director.terms import Addresses, Inputs, Kernel, Observation, Outcome, Refusal, Surroundings

log = logging.getLogger(__name__)

PASSES = 3


class Reconciler:
    """Compares and writes. It blocks for milliseconds: an event loop calls it in a thread, one call at a time."""

    def __init__(
        self,
        kernel: Kernel,
        addresses: Addresses,
        memory: Memory,
        announce: Callable[[Vip], None] = lambda vip: None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._kernel = kernel
        self._addresses = addresses
        self._memory = memory
        self._announce = announce
        self._around = surroundings
        self._reported: tuple[str, ...] = ()
        self._held: tuple[str, ...] = ()

    def observe(self, config: Config) -> Observation:
        """Read the kernel. Raises: KernelError, HostError."""
        return self._observe(frozenset(config.vips()))

    def read_table(self) -> Table:
        """The kernel's table now. Raises: KernelError."""
        return self._kernel.read()[0]

    def plan(self, inputs: Inputs, observed: Observation) -> Plan:
        """What would have to change. Raises: HostError when the memory is damaged."""
        return self._plan(inputs, desired_table(inputs.config, inputs.weights()), observed)

    def homeless(self, plan: Plan) -> tuple[str, ...]:
        """Why addresses of `plan` cannot be added, a sentence for each interface."""
        return tuple(dict.fromkeys(self._addresses.missing((*plan.vips_add, *plan.waiting)).values()))

    def _plan(self, inputs: Inputs, desired: Table, observed: Observation) -> Plan:
        owned = self._memory.load()
        managed = frozenset(observed.table) if inputs.config.exclusive else owned.virtual_servers
        desired = namespace.aim(inputs.config, owned.namespace, desired, observed.table)
        desired, drifts = merge(inputs.agreed, observed.table, desired, reporting(inputs.config))
        desired, in_the_way = set_aside(observed.table, desired, observed.foreign)
        carried = observed.counters.reals
        if inputs.removal is Removal.HELD:
            desired = keep_methods(observed.table, desired)
        paths = probe_paths(observed.table, (inputs.config, inputs.former))
        aim, held = hold_back(observed.table, desired, carried, paths)
        # What is declared and not in the table was left out on purpose: nobody means to drain it.
        out = () if inputs.removal is Removal.AT_ONCE else {(at.key, at.endpoint) for _, at in inputs.config.placed()}
        aim, leaving = hold_removals(observed.table, aim, managed, carried, inputs.removal, out, paths)
        inserted_at = insertion_weights(inputs.config, inputs.wishes)
        stay = inputs.removal if inputs.removal is Removal.HELD or leaving else Removal.AT_ONCE
        vips = plan_addresses(inputs.config, inputs.ready, observed.vips, owned.vips, stay)
        changes = diff(observed.table, aim, managed, inserted_at)
        plan = replace(
            vips,
            changes=changes,
            held=held,
            leaving=leaving,
            drifts=drifts,
            in_the_way=in_the_way,
            is_held=inputs.removal is Removal.HELD,
        )
        if self._around is None or not inputs.thorough:
            return plan
        return replace(plan, around=self._around.pending(inputs.config, release=plan.releases))

    def reconcile(self, inputs: Inputs) -> Outcome:
        """Bring the kernel to what `inputs` ask for, as far as it lets.

        Raises: KernelError, HostError when the kernel cannot be read or does not answer, or the memory cannot be
        written. What was changed before that stands, and is in the log.
        """
        declared, vips = inputs.config.keys(), frozenset(inputs.config.vips())
        with collector.paused():
            weights = inputs.weights()
            desired = desired_table(inputs.config, weights)
            account = Account(inputs.config, weights, inputs.former)

            def plan_for(seen: Observation, agreed: Table | None) -> Plan:
                return self._plan(replace(inputs, agreed=agreed), desired, seen)

            outcome = self._converge(plan_for, inputs, account, declared, vips)
        if not (outcome.failures or outcome.plan.acts):
            self._forget(inputs.config, outcome.observed)
        return outcome

    def before(self, inputs: Inputs, observed: Observation) -> Before:
        """What `reconcile` of `inputs` may touch, as it is now. Raises: HostError when the memory is damaged."""
        owned, config = self._memory.load(), inputs.config
        keys = owned.virtual_servers | config.keys()
        if config.exclusive:
            keys |= frozenset(observed.table)
        return Before(
            keys,
            Table(
                MappingProxyType({key: entry for key, entry in observed.table.entries.items() if key in keys}),
                observed.table.timeouts if config.timeouts or owned.namespace.timeouts else None,
                observed.table.sync if config.sync or owned.namespace.sync or config.exclusive else None,
            ),
            owned.vips | frozenset(config.vips()),
            observed.vips,
            owned.virtual_servers,
            owned.vips,
            self._around.standing() if self._around is not None else None,
            owned.namespace,
        )

    def put_back(self, before: Before, names: Inputs) -> Outcome:
        """Make everything as `before` has it, and the memory too. `names` are for people. Raises: as `reconcile`."""
        claimed = before.own_keys & before.keys
        account = Account(names.config, names.weights(), names.former)
        outcome = self._converge(lambda seen, _: self._plan_back(before, seen), names, account, claimed, before.places)
        if self._around is not None and before.around is not None:
            failures = self._around.put_back(before.around).failures
            both = (*outcome.failures, *failures)
            outcome = replace(outcome, failures=both, converged=outcome.converged and not failures)
        if not (outcome.failures or outcome.plan.acts):
            owned = self._memory.load()
            own_vips = before.own_vips & outcome.observed.vips
            self._memory.save(
                Owned(
                    (owned.virtual_servers - before.keys) | claimed,
                    (owned.vips - before.places) | own_vips,
                    before.own_namespace,
                )
            )
        return outcome

    def _plan_back(self, before: Before, observed: Observation) -> Plan:
        owned = self._memory.load()
        aim, held = hold_back(observed.table, before.table, observed.counters.reals)
        ours = owned.vips & observed.vips & before.places
        return Plan(
            changes=diff(observed.table, aim, before.keys),
            vips_add=tuple(sorted((before.own_vips & before.vips) - observed.vips, key=str)),
            vips_remove=tuple(sorted(ours - before.vips, key=str)),
            held=held,
        )

    def _observe(self, vips: frozenset[Vip]) -> Observation:
        seen = self._kernel.survey()
        present = self._addresses.present(vips | self._memory.load().vips)
        return Observation(seen.table, seen.counters, present, seen.foreign)

    def _converge(
        self,
        plan_for: Callable[[Observation, Table | None], Plan],
        inputs: Inputs,
        account: Account,
        claimed: frozenset[VirtualKey],
        vips: frozenset[Vip],
    ) -> Outcome:
        """Do what `plan_for` says until it says nothing. `claimed` become ours before anything is made."""
        failures: list[str] = []
        drifts: list[Drift] = []
        agreed = inputs.agreed

        def look() -> tuple[Observation, Plan]:
            nonlocal agreed
            observed = self._observe(vips)
            plan = plan_for(observed, agreed)
            agreed = rebase(agreed, observed.table, plan.drifts)
            drifts.extend(drift for drift in plan.drifts if not drift.kept)
            return observed, plan

        for _ in range(PASSES):
            observed, plan = look()
            if not plan.acts:
                failures = []
                break
            failures, stale, written = self._apply(plan, inputs.config, observed.table, account, claimed)
            agreed = record(agreed or observed.table, written)
            if failures and not stale:
                observed, plan = look()
                break
        else:
            observed, plan = look()
            if not failures and plan.acts:
                failures = ["the table keeps changing under us: is another program writing it?"]
        failures += obstacles(plan.in_the_way, inputs.config)
        drifts += [drift for drift in plan.drifts if drift.kept]
        waiting = waiting_for(plan, inputs.config, inputs.former)
        held = (*(str(each.real) for each in plan.held), *(str(each.real) for each in plan.leaving if each.drains))
        self._report(tuple(failures), held, waiting)
        return Outcome(
            *(not failures and not waiting, account, tuple(failures), tuple(waiting), observed, plan),
            *(tuple(drifts), agreed or observed.table),
        )

    def _apply(
        self, plan: Plan, config: Config, table: Table, account: Account, claimed: frozenset[VirtualKey]
    ) -> tuple[list[str], bool, list[Change]]:
        """Make one plan's changes: what failed, whether a failure means "read again", and what the table got of them.

        `account` is kept of all.
        """
        owned = self._memory.load()
        # A VIP that was there before us is not ours to take away.
        ours = namespace.claim(config, owned.namespace, table)
        owned = Owned(owned.virtual_servers | claimed, owned.vips | set(plan.vips_add), ours)
        self._memory.save(owned)
        failures: list[str] = []
        refused: list[Refusal] = []
        written: list[Change] = []

        def note(part: Plan) -> None:
            if plan.held or plan.leaving:
                edited = _edited(part)
                part = replace(
                    part,
                    held=tuple(each for each in plan.held if (each.key, each.real) in edited),
                    leaving=tuple(each for each in plan.leaving if (each.key, each.real) in edited),
                )
            account.add(part)
            if log.isEnabledFor(logging.INFO):
                for step in account.lines_of(part):
                    log.info("changed", extra={"step": str(step)})

        def write(changes: tuple[Change, ...]) -> None:
            told = list(self._kernel.write(changes)) if changes else []
            failed = {id(refusal.change) for refusal in told}
            made = tuple(change for change in changes if id(change) not in failed) if failed else changes
            note(Plan(changes=made))
            written.extend(made)
            refused.extend(told)

        if self._around is not None and plan.around:
            failures += self._around.enforce(config, release=False).failures
            if not failures:
                note(Plan(around=plan.around))
        write(plan.settles)
        unserved = {refusal.change.key for refusal in refused if isinstance(refusal.change, AddVirtual)}
        nobody_there = _unserved_vips(config, unserved) | self._homeless(plan, failures)
        not_ours = set()
        missing = {vip.address for vip in plan.vips_add}
        for vip in plan.vips_add:
            added = None if vip in nobody_there else self._address(self._addresses.add, vip, failures)
            if added:
                note(Plan(vips_add=(vip,)))
                self._announce(vip)
            else:  # it failed, or somebody added it since we looked: whoever adds it later owns it
                not_ours.add(vip)
            if added is not None:
                missing.discard(vip.address)
        for vip in plan.vips_remove:
            if self._address(self._addresses.remove, vip, failures):
                note(Plan(vips_remove=(vip,)))
        write(plan.removes)
        for vip in plan.vips_replaced:
            if vip.address not in missing and self._address(self._addresses.remove, vip, failures):
                note(Plan(vips_replaced=(vip,)))
        self._memory.save(replace(owned, vips=owned.vips - not_ours))
        if self._around is not None and plan.around:
            done = self._around.enforce(config, release=plan.releases)
            failures += (failure for failure in done.failures if failure not in failures)
        # Where the virtual server could not be made, its real servers' failures say nothing more.
        told = [
            refusal
            for refusal in refused
            if isinstance(refusal.change, AddVirtual | NamespaceChange) or refusal.change.key not in unserved
        ]
        stale = any(refusal.is_stale for refusal in told)
        return [*(refusal.reason for refusal in told), *failures], stale, written

    def _homeless(self, plan: Plan, failures: list[str]) -> set[Vip]:
        """Addresses that have no interface to be on; each such interface is a failure."""
        missing = self._addresses.missing(plan.vips_add)
        failures += dict.fromkeys(missing.values())
        return set(missing)

    def _address(self, act: Callable[[Vip], bool], vip: Vip, failures: list[str]) -> bool | None:
        """Whether `act` changed anything; None when it failed."""
        try:
            return act(vip)
        except HostError as error:
            failures.append(str(error))
            return None

    def _forget(self, config: Config, observed: Observation) -> None:
        """Drop what is neither declared nor there any more from the memory."""
        owned, declared = self._memory.load(), config.keys()
        keys = frozenset(key for key in owned.virtual_servers | declared if key in declared or observed.table.get(key))
        ours = namespace.settled(config, owned.namespace, observed.table)
        self._memory.save(Owned(keys, owned.vips & observed.vips, ours))

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


def _unserved_vips(config: Config, unserved: set[VirtualKey]) -> set[Vip]:
    """Addresses behind which there is nobody but those who could not be made."""
    failed = {vip for vs in config.virtual_servers if not unserved.isdisjoint(vs.keys) for vip in vs.vips}
    return failed - {vip for vs in config.virtual_servers if unserved.isdisjoint(vs.keys) for vip in vs.vips}


def _edited(plan: Plan) -> set[tuple[VirtualKey, Endpoint]]:
    return {(change.key, change.real) for change in plan.changes if isinstance(change, EditReal)}
