"""An apply without a running director: change, compare, and only then remove.

One rule: whatever ends it early, an error or an interruption, what was there before is put back, or the journal stays
for whoever comes next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from director.core.answers import Applied, Step
from director.core.model import Config, ServerRef
from director.core.removal import Removal
from director.core.status import found
from director.core.steps import Names
from director.core.table import Table
from director.core.weight import Wish
from director.journal import Entry, Journal
from director.kit.errors import DirectorError
from director.reconcile import Reconciler
from director.terms import Inputs, Outcome
from director.undertaking import NotAppliedError, begin, later, refusal

LOOK_EVERY_S = 0.5  # while draining

Progress = Callable[[Sequence[tuple[str, int]], float], None]
"""Told who still drains, with connections, and for how many seconds at most; with 0 at the end, who was cut off."""


def inputs_once(config: Config, table: Table, wishes: Mapping[ServerRef, Wish]) -> Inputs:
    """Without probes there will be no verdict: a checked server at weight 0 keeps it, others get the file's weight.

    One that another forwarding method has at 0 is taken as drained for the change.
    """
    adopted = {
        virtual.ref(place.real): 0
        for virtual, place in config.placed()
        if (row := found(table, place)) is not None
        and (row.forward, row.weight) == (virtual.method_of(place.real).forward, 0)
    }
    ready = frozenset(virtual.name for virtual in config.virtual_servers)
    return Inputs(config, wishes=wishes, adopted=adopted, ready=ready, probed=False)


class Once:
    """One apply of `text`, which is `inputs`; `change` comes first, then `remove`, `drain` or `undo`.

    Each raises NotAppliedError when it failed and was put back as far as that went; DirectorError when it could not
    begin.
    """

    def __init__(self, reconciler: Reconciler, journal: Journal, inputs: Inputs, source: str, text: str) -> None:
        self._reconciler = reconciler
        self._journal = journal
        self._inputs = inputs
        self._source = source
        self._text = text
        self._entry: Entry | None = None

    def change(self, drains: bool = False) -> Applied:
        """Do all that can be undone; what `later` has is at weight 0, or as it was. An interruption undoes it.

        `drains`: `drain` follows, so that `later` need not ask for one.
        """
        try:
            self._entry = begin(self._reconciler, self._journal, self._inputs, self._source, self._text)
            outcome = self._reconcile(Removal.HELD)
            return Applied(_made(outcome), later=later(self._reconciler, self._inputs, outcome.observed, drains))
        except KeyboardInterrupt:
            raise self._refused(["interrupted"]) from None

    def await_confirmation(self, until: str) -> None:
        """Note in the journal until when, for people, this is to be confirmed."""
        if self._entry is not None:
            self._journal.save(replace(self._entry, until=until))

    def remove(self) -> Applied:
        """Do the rest at once. An interruption undoes all of it."""
        try:
            outcome = self._reconcile(Removal.AT_ONCE)
        except KeyboardInterrupt:
            raise self._refused(["interrupted"]) from None
        self._journal.remove()
        return Applied(_made(outcome), (), outcome.waiting)

    def drain(self, drain_s: float, tell: Progress, sleep: Callable[[float], None] = time.sleep) -> Applied:
        """Do the rest, each removal when its connections have ended, or after `drain_s`.

        Interrupted while it waits, it leaves what it drains at weight 0, and the journal; in the end, as `remove`.
        """
        names = Names.of(self._inputs.config, self._inputs.former)
        until_at = time.monotonic() + drain_s
        done: tuple[Step, ...] = ()
        while True:
            outcome = self._reconcile(Removal.WHILE_CONNECTED)
            done += _made(outcome)
            left_s = until_at - time.monotonic()
            leaving = [(names.leaving(each), each.connections) for each in outcome.plan.leaving]
            if not leaving or left_s <= 0:
                break
            tell(leaving, left_s)
            sleep(min(LOOK_EVERY_S, left_s))
        applied = self.remove()
        tell(leaving, 0.0)
        return replace(applied, steps=done + applied.steps)

    def refused(self, why: str) -> NotAppliedError:
        """Put back what was there before, because of `why`; the error that says so."""
        return self._refused([why])

    def undo(self) -> Applied:
        """Put back what was there before."""
        if self._entry is None:
            return Applied()
        return undo(self._reconciler, self._journal, self._entry, self._inputs)

    def _reconcile(self, removal: Removal) -> Outcome:
        try:
            outcome = self._reconciler.reconcile(replace(self._inputs, removal=removal))
        except DirectorError as error:
            raise self._refused([str(error)]) from error
        if outcome.failures:
            raise self._refused(outcome.failures)
        return outcome

    def _refused(self, failures: Sequence[str]) -> NotAppliedError:
        if self._entry is None:  # nothing was begun
            return refusal(self._source, failures)
        try:
            back = self._reconciler.put_back(self._entry.before, self._inputs)
            if back.converged:
                self._journal.remove()
        except DirectorError as error:
            return refusal(self._source, failures, [str(error)])
        return refusal(self._source, failures, (*back.failures, *back.waiting))


def undo(reconciler: Reconciler, journal: Journal, entry: Entry, names: Inputs) -> Applied:
    """Put back what `entry` found; what cannot be put back is in `failures` and `waiting`. Raises: DirectorError."""
    back = reconciler.put_back(entry.before, names)
    if back.converged:
        journal.remove()
    return Applied(back.steps, back.failures, tuple(f"{each}: run `director undo` again then" for each in back.waiting))


def _made(outcome: Outcome) -> tuple[Step, ...]:
    return tuple(step for step in outcome.steps if not step.interim)
