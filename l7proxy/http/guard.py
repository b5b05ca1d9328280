"""What requests say of an upstream and its backends, and what follows: ejection, breaker, retry budget.

One rule: only what a backend did counts. A client that leaves, an answer that the proxy gave by itself, and a kept
connection that had ended meanwhile say nothing about it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from l7proxy.core.breaker import CLOSED, OPEN, TRIAL, Gate
from l7proxy.core.capacity import names_of
from l7proxy.core.cells import Cell
from l7proxy.core.outlier import Ejection
from l7proxy.core.retrybudget import SPAN_S, Budget
from l7proxy.core.window import PARTS, Window

if TYPE_CHECKING:
    from l7proxy.core.model import Upstream
    from l7proxy.http.exchange import Exchange

__all__ = ["CLOSED", "OPEN", "TRIAL", "Guard", "Seen", "guard_of", "names_of"]

log = logging.getLogger("l7proxy")
_monotonic = time.monotonic


class Cells(Protocol):
    """Gives out cells by name."""

    def cell(self, name: str) -> Cell: ...


@dataclass(slots=True)
class Seen:
    """What this process has counted of an upstream."""

    ejections: dict[str, int]
    refused: int = 0
    retries_refused: int = 0


class Guard:
    """One upstream's."""

    def __init__(self, upstream: Upstream, cells: Cells) -> None:
        self._name = upstream.name
        start = f"guard/{upstream.name}/"

        def window(kind: str, span_s: float) -> Window:
            return Window([cells.cell(f"{start}{kind}/{part}") for part in range(PARTS)], span_s)

        rule = upstream.outlier
        self.ejections: Mapping[str, Ejection] = (
            {
                backend.name: Ejection(
                    rule, cells.cell(f"{start}{backend.name}/trouble"), cells.cell(f"{start}{backend.name}/history")
                )
                for backend in upstream.backends
            }
            if rule is not None
            else {}
        )
        breaker, budget = upstream.breaker, upstream.retry_budget
        self.gate = (
            Gate(breaker, cells.cell(f"{start}breaker"), window("errors", breaker.window_s))
            if breaker is not None
            else None
        )
        self._budget = Budget(budget, window("retries", SPAN_S)) if budget is not None else None
        self.seen = Seen(dict.fromkeys(self.ejections, 0))
        self.out: frozenset[str] = frozenset()
        """Backends that were left out when somebody last looked."""

    def follow(self, before: Guard) -> None:
        """Take over what `before`, which it replaces, has counted."""
        before.seen.ejections = {name: before.seen.ejections.get(name, 0) for name in self.ejections}
        self.seen = before.seen
        self.look(_monotonic())

    def look(self, now: float, *, tells: bool = False) -> bool:
        """See who is left out, by whomever; whether that has changed. Of several processes one `tells`."""
        if not self.ejections:
            return False
        out = frozenset(name for name, each in self.ejections.items() if each.is_out(now))
        if out == self.out:
            return False
        for name in self.out - out if tells else ():
            log.info("backend let in again", extra={"upstream": self._name, "backend": name})
        self.out = out
        return True

    def admit(self) -> int:
        """CLOSED, OPEN or TRIAL: what the breaker says to one more request."""
        now = _monotonic()
        if self._budget is not None:
            self._budget.asked(now)
        if self.gate is None:
            return CLOSED
        said = self.gate.ask(now)
        if said == OPEN:
            self.seen.refused += 1
        return said

    def may_retry(self) -> bool:
        """Whether there may be one more attempt at another backend."""
        if self._budget is None or self._budget.allows(_monotonic()):
            return True
        self.seen.retries_refused += 1
        return False

    def saw(self, exchange: Exchange, backend: str, status: int) -> bool:
        """A backend has answered with `status`, or not at all (0). True where it is left out from now on."""
        now = _monotonic()
        gate = self.gate
        if gate is not None:
            was_trial, exchange.trial = exchange.trial, False
            changed = gate.saw(gate.is_failure(status), was_trial, now)
            if changed:
                log.warning(
                    "upstream is spared: too many of its requests failed",
                    extra={"upstream": self._name, "for_s": round(gate.opens_in_s(now), 1)},
                )
            elif changed is False:
                log.info("upstream is asked again", extra={"upstream": self._name})
        ejection = self.ejections.get(backend)
        if ejection is None or not ejection.saw(ejection.is_failure(status), now, self.ejections.values()):
            return False
        self.seen.ejections[backend] += 1
        reason = f"status {status}" if status else "no answer"
        log.warning(
            "backend left out: its requests failed one after the other",
            extra={
                "upstream": self._name,
                "backend": backend,
                "last": reason,
                "for_s": round(ejection.until - now, 1),
            },
        )
        self.out |= {backend}
        return True

    def trial_is_void(self) -> None:
        """A trial has ended and said nothing."""
        if self.gate is not None:
            self.gate.trial_is_void()


def guard_of(upstream: Upstream, cells: Cells) -> Guard | None:
    """The guard of an upstream; None where it has none. Raises: KeyError for a cell that nobody made."""
    if upstream.outlier is None and upstream.breaker is None and upstream.retry_budget is None:
        return None
    return Guard(upstream, cells)
