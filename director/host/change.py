"""What an operation on the host changed, so that its caller can log it.

One rule: only what differs afterwards is a change; finding things already right is none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One fact of the host that is different now; None stands for absent.

    >>> print(Change("sysctl", "net.ipv4.conf.all.arp_ignore", "0", "1"))
    sysctl net.ipv4.conf.all.arp_ignore: 0 -> 1
    >>> print(Change("address", "192.0.2.10 on lo", None, "present"))
    address 192.0.2.10 on lo: absent -> present
    """

    kind: str
    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.before or 'absent'} -> {self.after or 'absent'}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was changed and, in sentences for an operator, what could not be: one failure does not stop the rest."""

    changes: tuple[Change, ...] = ()
    failures: tuple[str, ...] = ()

    def __add__(self, other: Attempt) -> Attempt:
        return Attempt(self.changes + other.changes, self.failures + other.failures)
