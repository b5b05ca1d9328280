"""What a look found: how bad, where, what, and what to do about it, in one line.

One rule: a finding without a remedy is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad. ERROR: connections fail. WARNING: they will, or some do. NOTE: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


class Code(Enum):
    """Every kind of finding; docs/doctor.md explains each."""

    MODULE_MISSING = "module-missing"
    SCHEDULER_MISSING = "scheduler-missing"
    NOT_APPLIED = "not-applied"
    UNDECLARED = "undeclared"
    RIVAL = "rival"
    SETTING_WRONG = "setting-wrong"
    EXPIRE_NODEST = "expire-nodest"
    EXPIRE_TEMPLATE = "expire-template"
    REUSE_MODE = "reuse-mode"
    VIP_NOT_LOCAL = "vip-not-local"
    VIP_ON_WIRE = "vip-on-wire"
    VIP_ANSWERED = "vip-answered"
    ARP_SETTINGS = "arp-settings"
    NO_ROUTE = "no-route"
    BEHIND_ROUTER = "behind-router"
    NO_NEIGHBOUR = "no-neighbour"
    GATEWAY_NOT_DIRECTOR = "gateway-not-director"
    CLIENTS_IN_SUBNET = "clients-in-subnet"
    TUNNEL_MTU = "tunnel-mtu"
    TUNNEL_MISSING = "tunnel-missing"
    TUNNEL_OPEN = "tunnel-open"
    TUNNEL_RP_FILTER = "tunnel-rp-filter"
    CONNTRACK_FULL = "conntrack-full"
    INPUT_DROPPED = "input-dropped"
    FORWARD_DROPPED = "forward-dropped"
    OUTPUT_DROPPED = "output-dropped"
    INVALID_DROPPED = "invalid-dropped"
    NOT_LISTENING = "not-listening"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what it is about, `found` what was seen there, `remedy` what to do.

    >>> print(Finding(Severity.ERROR, Code.VIP_NOT_LOCAL, "192.0.2.10", "no interface has it", "run director apply"))
    error  vip-not-local  192.0.2.10: no interface has it: run director apply
    """

    severity: Severity
    code: Code
    subject: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity.value}  {self.code.value}  {self.subject}: {self.found}: {self.remedy}"

    def sort_key(self) -> tuple[int, str, str]:
        """The worst first."""
        return (self.severity.rank, self.code.value, self.subject)


def error(code: Code, subject: object, found: str, remedy: str) -> Finding:
    """Connections fail because of this."""
    return Finding(Severity.ERROR, code, str(subject), found, remedy)


def warning(code: Code, subject: object, found: str, remedy: str) -> Finding:
    """Some connections fail because of this, or soon will."""
    return Finding(Severity.WARNING, code, str(subject), found, remedy)


def note(code: Code, subject: object, found: str, remedy: str) -> Finding:
    """Worth knowing."""
    return Finding(Severity.NOTE, code, str(subject), found, remedy)


def listed(things: Iterable[object], limit: int = 4) -> str:
    """Some of many things in a row of words.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    words = [str(thing) for thing in things]
    rest = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {rest} more" if rest > 0 else "")
