"""Why the kernel refused one change, in an operator's words.

One rule: the errno stands beside the words, and the caller decides by the errno.

Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_set_cmd and what it calls.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual
from director.ipvs.tlv import error_name

_STALE = frozenset({errno.EEXIST, errno.ESRCH, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Failure:
    """One change that was not made, or (ENOBUFS) of which nobody knows; the changes around it stand."""

    change: Change
    errno: int
    reason: str

    @property
    def is_stale(self) -> bool:
        """Whether the table was not what the change took it for, so that reading again may settle it."""
        if self.errno == errno.ENOENT:
            return not isinstance(self.change, AddVirtual | EditVirtual)
        return self.errno in _STALE


def failure(change: Change, code: int, said: str = "") -> Failure:
    """What `code` means for `change`; `said` is the kernel's own word, where it has one."""
    return Failure(change, code, _reason(change, code) + (f" (the kernel says: {said})" if said else ""))


def _reason(change: Change, code: int) -> str:
    what = subject(change)
    match code:
        case errno.EEXIST:
            return f"{what}: it exists already, somebody else made it; read the table again"
        case errno.ESRCH:
            return f"{what}: virtual server {change.key} is not in the kernel; read the table again"
        case errno.ENOENT if isinstance(change, AddVirtual | EditVirtual):
            name = change.row.scheduler
            return f"{what}: scheduler {name!r} is not in this kernel: check its name, or run `modprobe ip_vs_{name}`"
        case errno.ENOENT:
            return f"{what}: it is not in the kernel; read the table again"
        case errno.ENOBUFS:
            return f"{what}: the kernel's answer was lost; read the table again"
        case errno.EPERM | errno.EACCES:
            return f"{what}: not permitted: run as root of the host, or with CAP_NET_ADMIN"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            return f"{what}: this kernel's IPVS lacks its address family or protocol"
        case errno.ERANGE:
            return f"{what}: a value is out of range: the lower threshold must not exceed the upper one"
        case errno.EINVAL if isinstance(change, AddReal | EditReal):
            return (
                f"{what}: refused: the address must be a unicast one (IPv6: not link-local), "
                "and one of the other IP version needs `tun` and no sync daemon"
            )
        case errno.EINVAL if isinstance(change, AddVirtual | EditVirtual):
            return (
                f"{what}: refused: check the persistence prefix (IPv6: 1 to 128), "
                "and that the scheduler's name has up to 15 letters"
            )
        case errno.ENOMEM:
            return f"{what}: the kernel has no memory for it"
        case _:
            return f"{what}: the kernel answered {error_name(code)}"


def subject(change: Change) -> str:
    """What was tried, for the front of a message."""
    match change:
        case AddVirtual():
            return f"cannot create {change.key}"
        case EditVirtual():
            return f"cannot change {change.key}"
        case RemoveVirtual():
            return f"cannot remove {change.key}"
        case AddReal():
            return f"cannot add {change.real} to {change.key}"
        case EditReal():
            return f"cannot change {change.real} of {change.key}"
        case RemoveReal():
            return f"cannot remove {change.real} from {change.key}"
