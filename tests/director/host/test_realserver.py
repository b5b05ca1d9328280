"""The remembered state of a real server; what it does to a kernel is in tests/lab/test_host_realserver*.py."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.vip import Vip
from director.host import realserver_state, sysctl
from director.host.decapsulation import Device, DeviceKind, Listener
from director.host.realserver import ARP_SETTINGS
from director.host.realserver_state import State
from director.host.sysctl import Epoch, Remembered, name
from director.kit import statefile
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

SMALL = st.sampled_from("0123")
NAMES = st.sampled_from(["lo", "lvs-ipip0", "lvs-gre1"])
ENDS = st.none() | st.ip_addresses()
VERSIONS = st.sampled_from([4, 6])
STATES = st.builds(
    State,
    st.builds(Epoch, st.uuids().map(str), st.integers(0, 2**32)),
    st.frozensets(st.builds(Vip, st.ip_addresses(), NAMES)),
    st.lists(st.builds(Remembered, st.sampled_from(sorted(ARP_SETTINGS)), SMALL, SMALL)).map(tuple),
    st.dictionaries(NAMES, st.builds(Device, st.sampled_from(DeviceKind), ENDS, ENDS, st.booleans())),
    st.frozensets(st.builds(Listener, st.integers(1, 65535), VERSIONS)),
    st.frozensets(VERSIONS),
)


@given(STATES)
def test_state_round_trips_through_json(state: State) -> None:
    assert realserver_state.decode(json.loads(json.dumps(realserver_state.encode(state))), Path("x")) == state


def test_what_version_1_wrote_is_still_known(tmp_path: Path) -> None:
    epoch = sysctl.epoch()
    path = tmp_path / "realserver.json"
    setting = {"name": "net.ipv4.conf.all.arp_ignore", "before": "0", "ours": "1"}
    content: dict[str, statefile.Json] = {
        "boot_id": epoch.boot_id,
        "namespace": epoch.namespace,
        "vips": ["192.0.2.10"],
        "sysctls": [dict(setting)],
    }
    statefile.save(path, 1, content)
    known = realserver_state.load(path)
    assert known == State(
        epoch,
        frozenset({Vip(ip_address("192.0.2.10"), "lo")}),
        (Remembered(("net", "ipv4", "conf", "all", "arp_ignore"), "0", "1"),),
    )
    realserver_state.save(path, known, State(epoch))
    assert json.loads(path.read_text())["version"] == realserver_state.VERSION
    assert realserver_state.load(path) == known


def test_a_version_from_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "realserver.json"
    statefile.save(path, realserver_state.VERSION + 1, {})
    with pytest.raises(HostError, match="it says version 3 and this program writes version 2"):
        realserver_state.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"vips": None},
        {"vips": ["192.0.2.300"]},
        {"vips": [{"address": "192.0.2.10"}]},
        {"boot_id": 7},
        {"namespace": "x"},
        {"sysctls": [{"name": "net.ipv4.ip_forward", "before": 0, "ours": "1"}]},
        {"sysctls": ["net.ipv4.ip_forward"]},
        {"devices": {}},
        {"devices": [{"name": "x", "kind": "ethernet", "remote": None, "local": None, "checksum": False}]},
        {"devices": [{"name": "x", "kind": "ipip", "remote": 1, "local": None, "checksum": False}]},
        {"listeners": [{"port": 6080, "ip_version": 5}]},
        {"clamped": 4},
        {"clamped": ["4"]},
    ],
)
def test_strange_content_is_told_with_the_way_out(change: dict[str, object]) -> None:
    good = realserver_state.encode(State(Epoch("b", 1), frozenset({Vip(ip_address("192.0.2.10"), "lo")})))
    content = json.loads(json.dumps({**good, **change}))
    with pytest.raises(HostError, match=r"cannot be used: .*mv state\.json state\.json\.bad"):
        realserver_state.decode(content, Path("state.json"))


def test_arp_is_silenced_on_all_and_lo() -> None:
    assert {name(key): value for key, value in ARP_SETTINGS.items()} == {
        "net.ipv4.conf.all.arp_ignore": "1",
        "net.ipv4.conf.all.arp_announce": "2",
        "net.ipv4.conf.lo.arp_ignore": "1",
        "net.ipv4.conf.lo.arp_announce": "2",
    }
