"""What `director.reconcile` takes for granted of a kernel: one suite for the real one and for the fake.

One rule: each trial gets an empty table, asserts for itself, and looks at the table, not at calls.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
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
    diff,
)
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SchedulerFlags,
    Table,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs.failure import Failure
from director.kit.net import Endpoint
from director.reconcile import Kernel

TCP = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
UDP = VirtualKey.of(Protocol.UDP, ip_address("192.0.2.10"), 80)
SIX = VirtualKey.of(Protocol.TCP, ip_address("2001:db8::10"), 80)
A, B, C = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (3, 1, 2))
A6 = Endpoint(ip_address("2001:db8::1"), 80)
RR, WLC = VirtualRow("rr"), VirtualRow("wlc")
ONE, TWO = RealRow(Forward.NAT, 1), RealRow(Forward.NAT, 2)


def holding(entries: dict[VirtualKey, VirtualEntry]) -> Table:
    return Table(MappingProxyType(entries))


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
    assert table == Table()
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
        (EditVirtual(TCP, RR, VirtualRow("nosuch")), errno.ENOENT),
        (AddVirtual(UDP, VirtualRow("name-of-sixteen!")), errno.EINVAL),
        (AddReal(TCP, A6, ONE), errno.EINVAL),
        (AddReal(TCP, B, RealRow(Forward.NAT, 1, 5, 6)), errno.ERANGE),
        (EditReal(TCP, A, ONE, RealRow(Forward.NAT, -1)), errno.ERANGE),
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


TRIALS: dict[str, Callable[[Kernel], None]] = {
    "empty": try_empty,
    "read-back": try_read_back,
    "edit": try_edit,
    "stale": try_stale,
    "impossible": try_impossible,
    "around-a-refusal": try_around_a_refusal,
    "insert-and-lower": try_insert_and_lower,
}
