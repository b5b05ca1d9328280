"""The doctor on real servers, under dr, nat and tun: in health it has nothing to say, and what is broken it finds."""

from __future__ import annotations

import pytest

from director.doctor.finding import Code
from director.lab.demo.scene import CONFIG
from director.lab.hosts import Lab
from tests.lab.doctor import FILE, Case, address, both, in_health, rules, sysctl, try_all, undone

pytestmark = pytest.mark.lab

PASSING_ON = sysctl("net.ipv6.conf.all.forwarding", 1, 0, on="l7proxy_1")
DR = [
    Case("in health", ()),
    Case("no VIP", (Code.VIP_NOT_LOCAL,), *undone(address("10.9.0.100/32", "lo"))),
    Case("a VIP on the wire", (Code.VIP_ON_WIRE,), *address("10.9.0.100/32", "lan")),
    Case("it answers ARP", (Code.ARP_SETTINGS,), *sysctl("net.ipv4.conf.all.arp_ignore", 0, 1)),
    Case(
        "it answers ARP for all but addresses of lo's scope",
        (Code.ARP_SETTINGS,),
        *sysctl("net.ipv4.conf.all.arp_ignore", 3, 1),
    ),
    Case("it asks as the VIP", (Code.ARP_SETTINGS,), *sysctl("net.ipv4.conf.all.arp_announce", 0, 2)),
    Case(
        "the interface is silent, all need not be",
        (),
        "sysctl -qw net.ipv4.conf.lan.arp_ignore=1 net.ipv4.conf.all.arp_ignore=0",
        "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.lan.arp_ignore=0",
    ),
    Case("nobody listens", (Code.NOT_LISTENING,), more={"listen": []}),
    Case("one listens elsewhere", (Code.NOT_LISTENING,), more={"listen": ["10.9.0.21", "[::]"]}),
    Case("one listens for IPv6 alone", (Code.NOT_LISTENING,), more={"listen": ["[::]"]}),
    Case("one listens on the VIPs", (), more={"listen": ["10.9.0.100", "[fd09::100]"]}),
    Case("another answers too", (Code.VIP_ANSWERED,), *sysctl("net.ipv4.conf.all.arp_ignore", 0, 1, "l7proxy_2")),
    Case("input dropped", (Code.INPUT_DROPPED,), *rules("INPUT -d 10.9.0.100 -j DROP")),
]
NAT = [
    Case("in health", ()),
    Case(
        "the gateway is another",
        (Code.GATEWAY_NOT_DIRECTOR,),
        "ip route replace default via 10.9.1.21",
        "ip route replace default via 10.9.1.1",
    ),
    Case(
        "the IPv6 gateway is another, and passes on",
        (Code.GATEWAY_NOT_DIRECTOR,),
        f"{PASSING_ON[0]}; ip -6 route replace default via fd09:1::21",
        f"{PASSING_ON[1]}; ip -6 route replace default via fd09:1::1",
    ),
    Case(
        "no gateway",
        (Code.GATEWAY_NOT_DIRECTOR,),
        "ip route del default",
        "ip route add default via 10.9.1.1",
    ),
    Case("nobody listens", (Code.NOT_LISTENING,), more={"listen": ["[::]"]}),
    Case("input dropped", (Code.INPUT_DROPPED,), *rules("INPUT -p tcp --dport 80 -j DROP")),
]
BESIDE = [
    Case("the VIP beside the servers", (Code.CLIENTS_IN_SUBNET,), *address("10.9.1.101/32", "inside", "director"))
]
DEVICE = "lvs-ipip0"
ANYBODY = ("ip link add any0 type ipip local 10.9.0.22; ip link set any0 up", "ip link del any0")
CLAMP = "-A LVS-REALSERVER -s 10.9.0.100/32 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1440"
TUN = [
    Case("in health", ()),
    Case("open to everyone", (Code.TUNNEL_OPEN,), *ANYBODY),
    Case(
        "open, but for the filter",
        (),
        *both(ANYBODY, rules("INPUT -p 4 ! -s 10.9.0.2 -j DROP")),
    ),
    Case("no device", (Code.TUNNEL_MISSING,), f"ip link set {DEVICE} down", f"ip link set {DEVICE} up"),
    Case("it disbelieves", (Code.TUNNEL_RP_FILTER,), *sysctl(f"net.ipv4.conf.{DEVICE}.rp_filter", 1, 2)),
    Case(
        "too large segments",
        (Code.TUNNEL_MTU,),
        "iptables-legacy -t mangle -F LVS-REALSERVER",
        f"iptables-legacy -t mangle {CLAMP}",
    ),
    Case("the tunnel dropped", (Code.INPUT_DROPPED,), *rules("INPUT -p 4 -j DROP")),
    Case("no VIP", (Code.VIP_NOT_LOCAL,), *undone(address("10.9.0.100/32", DEVICE))),
]


@pytest.fixture(scope="module")
def pids(lab: Lab) -> dict[str, str]:
    return in_health(lab)


def test_each_way_to_break_a_dr_server_is_found(lab: Lab, pids: dict[str, str]) -> None:
    try_all(lab.host("l7proxy-1"), DR, pids)


def test_each_way_to_break_a_nat_server_is_found(lab: Lab, pids: dict[str, str]) -> None:
    try_all(lab.host("web-1"), NAT, pids)
    try_all(lab.host("web-1"), BESIDE, pids, FILE.replace("10.9.0.101", "10.9.1.101"))


def test_each_way_to_break_a_tun_server_is_found(lab: Lab, pids: dict[str, str]) -> None:
    host = lab.host("l7proxy-2")
    file = FILE.replace("forward: dr", "forward: tun", 1)
    host.run("ip", "addr", "del", "10.9.0.100/32", "dev", "lo").check()
    host.write(CONFIG, file)
    host.run("director", "realserver", "apply", CONFIG, "--director", "10.9.0.2").check()
    try_all(host, TUN, pids, file)


def test_a_real_server_that_has_no_file_names_its_vips(lab: Lab, pids: dict[str, str]) -> None:
    told = lab.host("client").run("director", "doctor", "--vip", "10.9.0.100", "--forward", "dr")
    assert told.exit_code == 1, told
    assert [line.split()[1] for line in told.stdout.splitlines()[:-1]] == [
        "arp-settings", "arp-settings", "vip-not-local",
    ]  # fmt: skip
    assert told.stdout.splitlines()[-1].startswith("11 looks as a real server of 1 virtual server: 3 errors")
