"""Messages of a dump, built as net/netfilter/ipvs/ip_vs_ctl.c builds them.

One rule: the order of attributes, their sizes and the padding before 64-bit counters are the kernel's
(ip_vs_genl_fill_service, ip_vs_genl_fill_dest, ip_vs_genl_fill_stats64).
"""

from __future__ import annotations

import sys

from director.core.table import Counters, RealCounters, RealRow, VirtualKey, VirtualRow
from director.ipvs import attributes as a
from director.ipvs import encode, tlv
from director.kit.net import Endpoint

_STATS_PAD = 11  # IPVS_STATS_ATTR_PAD


def u32(kind: int, value: int) -> bytes:
    return tlv.attribute(kind, value.to_bytes(4, sys.byteorder))


def service_dump(key: VirtualKey, row: VirtualRow, counters: Counters, *extra: bytes) -> bytes:
    """What the kernel sends for a virtual server that was asked for with `row`."""
    asked = encode.service(key, row)[a.NLA_HEADER_BYTES :]
    flags = tlv.attributes(asked)[a.SVC_FLAGS]
    hashed = int.from_bytes(flags[:4], sys.byteorder) | a.SVC_F_HASHED
    told = asked.replace(flags, hashed.to_bytes(4, sys.byteorder) + b"\xff" * 4, 1)
    return tlv.generic(
        a.NEW_SERVICE,
        1,
        tlv.nested(
            a.CMD_SERVICE,
            told + stats(a.SVC_STATS, counters, 4) + stats(a.SVC_STATS64, counters, 8) + b"".join(extra),
        ),
    )


def destination_dump(real: Endpoint, row: RealRow, counters: RealCounters, *extra: bytes) -> bytes:
    """What the kernel sends for a real server that was asked for with `row`."""
    asked = encode.destination(real, row)[a.NLA_HEADER_BYTES :]
    told = (
        u32(a.DEST_ACTIVE_CONNS, counters.active)
        + u32(a.DEST_INACT_CONNS, counters.inactive)
        + u32(a.DEST_PERSIST_CONNS, counters.persistent)
        + stats(a.DEST_STATS, counters.totals, 4)
        + stats(a.DEST_STATS64, counters.totals, 8)
    )
    return tlv.generic(a.NEW_DEST, 1, tlv.nested(a.CMD_DEST, asked + told + b"".join(extra)))


def stats(kind: int, counters: Counters, size: int) -> bytes:
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
        if width == 8:
            found += tlv.attribute(_STATS_PAD, b"")
        found += tlv.attribute(number, (value % 256**width).to_bytes(width, sys.byteorder))
    return tlv.nested(kind, found)
