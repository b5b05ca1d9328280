"""Settings that a configuration needs, on a real kernel: made, kept, put back, and what they do to flows."""

from __future__ import annotations

import sys

import pytest

from director.lab.hosts import Lab
from director.lab.waiting import wait_until
from tests.lab.test_host import python
from tests.lab.test_host_firewall import GUEST, ask

pytestmark = pytest.mark.lab

SETTINGS = """
import json, os, subprocess, sys
from pathlib import Path
from director.host import settings, sysctl
from director.host.kept import KeptSettings
from director.host.settings import Use, all_interfaces, pending, required
from director.host.sysctl import Epoch, conf
STATE = Path("/var/lib/director")
USES = [
    Use("web", "fullnat", 4, persistent=True), Use("six", "nat", 6), Use("shared", "dr", 4, resumes=True),
]

def interfaces():
    # A kernel that has loaded tunnels has devices of its own in each namespace.
    own = {"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0", "ip_vti0"}
    return [name for name in all_interfaces() if name not in own]

def wanted():
    return required(USES, interfaces(), "expire")

def look():
    found = {"net.ipv4.ip_forward": sysctl.read(sysctl.IP_FORWARD)}
    for folder in ("ipv4/conf", "ipv6/conf", "ipv4/vs"):
        for base, _, names in os.walk(sysctl.ROOT / "net" / folder):
            for name in names:
                path = Path(base, name)
                if path.stat().st_mode & 0o200 and name != "stable_secret":
                    found[str(path)] = path.read_text().strip()
    return found

def sentences(done):
    assert done.failures == (), done.failures
    return [str(change) for change in done.changes]

def differ(before):
    now = look()
    return {key: [before.get(key), now.get(key)] for key in {**before, **now} if before.get(key) != now.get(key)}

# A host that is no router as a whole, forwards from one interface, and heeds no redirects.
for key, value in [
    (sysctl.IP_FORWARD, "0"), (sysctl.ACCEPT_REDIRECTS, "0"), (conf(4, "inside", "forwarding"), "1"),
    (sysctl.IPV6_FORWARDING, "0"), (conf(6, "lan", "forwarding"), "1"), (conf(6, "lan", "accept_ra"), "1"),
]:
    sysctl.write(key, value)
start = look()
said = {}
"""

LIFE = """
kept = KeptSettings(STATE)
said["planned"] = [str(change) for change in kept.plan(wanted())]
said["made"] = sentences(kept.enforce(wanted()))
said["again"] = [sentences(KeptSettings(STATE).enforce(wanted())), pending(wanted()), settings.lacking(wanted())]

subprocess.run(["ip", "link", "add", "later.7", "type", "veth", "peer", "name", "far"], check=True)
said["later"] = sorted(sentences(kept.enforce(wanted())))
subprocess.run(["ip", "link", "del", "later.7"], check=True)
said["gone"] = sentences(kept.enforce(wanted()))

sysctl.write(settings.EXPIRE_NODEST, "0")
said["drift"] = sentences(kept.enforce(wanted()))
said["fewer"] = [str(change) for change in kept.plan(required(USES[1:], interfaces(), None))]
sentences(kept.enforce(required(USES[1:], interfaces(), None)))
said["fewer left"] = sorted(name.rpartition("/")[2] for name in differ(start) if "/vs/" in name)

kept.enforce(wanted())
sysctl.write(settings.SLOPPY_TCP, "2")
said["undone"] = len(sentences(KeptSettings(STATE).undo()))
said["theirs"] = differ(start)
said["files"] = os.listdir(STATE)
print(json.dumps(said))
"""


def test_settings_are_made_kept_and_put_back(lab: Lab) -> None:
    said = python(lab.host("l7proxy-1"), SETTINGS + LIFE)
    everywhere = "it holds for every virtual server of this network namespace"
    assert (
        "net.ipv4.vs.expire_nodest_conn: 0 -> 1 (dead_connections: expire: connections to a removed or dead server end "
        f"at once); UDP flows move to another server, TCP clients see a reset; {everywhere}"
    ) in said["planned"]
    assert said["made"] == [
        "sysctl net.ipv4.ip_forward: 0 -> 1",
        *[f"sysctl net.ipv6.conf.{name}.accept_ra: {before} -> 2" for name, before in (("lan", 1), ("inside", 1))],
        "sysctl net.ipv6.conf.all.forwarding: 0 -> 1",
        *[f"sysctl net.ipv4.conf.{name}.send_redirects: 1 -> 0" for name in ("all", "lan", "inside")],
        "sysctl net.ipv4.vs.conntrack: 0 -> 1",
        "sysctl net.ipv4.vs.expire_nodest_conn: 0 -> 1",
        "sysctl net.ipv4.vs.expire_quiescent_template: 0 -> 1",
        "sysctl net.ipv4.vs.sloppy_tcp: 0 -> 1",
    ]
    assert said["again"] == [[], [], []]
    assert said["later"] == [
        "sysctl net.ipv4.conf.far.send_redirects: 1 -> 0",
        "sysctl net.ipv4.conf.later/7.send_redirects: 1 -> 0",
        "sysctl net.ipv6.conf.far.accept_ra: 1 -> 2",
        "sysctl net.ipv6.conf.later/7.accept_ra: 1 -> 2",
    ]
    assert said["gone"] == []
    assert said["drift"] == ["sysctl net.ipv4.vs.expire_nodest_conn: 0 -> 1"]
    # No full NAT any more, nor persistence, nor a wish: the settings go back. DR wants conntrack as it was.
    back = "nothing needs it any more, and this it was before"
    assert [each for each in said["fewer"] if "nothing needs it" in each] == [
        f"net.ipv4.vs.expire_quiescent_template: 1 -> 0 ({back})",
        f"net.ipv4.vs.expire_nodest_conn: 1 -> 0 ({back})",
        f"net.ipv4.ip_forward: 1 -> 0 ({back})",
    ]
    assert said["fewer left"] == ["sloppy_tcp"]
    assert said["undone"] > 10
    assert said["theirs"] == {"/proc/sys/net/ipv4/vs/sloppy_tcp": ["0", "2"]}
    assert said["files"] == []


SWEPT = """
sysctl.write(sysctl.IP_FORWARD, "1")
sysctl.write(sysctl.IP_FORWARD, "0")
sysctl.write(sysctl.IPV6_FORWARDING, "1")
sysctl.write(sysctl.IPV6_FORWARDING, "0")
print(json.dumps(differ(start)))
"""


def test_forwarding_switched_on_and_off_by_hand_loses_other_settings(lab: Lab) -> None:
    """The trap for which these are remembered, so that the other tests prove something."""
    assert python(lab.host("l7proxy-2"), SETTINGS + SWEPT) == {
        "/proc/sys/net/ipv4/conf/all/accept_redirects": ["0", "1"],
        "/proc/sys/net/ipv4/conf/inside/forwarding": ["1", "0"],
        "/proc/sys/net/ipv6/conf/lan/forwarding": ["1", "0"],
    }


INTERRUPTED = """
write = sysctl.write

def enforce_dying_before_write(number):
    left = [number]
    def dying(key, value):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return write(key, value)
    child = os.fork()
    if not child:
        sysctl.write = dying
        KeptSettings(STATE).enforce(wanted())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

ends = []
for number in (0, 1, 4, 10, 11):
    code = enforce_dying_before_write(number)
    half = bool(differ(start))
    KeptSettings(STATE).undo()
    ends.append([code, half, differ(start)])

kept = KeptSettings(STATE)
kept.enforce(wanted())
made = look()
now = sysctl.epoch()
for other in (Epoch("another boot", now.namespace), Epoch(now.boot_id, 1)):
    KeptSettings(STATE, lambda: other).undo()
ends.append(differ(made))
print(json.dumps([ends, os.listdir(STATE)]))
"""


def test_undo_restores_after_a_death_and_after_a_reboot_nothing(lab: Lab) -> None:
    ends, files = python(lab.host("l7proxy-2"), SETTINGS + INTERRUPTED)
    assert ends[:-1] == [[9, False, {}], *[[9, True, {}]] * 3, [0, True, {}]]
    assert (ends[-1], files) == ({}, [])


EXPIRE = """
import json, sys
from pathlib import Path
from director.host.kept import KeptSettings
from director.host.settings import Use, required
done = KeptSettings(Path("/var/lib/director")).enforce(required([Use("dns", "nat", 4)], [], sys.argv[1]))
print(json.dumps([[str(change) for change in done.changes], done.failures]))
"""


def test_flow_of_a_removed_server_is_kept_or_moves_at_once_as_wished(lab: Lab) -> None:
    client, director = lab.host("client"), lab.host("director")
    servers = [
        lab.host(name).start(sys.executable, GUEST / "peer_names.py", name, "8000") for name in ("web-2", "web-3")
    ]
    assert wait_until(lambda: all("ready" in server.output() for server in servers), 10)
    director.run("sh", "-ec", "ip address add 10.9.0.103/32 dev lan; ipvsadm -A -u 10.9.0.103:53 -s rr").check()
    director.run(*["ipvsadm", "-a", "-u", "10.9.0.103:53", "-r", "10.9.1.12:8000", "-m"]).check()
    flow = "udp:10.9.0.103:53@4000"
    assert ask(client, [flow]) == {flow: "web-2 sees 10.9.0.10"}

    assert python(director, EXPIRE, "keep") == [[], []]
    swap = "ipvsadm -a -u 10.9.0.103:53 -r 10.9.1.13:8000 -m; ipvsadm -d -u 10.9.0.103:53 -r 10.9.1.12:8000"
    director.run("sh", "-ec", swap).check()
    assert ask(client, [flow]) == {flow: None}

    assert python(director, EXPIRE, "expire") == [["sysctl net.ipv4.vs.expire_nodest_conn: 0 -> 1"], []]
    assert ask(client, [flow]) == {flow: "web-3 sees 10.9.0.10"}
