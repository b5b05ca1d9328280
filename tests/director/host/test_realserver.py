"""The remembered state of a real server; what it does to a kernel is in tests/lab/test_host_realserver.py."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.host import realserver
from director.host.realserver import ARP_SETTINGS, State
from director.host.sysctl import Epoch, Remembered, name
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

SMALL = st.sampled_from("0123")
STATES = st.builds(
    State,
    st.builds(Epoch, st.uuids().map(str), st.integers(0, 2**32)),
    st.frozensets(st.ip_addresses()),
    st.lists(st.builds(Remembered, st.sampled_from(sorted(ARP_SETTINGS)), SMALL, SMALL)).map(tuple),
)


@given(STATES)
def test_state_round_trips_through_json(state: State) -> None:
    assert realserver.decode(json.loads(json.dumps(realserver.encode(state))), Path("x")) == state


@pytest.mark.parametrize(
    "change",
    [
        {"vips": None},
        {"vips": ["192.0.2.300"]},
        {"boot_id": 7},
        {"namespace": "x"},
        {"sysctls": [{"name": "net.ipv4.ip_forward", "before": 0, "ours": "1"}]},
        {"sysctls": ["net.ipv4.ip_forward"]},
    ],
)
def test_strange_content_is_told_with_the_way_out(change: dict[str, object]) -> None:
    good = realserver.encode(State(Epoch("b", 1), frozenset({ip_address("192.0.2.10")})))
    content = json.loads(json.dumps({**good, **change}))
    with pytest.raises(HostError, match=r"cannot be used: .*mv state\.json state\.json\.bad"):
        realserver.decode(content, Path("state.json"))


def test_arp_is_silenced_on_all_and_lo() -> None:
    assert {name(key): value for key, value in ARP_SETTINGS.items()} == {
        "net.ipv4.conf.all.arp_ignore": "1",
        "net.ipv4.conf.all.arp_announce": "2",
        "net.ipv4.conf.lo.arp_ignore": "1",
        "net.ipv4.conf.lo.arp_announce": "2",
    }
