"""Timeouts and sync daemons, of which a network namespace has one set: what they should be, and whose they are.

One rule: what the file does not name is left alone, but for what we changed ourselves: that is put back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from director.core.model import Config
from director.core.table import SyncDaemon, Table, Timeouts


@dataclass(frozen=True, slots=True)
class OwnedNamespace:
    """The timeouts that we set with what they were before, and the sync daemons that we started, as asked for."""

    timeouts: Timeouts | None = None
    timeouts_before: Timeouts | None = None
    sync: frozenset[SyncDaemon] = frozenset()


NOTHING = OwnedNamespace()


def aim(config: Config, owned: OwnedNamespace, desired: Table, current: Table) -> Table:
    """`desired` with the timeouts and sync daemons to aim for; None leaves them alone."""
    timeouts = config.timeouts
    if timeouts is None and owned.timeouts is not None and current.timeouts == owned.timeouts:
        timeouts = owned.timeouts_before
    wanted = config.sync or frozenset()
    if config.sync is None and not owned.sync and not config.exclusive:
        return replace(desired, timeouts=timeouts)
    roles = {daemon.role for daemon in wanted}
    others = frozenset(
        found
        for found in current.sync or ()
        if found.role not in roles and not config.exclusive and not any(ours.agrees(found) for ours in owned.sync)
    )
    return replace(desired, timeouts=timeouts, sync=wanted | others)


def claim(config: Config, owned: OwnedNamespace, current: Table) -> OwnedNamespace:
    """What is ours once `config` is applied: remembered before it is made."""
    timeouts, before = owned.timeouts, owned.timeouts_before
    if config.timeouts is not None and config.timeouts != timeouts:
        if current.timeouts != timeouts or timeouts is None:
            before = current.timeouts
        timeouts = config.timeouts
        if before == timeouts:
            timeouts = before = None
    there = current.sync or frozenset()
    new = frozenset(daemon for daemon in config.sync or () if not any(daemon.agrees(found) for found in there))
    return OwnedNamespace(timeouts, before, owned.sync | new)


def settled(config: Config, owned: OwnedNamespace, current: Table) -> OwnedNamespace:
    """What of `owned` is still ours when `current` is as `config` has it."""
    ours = owned if config.timeouts is not None and current.timeouts == owned.timeouts else NOTHING
    there = current.sync or frozenset()
    sync = frozenset(daemon for daemon in owned.sync if any(daemon.agrees(found) for found in there))
    return OwnedNamespace(ours.timeouts, ours.timeouts_before, sync)
