"""What all workers share, in memory that the supervisor made and each of them maps: counts, cells, buckets, tallies.

One rule: nobody waits for anybody, and who dies holding something holds nothing: what a process counts stands in its
own slot, which is zeroed when it has ended. So a cap holds for all workers together, whatever becomes of one of them.

Rows go by name. The supervisor gives them out (`Ledger`), and tells workers with each configuration. A single process
is its own supervisor.

Layout, in 64-bit words: a header; for each row a cell of two words; buckets in sets; then for each slot, a count for
each row, and tallies in sets. The file is sparse: what nobody uses takes no memory.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from director.kit.errors import HostError
from l7proxy.core.atoms import COUNT_BITS, Words
from l7proxy.core.capacity import ROWS
from l7proxy.core.gcra import decide, left
from l7proxy.core.ledger import Ledger, NoPlaceError

VERSION = 1
VARIABLE = "L7PROXY_BOARD"
"""Tells a worker its board: descriptor and slot."""
SLOTS = 768
"""Twice 256 workers, for a roll, and some that drain."""
BUCKET_SETS = 16384
BUCKET_WAYS = 8
TALLY_SETS = 2048
TALLY_WAYS = 8

_MAGIC = 0x6C3770726F787931
_HEADER = 512
_MAGIC_AT, _VERSION_AT, _HIGH_AT, _KEY_AT = 0, 1, 2, 8
_CELLS = _HEADER
_BUCKETS = _CELLS + 2 * ROWS
_SLOTS = _BUCKETS + 2 * BUCKET_SETS * BUCKET_WAYS
_TALLIES = ROWS
_SLOT = _TALLIES + TALLY_SETS * TALLY_WAYS
_WORDS = _SLOTS + SLOTS * _SLOT
_START = struct.Struct("=3q")
_MOST_TALLIED = (1 << COUNT_BITS) - 1


@dataclass(frozen=True, slots=True)
class BoardLeft:
    """A board as one program leaves it to the next: its descriptor, and who has which row."""

    descriptor: int
    rows: dict[str, int] = field(default_factory=dict, repr=False)


class SharedCount:
    """How many there are of something in all processes, such as requests at a backend. Each process gives back what it
    has taken; what one that died had taken is given back for it."""

    __slots__ = ("_at", "_own", "_words")

    def __init__(self, words: Words, slot: int, row: int) -> None:
        self._words = words
        self._own = _SLOTS + slot * _SLOT + row
        self._at = _SLOTS + row

    def take(self, most: int) -> bool:
        """Take one, unless there are `most` already. Of several who try at one time never too many get one; it may be
        that one too few does, and tries again."""
        return self._words.take(self._own, self._at, _SLOT, _HIGH_AT, most)

    def add(self, change: int = 1) -> None:
        """Take, or give back, whatever there is."""
        self._words.add(self._own, change)

    def give(self) -> None:
        """Give one back."""
        self._words.add(self._own, -1)

    @property
    def own(self) -> int:
        """What this process has."""
        return self._words.get(self._own)

    @own.setter
    def own(self, value: int) -> None:
        self._words.put(self._own, value)

    def total(self) -> int:
        """What all have."""
        return self._words.total(self._at, _SLOT, self._words.get(_HIGH_AT))

    def others(self) -> list[int]:
        """What each other one has, or has said; 0 of those that have nothing."""
        words = self._words
        places = range(self._at, self._at + _SLOT * words.get(_HIGH_AT), _SLOT)
        return [words.get(place) for place in places if place != self._own]


class SharedCell:
    """A whole number and one with a fraction, which any process writes and the last one wins: fit for what is true
    whoever says it (ejected until then), or said by one process. It is 0 until somebody writes it, and outlives whoever
    has. Points in time are of the monotonic clock, which is the same in all processes of a host."""

    __slots__ = ("_at", "_words")

    def __init__(self, words: Words, row: int) -> None:
        self._words = words
        self._at = _CELLS + 2 * row

    @property
    def value(self) -> int:
        """The whole number."""
        return self._words.get(self._at)

    @value.setter
    def value(self, value: int) -> None:
        self._words.put(self._at, value)

    def add(self, change: int = 1) -> int:
        """Add to the whole number; what it is then. Compiled, none is lost; in plain Python one may be, where two
        processes add within the same microsecond: fine for counts of failures, not for caps."""
        return self._words.add(self._at, change)

    def swap(self, before: int, after: int) -> bool:
        """Write `after` if the whole number is `before`; whether it was. Of several one succeeds (in plain Python
        rarely two)."""
        return self._words.swap(self._at, before, after)

    @property
    def number(self) -> float:
        """The one with a fraction."""
        return self._words.get_float(self._at + 1)

    @number.setter
    def number(self, value: float) -> None:
        self._words.put_float(self._at + 1, value)


class Buckets:
    """Token buckets by key, a fixed number of them. A bucket that is full need not be remembered; where there is no
    room, the one of its set that is nearest to full is forgotten, and counts as full when it is asked for again."""

    __slots__ = ("_words",)

    def __init__(self, words: Words) -> None:
        self._words = words

    def take(self, key: int, now_ns: int, interval_ns: int, burst: int) -> int:
        """Take one from the bucket of `key`, which holds `burst` and gets one each `interval_ns`: 0, or how many
        nanoseconds until there is one. Limits are the caller's each time, so that a changed one holds at once.

        Compiled, no two processes take the same one. In plain Python processes that ask within the same microsecond
        may share one: each such meeting gives away at most one for each process beyond the first.
        """
        at = _BUCKETS + 2 * BUCKET_WAYS * (key % BUCKET_SETS)
        return self._words.fill(at, BUCKET_WAYS, key or 1, now_ns, interval_ns, burst)

    def left(self, key: int, now_ns: int, interval_ns: int, burst: int) -> tuple[int, int]:
        """How many the bucket of `key` holds, and how many nanoseconds until there is one; none is taken."""
        words, tag = self._words, key or 1
        at = _BUCKETS + 2 * BUCKET_WAYS * (key % BUCKET_SETS)
        ways = range(at, at + 2 * BUCKET_WAYS, 2)
        full_at = next((words.get(way + 1) for way in ways if words.get(way) == tag), 0)
        return left(full_at, now_ns, interval_ns, burst), decide(full_at, now_ns, interval_ns, burst)[1]


class Tallies:
    """Counts by key, such as a client's requests at one time. What has no room on the board is counted in this process
    alone."""

    def __init__(self, words: Words, slot: int) -> None:
        self._words = words
        self._slot = _SLOTS + slot * _SLOT + _TALLIES
        self._own: dict[int, list[int]] = {}

    def take(self, key: int, most: int) -> bool:
        """Take one, unless there are `most` already in all processes; as `SharedCount.take`."""
        words = self._words
        first = TALLY_WAYS * (key % TALLY_SETS)
        tag = key >> COUNT_BITS
        own = self._own.get(key)
        if own is None:
            at = self._slot + first
            own = self._own[key] = [0, 0]
            for free in range(at, at + TALLY_WAYS):
                if not words.get(free):
                    words.put(free, tag << COUNT_BITS)
                    own[1] = free
                    break
        own[0] += 1
        place = own[1]
        if place and own[0] < _MOST_TALLIED:
            words.add(place, 1)
            total = words.tally(_SLOTS + _TALLIES + first, _SLOT, words.get(_HIGH_AT), TALLY_WAYS, tag)
        else:
            total = own[0]
        if total <= most:
            return True
        self.give(key)
        return False

    def total(self, key: int) -> int:
        """What all have; of what has no room on the board, what this process has."""
        own = self._own.get(key)
        if own is not None and not own[1]:
            return own[0]
        words, first = self._words, TALLY_WAYS * (key % TALLY_SETS)
        return words.tally(_SLOTS + _TALLIES + first, _SLOT, words.get(_HIGH_AT), TALLY_WAYS, key >> COUNT_BITS)

    def give(self, key: int) -> None:
        """Give one back."""
        own = self._own.get(key)
        if own is None:
            return
        own[0] -= 1
        place = own[1]
        if not own[0]:
            del self._own[key]
            if place:
                self._words.put(place, 0)
        elif place and own[0] < _MOST_TALLIED - 1:
            self._words.add(place, -1)

    def __len__(self) -> int:
        """How many keys this process has something of."""
        return len(self._own)


class Board:
    """All of it, as one process sees it. Whoever has the `ledger` gives out rows; others are told of them."""

    def __init__(self, descriptor: int, slot: int, ledger: Ledger | None) -> None:
        self._memory = mmap.mmap(descriptor, 8 * _WORDS)
        if hasattr(mmap, "MADV_DONTDUMP"):
            self._memory.madvise(mmap.MADV_DONTDUMP)
        self.descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)
        """Lets go of the descriptor; the memory stays mapped while anybody has a piece of it."""
        self._words = words = Words(memoryview(self._memory))
        self.slot = slot
        self._ledger = ledger
        self._rows: dict[str, int] = dict(ledger.rows) if ledger is not None else {}
        self._key = self._memory[8 * _KEY_AT : 8 * _KEY_AT + 16]
        self.buckets = Buckets(words)
        self.tallies = Tallies(words, slot)

    @classmethod
    def make(cls, *, seated: bool = True) -> Board:
        """A new board. `seated`: this process counts on it, and does not only look after others.

        Raises: HostError.
        """
        try:
            descriptor = os.memfd_create("l7proxy-board")
            os.ftruncate(descriptor, 8 * _WORDS)
            os.pwrite(descriptor, _START.pack(_MAGIC, VERSION, 1), 0)
            os.pwrite(descriptor, os.urandom(16), 8 * _KEY_AT)
            ledger = Ledger(ROWS, SLOTS)
            return cls(descriptor, ledger.seat() if seated else 0, ledger)
        except (OSError, ValueError) as error:
            raise HostError(f"no memory for what workers share ({8 * _WORDS >> 20} MiB, sparse): {error}") from error

    @classmethod
    def join(cls, descriptor: int, slot: int) -> Board:
        """The board behind a descriptor that was inherited.

        Raises: HostError: it is none, or of another program.
        """
        return cls._opened(descriptor, slot, None)

    @classmethod
    def told(cls) -> Board:
        """The board that this worker was told of when it was started; without, one of its own.

        Raises: HostError.
        """
        descriptor, _, slot = os.environ.pop(VARIABLE, "").partition(":")
        if not descriptor.isdecimal() or not slot.isdecimal():
            return cls.make()
        board = cls.join(int(descriptor), int(slot))
        board.close()  # the mapping has its own
        return board

    @classmethod
    def take_over(cls, left: BoardLeft, slots: Iterable[int]) -> Board:
        """The board of the program before this one, to look after; `slots` are those of its workers. What all others
        had counted is zeroed: they are gone.

        Raises: HostError: it is none, or of another program.
        """
        ledger = Ledger(ROWS, SLOTS, left.rows)
        board = cls._opened(left.descriptor, 0, ledger)
        taken = set(slots)
        for slot in range(min(SLOTS, max(1, board._words.get(_HIGH_AT)))):
            if slot in taken:
                ledger.seat(slot)
            else:
                board._clear(slot)
        return board

    @classmethod
    def _opened(cls, descriptor: int, slot: int, ledger: Ledger | None) -> Board:
        try:
            if os.fstat(descriptor).st_size != 8 * _WORDS:
                raise HostError("what workers share is of another version of l7proxy")
            os.set_inheritable(descriptor, False)
            board = cls(descriptor, slot, ledger)
        except (OSError, ValueError) as error:
            raise HostError(f"what workers share cannot be mapped: {error}") from error
        if (board._words.get(_MAGIC_AT), board._words.get(_VERSION_AT)) != (_MAGIC, VERSION):
            board.release()
            raise HostError("what workers share is of another version of l7proxy")
        return board

    def release(self) -> int:
        """The descriptor, which is the caller's from now on."""
        self.close.detach()
        return self.descriptor

    # rows and slots

    def know(self, names: Iterable[str], told: Mapping[str, int] | None = None) -> dict[str, int]:
        """Have rows for `names`: those that were `told`, or those that this process gives.

        Raises: HostError: there are too many.
        """
        if self._ledger is not None:
            try:
                told = self._ledger.give(names, time.monotonic(), self._is_quiet)
            except NoPlaceError as error:
                raise HostError(str(error)) from error
        rows = dict(told or {})
        self._rows.update(rows)
        return rows

    def keep(self, names: Iterable[str]) -> None:
        """From now on no other names are of any use; their rows are given again when nobody knows them any more."""
        if self._ledger is not None:
            self._ledger.keep(names, time.monotonic())

    def seat(self) -> int:
        """A slot for a worker that is about to start.

        Raises: HostError: there is none left.
        """
        assert self._ledger is not None  # noqa: S101 -- who starts workers has it
        try:
            slot = self._ledger.seat()
        except NoPlaceError as error:
            raise HostError(str(error)) from error
        self._words.put(_HIGH_AT, max(self._ledger.slots) + 1)
        return slot

    def leave(self, slot: int) -> None:
        """The worker of `slot` has ended: what it had is given back."""
        assert self._ledger is not None  # noqa: S101 -- as above
        self._clear(slot)
        self._ledger.leave(slot)
        self._words.put(_HIGH_AT, max(self._ledger.slots, default=0) + 1)

    def left(self) -> BoardLeft:
        """What the next program is to take over."""
        return BoardLeft(self.descriptor, dict(self._ledger.rows) if self._ledger is not None else {})

    def _clear(self, slot: int) -> None:
        first, size = 8 * (_SLOTS + slot * _SLOT), 8 * _SLOT
        try:
            self._memory.madvise(mmap.MADV_REMOVE, first, size)
        except (OSError, ValueError):  # pages that are larger than slots
            self._memory[first : first + size] = bytes(size)

    def _is_quiet(self, row: int) -> bool:
        """Whether nobody has anything there; it is cleared for its next name then."""
        words = self._words
        if any(words.get(_SLOTS + slot * _SLOT + row) for slot in range(words.get(_HIGH_AT))):
            return False
        words.put(_CELLS + 2 * row, 0)
        words.put(_CELLS + 2 * row + 1, 0)
        return True

    # what is on it

    def count(self, name: str) -> SharedCount:
        """Of how many there are. Raises: KeyError where nobody was told of `name`."""
        return SharedCount(self._words, self.slot, self._rows[name])

    def cell(self, name: str) -> SharedCell:
        """The cell called `name`. Raises: KeyError where nobody was told of it."""
        return SharedCell(self._words, self._rows[name])

    def key(self, of: str, text: str | bytes) -> int:
        """What stands for `text`, such as a client's address, within `of`, such as a limit of a route: 63 bits that
        nobody outside can foresee."""
        whole = b"%b\0%b" % (of.encode(), text.encode() if isinstance(text, str) else text)
        digest = hashlib.blake2b(whole, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "little") >> 1
