"""Messages of a dump, built as net/netfilter/ipvs/ip_vs_ctl.c builds them.

One rule: the order of attributes, their sizes and the padding before 64-bit counters are the kernel's
(ip_vs_genl_fill_service, ip_vs_genl_fill_dest, ip_vs_genl_fill_stats64).
"""

from __future__ import annotations

import sys
from enum import Enum

from director.core.table import Counters, RealCounters, RealRow, SyncDaemon, VirtualKey, VirtualRow
from director.ipvs import attributes as a
from director.ipvs import encode, tlv
from director.kit.net import Endpoint

_STATS_PAD = 11  # IPVS_STATS_ATTR_PAD


class Build(Enum):
    """Ways in which kernels build messages."""

    PLAIN = "a kernel of a machine that reads 64 bits anywhere, such as x86-64"
    PADDED = "one that aligns them, such as the user-mode kernel"
    OLD = "one before 4.1: counters of 32 bits, no tunnels of a kind"
    NEW = "one that tells something that nobody knows yet"


def u32(kind: int, value: int) -> bytes:
    return tlv.attribute(kind, value.to_bytes(4, sys.byteorder))


def service_dump(
    key: VirtualKey, row: VirtualRow, counters: Counters, *extra: bytes, build: Build = Build.PADDED
) -> bytes:
    """What the kernel sends for a virtual server that was asked for with `row`."""
    asked = encode.service(key, row)[a.NLA_HEADER_BYTES :]
    flags = tlv.attributes(asked)[a.SVC_FLAGS]
    hashed = int.from_bytes(flags[:4], sys.byteorder) | a.SVC_F_HASHED
    told = asked.replace(flags, hashed.to_bytes(4, sys.byteorder) + b"\xff" * 4, 1)
    told += _all_stats(a.SVC_STATS, a.SVC_STATS64, counters, build)
    return tlv.generic(a.NEW_SERVICE, 1, tlv.nested(a.CMD_SERVICE, told + b"".join(extra)))


def destination_dump(
    real: Endpoint, row: RealRow, counters: RealCounters, *extra: bytes, build: Build = Build.PADDED
) -> bytes:
    """What the kernel sends for a real server that was asked for with `row`."""
    asked = tlv.attributes(encode.destination(real, row)[a.NLA_HEADER_BYTES :])
    told = {
        **asked,
        a.DEST_TUN_TYPE: asked.get(a.DEST_TUN_TYPE, bytes(1)),
        a.DEST_TUN_PORT: asked.get(a.DEST_TUN_PORT, bytes(2)),
        a.DEST_TUN_FLAGS: asked.get(a.DEST_TUN_FLAGS, bytes(2)),
        a.DEST_ACTIVE_CONNS: counters.active.to_bytes(4, sys.byteorder),
        a.DEST_INACT_CONNS: counters.inactive.to_bytes(4, sys.byteorder),
        a.DEST_PERSIST_CONNS: counters.persistent.to_bytes(4, sys.byteorder),
    }
    tunnel = () if build is Build.OLD else (a.DEST_TUN_TYPE, a.DEST_TUN_PORT, a.DEST_TUN_FLAGS)
    order = (
        *(a.DEST_ADDR, a.DEST_PORT, a.DEST_FWD_METHOD, a.DEST_WEIGHT, *tunnel, a.DEST_U_THRESH, a.DEST_L_THRESH),
        *(a.DEST_ACTIVE_CONNS, a.DEST_INACT_CONNS, a.DEST_PERSIST_CONNS, a.DEST_ADDR_FAMILY),
    )
    found = b"".join(tlv.attribute(kind, told[kind]) for kind in order)
    found += _all_stats(a.DEST_STATS, a.DEST_STATS64, counters.totals, build)
    return tlv.generic(a.NEW_DEST, 1, tlv.nested(a.CMD_DEST, found + b"".join(extra)))


def daemon_dump(daemon: SyncDaemon, *extra: bytes) -> bytes:
    """What the kernel sends for a sync daemon that was asked for with a bound."""
    asked = encode.daemon(daemon)[a.NLA_HEADER_BYTES :]
    return tlv.generic(a.NEW_DAEMON, 1, tlv.nested(a.CMD_DAEMON, asked + b"".join(extra)))


def _all_stats(narrow: int, wide: int, counters: Counters, build: Build) -> bytes:
    found = _stats(narrow, counters, 4, padded=build is Build.PADDED)
    if build is not Build.OLD:
        found += _stats(wide, counters, 8, padded=build is Build.PADDED)
    return found + (tlv.attribute(99, b"what is this?") if build is Build.NEW else b"")


def _stats(kind: int, counters: Counters, size: int, *, padded: bool) -> bytes:
    """STATS (`size` 4; what does not fit is cut) or STATS64 (`size` 8)."""
    found = b""
    values = (
        counters.connections,
        counters.in_packets,
        counters.out_packets,
        counters.in_bytes,
        counters.out_bytes,
    )
    for number, value in enumerate((*values, 0, 0, 0, 0, 0), start=1):
        width = 8 if number in (a.STATS_INBYTES, a.STATS_OUTBYTES) else size
        if width == 8 and padded:
            found += tlv.attribute(_STATS_PAD, b"")
        found += tlv.attribute(number, (value % 256**width).to_bytes(width, sys.byteorder))
    return tlv.nested(kind, found)
