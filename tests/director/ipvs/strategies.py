"""Hypothesis strategies for everything the kernel's table can hold and the model can say."""

from __future__ import annotations

from hypothesis import strategies as st

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
)
from director.core.table import (
    IPIP,
    Counters,
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.kit.net import Endpoint

_u32 = st.integers(0, 2**32 - 1)
_u64 = st.integers(0, 2**64 - 1)
addresses = {family: st.ip_addresses(v=family) for family in (4, 6)}
ports = st.integers(0, 65535)
families = st.sampled_from((4, 6))
endpoints = families.flatmap(lambda family: st.builds(Endpoint, addresses[family], ports))
schedulers = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=15)


@st.composite
def keys(draw: st.DrawFn) -> VirtualKey:
    family = draw(families)
    if draw(st.booleans()):
        return VirtualKey(family, mark=draw(st.integers(1, 2**32 - 1)))
    return VirtualKey.of(draw(st.sampled_from(Protocol)), draw(addresses[family]), draw(ports))


@st.composite
def rows(draw: st.DrawFn, family: int) -> VirtualRow:
    persistence_s = draw(st.one_of(st.just(0), _u32))
    prefixes = st.one_of(st.none(), st.integers(0, 31) if family == 4 else st.integers(1, 127))
    return VirtualRow(
        draw(schedulers),
        SchedulerFlags(draw(st.integers(0, 7)) << 3),
        persistence_s,
        draw(prefixes) if persistence_s else None,
        draw(st.booleans()),
        draw(st.one_of(st.just(""), schedulers)),
    )


@st.composite
def real_rows(draw: st.DrawFn) -> RealRow:
    forward = draw(st.sampled_from(Forward))
    tunnel = draw(tunnels) if forward is Forward.TUN else IPIP
    return RealRow(forward, draw(_u32), draw(_u32), draw(_u32), tunnel)


keyed_rows = keys().flatmap(lambda key: st.tuples(st.just(key), rows(key.family)))
tunnels = st.builds(Tunnel, st.sampled_from(TunnelKind), ports, st.builds(TunnelFlags, st.integers(0, 3)))
counters = st.builds(Counters, _u64, _u64, _u64, _u64, _u64)
real_counters = st.builds(RealCounters, _u32, _u32, _u32, counters)
timeouts = st.builds(Timeouts, _u32, _u32, _u32)
groups = families.flatmap(lambda family: addresses[family])
daemons = st.builds(
    SyncDaemon,
    st.sampled_from(SyncRole),
    st.sampled_from(("eth0", "a-name-of-15-let", "\xe9t\xe9")),
    _u32,
    groups,
    ports,
    st.integers(0, 255),
    st.integers(0, 65535),
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    key, row = draw(keyed_rows)
    real, real_row = draw(endpoints), draw(real_rows())
    options: tuple[Change, ...] = (
        AddVirtual(key, row),
        EditVirtual(key, row, row),
        RemoveVirtual(key, VirtualEntry(row)),
        AddReal(key, real, real_row),
        EditReal(key, real, real_row, real_row),
        RemoveReal(key, real, real_row),
        SetTimeouts(None, draw(timeouts)),
        StartSync(draw(daemons)),
        StopSync(draw(daemons)),
    )
    return draw(st.sampled_from(options))
