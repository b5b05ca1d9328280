"""What the kernel's table holds and the model has no place for."""

from __future__ import annotations

from dataclasses import dataclass

from director.core.table import VirtualKey
from director.kit.net import Endpoint


@dataclass(frozen=True, slots=True)
class Foreign:
    """What the kernel holds and the model does not: `what` names it, `reason` says why.

    `key` is None where even the key has no place in the model; `real` is set for a real server. With a key,
    the place is taken: to create the same key (and real) would be EEXIST.
    """

    what: str
    reason: str
    key: VirtualKey | None = None
    real: Endpoint | None = None
