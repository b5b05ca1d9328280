"""A real server under NAT: whether its answers pass the director is told, with the way to mend it; nothing is set."""

from __future__ import annotations

import pytest

from director.lab.hosts import Lab
from tests.lab.test_host import python

pytestmark = pytest.mark.lab

WAYS = """
import json, subprocess
from ipaddress import ip_address
from director.host import gateway
from director.kit.errors import HostError
director, other, near, far = (ip_address(text) for text in ("10.9.1.1", "10.9.1.13", "10.9.1.12", "10.9.0.10"))

def check(*arguments):
    try:
        return list(gateway.check(*arguments))
    except HostError as error:
        return str(error)

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

said = {"right": check(4, [director]), "right for IPv6": check(6, [ip_address("fd09:1::1")])}
said["to clients"] = check(4, [director], [far, near])
said["itself"] = check(4, [director], [ip_address("10.9.1.11")])
said["near"] = [gateway.is_on_link(near), gateway.is_on_link(far)]
ip("route add 10.9.0.10 via 10.9.1.13")
said["one client astray"] = [check(4, [director]), check(4, [director], [far])]
ip("route replace blackhole 10.9.0.10")
said["no way to it"] = check(4, [director], [far])
ip("route del 10.9.0.10")
# By the rule of its own address only: what comes from elsewhere has another way.
ip("route add default via 10.9.1.13 table 9")
ip("rule add from 10.9.1.11 table 9")
said["by source"] = [check(4, [director], [far]), len(check(4, [director], [far], ip_address("10.9.1.11")))]
ip("rule del table 9")
ip("route replace default nexthop via 10.9.1.1 nexthop via 10.9.1.13")
said["two"] = [len(check(4, [director])), check(4, [director, other])]
ip("route add default via 10.9.1.13 metric 5")
ip("route replace default via 10.9.1.13")
said["wrong"] = check(4, [director])
ip("route del default")
ip("route del default")
said["none"] = check(4, [director])
ip("-6 route replace default via fe80::9:1ff:fe00:1 dev inside")
said["link-local"] = [check(6, [ip_address("fd09:1::1")]), check(6, [ip_address("fe80::9:1ff:fe00:1")])]
print(json.dumps(said))
"""


def test_the_way_to_clients_is_judged_as_the_kernel_routes(lab: Lab) -> None:
    said = python(lab.host("web-1"), WAYS)
    mend = "and in the network's own configuration"
    astray = "leave by 10.9.1.13 and not by the director 10.9.1.1; clients drop them: ip route replace"
    direct = (
        "answers to 10.9.1.12 leave directly, as this host is in their network, and not by the director 10.9.1.1; "
        "clients drop them: put the real servers into a network without clients, "
        f"or ip route replace 10.9.1.12 via 10.9.1.1, {mend}"
    )
    link_local = (
        "answers to clients leave by fe80::9:1ff:fe00:1 and not by the director fd09:1::1; clients drop them: "
        f"ip -6 route replace default via fd09:1::1, {mend}, or name it as --director if it is the director's own"
    )
    assert said == {
        "right": [],
        "right for IPv6": [],
        "to clients": [direct],
        "itself": "10.9.1.11 is an address of this host: name a client on another one",
        "near": [True, False],
        "one client astray": [[], [f"answers to 10.9.0.10 {astray} 10.9.0.10 via 10.9.1.1, {mend}"]],
        "no way to it": [
            "there is no route to 10.9.0.10, so answers do not get to the director: "
            f"ip route replace 10.9.0.10 via 10.9.1.1, {mend}"
        ],
        "by source": [[], 1],
        "two": [1, []],
        "wrong": [f"answers to clients {astray} default via 10.9.1.1, {mend}"],
        "none": [
            "there is no route to clients, so answers do not get to the director: "
            f"ip route replace default via 10.9.1.1, {mend}"
        ],
        "link-local": [[link_local], []],
    }


FILE = """
virtual_servers:
  web:
    {address: 10.9.0.100, port: 80, forward: nat, real_servers: {a: {address: 10.9.1.12}}}
  near:
    {address: 10.9.1.100, port: 80, forward: nat, real_servers: {a: {address: 10.9.1.12}}}
"""


def test_apply_and_check_of_nat_as_an_operator_types_them(lab: Lab) -> None:
    server = lab.host("web-2")
    server.write("/etc/director/director.yaml", FILE)
    apply = ["director", "realserver", "apply", "/etc/director/director.yaml"]
    before = server.run("ip", "-o", "addr").check().stdout

    unnamed = server.run(*apply).check()
    assert "the default route for IPv4 leads to 10.9.1.1, which must be the director: name it with" in unnamed.stderr
    assert "10.9.1.100 is in a network of this host" in unnamed.stderr
    assert "10.9.0.100" not in unnamed.stderr

    wrong = server.run(*apply, "--director", "10.9.1.13")
    assert wrong.exit_code == 1
    assert "answers to clients leave by 10.9.1.1 and not by the director 10.9.1.13" in wrong.stderr

    right = server.run("director", "realserver", "check", "--director", "10.9.1.1", "--client", "10.9.0.10").check()
    assert right.stdout == "ok: answers leave by the director.\n"
    assert right.stderr == ""
    assert server.run("ip", "-o", "addr").check().stdout == before
