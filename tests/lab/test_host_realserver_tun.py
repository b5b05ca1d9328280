"""A real server under TUN: every wrapping in every family carries traffic, large uploads too, and leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from director.lab.demo.scene import wait_until
from director.lab.hosts import Lab, LabHost
from tests.lab.test_host import pings, python

pytestmark = pytest.mark.lab

GUEST = Path(__file__).parent / "guest"
DIRECTORS = ["10.9.0.2", "fd09::2"]
WRAPPINGS = {
    "ipip": [],
    "gre": ["--tun-type", "gre"],
    "gre with checksums": ["--tun-type", "gre", "--tun-csum"],
    "gue": ["--tun-type", "gue", "--tun-port", "6080"],
    "gue with checksums": ["--tun-type", "gue", "--tun-port", "6081", "--tun-csum"],
}
# A VIP for each case, so that each has a segment size of its own: inner family, outer family, wrapping.
CASES = {
    ("10.9.0.{}" if inner == 4 else "fd09::{}").format(110 + number): (outer, wrapping)
    for number, (inner, outer, wrapping) in enumerate(product((4, 6), (4, 6), WRAPPINGS))
}
# GRE devices with and without checksums cannot share a director: checksums come in a second turn.
TURNS = [[vip for vip, (_, wrapping) in CASES.items() if ("checksums" in wrapping) is turn] for turn in (False, True)]

REAL_SERVER = """
import json, subprocess, sys
from ipaddress import ip_address
from director.core.table import Tunnel, TunnelFlags, TunnelKind
from director.host import addresses, gue, realserver, sysctl, tunnels
from director.host.realserver import Served
SETTINGS = [*realserver.ARP_SETTINGS, sysctl.conf(4, "all", "rp_filter"), sysctl.conf(4, "default", "rp_filter")]
# The kernel makes these with the modules, in every network namespace.
KERNELS = {"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0"}

def served(vip, outer, wrapping):
    kind, _, checksums = wrapping.partition(" with ")
    port = 0 if kind != "gue" else 6081 if checksums else 6080
    tunnel = Tunnel(TunnelKind(kind), port, TunnelFlags.CHECKSUM if checksums else TunnelFlags.NONE)
    return Served(ip_address(vip), tunnel, (ip_address(DIRECTORS[outer]),))

DIRECTORS = {4: "10.9.0.2", 6: "fd09::2"}

def said(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

def look():
    names = sorted(set(tunnels.links()) - KERNELS)
    return [
        names,
        sorted(map(str, addresses.held())),
        [sysctl.read(key) for key in SETTINGS],
        [str(port) for port in gue.present()],
        [said(tool, "-t", "mangle", "-S") for tool in ("iptables-legacy", "ip6tables-legacy")],
        realserver.STATE_PATH.exists(),
    ]

def told(changes):
    return [str(change) for change in changes]
"""


@pytest.fixture(scope="module")
def lab(kernel: Any) -> Iterator[Lab]:
    """An upload server on l7proxy-1, every VIP on the director, and a client that ICMP does not reach."""
    with kernel.lay_out() as laid_out:
        server, director, client = (laid_out.host(name) for name in ("l7proxy-1", "director", "client"))
        taking = server.start("python", "-S", GUEST / "take_uploads.py")
        # Strict filtering, as many distributions have it: what comes out of a tunnel must pass all the same.
        server.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1").check()
        adds = [
            f"address add {vip}/32 dev lan" if ":" not in vip else f"address add {vip} dev lan nodad preferred_lft 0"
            for vip in CASES
        ]
        director.run("ip", "-batch", "-", stdin="\n".join(adds)).check()
        director.run("ipvsadm", "-R", stdin="\n".join(_table(server))).check()
        for tool, too_big in (("iptables", "fragmentation-needed"), ("ip6tables", "packet-too-big")):
            protocol, option = ("icmp", "--icmp-type") if tool == "iptables" else ("icmpv6", "--icmpv6-type")
            client.run(
                f"{tool}-legacy", "-A", "INPUT", "-p", protocol, option, too_big, "-j", "DROP"
            ).check()  # fmt: skip
        wait_until("the upload server", lambda: "ready" in taking.output())
        yield laid_out


def _table(server: LabHost) -> Iterator[str]:
    for vip, (outer, wrapping) in CASES.items():
        ends = [
            f"[{address}]:8080" if ":" in address else f"{address}:8080"
            for address in (vip, server.address("lan", outer))
        ]
        yield f"-A -t {ends[0]} -s rr"
        yield " ".join([f"-a -t {ends[0]} -r {ends[1]} -i", *WRAPPINGS[wrapping]])


def uploads(lab: Lab, size: int, vips: list[str], limit_s: float) -> set[str]:
    words = [str(size), str(limit_s), *vips]
    return set(json.loads(lab.host("client").run("python", "-S", GUEST / "upload.py", *words).check().stdout))


APPLY = """
cases, clamp = json.loads(sys.argv[1]), bool(int(sys.argv[2]))
wanted = [served(*case) for case in cases]
before = look()
changes = told(realserver.apply(wanted, clamp=clamp))
print(json.dumps([before, changes, told(realserver.apply(wanted, clamp=clamp))]))
"""

UNDO = """
realserver.undo()
print(json.dumps([look(), told(realserver.undo())]))
"""


def apply(lab: Lab, vips: list[str], *, clamp: bool) -> Any:
    cases = json.dumps([[vip, *CASES[vip]] for vip in vips])
    return python(lab.host("l7proxy-1"), REAL_SERVER + APPLY, cases, str(int(clamp)))


def test_every_wrapping_in_every_family_and_no_trace_after_undo(lab: Lab) -> None:
    first, second = TURNS
    before, _, again = apply(lab, first, clamp=False)
    assert again == []
    assert uploads(lab, 100, first, 5) == set(first)
    # The client fills 1500 bytes, the director cannot wrap that, and what it says about it does not arrive.
    assert uploads(lab, 200_000, first, 2) == set()

    _, changes, again = apply(lab, first, clamp=True)
    assert changes == [
        f"firewall chain LVS-REALSERVER ({tool} -t mangle): the chain is missing -> 6 rules"
        for tool in ("iptables-legacy", "ip6tables-legacy")
    ]
    assert again == []
    assert uploads(lab, 200_000, first, 5) == set(first)

    _, changes, again = apply(lab, second, clamp=True)
    assert "device lvs-gre0 (gre from 10.9.0.2): present -> absent" in changes
    assert again == []
    assert uploads(lab, 200_000, second, 5) == set(second)

    after, again = python(lab.host("l7proxy-1"), REAL_SERVER + UNDO)
    assert after == before
    assert again == []


def test_only_the_directors_get_packets_in_as_an_operator_types_it(lab: Lab) -> None:
    server, stranger = lab.host("l7proxy-1"), lab.host("l7proxy-2")
    vip = "10.9.0.113"
    for words in (
        "link add inject type ipip local 10.9.0.22 remote 10.9.0.21",
        "link set inject up",
        f"route add {vip} dev inject",
    ):
        stranger.run("ip", *words.split()).check()
    typed = ["director", "realserver", "apply", "--vip", vip, "--forward", "tun", "--tunnel", "gue"]
    opened = server.run(*typed).check()
    assert "port gue on UDP port 6080 (IPv4): absent -> open" in opened.stdout.splitlines()
    assert "device lvs-ipip0 (ipip to 10.9.0.21): absent -> present" in opened.stdout.splitlines()
    assert "whoever can reach 10.9.0.21, 10.9.1.21 can put packets into this host's tunnel" in opened.stderr
    assert pings(stranger, vip), "the trap that the warning is about"
    assert uploads(lab, 200_000, [vip], 5) == {vip}

    closed = server.run(*typed, "--director", "10.9.0.2").check()
    assert "device lvs-ipip0 (ipip to 10.9.0.21): present -> absent" in closed.stdout.splitlines()
    assert closed.stderr == ""
    assert not pings(stranger, vip)
    assert uploads(lab, 200_000, [vip], 5) == {vip}
    server.run("director", "realserver", "apply", "--undo").check()


INTERRUPTED = """
import os
from director.host import iptables, mss

def dying(function, left):
    def called(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return function(*arguments)
    return called

def apply_dying_before_step(number):
    child = os.fork()
    if not child:
        left = [number]
        for where, what in STEPS:
            setattr(where, what, dying(getattr(where, what), left))
        realserver.apply(WANTED)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

# Settings of `all` and lo have their test beside DR's.
STEPS = [(gue._Fou, "add"), (tunnels, "_create"), (tunnels, "_settle")]
STEPS += [(iptables.Backend, "restore"), (addresses, "add")]
WANTED = [served("10.9.0.113", 4, "gue")]
start = look()
ends = []
while not ends or ends[-1][0]:
    code = apply_dying_before_step(len(ends))
    half = look() != start
    realserver.undo()
    ends.append([code, half, look() == start])
print(json.dumps(ends))
"""


def test_undo_restores_after_an_apply_killed_before_any_step(lab: Lab) -> None:
    *killed, lived = python(lab.host("l7proxy-1"), REAL_SERVER + INTERRUPTED)
    assert killed == [[9, True, True]] * len(killed)
    assert lived == [0, True, True]
    assert len(killed) >= 5, "each kind of step, also where the first `iptables` is refused only when it is to write"


REFUSED = """
from director.host import gateway
from director.kit.errors import DirectorError

def refusal(function, *arguments):
    try:
        return function(*arguments)
    except DirectorError as error:
        return str(error)

def tunneled(director, wrapping="ipip", vip="10.9.0.110"):
    return [Served(ip_address(vip), served(vip, 4, wrapping).tunnel, (ip_address(director),))]

start = look()
ours = realserver.apply(tunneled("10.9.0.2"))
(name,) = set(look()[0]) - set(start[0])
# Someone takes our device away, and then puts another one under its name.
said("ip", "link", "del", name)
drift = told(realserver.apply(tunneled("10.9.0.2")))
said("ip", "link", "del", name)
said("ip", "link", "add", name, "type", "ipip", "remote", "10.9.0.9")
moved = told(realserver.apply(tunneled("10.9.0.2")))
realserver.undo()
kept = name in tunnels.links()
said("ip", "link", "del", name)
said("ip", "link", "add", "theirs", "type", "ipip", "remote", "10.9.0.2")
taken = refusal(realserver.apply, tunneled("10.9.0.2"))
realserver.undo()
theirs = "theirs" in tunnels.links()
said("ip", "link", "del", "theirs")
twice = [*tunneled("10.9.0.2", "gre"), *tunneled("10.9.0.2", "gre with checksums", "10.9.0.111")]
both = refusal(realserver.apply, twice)
own = refusal(realserver.apply, tunneled("10.9.0.21"))
far = refusal(realserver.apply, tunneled("192.0.2.1"))
print(json.dumps([drift, moved, kept, taken, theirs, both, own, far, look() == start]))
"""


def test_what_is_not_ours_stays_and_what_cannot_be_is_told(lab: Lab) -> None:
    drift, moved, kept, taken, theirs, both, own, far, clean = python(lab.host("l7proxy-1"), REAL_SERVER + REFUSED)
    assert drift == [
        "device lvs-ipip0 (ipip from 10.9.0.2): absent -> present",
        "address 10.9.0.110 on lvs-ipip0: absent -> present",
    ]
    assert moved[0] == "device lvs-ipip1 (ipip from 10.9.0.2): absent -> present"
    assert kept
    assert "theirs takes the same packets: ip link del theirs, then try again" in taken
    assert theirs
    assert "10.9.0.110 and 10.9.0.111 come by gre from 10.9.0.2 and by gre from 10.9.0.2 with checksums" in both
    assert own.startswith("10.9.0.21 is an address of this host itself")
    assert far.startswith("could not find the way to the director 192.0.2.1: Network is unreachable: give this host")
    assert clean
