"""Hypothesis strategies for tables as a kernel may hold them: what director makes, and what only others do.

One rule: few addresses and ports, so that entries have much in common.
"""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

from hypothesis import strategies as st

from director.core.table import (
    IPIP,
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
from director.kit.net import Endpoint, IPAddress

VIPS = {4: [ip_address(f"192.0.2.{n}") for n in (10, 11)], 6: [ip_address("2001:db8::10")]}
REALS = {4: [ip_address(f"10.0.0.{n}") for n in (1, 2, 3)], 6: [ip_address(f"2001:db8:1::{n}") for n in (1, 2)]}
PORTS = (80, 443, 8000, 8001, 8002)
PLAIN = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf", "twos")
TUNNELS = (
    IPIP,
    Tunnel(TunnelKind.GRE),
    Tunnel(TunnelKind.GRE, 0, TunnelFlags.CHECKSUM),
    Tunnel(TunnelKind.GUE, 6080),
    Tunnel(TunnelKind.GUE, 6081, TunnelFlags.REMOTE_CHECKSUM),
)


@st.composite
def keys(draw: st.DrawFn) -> VirtualKey:
    family = draw(st.sampled_from((4, 6)))
    if draw(st.integers(0, 5)) == 0:
        return VirtualKey(family, mark=draw(st.sampled_from((1, 7, 2**32 - 1))))
    return VirtualKey.of(draw(st.sampled_from(Protocol)), draw(st.sampled_from(VIPS[family])), draw(ports_or_any))


ports_or_any = st.sampled_from((0, *PORTS, *PORTS))


@st.composite
def rows(draw: st.DrawFn, key: VirtualKey) -> VirtualRow:
    """What director can make for `key`."""
    scheduler = draw(st.sampled_from((*PLAIN, "sh", "mh")))
    flags = SchedulerFlags(draw(st.sampled_from((0, 8, 16, 24))) if scheduler in {"sh", "mh"} else 0)
    packets = key.protocol in {None, Protocol.UDP}
    one_packet = packets and draw(st.booleans())
    any_port = key.endpoint is not None and key.endpoint.port == 0
    if not any_port and draw(st.booleans()):
        return VirtualRow(scheduler, flags, one_packet=one_packet)
    prefix = draw(st.one_of(st.none(), st.integers(0, 31) if key.family == 4 else st.integers(1, 127)))
    engine = draw(st.sampled_from(("", "sip"))) if packets else ""
    return VirtualRow(scheduler, flags, draw(st.sampled_from((1, 300, 86399))), prefix, one_packet, engine)


@st.composite
def entries(draw: st.DrawFn, key: VirtualKey) -> VirtualEntry:
    """What director can make for `key`."""
    own = key.endpoint.port if key.endpoint else 0
    found: dict[Endpoint, RealRow] = {}
    for _ in range(draw(st.integers(0, 3))):
        forward = draw(st.sampled_from((Forward.NAT, Forward.DR, Forward.TUN)))
        family = draw(st.sampled_from((4, 6))) if forward is Forward.TUN else key.family
        port = draw(st.sampled_from((own, 80, 8080))) if forward is Forward.NAT else own
        upper = draw(st.sampled_from((0, 0, 500)))
        tunnel = draw(st.sampled_from(TUNNELS)) if forward is Forward.TUN else IPIP
        row = RealRow(forward, draw(st.sampled_from((0, 1, 100, 65535))), upper, upper // 2, tunnel)
        found[Endpoint(draw(st.sampled_from(REALS[family])), port)] = row
    return VirtualEntry(draw(rows(key)), MappingProxyType(found))


@st.composite
def foreign_entries(draw: st.DrawFn, key: VirtualKey) -> VirtualEntry:
    """What a kernel may hold for `key` besides; some of it director could make as well."""
    row = VirtualRow(
        draw(st.sampled_from(("rr", "sh", "nosuch", "name_of_fifteen"))),
        SchedulerFlags(draw(st.sampled_from((0, 8, 16, 32)))),
        draw(st.sampled_from((0, 300, 2**32 - 1))),
        draw(st.sampled_from((None, 0, 24))),
        draw(st.booleans()),
        draw(st.sampled_from(("", "sip", "other"))),
    )
    reals = st.builds(
        RealRow,
        st.sampled_from(Forward),
        st.sampled_from((1, 65536, 2**31 - 1)),
        st.sampled_from((0, 5)),
        st.sampled_from((0, 3)),
        st.sampled_from((IPIP, *TUNNELS, Tunnel(TunnelKind.GUE), Tunnel(TunnelKind.IPIP, 0, TunnelFlags.CHECKSUM))),
    )
    addresses: list[IPAddress] = [*REALS[4], *REALS[6], VIPS[4][0], ip_address("127.0.0.1"), ip_address("fe80::1")]
    endpoints = st.builds(Endpoint, st.sampled_from(addresses), st.sampled_from((0, 80, 443)))
    return VirtualEntry(row, MappingProxyType(draw(st.dictionaries(endpoints, reals, max_size=3))))


sync_daemons = st.builds(
    SyncDaemon,
    st.just(SyncRole.MASTER),
    st.sampled_from(("lan", "eth0.100", "0")),
    st.sampled_from((0, 255)),
    st.sampled_from((ip_address("224.0.0.81"), ip_address("224.1.2.3"), ip_address("ff02::81"))),
    st.sampled_from((8848, 9000)),
    st.sampled_from((1, 64)),
    st.sampled_from((None, 1464)),
)
timeouts = st.builds(Timeouts, *[st.sampled_from((1, 120, 300, 900, 86400))] * 3)


@st.composite
def tables(draw: st.DrawFn, *, foreign: bool = False) -> Table:
    """Tables that director can make; with `foreign`, any."""
    found: dict[VirtualKey, VirtualEntry] = {}
    for key in draw(st.lists(keys(), max_size=6, unique=True)):
        alike = [
            entry for other, entry in found.items() if (other.protocol, other.family) == (key.protocol, key.family)
        ]
        if alike and key.endpoint and key.endpoint.port and draw(st.booleans()):
            found[key] = _moved(key, draw(st.sampled_from(alike)), draw(st.booleans()))
        else:
            found[key] = draw(foreign_entries(key) if foreign and draw(st.booleans()) else entries(key))
    mixed = any(real.address.version != key.family for key, entry in found.items() for real in entry.reals)
    daemons = st.frozensets(sync_daemons, max_size=0 if mixed and not foreign else 1)
    return Table(MappingProxyType(found), draw(timeouts), draw(daemons))


def _moved(key: VirtualKey, entry: VirtualEntry, own_port: bool) -> VirtualEntry:
    """`entry` for the port of `key`: real servers on that port, or (nat) on those they have."""
    own = key.endpoint.port if key.endpoint else 0
    reals = {
        Endpoint(real.address, own if own_port or row.forward is not Forward.NAT or not real.port else real.port): row
        for real, row in entry.reals.items()
    }
    return VirtualEntry(entry.row, MappingProxyType(reals))
