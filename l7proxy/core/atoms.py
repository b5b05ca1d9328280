"""Memory that several processes share, as 64-bit words; `_atoms.pyx` has it once more, for a C compiler.

One rule: a word is written whole, never half. What else two processes may do at one time stands at each method:
compiled, `add`, `swap` and `fill` are atomic; in plain Python another process's write may fall between reading and
writing, and be lost. So a word that must be exact has one process that writes it.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from l7proxy.core.gcra import decide

COUNT_BITS = 16
"""Of a tallied word: the count stands in the low ones, what is counted in the others."""
_COUNT = (1 << COUNT_BITS) - 1
_TRIES = 100
_TAKES = 3


class PlainWords:
    """The words of `memory`, by their place from 0. Values are signed."""

    def __init__(self, memory: bytearray | memoryview) -> None:
        self._words = memoryview(memory).cast("B").cast("q")
        self._floats = memoryview(memory).cast("B").cast("d")
        self._fence = Lock()

    def get(self, at: int) -> int:
        """One word."""
        return self._words[at]

    def put(self, at: int, value: int) -> None:
        """Write one; the last one wins."""
        self._words[at] = value

    def get_float(self, at: int) -> float:
        """One word as a number with a fraction."""
        return self._floats[at]

    def put_float(self, at: int, value: float) -> None:
        """Write one; the last one wins."""
        self._floats[at] = value

    def add(self, at: int, change: int) -> int:
        """Add to a word; what it is then. Whatever is read after this was written by others before they read this."""
        value = self._words[at] + change
        self._words[at] = value
        with self._fence:  # a barrier: a processor may otherwise read ahead of its own write
            return value

    def swap(self, at: int, before: int, after: int) -> bool:
        """Write `after` if the word is `before`; whether it was."""
        if self._words[at] != before:
            return False
        self._words[at] = after
        return True

    def total(self, at: int, step: int, count: int) -> int:
        """The sum of `count` words, the first one at `at`, each `step` after the one before."""
        words = self._words
        return sum(words[place] for place in range(at, at + step * count, step))

    def take(self, own: int, at: int, step: int, count_at: int, most: int) -> bool:
        """Add 1 to the word at `own`, one of those that `total` adds up, unless they come to more than `most` by it.
        The number of words stands at `count_at`.

        Announced first, then looked at: of several who do it at one time none overlooks the others.
        """
        for _ in range(_TAKES):
            self.add(own, 1)
            if self.total(at, step, self._words[count_at]) <= most:
                return True
            self.add(own, -1)
            if self.total(at, step, self._words[count_at]) >= most:
                return False  # else it was others who announced themselves, and may have gone without
        return False

    def tally(self, at: int, step: int, count: int, ways: int, tag: int) -> int:
        """The sum of the counts of `tag` in `count` sets of `ways` words, each set `step` after the one before."""
        words = self._words
        found = 0
        for first in range(at, at + step * count, step):
            for word in words[first : first + ways]:
                if word >> COUNT_BITS == tag:
                    found += word & _COUNT
        return found

    def fill(self, at: int, ways: int, tag: int, now: int, interval: int, burst: int) -> int:
        """Take one from the bucket of `tag`, in a set of `ways` pairs of words (tag, time); how long to wait, or 0 if
        it was taken.

        A bucket that nobody has used for long enough is full, and is forgotten first; else the one that is nearest to.
        """
        words = self._words
        for _ in range(_TRIES):
            place, known = at, words[at + 1]
            for way in range(at, at + 2 * ways, 2):
                if words[way] == tag:
                    place = way
                    break
                if words[way + 1] < known:
                    place, known = way, words[way + 1]
            former = words[place]
            if former != tag and (not self.swap(place + 1, known, 0) or not self.swap(place, former, tag)):
                continue
            known = words[place + 1]
            after, wait = decide(known, now, interval, burst)
            if wait and after >= known:
                return wait
            if self.swap(place + 1, known, after):  # also where it misses more than this limit's burst
                return wait
        return 0


Words = PlainWords
if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._atoms import Words  # noqa: F401 -- for who imports it
