"""Timeouts and sync daemons: what is aimed for, and what is put back when the file no longer names it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from director.core.model import Config
from director.core.namespace import NOTHING, OwnedNamespace, aim, claim, settled
from director.core.table import SyncDaemon, SyncRole, Table, Timeouts

pytestmark = pytest.mark.unit

KERNEL, OURS, OTHERS = Timeouts(900, 120, 300), Timeouts(600, 60, 30), Timeouts(1, 2, 3)
MASTER = SyncDaemon(SyncRole.MASTER, "eth0", 1)
BACKUP = SyncDaemon(SyncRole.BACKUP, "eth0", 2)
RUNNING = replace(MASTER, maxlen=1472)


def test_timeouts_are_ours_from_the_apply_on_and_put_back_once() -> None:
    config = Config(timeouts=OURS)
    owned = claim(config, NOTHING, Table(timeouts=KERNEL))
    assert aim(config, owned, Table(), Table(timeouts=KERNEL)).timeouts == OURS
    owned = settled(config, owned, Table(timeouts=OURS))
    assert owned == OwnedNamespace(OURS, KERNEL)
    assert aim(Config(), owned, Table(), Table(timeouts=OURS)).timeouts == KERNEL
    assert settled(Config(), owned, Table(timeouts=KERNEL)) == NOTHING


def test_timeouts_that_somebody_changed_since_are_theirs() -> None:
    assert aim(Config(), OwnedNamespace(OURS, KERNEL), Table(), Table(timeouts=OTHERS)).timeouts is None


def test_other_timeouts_of_ours_still_remember_what_was_before_us() -> None:
    owned = claim(Config(timeouts=OTHERS), OwnedNamespace(OURS, KERNEL), Table(timeouts=OURS))
    assert (owned.timeouts, owned.timeouts_before) == (OTHERS, KERNEL)


def test_a_daemon_that_ran_before_us_is_not_ours_to_stop() -> None:
    current = Table(sync=frozenset({RUNNING}))
    config = Config(sync=frozenset({MASTER, BACKUP}))
    owned = claim(config, NOTHING, current)
    assert owned.sync == {BACKUP}
    both = Table(sync=frozenset({RUNNING, replace(BACKUP, maxlen=1472)}))
    assert aim(Config(), owned, Table(), both).sync == frozenset({RUNNING})
    assert aim(Config(), NOTHING, Table(), both).sync is None
    assert aim(Config(exclusive=True), NOTHING, Table(), both).sync == frozenset()


def test_a_role_that_the_file_does_not_name_goes_on() -> None:
    current = Table(sync=frozenset({RUNNING}))
    assert aim(Config(sync=frozenset({BACKUP})), NOTHING, Table(), current).sync == frozenset({BACKUP, RUNNING})
