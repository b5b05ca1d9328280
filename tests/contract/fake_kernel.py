"""An IPVS table in memory, with the kernel's answers; it passes the suite that the kernel passes.

One rule: what it holds changes by `core.diff.apply`, and what it refuses is said in `director.ipvs.failure`'s words.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from types import MappingProxyType

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual, apply
from director.core.table import Counters, Forward, RealCounters, Table, TableCounters, VirtualKey
from director.ipvs.failure import Failure, failure
from director.kit.net import Endpoint

SCHEDULERS = frozenset({"rr", "wrr", "lc", "wlc", "sh", "mh"})


class FakeKernel:
    """`table` is what it holds; `before_write` may change it between a reader's look and its write.

    `carried` are connections by their real server: they outlive it and come back with it.
    """

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.before_write: Callable[[], None] = lambda: None
        self.writes = 0
        self.carried: dict[tuple[VirtualKey, Endpoint], RealCounters] = {}

    def read(self) -> tuple[Table, TableCounters]:
        entries = {key: self.table.entries[key] for key in sorted(self.table.entries, key=VirtualKey.sort_key)}
        reals = {
            (key, real): self.carried.get((key, real), RealCounters())
            for key, entry in entries.items()
            for real in entry.reals
        }
        return Table(MappingProxyType(entries)), TableCounters(dict.fromkeys(entries, Counters()), reals)

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        self.before_write()
        self.writes += 1
        failures = []
        for change in changes:
            code = self._refusal(change)
            if code:
                failures.append(failure(change, code))
            else:
                self.table = apply([change], self.table)
        return failures

    def _refusal(self, change: Change) -> int:
        """The errno of ip_vs_genl_set_cmd and what it calls, or 0."""
        entry = self.table.get(change.key)
        if isinstance(change, AddVirtual | EditVirtual) and len(change.row.scheduler) > 15:
            return errno.EINVAL
        if isinstance(change, AddVirtual):
            if entry is not None:
                return errno.EEXIST
            return 0 if change.row.scheduler in SCHEDULERS else errno.ENOENT
        if entry is None:
            return errno.ESRCH
        match change:
            case EditVirtual(_, _, row):
                return 0 if row.scheduler in SCHEDULERS else errno.ENOENT
            case RemoveVirtual():
                return 0
            case RemoveReal(_, real, _):
                return 0 if real in entry.reals else errno.ENOENT
            case AddReal(_, real, row_real) | EditReal(_, real, _, row_real):
                if row_real.weight < 0 or row_real.lower_threshold > row_real.upper_threshold:
                    return errno.ERANGE
                if real.address.version != change.key.family and row_real.forward is not Forward.TUN:
                    return errno.EINVAL
                if isinstance(change, AddReal):
                    return errno.EEXIST if real in entry.reals else 0
                return 0 if real in entry.reals else errno.ENOENT
