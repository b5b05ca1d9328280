"""Which devices, ports and segment sizes a tunnel asks for; that they work is tried in tests/lab."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.table import Tunnel, TunnelFlags, TunnelKind
from director.host.decapsulation import Device, DeviceKind, Listener, Served, ends, listeners, name_all, segment_bytes
from director.kit.errors import ConfigError

pytestmark = pytest.mark.unit

VIP = {4: ip_address("192.0.2.10"), 6: ip_address("2001:db8::10")}
DIRECTOR = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
HERE = {4: ip_address("10.0.0.21"), 6: ip_address("fd00::21")}
IPIP, GRE, GUE = (Tunnel(TunnelKind(kind), 6080 if kind == "gue" else 0) for kind in ("ipip", "gre", "gue"))
SUMMED = Tunnel(TunnelKind.GRE, 0, TunnelFlags.CHECKSUM)


@pytest.mark.parametrize(
    ("tunnel", "inner", "outer", "kind", "size"),
    [
        (IPIP, 4, 4, DeviceKind.IPIP, 1440),
        (IPIP, 6, 4, DeviceKind.SIT, 1420),
        (IPIP, 4, 6, DeviceKind.IP6TNL, 1420),
        (IPIP, 6, 6, DeviceKind.IP6TNL, 1400),
        (GRE, 4, 4, DeviceKind.GRE, 1436),
        (GRE, 6, 4, DeviceKind.GRE, 1416),
        (GRE, 6, 6, DeviceKind.IP6GRE, 1396),
        (SUMMED, 4, 4, DeviceKind.GRE, 1432),
        (GUE, 4, 4, DeviceKind.IPIP, 1420),
        (GUE, 6, 4, DeviceKind.SIT, 1400),
        (GUE, 6, 6, DeviceKind.IP6TNL, 1380),
    ],
)
def test_device_and_segment_of_each_wrapping(
    tunnel: Tunnel, inner: int, outer: int, kind: DeviceKind, size: int
) -> None:
    (end,) = ends([Served(VIP[inner], tunnel, (DIRECTOR[outer],))])
    assert end.device == Device(kind, remote=DIRECTOR[outer], checksum=tunnel is SUMMED)
    assert segment_bytes(end, 1500) == size


def test_each_director_has_its_device_and_none_named_means_who_sends_here() -> None:
    second = ip_address("10.0.0.2")
    named = ends([Served(VIP[4], IPIP, (DIRECTOR[4], second), (HERE[4],))])
    assert [str(end.device) for end in named] == ["ipip from 10.0.0.1", "ipip from 10.0.0.2"]
    opened = ends([Served(VIP[4], IPIP, (), (HERE[4],))])
    assert [str(end.device) for end in opened] == ["ipip to 10.0.0.21"]
    assert ends([Served(VIP[4])]) == ()


def test_gue_shares_its_device_with_ipip_and_listens_in_the_outer_family() -> None:
    found = ends([Served(VIP[4], GUE, (DIRECTOR[4], DIRECTOR[6])), Served(VIP[4], IPIP, (DIRECTOR[4],))])
    assert {end.device.kind for end in found} == {DeviceKind.IPIP, DeviceKind.IP6TNL}
    assert listeners(found) == {Listener(6080, 4), Listener(6080, 6)}


def test_gre_with_and_without_checksums_from_one_director_is_refused() -> None:
    other = ip_address("192.0.2.11")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.10 and 192\.0\.2\.11 come by .* same checksum flag"):
        ends([Served(VIP[4], GRE, (DIRECTOR[4],)), Served(other, SUMMED, (DIRECTOR[4],))])
    assert len(ends([Served(VIP[4], GRE, (DIRECTOR[4],)), Served(other, SUMMED, (ip_address("10.0.0.2"),))])) == 2


DEVICES = st.builds(Device, st.sampled_from(DeviceKind), st.sampled_from([*DIRECTOR.values(), *HERE.values()]))
NAMES = st.sampled_from([f"lvs-{kind.value}{number}" for kind in DeviceKind for number in range(3)])


@given(
    st.frozensets(DEVICES), st.dictionaries(NAMES, DEVICES), st.dictionaries(NAMES, st.none() | DEVICES), st.booleans()
)
def test_names_hold_and_never_take_what_is_someone_elses(
    wanted: frozenset[Device], known: dict[str, Device], there: dict[str, Device | None], standing: bool
) -> None:
    if standing:
        there = {**there, **known}
    named = name_all(wanted, known, there)
    assert set(named.values()) == wanted
    assert len(named) == len(wanted)
    for name, device in named.items():
        assert there.get(name, device) == device
        assert known.get(name, device) == device
    assert name_all(iter(wanted), named, {**there, **named}) == named
