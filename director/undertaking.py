"""What every apply has in common, with a running director or without.

One rule: it is written down before anything is changed, and it is all or nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from director.api.asking import asked_by
from director.core.answers import Planned, Step
from director.core.event import Event, EventKind
from director.core.foreign import notes, obstacles
from director.core.removal import Removal
from director.core.steps import steps
from director.journal import Entry, Journal
from director.kit.errors import DirectorError
from director.reconcile import Reconciler
from director.terms import Inputs, Observation


class NotAppliedError(DirectorError):
    """An apply failed in a part. What was there before is back, or the message says what is not."""


def begin(reconciler: Reconciler, journal: Journal, inputs: Inputs, source: str, text: str) -> Entry:
    """Write down what there is before `inputs` are applied; nothing is written where they change nothing.

    Where an earlier apply was cut short, what that one found is what there was. Raises: KernelError, HostError.
    """
    observed = reconciler.observe(inputs.config)
    before, left = reconciler.before(inputs, observed), journal.load()
    entry = Entry(source, text, before.under(left.before) if left else before, os.getpid(), clock())
    if left or reconciler.plan(inputs, observed).acts:
        journal.save(entry)
    return entry


def planned(reconciler: Reconciler, inputs: Inputs, observed: Observation) -> Planned:
    """All that an apply of `inputs` would do, and what that does to traffic."""
    config = inputs.config
    plan = reconciler.plan(replace(inputs, removal=Removal.AT_ONCE), observed)
    return Planned(
        tuple(steps(plan, config, inputs.weights(), observed.counters.reals, inputs.former)),
        (*obstacles(plan.in_the_way, config), *reconciler.homeless(plan)),
        tuple(notes(observed.foreign, plan.in_the_way, config.exclusive)),
    )


def later(reconciler: Reconciler, inputs: Inputs, observed: Observation, drains: bool = False) -> tuple[Step, ...]:
    """What is still to come once nothing is held any more, and what that does to traffic.

    `drains`: it waits for its connections, so that there is no need to tell of them.
    """
    plan = replace(reconciler.plan(replace(inputs, removal=Removal.AT_ONCE), observed), waiting=())
    carried = {} if drains else observed.counters.reals
    return tuple(steps(plan, inputs.config, inputs.weights(), carried, inputs.former))


def refusal(
    source: str, failures: Iterable[str], left: Sequence[str] = (), again: str = "`director undo` tries again"
) -> NotAppliedError:
    """The error that says what failed, and what is `left` to be put back; `again` says by whom."""
    end = [f"could not be put back: {each}" for each in left]
    if left:
        end.append(f"{source} is not applied, and not all that was there before is back: {again}")
    else:
        end = [f"nothing of {source} is applied: what was there before is back"]
    return NotAppliedError("\n".join([*failures, *end]))


def configuration_event(now: str, source: str, why: str = "") -> Event:
    """What became of the configuration in `source`, why, and who asked for it."""
    reason = ", ".join(each for each in (source, why, f"asked by {asked_by()}" if asked_by() else "") if each)
    return Event(time.time(), EventKind.CONFIGURATION, now=now, reason=reason)


def clock(in_s: float = 0.0) -> str:
    """The time of day in `in_s` seconds, for people."""
    return (datetime.now().astimezone() + timedelta(seconds=in_s)).isoformat(" ", "seconds")
