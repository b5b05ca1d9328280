"""What this process says of itself to whoever shares out connections: HAProxy's agent-check, one line of words.

One rule: it is never said lightly. A share moves in steps of STEP and over a margin, so that weights do not flutter;
`down` is said only where no request could be answered.

How the share is made: what is left of 100 % after the more used of two things. Connections: those of clients, of as
many as may be. Time: how late the event loop comes to what is due, where LATEST_S is all of it; each look counts for as
much as the time since the last one, over about SMOOTHED_S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP = 5
MARGIN = 2
"""So far beyond the end of its step a share must be before another one is said."""
LATEST_S = 0.1
"""A loop that is this late has nothing left; each request waits so long, and at each of its turns."""
SMOOTHED_S = 4.0
FRESH_S = 60.0
"""For so long after its start a process says `ready`: HAProxy keeps to a `drain` until it hears that."""
LONGEST_REASON = 120
"""HAProxy shows 128 bytes (HCHK_DESC_LEN in its check-t.h)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was last made of it. `percent` (1 to 100) is what is left, as it is said."""

    late_s: float = 0.0
    percent: int = 100


def observe(load: Load, clients: int, most_clients: int, late_s: float, elapsed_s: float) -> Load:
    """`load` after a look that came `late_s` later than due, `elapsed_s` after the last one."""
    part = 1 - math.exp(-elapsed_s / SMOOTHED_S)
    smooth_s = load.late_s + part * (min(max(late_s, 0.0), LATEST_S) - load.late_s)
    return Load(smooth_s, stepped(100 * (1 - used(smooth_s, clients, most_clients)), load.percent))


def used(late_s: float, clients: int, most_clients: int) -> float:
    """How much is used, 0 to 1 or a little more: of connections or of time, whichever is more.

    >>> used(0.05, 10, 100)
    0.5
    """
    return max(clients / most_clients, late_s / LATEST_S)


def combine(load: Load, parts: Sequence[float]) -> Load:
    """`load` of several workers, from how much of each is used: what is left of all together.

    >>> combine(Load(), [0.5, 1.0]).percent
    25
    """
    return Load(load.late_s, stepped(100 * (1 - sum(parts) / len(parts)) if parts else 0.0, load.percent))


def stepped(left: float, said: int) -> int:
    """What to say of `left` percent, where `said` was said before: steps round up, and nothing left is 1.

    >>> stepped(61.0, 100), stepped(59.0, 65), stepped(57.0, 65), stepped(66.0, 65), stepped(-3.0, 5)
    (65, 65, 60, 65, 1)
    """
    if left <= 0:
        return 1
    if said - STEP - MARGIN < left <= said + MARGIN:
        return said
    return min(100, max(STEP, STEP * math.ceil(left / STEP)))  # next to nothing is divided to 0


def answer(load: Load, *, draining: bool, trouble: str, running_s: float) -> bytes:
    """The line. `trouble` is why no request can be answered, empty where one can."""
    if draining:
        return b"drain\n"
    if trouble:
        return b"down#%b\n" % _plain(trouble)
    return b"up %b%d%%\n" % (b"ready " if running_s < FRESH_S else b"", load.percent)


def _plain(text: str) -> bytes:
    """`text` without what could end the line, or look like something else."""
    shown = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    if len(shown) > LONGEST_REASON:
        shown = shown[: LONGEST_REASON - 3] + "..."
    return shown.encode("ascii")
