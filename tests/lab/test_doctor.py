"""The doctor on a director: in health it has nothing to say, and what is broken it finds, and nothing else."""

from __future__ import annotations

import json

import pytest

from director.doctor.finding import Code
from director.lab import boot
from director.lab.demo.scene import CONFIG
from director.lab.hosts import Lab
from tests.lab.doctor import FILE, Case, address, in_health, rules, sysctl, try_all, undone

pytestmark = pytest.mark.lab

VS = "net.ipv4.vs"
PERSISTENT = {"replace": [["forward: nat", "forward: nat\n    persistence: {timeout: 5m}"]]}
TUNNELED = {"replace": [["forward: nat", "forward: tun"]]}
LEFT_ALONE = {"replace": [["dead_connections: expire", ""]]}
DR_ALONE = {"only": ["web", "web6"]}


def running(name: str, more: str = "true", end: str = "true") -> tuple[str, str]:
    """A process with the name of another program."""
    ready = f"until grep -q {name} /proc/$(cat /tmp/rival)/comm; do :; done"
    start = f"{more}; cp /bin/sleep /tmp/{name}; /tmp/{name} 100 >/dev/null 2>&1 & echo $! > /tmp/rival; {ready}"
    return start, f"kill $(cat /tmp/rival); {end}"


def keepalived(text: str) -> tuple[str, str]:
    path = "/etc/keepalived/keepalived.conf"
    return running("keepalived", f"echo '{text}' > {path}", f"rm {path}")


INVALID = "INPUT -m conntrack --ctstate INVALID -j DROP"
CASES = [
    Case("in health", ()),
    Case(
        "no such scheduler",
        (Code.SCHEDULER_MISSING,),
        more={"replace": [["forward: dr", "forward: dr\n    scheduler: twos"]]},
    ),
    Case(
        "not applied",
        (Code.NOT_APPLIED,),
        "ipvsadm -Sn > /tmp/table; ipvsadm -D -t 10.9.0.100:80",
        "ipvsadm -C; ipvsadm -R < /tmp/table",
    ),
    Case("not declared", (Code.UNDECLARED,), "ipvsadm -A -t 10.9.0.199:99 -s rr", "ipvsadm -D -t 10.9.0.199:99"),
    Case("keepalived with virtual servers", (Code.RIVAL,), *keepalived("virtual_server 10.9.0.1 80 {")),
    Case("keepalived with VRRP alone", (), *keepalived("vrrp_instance a {")),
    Case(
        "kube-proxy in ipvs mode",
        (Code.RIVAL,),
        *running("kube-proxy", "ip link add kube-ipvs0 type dummy", "ip link del kube-ipvs0"),
    ),
    Case("kube-proxy in another mode", (), *running("kube-proxy")),
    Case("no forwarding", (Code.SETTING_WRONG,), *sysctl("net.ipv4.ip_forward", 0, 1)),
    Case("redirects by all", (Code.SETTING_WRONG,), *sysctl("net.ipv4.conf.all.send_redirects", 1, 0)),
    Case("redirects by an interface", (Code.SETTING_WRONG,), *sysctl("net.ipv4.conf.lan.send_redirects", 1, 0)),
    Case("connections outlive servers", (Code.EXPIRE_NODEST,), *sysctl(f"{VS}.expire_nodest_conn", 0, 1)),
    Case("and the file leaves it alone", (Code.EXPIRE_NODEST,), *sysctl(f"{VS}.expire_nodest_conn", 0, 1), LEFT_ALONE),
    Case("stickiness outlives servers", (Code.EXPIRE_TEMPLATE,), more=PERSISTENT),
    Case("stickiness ends with them", (), *sysctl(f"{VS}.expire_quiescent_template", 1, 0), PERSISTENT),
    Case("ports taken again", (Code.REUSE_MODE,), *sysctl(f"{VS}.conn_reuse_mode", 0, 1)),
    Case("a VIP is gone", (Code.VIP_NOT_LOCAL,), *undone(address("10.9.0.100/32", "lan"))),
    Case("an IPv6 VIP is gone", (Code.VIP_NOT_LOCAL,), *undone(address("fd09::100/128", "lan"))),
    Case("a dr server answers ARP", (Code.VIP_ANSWERED,), *sysctl("net.ipv4.conf.all.arp_ignore", 0, 1, "l7proxy_1")),
    Case("a dr server answers NDP", (Code.VIP_ANSWERED,), *address("fd09::100/128", "lan", "l7proxy_1")),
    Case("a stranger has a nat VIP", (Code.VIP_ANSWERED,), *address("10.9.0.101/32", "lan", "client")),
    Case("a server is silent", (Code.NO_NEIGHBOUR,), *sysctl("net.ipv4.conf.lan.arp_ignore", 8, 1, "l7proxy_2")),
    Case(
        "a dr server behind a router",
        (Code.BEHIND_ROUTER,),
        "ip route add 10.9.0.22/32 via 10.9.0.10",
        "ip route del 10.9.0.22/32 via 10.9.0.10",
    ),
    Case(
        "no way to a server",
        (Code.NO_ROUTE,),
        "ip route add unreachable 10.9.1.12/32",
        "ip route del unreachable 10.9.1.12/32",
    ),
    Case("a narrow tunnel", (Code.TUNNEL_MTU,), more=TUNNELED),
    Case("a wide tunnel", (), "ip link set inside mtu 1520", "ip link set inside mtu 1500", TUNNELED),
    Case("input dropped", (Code.INPUT_DROPPED,), *rules("INPUT -p tcp --dport 80 -j DROP")),
    Case("input of some dropped", (), *rules("INPUT -s 10.9.0.10 -p tcp --dport 80 -j DROP")),
    Case("answers dropped", (Code.FORWARD_DROPPED,), *rules("FORWARD -s 10.9.1.0/24 -j REJECT")),
    Case(
        "answers dropped that are not tracked",
        (Code.FORWARD_DROPPED,),
        *rules("FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", "FORWARD -j DROP"),
    ),
    Case("output dropped", (Code.OUTPUT_DROPPED,), *rules("OUTPUT -d 10.9.0.100 -p tcp --dport 80 -j DROP")),
    Case("invalid packets dropped", (Code.INVALID_DROPPED,), *rules(INVALID), DR_ALONE),
    Case(
        "invalid packets dropped, none of the VIP",
        (),
        *rules(INVALID, "PREROUTING -t raw -d 10.9.0.100 -j CT --notrack"),
        DR_ALONE,
    ),
    Case(
        "clients beside nat servers",
        (Code.CLIENTS_IN_SUBNET,),
        "timeout 0.5 nsenter -n -t $web_3 bash -c 'exec 3<>/dev/tcp/10.9.0.101/80' || true",
    ),
]


@pytest.fixture(scope="module")
def pids(lab: Lab) -> dict[str, str]:
    return in_health(lab)


def test_each_way_to_break_a_director_is_found_and_nothing_else(lab: Lab, pids: dict[str, str]) -> None:
    try_all(lab.host("director"), CASES[:-1], pids)


def test_the_command_line_says_it_and_exits_by_severity(lab: Lab, pids: dict[str, str]) -> None:
    director = lab.host("director")
    director.run("sysctl", "-qw", f"{VS}.expire_nodest_conn=0").check()
    warned = director.run("setpriv", "--reuid=65534", "--clear-groups", "director", "doctor", CONFIG)
    assert warned.exit_code == 2, warned
    lines = [line.split()[:2] for line in warned.stdout.splitlines()]
    assert lines[:-1] == [["warning", "expire-nodest"], *[["note", "skipped"]] * 3]
    assert "not made: 0 errors, 1 warning, 3 notes." in warned.stdout
    director.run("ip", "addr", "del", "10.9.0.100/32", "dev", "lan").check()
    wrong = director.run("director", "doctor", "--json")
    assert wrong.exit_code == 1, wrong
    assert [(each["severity"], each["code"], each["subject"]) for each in json.loads(wrong.stdout)["findings"]] == [
        ("error", "vip-not-local", "10.9.0.100"),
        ("warning", "expire-nodest", f"{VS}.expire_nodest_conn"),
    ]
    director.run("sysctl", "-qw", f"{VS}.expire_nodest_conn=1").check()
    director.run("ip", "addr", "add", "10.9.0.100/32", "dev", "lan").check()


def test_clients_beside_nat_servers_are_found(lab: Lab, pids: dict[str, str]) -> None:
    """Last of the cases of this table: its connection stays for a minute."""
    try_all(lab.host("director"), CASES[-1:], pids)


def test_a_filling_table_of_connections_is_found(lab: Lab, pids: dict[str, str]) -> None:
    """Its limit is the whole kernel's, so only a kernel of the lab's own can be tried."""
    director = lab.host("director")
    limit = "net.netfilter.nf_conntrack_max"
    whole = director.run("sysctl", "-n", limit).check().stdout.strip()
    if director.run("nsenter", "-n", "-t", "1", "sysctl", "-qw", f"{limit}={whole}").exit_code:
        pytest.skip("nf_conntrack_max is the machine's own here")
    fill = "for p in {9001..9060}; do echo > /dev/udp/10.9.0.10/$p; done 2>/dev/null"
    tracked = rules("OUTPUT -m conntrack --ctstate NEW -j ACCEPT")
    restore = f"nsenter -n -t 1 sysctl -qw {limit}={whole}"
    try:
        try_all(
            director,
            [
                Case("room", (), f"{tracked[0]}{fill}; nsenter -n -t 1 sysctl -qw {limit}=100", more={"only": ["web"]}),
                Case(
                    "filling", (Code.CONNTRACK_FULL,), f"nsenter -n -t 1 sysctl -qw {limit}=70", more={"only": ["web"]}
                ),
            ],
            pids,
        )
    finally:
        director.run("bash", "-c", f"{tracked[1]}{restore}").check()


def test_without_ip_vs_it_says_so_and_what_to_do() -> None:
    """On this machine's own kernel, if that has none: nothing else tells a kernel without IPVS from one with it."""
    with boot("host", ipvs=False) as own, own.lay_out() as lab:
        host = lab.host("director")
        if host.run("test", "-e", "/proc/net/ip_vs").exit_code == 0:
            pytest.skip("this machine's own kernel has ip_vs, so its absence cannot be tried")
        host.run("ip", "addr", "add", "10.9.0.100/32", "dev", "lan").check()
        host.run("ip", "addr", "add", "10.9.0.101/32", "dev", "lan").check()
        file = FILE[: FILE.index("  web6:")] + FILE[FILE.index("  shop:") : FILE.index("  shop6:")]
        try_all(host, [Case("no ip_vs", (Code.MODULE_MISSING,))], {}, file, besides=frozenset({"skipped"}))
