"""Probes through the forwarding path: a mark reaches one real server, and finds what its own address does not tell."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from director.lab.demo.scene import wait_until
from director.lab.hosts import Lab, LabHost, Process

pytestmark = pytest.mark.lab

GUEST = Path(__file__).parent / "guest"
OWN = {4: "10.9.0.2", 6: "fd09::2"}
# Virtual server: how its probes ask, and where.
WAYS = {
    "web": ("tcp", OWN[4], "10.9.0.100"),
    "web6": ("tcp", OWN[6], "fd09::100"),
    "tun": ("tcp", OWN[4], "10.9.0.101"),
    "tun6": ("tcp", OWN[6], "fd09::101"),
    "names": ("udp", OWN[4], "10.9.0.102"),
}
SERVERS = {"a": "l7proxy-1", "b": "l7proxy-2"}
REAL_SERVER = """
sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip addr add 10.9.0.100/32 dev lo
ip addr add 10.9.0.102/32 dev lo
ip addr add fd09::100/128 dev lo nodad preferred_lft 0
ip link add t4 type ipip local {four} remote 10.9.0.2
ip link add t6 type ip6tnl mode ip6ip6 local {six} remote fd09::2
ip link set t4 up
ip link set t6 up
ip addr add 10.9.0.101/32 dev t4
ip addr add fd09::101/128 dev t6 nodad preferred_lft 0
"""
# `away` has a VIP that is not on the interface that answers come in by; filtering is strict, as many hosts have it.
DIRECTOR = """
ip link add away type dummy
ip link set away up
sysctl -qw net.ipv4.conf.all.rp_filter=1
"""
# On b: what breaks it, what mends it, and which probes fail.
BREAKS = [
    (
        """
ip addr del 10.9.0.100/32 dev lo
ip addr del 10.9.0.101/32 dev t4
ip addr del fd09::100/128 dev lo
ip addr del fd09::101/128 dev t6
""",
        """
ip addr add 10.9.0.100/32 dev lo
ip addr add 10.9.0.101/32 dev t4
ip addr add fd09::100/128 dev lo nodad preferred_lft 0
ip addr add fd09::101/128 dev t6 nodad preferred_lft 0
""",
        {"web/b", "web6/b", "tun/b", "tun6/b"},
    ),
    (
        "ip link set t4 down; ip link set t6 down",
        "ip link set t4 up; ip link set t6 up; ip addr add fd09::101/128 dev t6 nodad preferred_lft 0",
        {"tun/b", "tun6/b"},
    ),
]
FORGED: list[list[Any]] = [
    ["udp", "10.9.0.100", 80, OWN[4], 9000, 1001],  # a VIP that is probed by TCP
    ["udp", "10.9.0.102", 81, OWN[4], 9000, 1002],  # from another port than is probed
    ["udp", "10.9.0.102", 80, OWN[4], 53, 1003],  # to where a service listens
    ["udp", "10.9.0.102", 80, "10.9.1.1", 9000, 1004],  # to another address than probes come from
    ["udp", OWN[4], 80, OWN[4], 9000, 1005],  # from what is no VIP
    ["udp", "10.9.1.1", 80, OWN[4], 9000, 1006],
    ["tcp", "10.9.0.100", 80, OWN[4], 8000, 1007],  # to open a connection
    ["tcp", OWN[4], 80, "10.9.0.100", 8000, 1008],
]


class Trial:
    """The hosts; `said` is what the steps of the beginning told, `before` what there was before."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.director = lab.host("director")
        self.client = lab.host("client")
        self.before, *self.said = self.steps("look", "with", "again", "probe", "doctor", "export", "look")
        self.marks: dict[str, int] = self.said[0]["marks"]
        self.watching = self.director.start("python", "-S", GUEST / "forge.py", "watch")
        self.mac = self.director.run("cat", "/sys/class/net/lan/address").check().stdout.strip()

    def steps(self, *names: str) -> list[Any]:
        done = self.director.run("python", GUEST / "via_vip.py", *names, timeout_s=60).check()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def probe(self, *names: str) -> dict[str, str]:
        """Who answers probes to the real servers `names`, such as `web/a`; to all of them without any."""
        names = names or tuple(self.marks)
        asked = [
            [kind, self.marks[name], source, vip, 80]
            for name in names
            for kind, source, vip in [WAYS[name.partition("/")[0]]]
        ]
        return dict(zip(names, self.ask(self.director, asked), strict=True))

    def ask(self, host: LabHost, asked: list[list[Any]]) -> list[str]:
        done = host.run("python", "-S", GUEST / "probe_marked.py", json.dumps(asked)).check()
        found: list[str] = json.loads(done.stdout)
        return found

    def come(self, packets: list[list[Any]]) -> set[int]:
        """Those of `packets` that the director takes when the client sends them: all are, once an honest one is."""
        honest = ["udp", "10.9.0.10", 80, OWN[4], 9000, time.monotonic_ns() % 2**32]
        words = ["send", "lan", self.mac, json.dumps([*packets, honest])]
        seen = len(self.watching.output())
        self.client.run("python", "-S", GUEST / "forge.py", *words).check()
        wait_until("the packets", lambda: f"{honest[5]}\n" in self.watching.output())
        return {int(line) for line in self.watching.output()[seen:].split()} & {each[5] for each in packets}


@pytest.fixture(scope="module")
def trial(lab: Lab) -> Trial:
    servers = []
    for name in SERVERS.values():
        host = lab.host(name)
        text = REAL_SERVER.format(four=host.address("lan", 4), six=host.address("lan", 6))
        host.run("sh", "-ec", text).check()
        servers.append(host.start("python", "-S", GUEST / "name_server.py", name))
    lab.host("director").run("sh", "-ec", DIRECTOR).check()
    found = Trial(lab)
    for server in [*servers, found.watching]:
        wait_until("the servers", partial(_is_ready, server))
    return found


def _is_ready(process: Process) -> bool:
    return "ready" in process.output()


def test_a_mark_leads_to_one_real_server_and_nobody_is_disturbed(trial: Trial) -> None:
    applied, again, probed, doctor, exported, during = trial.said
    told = [f"{each['sign']} {each['subject']}: {each['detail']}" for each in applied["steps"]]
    assert f"+ probe path to tun/b: fwmark {trial.marks['tun/b']} to 10.9.0.22 by tun" in told
    assert again == [], "what is so is so"
    assert [found for found in doctor if not found.startswith("tunnel-mtu")] == [], "the doctor takes it for what it is"
    assert "fwmark" not in exported
    assert "10.9.0.100" in exported
    assert len([line for line in during["table"] if "-f" in line.split()]) == 2 * len(trial.marks)
    assert changed(trial.before["settings"], during["settings"]) == [
        "net.ipv4.conf.lan.accept_local = 1",
        "net.ipv4.conf.lan.rp_filter = 2",
    ]
    assert during["rules6"] == [], "IPv6 looks at no source, so nothing is opened"
    assert probed == {name: True for name in trial.marks if not name.startswith("names/")}, "by itself it binds"
    assert trial.probe() == {name: SERVERS[name[-1]] for name in trial.marks}
    clients = trial.ask(trial.client, [["tcp", 0, "", "10.9.0.100", 80]] * 4)
    assert sorted(clients) == ["l7proxy-1", "l7proxy-1", "l7proxy-2", "l7proxy-2"]


def changed(before: list[str], after: list[str]) -> list[str]:
    return [line for line in after if line not in before]


def test_a_real_server_without_its_vip_or_tunnel_answers_at_its_address_and_not_through_the_vip(trial: Trial) -> None:
    broken = trial.lab.host("l7proxy-2")
    own = [["tcp", 0, "", broken.address("lan", family), 80] for family in (4, 6)]
    for breaking, mending, failing in BREAKS:
        broken.run("sh", "-ec", breaking).check()
        answers = trial.probe()
        assert {name for name, answer in answers.items() if answer != SERVERS[name[-1]]} == failing
        assert trial.ask(trial.director, own) == ["l7proxy-2"] * 2
        broken.run("sh", "-ec", mending).check()
    assert set(trial.probe("web/b", "web6/b", "tun/b", "tun6/b").values()) == {"l7proxy-2"}


def test_nothing_forged_comes_in_by_what_lets_the_answers_in(trial: Trial) -> None:
    assert trial.come(FORGED) == set()
    # They would come in, for the answers must: it is the rule that keeps them out.
    jump = ["PREROUTING", "-m", "addrtype", "--src-type", "LOCAL", "-j", "LVS-DIRECTOR-GUARD"]
    trial.director.run("iptables-legacy", "-t", "raw", "-D", *jump).check()
    assert trial.come(FORGED) == {each[5] for each in FORGED}
    trial.director.run("ipvsadm", "-D", "-f", str(trial.marks["web/a"])).check()
    (mended,) = trial.steps("with")
    assert {each["subject"] for each in mended["steps"]} == {"packet filter", "probe path to web/a"}
    assert trial.come(FORGED) == set()
    assert trial.probe("web/a", "names/b") == {"web/a": "l7proxy-1", "names/b": "l7proxy-2"}


def test_it_all_goes_with_the_last_such_probe(trial: Trial) -> None:
    gone, without, _, down, _, _, beside = trial.steps("without", "look", "down", "look", "open", "with", "look")
    assert len([each for each in gone if each["subject"].startswith("probe path")]) == len(trial.marks)
    assert [line for line in without["table"] if "-f" in line.split()] == []
    assert len(without["table"]) == 15
    assert changed(trial.before["settings"], without["settings"]) == []
    assert (without["rules"], without["rules6"]) == ([], [])
    assert down == trial.before
    # Where the operator has opened it, more than answers may be meant to come in.
    assert beside["rules"] == []
    assert "net.ipv4.conf.lan.accept_local = 1" in beside["settings"]
    assert trial.probe("web/a") == {"web/a": "l7proxy-1"}
