"""What director.host does to a kernel: addresses, their announcement, and what it finds in settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from director.lab.hosts import Lab, LabHost
from director.lab.kernels import Kernel

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(kernel: Kernel) -> Iterator[Lab]:
    """Hosts for each test: what one leaves in a neighbour table or on lo would decide the next."""
    with kernel.lay_out() as laid_out:
        yield laid_out


VIPS = ["10.9.0.100", "fd09::100"]
MAC_1, MAC_2 = "02:09:00:00:00:21", "02:09:00:00:00:22"


def python(host: LabHost, code: str, *arguments: str) -> Any:
    """Run code on a host; it says what it has to say as JSON."""
    return json.loads(host.run("python", "-c", code, *arguments, fresh=False).check().stdout)


def pings(client: LabHost, address: str) -> bool:
    return client.run("ping", "-c1", "-W1", address).exit_code == 0


def neighbour(client: LabHost, address: str) -> str | None:
    """The link-layer address that the client has for `address`."""
    entries = json.loads(client.run("ip", "-json", "neigh", "show", address, "dev", "lan").check().stdout)
    return entries[0].get("lladdr") if entries else None


def wait_for(state: Callable[[], bool], limit_s: float = 5.0) -> bool:
    end_at = time.monotonic() + limit_s
    while not state():
        if time.monotonic() > end_at:
            return False
        time.sleep(0.02)
    return True


ADD_OR_REMOVE = """
import json, sys
from ipaddress import ip_address
from director.host import addresses
vip = addresses.Vip(ip_address(sys.argv[2]), "lan")
print(json.dumps([getattr(addresses, sys.argv[1])(vip), getattr(addresses, sys.argv[1])(vip)]))
"""

ANNOUNCE = """
import json, sys
from ipaddress import ip_address
from director.core.vip import Vip
from director.host.announce import Announcer
with Announcer() as announcer:
    print(json.dumps([announcer.send_once(Vip(ip_address(sys.argv[1]), name)) for name in ("lan", "lo")]))
"""


@pytest.mark.parametrize("vip", VIPS)
def test_announcement_turns_neighbours_to_the_new_holder_at_once(lab: Lab, vip: str) -> None:
    client, first, second = lab.host("client"), lab.host("l7proxy-1"), lab.host("l7proxy-2")
    assert python(first, ADD_OR_REMOVE, "add", vip) == [True, False]
    assert pings(client, vip)
    assert neighbour(client, vip) == MAC_1

    assert python(first, ADD_OR_REMOVE, "remove", vip) == [True, False]
    assert python(second, ADD_OR_REMOVE, "add", vip) == [True, False]
    # The kernel has announced nothing by itself: the client still sends to the old holder.
    client.run("ip", "neigh", "replace", vip, "lladdr", MAC_1, "dev", "lan", "nud", "reachable").check()
    assert not pings(client, vip)
    assert neighbour(client, vip) == MAC_1

    client.run("ip", "neigh", "replace", vip, "lladdr", MAC_1, "dev", "lan", "nud", "reachable").check()
    frames = 2 if ip_address(vip).version == 4 else 1
    assert python(second, ANNOUNCE, vip) == [frames, 0]
    assert wait_for(lambda: neighbour(client, vip) == MAC_2, limit_s=1.0)
    assert pings(client, vip)


ADDRESSES = """
import json, os, subprocess
from ipaddress import ip_address
from director.host.addresses import Vip, add, present, remove
from director.host.announce import Announcer
from director.kit.errors import HostError

def told(function, *arguments):
    try:
        return repr(function(*arguments))
    except HostError as error:
        return str(error)

four, six = Vip(ip_address("10.9.0.100"), "lan"), Vip(ip_address("fd09::100"), "lan")
subprocess.run(["ip", "address", "add", "10.9.0.100/24", "dev", "lan"], check=True)
said = [[add(four), remove(four)], four in present([four, six])]
add(six)
shown = json.loads(subprocess.check_output(["ip", "-json", "address", "show", "dev", "lan", "to", "fd09::100"]))
said.append([shown[0]["addr_info"][0].get(key) for key in ("prefixlen", "nodad", "deprecated", "preferred_life_time")])
subprocess.run(["ip", "link", "add", "off", "type", "veth", "peer", "name", "far"], check=True)
with Announcer() as announcer:
    for name in ("eth7", "off"):
        said.append([told(function, Vip(six.address, name)) for function in (add, announcer.send_once)])
said.append(told(remove, Vip(six.address, "eth7")))
os.setuid(65534)
said.append([told(add, Vip(ip_address("10.9.0.101"), "lan")), told(remove, six), told(Announcer)])
print(json.dumps(said))
"""


def test_addresses_and_their_errors(lab: Lab) -> None:
    both, is_present, six, missing, down, gone, denied = python(lab.host("l7proxy-1"), ADDRESSES)
    assert both == [True, True]
    assert is_present  # the /24 of someone else stayed, and counts
    assert six == [128, True, True, 0]
    assert missing[0].startswith("interface eth7 does not exist, so fd09::100 was not added: use one of ")
    assert missing[1].startswith("interface eth7 does not exist, so fd09::100 was not announced: use one of lo, ")
    assert down == [
        "off is down, so fd09::100 was not added: ip link set off up",
        "off is down, so fd09::100 was not announced: ip link set off up",
    ]
    assert gone == "False"
    assert all("run as root, or with CAP_NET_" in text for text in denied), denied


CHECK = """
import json
from director.host import settings, sysctl
from director.host.settings import Use
uses = [Use("web", "nat", 4), Use("api", "dr", 4)]
before = settings.check(uses)
sysctl.write(sysctl.IP_FORWARD, "0")
print(json.dumps([before, settings.check(uses), sysctl.read(sysctl.IP_FORWARD)]))
"""


def test_check_finds_what_the_director_lacks_and_changes_nothing(lab: Lab) -> None:
    assert python(lab.host("director"), CHECK) == [
        [],
        [
            "net.ipv4.ip_forward is 0, and web needs 1 (replies pass through the director): "
            "sysctl -w net.ipv4.ip_forward=1"
        ],
        "0",
    ]
