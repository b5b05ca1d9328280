"""A real server under DR: it serves the VIP, never claims it, and everything can be undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from director.lab.hosts import Lab
from director.lab.kernels import Kernel
from tests.lab.test_host import MAC_1, VIPS, neighbour, pings, python

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(kernel: Kernel) -> Iterator[Lab]:
    """Hosts for each test: what one leaves in a neighbour table or on lo would decide the next."""
    with kernel.lay_out() as laid_out:
        yield laid_out


APPLY = """
import json, sys
from ipaddress import ip_address
from director.host import realserver
served = [realserver.Served(ip_address(text)) for text in sys.argv[1:]]
print(json.dumps([str(change) for change in realserver.apply(served)]))
"""

# Pings while listening: prints whether an answer came, and in whose name the real server asked for the client.
LISTEN = """
import ipaddress, json, socket, subprocess, sys
vip, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("lan", 3))
answered = subprocess.run(["ping", "-c1", "-W2", vip], stdout=subprocess.DEVNULL).returncode == 0
wire.settimeout(0.3)
names = []
try:
    while True:
        frame = wire.recv(2048)
        if frame[6:12] != mac:
            continue
        if frame[12:14] == b"\\x08\\x06" and frame[20:22] == b"\\0\\1":
            names.append(str(ipaddress.ip_address(frame[28:32])))
        if frame[12:14] == b"\\x86\\xdd" and frame[20] == 58 and frame[54] == 135:
            names.append(str(ipaddress.ip_address(frame[22:38])))
except TimeoutError:
    pass
print(json.dumps([answered, names]))
"""


def test_ipv4_vip_on_lo_is_answered_for_without_the_sysctls(lab: Lab) -> None:
    """The trap that `realserver apply` exists for, so that the next test proves something."""
    client, server = lab.host("client"), lab.host("l7proxy-1")
    server.run("ip", "address", "add", f"{VIPS[0]}/32", "dev", "lo").check()
    assert pings(client, VIPS[0])
    assert neighbour(client, VIPS[0]) == MAC_1
    server.run("ip", "neigh", "flush", "all").check()
    answered, names = python(client, LISTEN, VIPS[0], MAC_1)
    assert answered
    assert VIPS[0] in names


def test_real_server_serves_vip_and_never_claims_it(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("l7proxy-1")
    # Forwarding, proxying and an address in the VIP's solicited-node group are what might make it answer.
    server.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.all.proxy_ndp=1").check()
    server.run("ip", "address", "add", "fd09::1:0:100/64", "dev", "lan", "nodad").check()
    changes = python(server, APPLY, *VIPS)
    assert changes == [
        "sysctl net.ipv4.conf.all.arp_ignore: 0 -> 1",
        "sysctl net.ipv4.conf.all.arp_announce: 0 -> 2",
        "sysctl net.ipv4.conf.lo.arp_ignore: 0 -> 1",
        "sysctl net.ipv4.conf.lo.arp_announce: 0 -> 2",
        "address 10.9.0.100 on lo: absent -> present",
        "address fd09::100 on lo: absent -> present",
    ]
    for vip in VIPS:
        assert not pings(client, vip)
        assert neighbour(client, vip) is None
        # The director's part, by hand: the frame goes to the real server's own address.
        client.run("ip", "neigh", "replace", vip, "lladdr", MAC_1, "dev", "lan", "nud", "permanent").check()
        server.run("ip", "neigh", "flush", "all").check()
        answered, names = python(client, LISTEN, vip, MAC_1)
        assert answered
        assert names
        assert vip not in names


LIFE = """
import json, os
from ipaddress import ip_address
from pathlib import Path
from director.host import addresses, realserver, sysctl
from director.kit import statefile
four, six = (realserver.Served(ip_address(text)) for text in ("10.9.0.100", "fd09::100"))
path = realserver.STATE_PATH

def look():
    held = sorted(str(vip) for vip in addresses.held() if vip.interface == "lo")
    return [held, [sysctl.read(key) for key in realserver.ARP_SETTINGS]]

def count(changes):
    return len(changes)
"""

STEPS = """
sysctl.write(sysctl.conf(4, "lo", "arp_announce"), "1")
start = look()
said = {"nothing": count(realserver.undo())}
said["first"] = count(realserver.apply([four, six]))
said["mode"] = oct(path.stat().st_mode & 0o777)
said["again"] = count(realserver.apply([four, six]))
said["only six"] = [str(change) for change in realserver.apply([six])]
said["sysctls after four went"] = look()[1] == start[1]
said["four again"] = count(realserver.apply([four]))
addresses.remove(addresses.Vip(four.vip, "lo"))
said["drift"] = [str(change) for change in realserver.apply([four])]
realserver.undo()
said["as before"] = look() == start and not path.exists()
"""


def test_apply_repeats_shrinks_repairs_and_undoes(lab: Lab) -> None:
    assert python(lab.host("l7proxy-1"), LIFE + STEPS + "print(json.dumps(said))") == {
        "nothing": 0,
        "first": 6,
        "mode": "0o600",
        "again": 0,
        "only six": [
            "address 10.9.0.100 on lo: present -> absent",
            "sysctl net.ipv4.conf.lo.arp_announce: 2 -> 1",
            "sysctl net.ipv4.conf.lo.arp_ignore: 1 -> 0",
            "sysctl net.ipv4.conf.all.arp_announce: 2 -> 0",
            "sysctl net.ipv4.conf.all.arp_ignore: 1 -> 0",
        ],
        "sysctls after four went": True,
        "four again": 6,
        "drift": ["address 10.9.0.100 on lo: absent -> present"],
        "as before": True,
    }


INTERRUPTED = """
def dying(function, calls_left):
    def called(*arguments):
        calls_left[0] -= 1
        if calls_left[0] < 0:
            os._exit(9)
        return function(*arguments)
    return called

def apply_dying_before_change(number):
    child = os.fork()
    if not child:
        left = [number]
        sysctl.write = dying(sysctl.write, left)
        addresses.add = dying(addresses.add, left)
        realserver.apply([four, six])
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

start = look()
ends = []
for number in range(7):
    code = apply_dying_before_change(number)
    half = look() != start
    realserver.undo()
    ends.append([code, half, look() == start])
print(json.dumps(ends))
"""


def test_undo_restores_after_an_apply_killed_before_any_change(lab: Lab) -> None:
    ends = python(lab.host("l7proxy-1"), LIFE + INTERRUPTED)
    killed = [[9, number > 0, True] for number in range(6)]
    assert ends == [*killed, [0, True, True]]


FOREIGN = """
import subprocess
subprocess.run(["ip", "address", "add", "10.9.0.100/32", "dev", "lo"], check=True)
applied = count(realserver.apply([four, six]))
realserver.undo()
kept = look()[0]
subprocess.run(["ip", "address", "del", "10.9.0.100/32", "dev", "lo"], check=True)

realserver.apply([four, six])
content = statefile.load(path, 2)
statefile.save(path, 2, {**content, "boot_id": "another boot"})
after_reboot = [count(realserver.undo()), path.exists(), len(look()[0])]
for vip in (four, six):
    addresses.remove(addresses.Vip(vip.vip, "lo"))

subprocess.run(["ip", "address", "add", "10.9.0.100/24", "dev", "lan"], check=True)
try:
    realserver.apply([four])
    refused = ""
except realserver.HostError as error:
    refused = str(error)
print(json.dumps([applied, kept, after_reboot, refused, path.exists()]))
"""


def test_what_is_not_ours_is_left_alone(lab: Lab) -> None:
    applied, kept, after_reboot, refused, remembered = python(lab.host("l7proxy-1"), LIFE + FOREIGN)
    assert applied == 5  # four sysctls and the IPv6 VIP
    assert "10.9.0.100 on lo" in kept
    assert "fd09::100 on lo" not in kept
    # After a reboot the addresses that are there (2 of lo, 2 VIPs) were put by someone else.
    assert after_reboot == [0, False, 4]
    assert refused.startswith("10.9.0.100 on lan: a real server must not hold a VIP there")
    assert "ip address del 10.9.0.100 dev lan" in refused
    assert not remembered
