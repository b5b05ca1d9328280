"""How many requests there were within the last seconds, and how many of them failed, over all processes.

One rule: numbers stand in cells that any process adds to (`Cell`); a cell whose time is over is begun anew by whoever
finds it so. A window looks back at PARTS cells, so it forgets a tenth at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from l7proxy.core.cells import Cell

PARTS = 10
_BITS = 20
_MASK = (1 << _BITS) - 1
_EPOCH_MASK = (1 << 22) - 1
MOST = _MASK - 4096
"""In one part, of each kind; beyond it nothing more is counted."""


class Window:
    """Counts of two kinds within the last `span_s`: of all, and of some of them.

    >>> from l7proxy.core.cells import LocalCell
    >>> window = Window([LocalCell() for _ in range(PARTS)], 10.0)
    >>> for second in range(15):
    ...     window.count(float(second), second % 2 == 0)
    >>> window.sums(14.0)
    (10, 5)
    """

    __slots__ = ("_cells", "_part_s")

    def __init__(self, cells: Sequence[Cell], span_s: float) -> None:
        self._cells = cells
        self._part_s = span_s / len(cells)

    def count(self, now: float, some: bool, all_: bool = True) -> None:
        """One more of all, if `all_`, and of some, if `some`."""
        epoch = int(now / self._part_s)
        cell = self._cells[epoch % len(self._cells)]
        epoch &= _EPOCH_MASK
        value = cell.value
        if value >> 2 * _BITS != epoch:
            cell.swap(value, epoch << 2 * _BITS)
            value = cell.value
        change = 0
        if all_ and value & _MASK < MOST:
            change += 1
        if some and (value >> _BITS) & _MASK < MOST:
            change += 1 << _BITS
        if change:
            cell.add(change)

    def sums(self, now: float) -> tuple[int, int]:
        """How many there were of all, and of some."""
        cells = self._cells
        last = int(now / self._part_s)
        whole = part = 0
        for place, cell in enumerate(cells):
            value = cell.value
            # The latest epoch, up to the present one, that has this place.
            epoch = last - (last - place) % len(cells)
            if value >> 2 * _BITS == epoch & _EPOCH_MASK:
                whole += value & _MASK
                part += (value >> _BITS) & _MASK
        return whole, part

    def clear(self) -> None:
        """Forget all."""
        for cell in self._cells:
            cell.value = 0
