"""An upstream whose requests fail is spared for a while, and then tried with one request at a time.

One rule: who has opened it, and until when, is written down where all processes see it. What was on its way when it
opened says nothing any more: only a trial closes it.
"""

from __future__ import annotations

from l7proxy.core.cells import Cell
from l7proxy.core.settings.resilience import Breaker
from l7proxy.core.window import Window

TRIAL_S = 30.0
"""A trial of which nothing was heard for this long is over: whoever made it may be gone."""


CLOSED, OPEN, TRIAL = range(3)
"""What becomes of a request: it goes on; it is refused; it goes on, and its end decides."""


class Gate:
    """One upstream's. `state.number` is when it may be tried again, 0 while all is well; `state.value` is when a trial
    was begun, in milliseconds."""

    __slots__ = ("_rule", "_state", "_window")

    def __init__(self, rule: Breaker, state: Cell, window: Window) -> None:
        self._rule = rule
        self._state = state
        self._window = window

    def is_failure(self, status: int) -> bool:
        """Whether an answer is one; 0 is none at all."""
        return status == 0 or status in self._rule.statuses

    def is_open(self) -> bool:
        """Whether the upstream is spared."""
        return self._state.number > 0

    def opens_in_s(self, now: float) -> float:
        """How long until it is tried again; 0 where that may be at once."""
        return max(0.0, self._state.number - now)

    def ask(self, now: float) -> int:
        """CLOSED, OPEN or TRIAL."""
        state = self._state
        until = state.number
        if not until:
            return CLOSED
        if now < until:
            return OPEN
        begun, now_ms = state.value, int(now * 1000)
        if begun and now_ms - begun < TRIAL_S * 1000:
            return OPEN
        return TRIAL if state.swap(begun, now_ms) else OPEN

    def saw(self, failed: bool, was_trial: bool, now: float) -> bool | None:
        """Learn how a request ended: True where the upstream is spared from now on, False where no longer, None where
        nothing changes."""
        state, rule = self._state, self._rule
        if was_trial:
            state.value = 0
            state.number = now + rule.open_s if failed else 0.0
            return failed
        if state.number:
            return None
        window = self._window
        window.count(now, failed)
        if not failed:
            return None
        whole, part = window.sums(now)
        if whole < rule.of or part < rule.errors * whole:
            return None
        window.clear()
        state.value = 0
        state.number = now + rule.open_s
        return True

    def trial_is_void(self) -> None:
        """The trial ended without an answer to go by, such as by its client: the next request is one."""
        self._state.value = 0
