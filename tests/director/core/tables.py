"""Hypothesis strategies for small tables that have keys in common."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

from hypothesis import strategies as st

from director.core.table import Forward, Protocol, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.kit.net import Endpoint

KEYS = [VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), port) for port in (80, 81, 82, 83)]
REALS = [Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in range(1, 5)]

rows = st.builds(VirtualRow, st.sampled_from(("rr", "wlc")), persistence_s=st.sampled_from((0, 300)))
real_rows = st.builds(RealRow, st.sampled_from((Forward.NAT, Forward.DR)), st.integers(0, 2))
reals = st.dictionaries(st.sampled_from(REALS), real_rows).map(MappingProxyType)
entries = st.builds(VirtualEntry, rows, reals)
tables = st.dictionaries(st.sampled_from(KEYS), entries).map(lambda found: Table(MappingProxyType(found)))
key_sets = st.frozensets(st.sampled_from(KEYS))
