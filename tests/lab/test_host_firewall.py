"""Full NAT and marks through our chains: real traffic on the lab's kernel, and others' rules beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from director.lab.hosts import Lab, LabHost
from director.lab.kernels import Kernel, environment
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab

GUEST = Path(__file__).parent / "guest"
DIRECTOR, DIRECTOR6, CLIENT, CLIENT6 = "10.9.1.1", "fd09:1::1", "10.9.0.10", "fd09::10"

# web-1 knows no way to the client: only what comes from the director's own addresses can be answered.
IPVS = """
-A -t 10.9.0.100:80 -s rr
-a -t 10.9.0.100:80 -r 10.9.1.11:8000 -m
-A -t 10.9.0.100:81 -s rr
-a -t 10.9.0.100:81 -r 10.9.1.12:8000 -m
-A -u 10.9.0.100:53 -s rr
-a -u 10.9.0.100:53 -r 10.9.1.11:8000 -m
-A -f 7 -s rr
-a -f 7 -r 10.9.1.12:8000 -m
-A -f 8 -s rr
-a -f 8 -r 10.9.1.11:8000 -m
-A -t 10.9.0.102:0 -s rr -p 60
-a -t 10.9.0.102:0 -r 10.9.1.11:0 -m
-A -t 10.9.0.102:81 -s rr
-a -t 10.9.0.102:81 -r 10.9.1.12:8000 -m
-A -t [fd09::100]:80 -s rr
-a -t [fd09::100]:80 -r [fd09:1::11]:8000 -m
-A -t [fd09::100]:81 -s rr
-a -t [fd09::100]:81 -r [fd09:1::12]:8000 -m
-A -u [fd09::100]:53 -s rr
-a -u [fd09::100]:53 -r [fd09:1::11]:8000 -m
-A -f 7 -6 -s rr
-a -f 7 -6 -r [fd09:1::12]:8000 -m
"""
FULL_NAT = {
    "tcp:10.9.0.100:80": f"web-1 sees {DIRECTOR}",
    "udp:10.9.0.100:53": "web-1 sees 10.9.1.99",
    "tcp:10.9.0.101:108": f"web-1 sees {DIRECTOR}",  # by mark 8, from the second multiport rule
    "udp:10.9.0.101:5000": f"web-1 sees {DIRECTOR}",
    "tcp:10.9.0.102:8000": f"web-1 sees {DIRECTOR}",
    "tcp:fd09::100:80": f"web-1 sees {DIRECTOR6}",
    "udp:fd09::100:53": "web-1 sees fd09:1::99",
}
MARKED = {
    "tcp:10.9.0.100:443": f"web-2 sees {CLIENT}",
    "tcp:10.9.0.101:8443": f"web-2 sees {CLIENT}",
    "tcp:fd09::100:443": f"web-2 sees {CLIENT6}",
}
PLAIN = {
    "tcp:10.9.0.100:81": f"web-2 sees {CLIENT}",
    "tcp:10.9.0.102:81": f"web-2 sees {CLIENT}",
    "tcp:fd09::100:81": f"web-2 sees {CLIENT6}",
}


def trial(host: LabHost, *arguments: str) -> Any:
    words = ["python", "-m", "tests.lab.guest.firewall_trials", *arguments]
    done = host.run(*words, timeout_s=60, fresh=False).check()
    return json.loads(done.stdout)


def ask(host: LabHost, wanted: Iterable[str]) -> dict[str, str | None]:
    answers: dict[str, str | None] = json.loads(
        host.run("python", "-S", GUEST / "ask_peers.py", *wanted).check().stdout
    )
    return answers


@pytest.fixture
def served(lab: Lab) -> Lab:
    """IPVS set up by hand, VIPs and real servers, before any rule."""
    director = lab.host("director")
    commands = [
        "ip address add 10.9.1.99/24 dev inside",
        "ip -6 address add fd09:1::99/64 dev inside nodad preferred_lft 0",
    ]
    commands += [f"ip address add 10.9.0.{last}/32 dev lan" for last in (100, 101, 102)]
    commands += ["ip -6 address add fd09::100/128 dev lan nodad", "ipvsadm -R"]
    director.run("sh", "-ec", "\n".join(commands), stdin=IPVS.strip() + "\n").check()
    lab.host("web-1").run("sh", "-ec", "ip route del default; ip -6 route del default").check()
    servers = [
        lab.host(name).start("python", "-S", GUEST / "peer_names.py", name, "8000") for name in ("web-1", "web-2")
    ]
    assert wait_until(lambda: all("ready" in server.output() for server in servers), 10)
    return lab


def test_only_full_nat_gets_another_source_and_marks_choose_the_virtual_server(served: Lab) -> None:
    client, director = served.host("client"), served.host("director")
    # Without the rules: no way back from web-1, no virtual server by mark.
    needing = dict([*FULL_NAT.items()][:1] + [*MARKED.items()][:1])
    assert ask(client, needing | PLAIN) == dict.fromkeys(needing) | PLAIN

    changes = trial(director, "traffic-rules")["changes"]
    assert changes == [
        "firewall chain LVS-DIRECTOR-MARK (iptables-legacy -t mangle): the chain is missing -> 5 rules",
        "firewall chain LVS-DIRECTOR-SNAT (iptables-legacy -t nat): the chain is missing -> 6 rules",
        "firewall chain LVS-DIRECTOR-MARK (ip6tables-legacy -t mangle): the chain is missing -> 1 rule",
        "firewall chain LVS-DIRECTOR-SNAT (ip6tables-legacy -t nat): the chain is missing -> 2 rules",
    ]
    every = {**FULL_NAT, **MARKED, **PLAIN}
    assert ask(client, every) == every
    # A client on the director itself: its packets are marked where they leave.
    local = ask(director, {"tcp:10.9.0.100:443": "", "tcp:10.9.0.100:80": "", "tcp:10.9.0.100:81": ""})
    assert local["tcp:10.9.0.100:80"] == f"web-1 sees {DIRECTOR}"
    assert [str(local[f"tcp:10.9.0.100:{port}"]).split()[0] for port in (443, 81)] == ["web-2", "web-2"]

    trial(director, "remove")
    assert ask(client, needing | PLAIN) == dict.fromkeys(needing) | PLAIN


UNLOAD = """
import ctypes, os
kernel = ctypes.CDLL(None, use_errno=True)

def unload(name):
    (users,) = (line.split()[3] for line in open("/proc/modules") if line.startswith(f"{name} "))
    for user in filter(None, users.strip("-").split(",")):
        unload(user)
    if kernel.delete_module(name.encode(), os.O_NONBLOCK):
        raise OSError(ctypes.get_errno(), name)

unload("nf_tables")
"""


@pytest.fixture
def vain_nf_tables(kernel: Kernel, lab: Lab) -> Iterator[None]:
    """nf_tables is there, and of no use for IP: the lab's kernel does not load it by itself, another one does."""
    if kernel.kind == "uml":
        lab.host("l7proxy-1").run("modprobe", "nf_tables").check()
        assert "nf_tables " in lab.host("l7proxy-1").read("/proc/modules")
    yield
    if kernel.kind == "uml":
        lab.host("l7proxy-1").run("python", "-c", UNLOAD, fresh=False).check()


@pytest.mark.usefixtures("vain_nf_tables")
def test_rules_among_others_are_made_repaired_and_removed(lab: Lab) -> None:
    result = trial(lab.host("l7proxy-1"), "life", "legacy")
    assert result["repairs"] == REPAIRS | {"flushed": "5 of its 5 rules missing"}
    assert len(result["made"]) == 4
    assert len(result["gone"]) == 1


REPAIRS = {
    "jump deleted": "the jump from PREROUTING is missing",
    "jump doubled": "the jump from PREROUTING is there 2 times",
    "rule added": "a rule too many: -j ACCEPT",
    "narrowed jump": "a jump too many: -A INPUT -i lo -j LVS-DIRECTOR-MARK",
}


def test_nothing_is_loaded_where_nothing_is_needed(lab: Lab) -> None:
    assert trial(lab.host("l7proxy-2"), "nothing-needed") == {}


def test_failures_are_sentences(lab: Lab) -> None:
    said = trial(lab.host("web-3"), "failures")
    (locked,) = said["locked"]
    assert locked.startswith(
        "iptables-legacy-restore waited 1 s for /run/xtables.lock: another program is changing rules"
    )
    assert said["missing"] == [
        f"there is no {stem}-restore, and full NAT, marks and probes through a VIP need it: apt-get install iptables"
        for stem in ("iptables", "ip6tables")
    ]
    assert said["nothing needed"] == []
    assert said["unprivileged"]
    assert all(
        ": run as root, or with CAP_NET_ADMIN and CAP_NET_RAW (in a systemd unit" in sentence
        for sentence in said["unprivileged"]
    )


def test_nft_rules_among_others_on_the_machines_own_kernel() -> None:
    """The lab's kernel has no IPv4 in nftables. Marks only: this machine's kernel may have no IPVS to match."""
    alone = ["unshare", "--net", "--"]
    text = "*mangle\n:T - [0:0]\n-A T -p tcp -m multiport --dports 80 -j MARK --set-mark 1\nCOMMIT\n"
    tried = subprocess.run(
        [*alone, "iptables-nft-restore", "--noflush"], input=text, capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"this machine's kernel takes no rules by iptables-nft: {tried.stderr.strip()}")
    done = subprocess.run(
        [*alone, sys.executable, GUEST / "firewall_trials.py", "life", "nft"],
        capture_output=True, text=True, check=False, env=environment(), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["repairs"] == REPAIRS | {"flushed": "2 of its 2 rules missing"}
    assert len(result["made"]) == 3
