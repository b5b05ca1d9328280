"""Why the kernel refused one change, in an operator's words.

One rule: the errno stands beside the words, and the caller decides by the errno.

Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_set_cmd and what it calls.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
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
)
from director.core.table import Forward, SyncDaemon, TunnelKind
from director.ipvs.tlv import error_name
from director.kit.rights import with_capability

_RANGE_OF_TIMEOUTS = "out of range: a timeout is 1 to 2147483 s (24 days)"  # INT_MAX / HZ, with the largest HZ of 1000
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
        case errno.ENOBUFS:
            return f"{what}: the kernel's answer was lost; read the table again"
        case errno.EPERM | errno.EACCES:
            return f"{what}: not permitted: {with_capability('CAP_NET_ADMIN')}"
        case errno.ENOMEM:
            return f"{what}: the kernel has no memory for it"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            return f"{what}: this kernel's IPVS lacks its address family or protocol"
    match change:
        case AddVirtual() | EditVirtual() | RemoveVirtual():
            words = _virtual(change, code)
        case AddReal() | EditReal() | RemoveReal():
            words = _real(change, code)
        case SetTimeouts():
            words = _RANGE_OF_TIMEOUTS if code in (errno.EINVAL, errno.ERANGE) else ""
        case StartSync():
            words = _start(change.daemon, code)
        case StopSync():
            words = "none runs, somebody else stopped it; read again" if code == errno.ESRCH else ""
        case _:
            assert_never(change)
    return f"{what}: {words or f'the kernel answered {error_name(code)}'}"


def _virtual(change: VirtualChange, code: int) -> str:
    match code:
        case errno.EEXIST:
            return "it exists already, somebody else made it; read the table again"
        case errno.ESRCH:
            return f"virtual server {change.key} is not in the kernel; read the table again"
    if isinstance(change, RemoveVirtual):
        return ""
    row = change.row
    match code:
        case errno.ENOENT:
            asked = f"`modprobe ip_vs_{row.scheduler}`"
            if not row.engine:
                return f"scheduler {row.scheduler!r} is not in this kernel: check its name, or run {asked}"
            return (  # one errno for both; the scheduler is looked up first
                f"scheduler {row.scheduler!r} or persistence engine {row.engine!r} is not in this kernel: "
                f"check their names, or run {asked} and `modprobe ip_vs_pe_{row.engine}`"
            )
        case errno.EINVAL | errno.ERANGE:
            return (
                "refused: check the persistence prefix (IPv6: 1 to 128), "
                "and that the names of scheduler and persistence engine have up to 15 letters"
            )
    return ""


def _real(change: RealChange, code: int) -> str:
    match code:
        case errno.EEXIST:
            return "it exists already, somebody else made it; read the table again"
        case errno.ESRCH:
            return f"virtual server {change.key} is not in the kernel; read the table again"
        case errno.ENOENT:
            return "it is not in the kernel; read the table again"
    if isinstance(change, RemoveReal):
        return ""
    match code:
        case errno.ERANGE:
            return "a value is out of range: the lower threshold must not exceed the upper one"
        case errno.EINVAL if change.real.address.version != change.key.family and change.row.forward is not Forward.TUN:
            return (
                f"refused: IPv{change.real.address.version} behind an IPv{change.key.family} virtual server needs "
                "forwarding method `tun`"
            )
        case errno.EINVAL if change.real.address.version != change.key.family:
            return (
                f"refused: IPv{change.real.address.version} behind an IPv{change.key.family} virtual server and sync "
                "daemons exclude each other: stop the daemons (`ipvsadm --stop-daemon master`, or backup), or use an "
                f"IPv{change.key.family} address"
            )
        case errno.EINVAL if change.row.tunnel.kind is TunnelKind.GUE and not change.row.tunnel.port:
            return "refused: a gue tunnel needs the UDP port at the real server"
        case errno.EINVAL:
            return "refused: the address must be a unicast one (IPv4: no broadcast address; IPv6: not link-local)"
    return ""


def _start(daemon: SyncDaemon, code: int) -> str:
    match code:
        case errno.EEXIST:
            return f"a sync {daemon.role.value} runs already, somebody else started it; read again"
        case errno.ENODEV:
            return f"there is no interface {daemon.interface!r}: use one that `ip link` shows"
        case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EADDRNOTAVAIL:
            return (
                f"no way to {daemon.group} by {daemon.interface}: give it an IPv{daemon.group.version} address and "
                f"bring it up (`ip link set {daemon.interface} up`)"
            )
        case errno.EADDRINUSE:
            return f"UDP port {daemon.port} is in use on this host: choose another one, here and on the other director"
        case errno.EINVAL if len(os.fsencode(daemon.interface)) > 15:
            return f"no interface is called {daemon.interface!r}: a name has up to 15 letters"
        case errno.EINVAL if not daemon.group.is_multicast:
            return f"refused: {daemon.group} is no multicast address: use one such as 224.0.0.81 or ff02::81"
        case errno.EINVAL | errno.ERANGE:
            return (
                "refused: sync daemons and real servers of another IP version than their virtual server exclude each "
                "other: remove those, or go without sync"
            )
    return ""


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
        case SetTimeouts(_, to):
            return f"cannot set the timeouts to tcp {to.tcp_s} s, tcpfin {to.tcpfin_s} s, udp {to.udp_s} s"
        case StartSync(daemon):
            return f"cannot start the sync {daemon.role.value} on {daemon.interface}"
        case StopSync(daemon):
            return f"cannot stop the sync {daemon.role.value} on {daemon.interface}"
        case _:
            assert_never(change)
