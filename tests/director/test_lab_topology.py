"""How topology files are read: what they come to, and what is said of bad ones.

One rule: no kernel is booted here.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from director.lab import topology
from director.lab.errors import TopologyError

pytestmark = pytest.mark.unit

GOOD = """
networks:
  lan: {v4: 10.0.0.0/24, v6: "fd00::/64"}
  back: {v4: 10.0.1.0/24, v6: "fd00:1::/64"}
hosts:
  one:
    role: client
    links:
      lan: {v4: 10.0.0.1, v6: "fd00::1", mac: "02:00:00:00:00:01"}
    gateway: two
    sysctls: {net.ipv4.ip_forward: 1}
    runs: [curl]
  two:
    role: router
    links:
      back: {v4: 10.0.1.2, v6: "fd00:1::2", mac: "02:00:00:00:01:02"}
      lan: {v4: 10.0.0.2, v6: "fd00::2", mac: "02:00:00:00:00:02"}
"""


def test_file_becomes_networks_and_hosts() -> None:
    found = topology.parse(GOOD)
    assert found.networks["lan"].v4 == ip_network("10.0.0.0/24")
    one = found.hosts["one"]
    assert one.links["lan"].v6 == ip_address("fd00::1")
    assert one.links["lan"].network is found.networks["lan"]
    assert (one.role, one.gateway, one.runs, one.sysctls) == ("client", "two", ("curl",), {"net.ipv4.ip_forward": "1"})


def test_topologies_cannot_change() -> None:
    host = topology.parse(GOOD).hosts["one"]
    with pytest.raises(FrozenInstanceError):
        host.role = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        host.links["back"] = host.links["lan"]  # type: ignore[index]


def test_gateway_is_the_routers_address_on_the_shared_network() -> None:
    found = topology.parse(GOOD)
    assert [str(each) for each in topology.gateways_of(found, found.hosts["one"])] == ["10.0.0.2", "fd00::2"]
    assert topology.gateways_of(found, found.hosts["two"]) == []


def test_plain_form_has_prefixes_ports_and_base_sysctls() -> None:
    plain = topology.as_plain(topology.parse(GOOD))
    assert plain["networks"] == ["lan", "back"]
    hosts = plain["hosts"]
    assert isinstance(hosts, dict)
    assert hosts["one"] == {
        "links": {
            "lan": {"mac": "02:00:00:00:00:01", "port": "port1", "addresses": ["10.0.0.1/24", "fd00::1/64"]},
        },
        "gateways": ["10.0.0.2", "fd00::2"],
        "sysctls": {**topology.BASE_SYSCTLS, "net.ipv4.ip_forward": "1"},
    }


@pytest.mark.parametrize(
    ("good", "bad", "line", "message"),
    [
        ("role: client", "rolle: client", 7, "did you mean 'role'"),
        ("role: client", "role: client\n    role: x", 8, "role"),
        ("    runs: [curl]", "    runs: curl", 12, "hosts.one.runs"),
        (
            "links:\n      lan: {v4: 10.0.0.1,",
            "links:\n      lam: {v4: 10.0.0.1,",
            9,
            "no network 'lam': did you mean 'lan'",
        ),
        ("v4: 10.0.0.1,", "v4: 10.0.1.1,", 9, "10.0.1.1 is not in lan's 10.0.0.0/24: choose"),
        ("v4: 10.0.0.1,", "v4: 10.0.0.2,", 17, "10.0.0.2 is one's already"),
        ("v4: 10.0.0.1,", "v4: ten,", 9, "IPv4"),
        ('"02:00:00:00:00:01"', '"02:00:00:00:00:zz"', 9, "mac"),
        ("gateway: two", "gateway: tow", 10, "no host 'tow': did you mean 'two'"),
        ("gateway: two", "gateway: one", 10, "another host"),
        ("  one:", "  One:", 6, "One"),
        ("net.ipv4.ip_forward: 1", "ip_forward: 1", 11, "ip_forward"),
        ("v4: 10.0.0.0/24", "v4: 10.0.0.1/24", 3, "not a valid IPv4 network"),
    ],
)
def test_mistake_is_named_with_its_line(good: str, bad: str, line: int, message: str) -> None:
    assert good in GOOD
    with pytest.raises(TopologyError) as caught:
        topology.parse(GOOD.replace(good, bad, 1), "lab.yaml")
    lines = str(caught.value).splitlines()
    assert any(each.startswith(f"lab.yaml:{line}:") and message in each for each in lines), lines


def test_all_mistakes_come_at_once() -> None:
    bad = GOOD.replace("role: client", "rolle: client").replace("gateway: two", "gateway: tow")
    with pytest.raises(TopologyError) as caught:
        topology.parse(bad.replace("role: router", "role: router\n    color: red"))
    assert len(str(caught.value).splitlines()) >= 3


@pytest.mark.parametrize("text", ["", "networks: {}\nhosts: {}\n", "- a\n", "hosts: [\n"])
def test_what_is_no_topology_is_an_error(text: str) -> None:
    with pytest.raises(TopologyError):
        topology.parse(text)


def test_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"none\.yaml"):
        topology.load(tmp_path / "none.yaml")


def test_default_topology_has_dr_on_the_lan_and_nat_inside() -> None:
    found = topology.load()
    by_role = {role: [host for host in found.hosts.values() if host.role == role] for role in ("l7proxy", "backend")}
    assert all({"lan", "inside"} == set(host.links) for host in by_role["l7proxy"])
    assert [host.gateway for host in by_role["backend"]] == ["director"] * 3
    assert all(set(host.links) == {"inside"} for host in by_role["backend"])
    assert found.hosts["director"].sysctls["net.ipv4.ip_forward"] == "1"
    assert found.hosts["client"].gateway is None


def test_every_mac_is_locally_administered() -> None:
    macs = [link.mac for host in topology.load().hosts.values() for link in host.links.values()]
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)
    assert len(set(macs)) == len(macs)


def test_pair_is_the_default_with_a_second_director() -> None:
    """The Vagrant lab and the lab in namespaces must stay one: a command of the tour is the same on both."""
    one, pair = topology.load(), topology.load(topology.PAIR)
    assert pair.networks == one.networks
    assert pair.hosts.keys() - one.hosts.keys() == {"director-1", "director-2"}
    assert one.hosts.keys() - pair.hosts.keys() == {"director"}
    for name in one.hosts.keys() & pair.hosts.keys():
        assert (pair.hosts[name].links, pair.hosts[name].role) == (one.hosts[name].links, one.hosts[name].role)
    assert pair.hosts["director-1"].links["lan"] == one.hosts["director"].links["lan"]
    for name in ("director-1", "director-2"):
        assert pair.hosts[name].sysctls == one.hosts["director"].sysctls
    assert {host.gateway for host in pair.hosts.values() if host.role == "backend"} == {"director-1"}
    assert not [link for host in pair.hosts.values() for link in host.links.values() if str(link.v4).endswith(".1")]
