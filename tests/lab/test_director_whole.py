"""One file with all that IPVS has and the host needs around it: applied, found again, changed, and taken away whole."""

from __future__ import annotations

import json
import re

import pytest

from director.lab.demo.scene import CONFIG
from director.lab.hosts import Lab, LabHost

pytestmark = pytest.mark.lab

FILE = """
defaults: {interface: lan}
dead_connections: expire
timeouts: {tcp: 10m, tcpfin: 1m, udp: 30s}
sync:
  master: {interface: lan, id: 7, group: 224.0.0.82, port: 8849, ttl: 2, maxlen: 1400}
  backup: {interface: inside, id: 9}
virtual_servers:
  many:
    address: 10.9.0.110
    port: [80, 8000-8002]
    forward: nat
    scheduler: lblcr
    real_servers:
      a: {address: 10.9.1.11, upper_threshold: 50, lower_threshold: 40}
      b: {address: 10.9.1.12, state: drained}
      c: {address: 10.9.1.13, state: disabled}
  six:
    address: fd09::110
    port: 443
    forward: dr
    scheduler: sed
    persistence: {timeout: 1m, prefix: 64}
    real_servers:
      a: {address: "fd09::21"}
  any:
    address: 10.9.0.111
    port: any
    forward: nat
    scheduler: nq
    persistence: {timeout: 2m, netmask: 255.255.255.0}
    real_servers:
      a: {address: 10.9.1.11}
  voice:
    address: 10.9.0.112
    port: 5060
    protocol: udp
    forward: nat
    scheduler: dh
    one_packet: true
    persistence: {engine: sip}
    real_servers:
      a: {address: 10.9.1.11}
  signal:
    address: 10.9.0.112
    port: 2905
    protocol: sctp
    forward: tun
    scheduler: fo
    tunnel: {type: gre, checksum: full}
    real_servers:
      a: {address: 10.9.0.21}
      b: {address: 10.9.0.22, tunnel: {type: gue, port: 6080}}
  marked:
    fwmark: 7
    traffic:
      - {address: [10.9.0.113, 10.9.0.114], port: [80, 443]}
    forward: tun
    scheduler: ovf
    real_servers:
      a: {address: 10.9.0.21}
  full:
    address: 10.9.0.115
    port: 80
    forward: fullnat
    source: 10.9.1.1
    scheduler: mh
    real_servers:
      a: {address: 10.9.1.12, port: 8080}
"""
TABLE = """\
-A -f 7 -s ovf
-A -t 10.9.0.110:80 -s lblcr
-A -t 10.9.0.110:8000 -s lblcr
-A -t 10.9.0.110:8001 -s lblcr
-A -t 10.9.0.110:8002 -s lblcr
-A -t 10.9.0.111:0 -s nq -p 120 -M 255.255.255.0
-A -t 10.9.0.115:80 -s mh -b mh-fallback
-A -t [fd09::110]:443 -s sed -p 60 -M 64
-A -u 10.9.0.112:5060 -s dh -p 300 --pe sip -o
-A --sctp-service 10.9.0.112:2905 -s fo
-a -f 7 -r 10.9.0.21:0 -i -w 100 --tun-type ipip
-a -t 10.9.0.110:80 -r 10.9.1.11:80 -m -w 100
-a -t 10.9.0.110:80 -r 10.9.1.12:80 -m -w 0
-a -t 10.9.0.110:8000 -r 10.9.1.11:8000 -m -w 100
-a -t 10.9.0.110:8000 -r 10.9.1.12:8000 -m -w 0
-a -t 10.9.0.110:8001 -r 10.9.1.11:8001 -m -w 100
-a -t 10.9.0.110:8001 -r 10.9.1.12:8001 -m -w 0
-a -t 10.9.0.110:8002 -r 10.9.1.11:8002 -m -w 100
-a -t 10.9.0.110:8002 -r 10.9.1.12:8002 -m -w 0
-a -t 10.9.0.111:0 -r 10.9.1.11:0 -m -w 100
-a -t 10.9.0.115:80 -r 10.9.1.12:8080 -m -w 100
-a -t [fd09::110]:443 -r [fd09::21]:443 -g -w 100
-a -u 10.9.0.112:5060 -r 10.9.1.11:5060 -m -w 100
-a --sctp-service 10.9.0.112:2905 -r 10.9.0.21:2905 -i -w 100 --tun-type gre --tun-csum
-a --sctp-service 10.9.0.112:2905 -r 10.9.0.22:2905 -i -w 100 --tun-type gue --tun-port 6080 --tun-nocsum
"""
SETTINGS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.vs.conntrack": "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
    "net.ipv4.vs.sloppy_tcp": "1",
}


def lines(text: str) -> list[str]:
    return sorted(line.rstrip() for line in text.splitlines())


def surroundings(host: LabHost) -> dict[str, list[str]]:
    """All of a host that a director may touch. Chains that are empty again count as gone."""
    looks = {
        "table": "ipvsadm -Sn",
        "timeouts": "ipvsadm -L --timeout",
        "sync": "ipvsadm -L --daemon",
        "addresses": "ip -o address show | sed 's/ *valid_lft.*//'",
        "settings": "sysctl -a 2>/dev/null | grep -E '^net[.](ipv4|ipv6)[.](vs|conf|ip_forward)' | grep -v lblcr_exp",
        "rules": "iptables-legacy-save; ip6tables-legacy-save",
    }
    found = {name: host.run("sh", "-c", look).check().stdout for name, look in looks.items()}
    rules = [line for line in found.pop("rules").splitlines() if re.match(r"-A|:.* - ", line)]
    return {**{name: lines(text) for name, text in found.items()}, "rules": rules}


@pytest.fixture(scope="module")
def director(lab: Lab) -> LabHost:
    host = lab.host("director")
    host.run("ipvsadm", "-C").check()  # IPVS is loaded: its settings are there to be compared
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv4.conf.lan.send_redirects=1").check()
    host.run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24", "-j", "ACCEPT").check()
    return host


def test_all_that_ipvs_has_is_applied_found_again_and_taken_away(director: LabHost) -> None:
    before = surroundings(director)
    director.write(CONFIG, FILE)

    planned = director.run("director", "plan", CONFIG)
    assert planned.exit_code == 2, planned.stderr
    assert "~ setting net.ipv4.ip_forward: 0 -> 1 (many, any, voice, full: replies pass through the director)" in (
        planned.stdout
    )
    assert "UDP flows move to another server, TCP clients see a reset; it holds for every virtual" in planned.stdout
    assert surroundings(director) == before

    director.run("director", "apply", CONFIG).check()
    after = surroundings(director)
    assert after["table"] == lines(TABLE)
    assert after["timeouts"] == ["Timeout (tcp tcpfin udp): 600 60 30"]
    assert after["sync"] == [
        "backup sync daemon (mcast=inside, syncid=9, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)",
        "master sync daemon (mcast=lan, syncid=7, maxlen=1400, group=224.0.0.82, port=8849, ttl=2)",
    ]
    settings = dict(line.split(" = ") for line in after["settings"] if " = " in line)
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
    assert sum("-j MARK --set-xmark 0x7/0xffffffff" in rule for rule in after["rules"]) == 2
    assert (
        "-A LVS-DIRECTOR-SNAT -m ipvs --vproto 6 --vaddr 10.9.0.115 --vport 80 --vmethod MASQ -j SNAT "
        + ("--to-source 10.9.1.1")
        in after["rules"]
    )
    limits = director.run("ipvsadm", "-Ln", "--thresholds").check().stdout
    assert re.search(r"10\.9\.1\.11:8001\s+50\s+40\b", limits), limits

    again = director.run("director", "plan", CONFIG)
    assert (again.exit_code, again.stdout) == (0, "Nothing to change: the kernel agrees with the file.\n")

    director.run("ipvsadm", "-A", "-t", "10.9.0.99:80", "-s", "rr").check()  # somebody else's
    shown = director.run("director", "down", "--dry-run")
    assert shown.exit_code == 2
    assert "- sync master: id 7 on lan" in shown.stdout
    director.run("director", "down").check()
    assert director.run("ipvsadm", "-Sn").check().stdout == "-A -t 10.9.0.99:80 -s rr\n"
    director.run("ipvsadm", "-C").check()
    assert surroundings(director) == before
    assert director.run("director", "down").check().stdout.startswith("Nothing to take away")


def test_down_leaves_forwarding_where_it_is_told_to(director: LabHost) -> None:
    director.write(CONFIG, FILE)
    director.run("director", "apply", CONFIG).check()
    standing = surroundings(director)
    said = director.run("director", "down", "--keep-table").check().stdout
    assert said.startswith("Left as it is, and no longer the director's: 10 virtual servers, 7 addresses, 3 packet-")
    assert "which are now in LVS-KEPT-MARK (" in said
    left = {name: [line.replace("LVS-DIRECTOR-", "LVS-KEPT-") for line in lines] for name, lines in standing.items()}
    assert sorted(surroundings(director)["rules"]) == sorted(left["rules"])
    assert {**surroundings(director), "rules": []} == {**left, "rules": []}
    assert director.run("director", "down", "--dry-run").exit_code == 0

    other = FILE[: FILE.index("virtual_servers:")] + "virtual_servers: {}\n"
    director.write(CONFIG, other)
    director.run("director", "apply", CONFIG).check()
    assert [line for line in surroundings(director)["rules"] if "LVS-" in line] == [
        line for line in left["rules"] if "LVS-" in line
    ]

    director.write(CONFIG, FILE)  # and once more, beside what was kept
    director.run("director", "apply", CONFIG).check()
    again = director.run("director", "down", "--keep-table").check().stdout
    assert "3 packet-filter rules" in again
    assert "LVS-KEPT-SNAT-2 (" in again


def test_a_death_between_settings_rules_and_the_table_converges_and_can_be_undone(director: LabHost) -> None:
    director.run("director", "down").check()
    done = director.run("python", "-m", "tests.lab.guest.cut_surroundings", timeout_s=110, fresh=False).check()
    assert json.loads(done.stdout)["deaths"] > 2


def test_settings_of_the_former_method_stay_until_the_new_one_is_confirmed(director: LabHost) -> None:
    def forwards() -> str:
        return director.run("sysctl", "-n", "net.ipv4.ip_forward").check().stdout.strip()

    servers = "real_servers: {a: {address: 10.9.0.21}}"
    nat = f"virtual_servers: {{web: {{address: 10.9.0.120, port: 80, forward: nat, {servers}}}}}\n"
    director.run("sysctl", "-qw", "net.ipv4.ip_forward=0").check()
    director.write(CONFIG, nat)
    director.run("director", "apply", CONFIG).check()
    assert forwards() == "1"
    director.write(CONFIG, nat.replace("nat", "dr"))
    director.run("director", "apply", "--confirm", "60s", CONFIG).check()
    assert "-r 10.9.0.21:80 -m" in director.run("ipvsadm", "-Sn").check().stdout
    assert forwards() == "1", "its connections still go by NAT"
    director.run("director", "confirm")  # and once more, where a weight of 0 had to be seen first
    director.run("director", "apply", CONFIG)
    assert "-r 10.9.0.21:80 -g" in director.run("ipvsadm", "-Sn").check().stdout
    assert forwards() == "0"
    director.run("director", "down").check()
