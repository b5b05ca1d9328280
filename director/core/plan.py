"""What would change, as a value.

One rule: a plan says all that an apply would do, and nothing that it would not.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.core.diff import Change
from director.core.handover import Held
from director.core.vip import Vip


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in their order: addresses that go, the table, addresses that come, and those that these replace.

    `vips_replaced` are on another interface than they should be, and go when they have come to the right one.
    `waiting` are addresses that come only when their virtual server's first verdicts are in; `held` are real servers
    whose forwarding method changes only when their connections have ended.
    """

    changes: tuple[Change, ...] = ()
    vips_remove: tuple[Vip, ...] = ()
    vips_add: tuple[Vip, ...] = ()
    vips_replaced: tuple[Vip, ...] = ()
    waiting: tuple[Vip, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def acts(self) -> bool:
        """There is something to do now, and not only to wait for."""
        return bool(self.changes or self.vips_remove or self.vips_add or self.vips_replaced)

    @property
    def is_empty(self) -> bool:
        return not (self.acts or self.waiting or self.held)
