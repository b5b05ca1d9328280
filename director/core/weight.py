"""The weight a real server should have now, and why.

One rule: one pure function decides, and its answer feeds the kernel, `status` and the logs alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from director.core.model import Config, RealServer, RealState, ServerRef
from director.kit.health import HealthState, Status


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of one real server, apart from the file. `weight` None leaves the file's."""

    drain: bool = False
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """An effective weight, 0 to 65535, and the reason in a few words. `is_down`: because checks failed."""

    value: int
    reason: str
    is_down: bool = False


@lru_cache(maxsize=1024)
def _weight(value: int, reason: str, is_down: bool = False) -> Weight:
    """Thousands of servers have the same weight for the same reason: one value serves them all."""
    return Weight(value, reason, is_down)


NO_WISH = Wish()
_UNKNOWN = HealthState()
_OF_THE_FILE = "the file's weight"


def effective_weight(
    server: RealServer,
    health: HealthState,
    wish: Wish = NO_WISH,
    adopted: int | None = None,
    unproven: bool = False,
    probed: bool = True,
) -> Weight:
    """The first rule that applies decides.

    `adopted` is the weight found in the kernel when the server was taken over; `unproven` says that it is new
    beside servers that take connections. `probed` says that somebody probes: otherwise no verdict is to come.

    >>> from ipaddress import ip_address
    >>> effective_weight(RealServer("a", ip_address("10.0.0.1"), 100), HealthState(), Wish(drain=True)).reason
    'drained by the operator'
    """
    nominal = server.weight if wish.weight is None else wish.weight
    source = "" if wish.weight is None else f", weight {wish.weight} by the operator"
    if server.state is RealState.DISABLED:
        return _weight(0, "disabled in the file: not in the table")
    if wish.drain:
        return _weight(0, "drained by the operator")
    if server.state is RealState.DRAINED:
        return _weight(0, "drained in the file")
    if server.check is None:
        return _weight(nominal, f"not checked{source}")
    seen = health.last.reason if health.last else ""
    pending = "no verdict yet: " if probed else ""
    match health.status:
        case Status.DOWN:
            return _weight(0, f"down: {seen}", is_down=True)
        case Status.PENDING if adopted is not None:
            return _weight(adopted, f"{pending}keeps the kernel's weight")
        case Status.PENDING if unproven:
            return _weight(0, "no verdict yet: waits for one while others serve")
        case Status.PENDING:
            return _weight(nominal, f"{pending}{source.removeprefix(', ') or (probed and _OF_THE_FILE) or ''}")
        case Status.UP:
            return _weight(nominal, f"up: {seen}{source}")


def effective_weights(
    config: Config,
    health: Mapping[ServerRef, HealthState],
    wishes: Mapping[ServerRef, Wish],
    adopted: Mapping[ServerRef, int],
    unproven: Collection[ServerRef] = (),
    probed: bool = True,
) -> dict[ServerRef, Weight]:
    """`effective_weight` of every real server of `config`."""
    # A look into what is empty costs as much as one into what is not, and most of these are.
    return {
        ref: effective_weight(
            real,
            health.get(ref, _UNKNOWN) if health else _UNKNOWN,
            wishes.get(ref, NO_WISH) if wishes else NO_WISH,
            adopted.get(ref) if adopted else None,
            ref in unproven if unproven else False,
            probed,
        )
        for virtual in config.virtual_servers
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True)
    }
