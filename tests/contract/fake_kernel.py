"""An IPVS table in memory, with the kernel's answers; it passes the suite that the kernel passes.

One rule: what it holds changes by `core.diff.apply`, and what it refuses is said in `director.ipvs.failure`'s words.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import assert_never

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RealChange,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
    VirtualChange,
    apply,
)
from director.core.table import (
    Counters,
    Foreign,
    Forward,
    Reading,
    RealCounters,
    SyncDaemon,
    SyncRole,
    Table,
    TableCounters,
    Timeouts,
    TunnelKind,
    VirtualKey,
    VirtualRow,
)
from director.ipvs.failure import Failure, failure
from director.kit.net import Endpoint

SCHEDULERS = frozenset({"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh"})
ENGINES = frozenset({"", "sip"})
INTERFACES = frozenset({"lan"})
TIMEOUTS = Timeouts(900, 120, 300)
LONGEST_S = 2**31 // 100
MTU = 1500


class FakeKernel:
    """`table` is what it holds; `before_write` may change it between a reader's look and its write.

    `carried` are connections by their real server: they outlive it and come back with it; `counted` are the counters of
    virtual servers. What is in `foreign` is there, too, and is not in `table`.
    """

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.before_write: Callable[[], None] = lambda: None
        self.reads = 0
        self.writes = 0
        self.counted: dict[VirtualKey, Counters] = {}
        self.carried: dict[tuple[VirtualKey, Endpoint], RealCounters] = {}
        self.foreign: tuple[Foreign, ...] = ()

    def read(self) -> tuple[Table, TableCounters]:
        self.reads += 1
        entries = {key: self.table.entries[key] for key in sorted(self.table.entries, key=VirtualKey.sort_key)}
        reals = {
            (key, real): self.carried.get((key, real), RealCounters())
            for key, entry in entries.items()
            for real in entry.reals
        }
        table = Table(MappingProxyType(entries), self.table.timeouts or TIMEOUTS, self.table.sync or frozenset())
        return table, TableCounters({key: self.counted.get(key, Counters()) for key in entries}, reals)

    def survey(self) -> Reading:
        return Reading(*self.read(), self.foreign)

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
                self.table = apply([self._as_held(change)], self.table)
        return failures

    def _as_held(self, change: Change) -> Change:
        """A sync daemon without a bound gets that of its interface, and it is stopped by its role alone."""
        match change:
            case StartSync(daemon):
                return StartSync(_bounded(daemon))
            case StopSync(daemon):
                return next(StopSync(each) for each in self.table.sync or () if each.role is daemon.role)
        return change

    def _refusal(self, change: Change) -> int:
        """The errno of ip_vs_genl_set_cmd, ip_vs_genl_set_daemon and what they call, or 0."""
        match change:
            case AddVirtual() | EditVirtual() | RemoveVirtual():
                return self._virtual_refusal(change)
            case AddReal() | EditReal() | RemoveReal():
                return self._real_refusal(change)
            case SetTimeouts(_, to):
                return 0 if max(to.tcp_s, to.tcpfin_s, to.udp_s) < LONGEST_S else errno.EINVAL
            case StartSync(daemon):
                if not daemon.group.is_multicast or self._mixes_families():
                    return errno.EINVAL
                if daemon.interface not in INTERFACES:
                    return errno.ENODEV
                return errno.EEXIST if daemon.role in self._roles() else 0
            case StopSync(daemon):
                return 0 if daemon.role in self._roles() else errno.ESRCH
            case _:
                assert_never(change)

    def _virtual_refusal(self, change: VirtualChange) -> int:
        there = self.table.get(change.key) is not None or self._taken(change.key, None)
        if isinstance(change, RemoveVirtual):
            return 0 if there else errno.ESRCH
        if len(change.row.scheduler) > 15:
            return errno.EINVAL
        if isinstance(change, AddVirtual) and there:
            return errno.EEXIST
        if isinstance(change, EditVirtual) and not there:
            return errno.ESRCH
        return _row_refusal(change.row)

    def _real_refusal(self, change: RealChange) -> int:
        entry = self.table.get(change.key)
        if entry is None:
            return errno.ESRCH
        if not isinstance(change, RemoveReal):
            row = change.row
            if row.weight < 0:
                return errno.ERANGE  # of our own: it does not fit the message
            if change.real.address.version != change.key.family and (row.forward is not Forward.TUN or self._roles()):
                return errno.EINVAL
            if row.lower_threshold > row.upper_threshold:
                return errno.ERANGE
            if row.tunnel.kind is TunnelKind.GUE and not row.tunnel.port:
                return errno.EINVAL
        if isinstance(change, AddReal):
            return errno.EEXIST if change.real in entry.reals or self._taken(change.key, change.real) else 0
        return 0 if change.real in entry.reals else errno.ENOENT

    def _taken(self, key: VirtualKey, real: Endpoint | None) -> bool:
        return any((each.key, each.real) == (key, real) for each in self.foreign)

    def _roles(self) -> set[SyncRole]:
        return {daemon.role for daemon in self.table.sync or ()}

    def _mixes_families(self) -> bool:
        return any(
            real.address.version != key.family for key, entry in self.table.entries.items() for real in entry.reals
        )


def _row_refusal(row: VirtualRow) -> int:
    return 0 if row.scheduler in SCHEDULERS and row.engine in ENGINES else errno.ENOENT


def _bounded(daemon: SyncDaemon) -> SyncDaemon:
    headers = 8 + (40 if daemon.group.version == 6 else 20)  # UDP and IP
    smallest = 1024 if daemon.role is SyncRole.BACKUP else 1
    return replace(daemon, maxlen=max(daemon.maxlen, smallest) if daemon.maxlen else MTU - headers)
