"""How many further attempts an upstream's requests may make.

One rule: attempts never multiply what an upstream in trouble has to bear: they are a share of what clients ask.
"""

from __future__ import annotations

from l7proxy.core.settings.resilience import RetryBudget
from l7proxy.core.window import Window

SPAN_S = 10.0


class Budget:
    """One upstream's, over all processes. The window counts requests, and further attempts among them."""

    __slots__ = ("_rule", "_window")

    def __init__(self, rule: RetryBudget, window: Window) -> None:
        self._rule = rule
        self._window = window

    def asked(self, now: float) -> None:
        """A client's request begins."""
        self._window.count(now, some=False)

    def allows(self, now: float) -> bool:
        """Whether there may be one more attempt; it is counted then."""
        requests, attempts = self._window.sums(now)
        if attempts >= self._rule.minimum + self._rule.share * requests:
            return False
        self._window.count(now, some=True, all_=False)
        return True
