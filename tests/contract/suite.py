"""What `director.reconcile` takes for granted of a kernel: one suite for the real one and for the fake.

One rule: each trial gets an empty table, asserts for itself, and looks at the table, not at calls.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
    diff,
)
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs.failure import Failure
from director.kit.net import Endpoint
from director.terms import Kernel

TCP = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
UDP = VirtualKey.of(Protocol.UDP, ip_address("192.0.2.10"), 80)
SCTP = VirtualKey.of(Protocol.SCTP, ip_address("192.0.2.10"), 2905)
SIX = VirtualKey.of(Protocol.TCP, ip_address("2001:db8::10"), 80)
A, B, C = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (3, 1, 2))
A6 = Endpoint(ip_address("2001:db8::1"), 80)
RR, WLC = VirtualRow("rr"), VirtualRow("wlc")
ONE, TWO = RealRow(Forward.NAT, 1), RealRow(Forward.NAT, 2)
TUN = RealRow(Forward.TUN, 1)
TIMEOUTS = Timeouts(900, 120, 300)
"""Of a kernel that nobody told others."""
MASTER = SyncDaemon(SyncRole.MASTER, "lan", 7)
BACKUP = SyncDaemon(SyncRole.BACKUP, "lan", 7, ip_address("ff02::81"), 9000, 3, 1300)


def holding(entries: dict[VirtualKey, VirtualEntry]) -> Table:
    return Table(MappingProxyType(entries), TIMEOUTS, frozenset())


def refusals(kernel: Kernel, *changes: Change) -> list[tuple[Change, int, bool]]:
    found = []
    for refusal in kernel.write(changes):
        assert isinstance(refusal, Failure)
        assert refusal.reason
        found.append((refusal.change, refusal.errno, refusal.is_stale))
    return found


def try_empty(kernel: Kernel) -> None:
    """An empty table reads as one, and no changes are none."""
    table, counters = kernel.read()
    assert table == holding({})
    assert not counters.virtuals
    assert not counters.reals
    assert refusals(kernel) == []


def try_read_back(kernel: Kernel) -> None:
    """What was written is read: virtual servers by key, real servers in order of insertion; counters beside it."""
    wanted = holding(
        {
            SIX: VirtualEntry(VirtualRow("mh", SchedulerFlags.PORT, 300, 64), {A6: RealRow(Forward.DR, 65535)}),
            UDP: VirtualEntry(VirtualRow("sh", SchedulerFlags.FALLBACK), {}),
            TCP: VirtualEntry(RR, {A: ONE, B: RealRow(Forward.DR, 0), C: RealRow(Forward.NAT, 7, 20, 10)}),
        }
    )
    assert refusals(kernel, *diff(Table(), wanted)) == []
    table, counters = kernel.read()
    assert table == wanted
    assert list(table) == [TCP, UDP, SIX]
    assert list(table.entries[TCP].reals) == [A, B, C]
    assert set(counters.virtuals) == {TCP, UDP, SIX}
    assert set(counters.reals) == {(TCP, A), (TCP, B), (TCP, C), (SIX, A6)}


def try_edit(kernel: Kernel) -> None:
    """Edits keep the order; removing a virtual server takes its real servers along."""
    before = holding({TCP: VirtualEntry(RR, {A: ONE, B: ONE}), UDP: VirtualEntry(RR, {A: ONE})})
    after = holding({TCP: VirtualEntry(WLC, {A: TWO, B: RealRow(Forward.DR, 1), C: ONE})})
    assert refusals(kernel, *diff(Table(), before)) == []
    assert refusals(kernel, *diff(before, after, {UDP})) == []
    table, _ = kernel.read()
    assert table == after
    assert next(iter(table.entries[TCP].reals)) == A
    assert diff(table, after, {UDP}) == ()


def try_stale(kernel: Kernel) -> None:
    """What is there already, and what is not there, is refused as stale, and changes nothing."""
    there = holding({TCP: VirtualEntry(RR, {A: ONE})})
    assert refusals(kernel, *diff(Table(), there)) == []
    cases: list[tuple[Change, int]] = [
        (AddVirtual(TCP, WLC), errno.EEXIST),
        (AddReal(TCP, A, TWO), errno.EEXIST),
        (EditReal(TCP, B, ONE, TWO), errno.ENOENT),
        (RemoveReal(TCP, B, ONE), errno.ENOENT),
        (EditVirtual(UDP, RR, WLC), errno.ESRCH),
        (RemoveVirtual(UDP, VirtualEntry(RR)), errno.ESRCH),
        (AddReal(UDP, A, ONE), errno.ESRCH),
        (EditReal(UDP, A, ONE, TWO), errno.ESRCH),
        (RemoveReal(UDP, A, ONE), errno.ESRCH),
    ]
    changes = [change for change, _ in cases]
    assert refusals(kernel, *changes) == [(change, code, True) for change, code in cases]
    assert kernel.read()[0] == there


def try_impossible(kernel: Kernel) -> None:
    """What this kernel never does is refused, and not as stale; an existing virtual server stays as it was."""
    there = holding({TCP: VirtualEntry(RR, {A: ONE})})
    assert refusals(kernel, *diff(Table(), there)) == []
    cases: list[tuple[Change, int]] = [
        (AddVirtual(UDP, VirtualRow("nosuch")), errno.ENOENT),
        (AddVirtual(UDP, VirtualRow("rr", persistence_s=60, engine="nosuch")), errno.ENOENT),
        (EditVirtual(TCP, RR, VirtualRow("nosuch")), errno.ENOENT),
        (AddVirtual(UDP, VirtualRow("name-of-sixteen!")), errno.EINVAL),
        (AddReal(TCP, A6, ONE), errno.EINVAL),
        (AddReal(TCP, B, RealRow(Forward.NAT, 1, 5, 6)), errno.ERANGE),
        (AddReal(TCP, B, RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE))), errno.EINVAL),
        (EditReal(TCP, A, ONE, RealRow(Forward.NAT, -1)), errno.ERANGE),
        (SetTimeouts(TIMEOUTS, Timeouts(2**31, 1, 1)), errno.EINVAL),
        (StartSync(SyncDaemon(SyncRole.MASTER, "nosuch")), errno.ENODEV),
        (StartSync(SyncDaemon(SyncRole.MASTER, "lan", group=ip_address("10.0.0.1"))), errno.EINVAL),
    ]
    # Out of range is found before anything is sent, so its place in the answer is not promised.
    found = {id(change): (code, stale) for change, code, stale in refusals(kernel, *(change for change, _ in cases))}
    assert found == {id(change): (code, False) for change, code in cases}
    assert kernel.read()[0] == there


def try_around_a_refusal(kernel: Kernel) -> None:
    """A refused change stops none of those around it."""
    changes: list[Change] = [
        AddVirtual(TCP, RR),
        AddVirtual(UDP, VirtualRow("nosuch")),
        AddReal(UDP, A, ONE),
        AddReal(TCP, A, ONE),
    ]
    assert refusals(kernel, *changes) == [(changes[1], errno.ENOENT, False), (changes[2], errno.ESRCH, True)]
    assert kernel.read()[0] == holding({TCP: VirtualEntry(RR, {A: ONE})})


def try_insert_and_lower(kernel: Kernel) -> None:
    """A real server is added and lowered, and removed and added with another method, within one batch."""
    low, dr = RealRow(Forward.NAT, 0), RealRow(Forward.DR, 1)
    changes: list[Change] = [
        AddVirtual(TCP, VirtualRow("mh")),
        AddReal(TCP, A, TWO),
        EditReal(TCP, A, TWO, low),
        AddReal(TCP, B, ONE),
    ]
    assert refusals(kernel, *changes) == []
    table, _ = kernel.read()
    assert table == holding({TCP: VirtualEntry(VirtualRow("mh"), {A: low, B: ONE})})
    assert list(table.entries[TCP].reals) == [A, B]
    assert refusals(kernel, RemoveReal(TCP, A, low), AddReal(TCP, A, dr)) == []
    assert kernel.read()[0] == holding({TCP: VirtualEntry(VirtualRow("mh"), {A: dr, B: ONE})})


def try_engine(kernel: Kernel) -> None:
    """A persistence engine comes and goes with the row."""
    sip, plain = VirtualRow("rr", persistence_s=60, engine="sip"), VirtualRow("rr", persistence_s=60)
    assert refusals(kernel, AddVirtual(UDP, sip)) == []
    assert kernel.read()[0] == holding({UDP: VirtualEntry(sip)})
    assert refusals(kernel, EditVirtual(UDP, sip, plain)) == []
    assert kernel.read()[0] == holding({UDP: VirtualEntry(plain)})


def try_tunnels(kernel: Kernel) -> None:
    """Tunnels of each kind are read as written, and one goes with an edit that asks for none."""
    gue = RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE, 6080, TunnelFlags.REMOTE_CHECKSUM))
    gre = RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GRE, flags=TunnelFlags.CHECKSUM))
    wanted = holding({SCTP: VirtualEntry(RR, {A: gue, B: gre, C: TUN, A6: TUN})})
    assert refusals(kernel, *diff(Table(), wanted)) == []
    assert kernel.read()[0] == wanted
    assert refusals(kernel, EditReal(SCTP, A, gue, TUN), EditReal(SCTP, B, gre, gue)) == []
    assert kernel.read()[0] == holding({SCTP: VirtualEntry(RR, {A: TUN, B: gue, C: TUN, A6: TUN})})


def try_timeouts(kernel: Kernel) -> None:
    """Timeouts are read as set."""
    wanted = Timeouts(7200, 60, 30)
    assert refusals(kernel, SetTimeouts(TIMEOUTS, wanted)) == []
    assert kernel.read()[0] == replace(holding({}), timeouts=wanted)


def try_sync(kernel: Kernel) -> None:
    """Sync daemons are read as started, with their bound; one for each role, and what is not there cannot stop."""
    assert refusals(kernel, StartSync(MASTER), StartSync(BACKUP)) == []
    found = kernel.read()[0].sync
    assert found == frozenset({replace(MASTER, maxlen=1472), BACKUP})
    assert all(daemon.agrees(each) for daemon in (MASTER, BACKUP) for each in found if each.role is daemon.role)
    assert refusals(kernel, StartSync(MASTER)) == [(StartSync(MASTER), errno.EEXIST, True)]
    assert refusals(kernel, *(StopSync(daemon) for daemon in found)) == []
    assert kernel.read()[0] == holding({})
    assert refusals(kernel, StopSync(MASTER)) == [(StopSync(MASTER), errno.ESRCH, True)]


def try_sync_stopped_at_once(kernel: Kernel) -> None:
    """A sync daemon that is stopped before it ever ran is gone, and that is no failure."""
    started = replace(BACKUP, maxlen=1300)
    for _ in range(3):
        assert refusals(kernel, StartSync(started), StopSync(started)) == []
    assert kernel.read()[0].sync == frozenset()


def try_sync_and_mixed_families(kernel: Kernel) -> None:
    """Sync daemons and real servers of the other IP version exclude each other, whichever comes first."""
    other = AddReal(TCP, A6, TUN)
    assert refusals(kernel, AddVirtual(TCP, RR), other) == []
    assert refusals(kernel, StartSync(MASTER)) == [(StartSync(MASTER), errno.EINVAL, False)]
    assert refusals(kernel, RemoveReal(TCP, A6, TUN), StartSync(MASTER)) == []
    assert refusals(kernel, other) == [(other, errno.EINVAL, False)]
    assert refusals(kernel, StopSync(replace(MASTER, maxlen=1472)), other) == []
    assert kernel.read()[0] == holding({TCP: VirtualEntry(RR, {A6: TUN})})


TRIALS: dict[str, Callable[[Kernel], None]] = {
    "empty": try_empty,
    "read-back": try_read_back,
    "edit": try_edit,
    "stale": try_stale,
    "impossible": try_impossible,
    "around-a-refusal": try_around_a_refusal,
    "insert-and-lower": try_insert_and_lower,
    "engine": try_engine,
    "tunnels": try_tunnels,
    "timeouts": try_timeouts,
    "sync": try_sync,
    "sync-stopped-at-once": try_sync_stopped_at_once,
    "sync-and-mixed-families": try_sync_and_mixed_families,
}
