"""What a host needs for the answers to probes of the forwarding path, on files that stand in for /proc/sys."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.guard import Answer, Guard
from director.core.steering import Steering, Way
from director.core.table import Forward
from director.core.vip import Vip
from director.host import sysctl
from director.host.probepath import NOTHING, Needs, needs
from director.host.routing import interfaces
from director.host.settings import pending
from director.host.sysctl import conf
from director.kit.net import IPAddress, parse_endpoint
from director.kit.probes.source import source_towards

pytestmark = pytest.mark.unit

REAL, OTHER = ip_address("10.0.0.1"), ip_address("10.0.1.1")
OWN, VIP = ip_address("10.0.0.9"), ip_address("192.0.2.10")
TARGET = parse_endpoint("192.0.2.10:80")
LEAVES: dict[IPAddress, str] = {REAL: "eth0", OTHER: "eth1"}


def steering(name: str, real: IPAddress, **way: bool) -> Steering:
    return Steering(name, 7, 4, real, Forward.DR, ways=(Way(TARGET, OWN, **way),))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    for interface in ("all", "eth0", "eth1"):
        for setting in ("accept_local", "rp_filter"):
            path = tmp_path.joinpath(*conf(4, interface, setting))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("0\n")
    return tmp_path


def changes(found: Needs) -> list[str]:
    return [f"{sysctl.name(each.key)}={each.after} {','.join(each.needed_by)}" for each in pending(found.requirements)]


def by_hand(root: Path, interface: str, setting: str, value: str) -> None:
    root.joinpath(*conf(4, interface, setting)).write_text(value + "\n")


def test_each_interface_that_leads_to_a_real_server_is_opened_and_guarded() -> None:
    found = needs([steering("web/a", REAL), steering("web/b", REAL), steering("web/c", OTHER)], [], LEAVES)
    answer = Answer(TARGET, OWN)
    assert found.guards == (Guard("eth0", (answer,)), Guard("eth1", (answer,)))
    assert changes(found) == [
        "net.ipv4.conf.eth0.accept_local=1 web/a,web/b",
        "net.ipv4.conf.eth1.accept_local=1 web/c",
    ]


def test_ipv6_an_own_address_and_what_has_no_way_need_nothing() -> None:
    six = Steering("web/a", 7, 6, ip_address("2001:db8::1"), Forward.DR)
    assert needs([six, steering("web/b", REAL)], [], {REAL: "lo"}) == NOTHING
    assert needs([steering("web/b", REAL)], [], {}) == NOTHING


@pytest.mark.parametrize("interface", ["all", "eth0"])
def test_what_somebody_else_has_opened_has_no_guard(root: Path, interface: str) -> None:
    by_hand(root, interface, "accept_local", "1")
    assert needs([steering("web/a", REAL)], [], LEAVES) == NOTHING
    ours = [conf(4, interface, "accept_local")]
    assert len(needs([steering("web/a", REAL)], [], LEAVES, ours).guards) == 1


@pytest.mark.parametrize(
    ("every", "own", "home", "after"),
    [
        ("1", "0", "lo", ["2"]),
        ("0", "1", "lo", ["2"]),
        ("1", "2", "lo", []),
        ("0", "0", "lo", []),
        ("1", "1", "eth0", []),
    ],
)
def test_strict_filtering_becomes_loose_where_the_vip_is_on_another_interface(
    root: Path, every: str, own: str, home: str, after: list[str]
) -> None:
    by_hand(root, "all", "rp_filter", every)
    by_hand(root, "eth0", "rp_filter", own)
    found = needs([steering("web/a", REAL)], [Vip(VIP, home)], LEAVES)
    key = conf(4, "eth0", "rp_filter")
    assert [change.after for change in pending(found.requirements) if change.key == key] == after


def test_a_way_is_the_kernels_own() -> None:
    here = [ip_address("127.0.0.1"), ip_address("::1")]
    assert interfaces(here) == dict.fromkeys(here, "lo")
    assert interfaces([]) == {}


def test_a_probe_is_sent_from_an_own_address_that_is_neither_the_vip_nor_the_real_server() -> None:
    local, other = ip_address("127.0.0.1"), ip_address("127.0.0.2")
    assert source_towards(other, VIP) == local
    assert source_towards(other, local) is None
    assert source_towards(local, VIP) is None
    assert source_towards(ip_address("::1"), VIP) is None
