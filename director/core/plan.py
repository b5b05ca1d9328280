"""What would change, as a value.

One rule: a plan says all that an apply would do, and nothing that it would not.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.core.diff import Change, RemoveReal, RemoveVirtual, StartSync
from director.core.drift import Drift
from director.core.handover import Held
from director.core.removal import Leaving
from director.core.standing import Correction
from director.core.table import Foreign
from director.core.vip import Vip


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done: the table but for its removals, addresses that come, those that go, the table's removals.

    What cannot be undone comes last. `vips_replaced` are on another interface than they should be, and go at the very
    end, when they have come to the right one. `waiting` are addresses that come only when their virtual server's
    first verdicts are in; `held` are real servers whose forwarding method changes only when their connections have
    ended; `leaving` are those at weight 0 that are removed later, and `vips_leaving` the addresses that go with them.
    `around`: what comes before the table, and goes after it. `drifts` are what somebody else changed; `in_the_way` is
    what the model cannot hold and keeps something of the file from being made. `is_held`: what cannot be undone waits.
    """

    changes: tuple[Change, ...] = ()
    vips_remove: tuple[Vip, ...] = ()
    vips_add: tuple[Vip, ...] = ()
    vips_replaced: tuple[Vip, ...] = ()
    waiting: tuple[Vip, ...] = ()
    held: tuple[Held, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    vips_leaving: tuple[Vip, ...] = ()
    around: tuple[Correction, ...] = ()
    drifts: tuple[Drift, ...] = ()
    in_the_way: tuple[Foreign, ...] = ()
    is_held: bool = False

    @property
    def releases(self) -> bool:
        """What nothing needs any more may go from around the table: nobody leaves it later."""
        return not (self.is_held or self.held or self.leaving or self.vips_leaving)

    @property
    def settles(self) -> tuple[Change, ...]:
        """`changes` up to the removals."""
        return self.changes[: self._end()]

    @property
    def removes(self) -> tuple[Change, ...]:
        """The removals, and what waits behind them: a sync daemon that runs refuses some real servers."""
        return self.changes[self._end() :]

    @property
    def acts(self) -> bool:
        """There is something to do now, and not only to wait for."""
        return bool(self.changes or self.vips_remove or self.vips_add or self.vips_replaced or self.around)

    @property
    def is_empty(self) -> bool:
        return not (self.acts or self.waiting or self.held or self.leaving or self.vips_leaving)

    def _end(self) -> int:
        end = len(self.changes)
        # A removal that belongs to another method is followed by its addition.
        while end and isinstance(self.changes[end - 1], RemoveReal | RemoveVirtual | StartSync):
            end -= 1
        return end
