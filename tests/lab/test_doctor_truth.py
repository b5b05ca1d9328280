"""What the doctor finds is so: where it finds nothing clients are served, where it finds an error they are not."""

from __future__ import annotations

from typing import Any

import pytest

from director.doctor.finding import Code
from director.lab.demo.scene import wait_until
from director.lab.hosts import Lab
from tests.lab.doctor import Case, address, both, in_health, rules, sysctl, try_all, undone

pytestmark = pytest.mark.lab

GREETER = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 80))
server.listen()
print("ready", flush=True)
while True:
    client = server.accept()[0]
    try:
        client.sendall(b"hello\\n")
        client.recv(1)
    except OSError:
        pass
    client.close()
"""


def asking(vip: str, only: str, by: str = "client", then: str = "true") -> dict[str, Any]:
    """A client greeted through one virtual server, at which alone is looked."""
    greeted = f"exec 3<>/dev/tcp/{vip}/80; read -r said <&3; test $said = hello"
    return {"tries": f"nsenter -n -t ${by} timeout 1 bash -ec '{greeted}'; {then}", "only": [only]}


WEB, SHOP = asking("10.9.0.100", "web"), asking("10.9.0.101", "shop")
INVALID = "INPUT -m conntrack --ctstate INVALID -j DROP"
ENDED = asking("10.9.0.100", "web", then="sleep 0.3; ! grep -q ESTABLISHED /proc/net/ip_vs_conn")
TRACKING = sysctl("net.ipv4.vs.conntrack", 1, 0)
ESTABLISHED = rules("FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", "FORWARD -j DROP")
CASES = [
    Case("dr in health", (), more=ENDED, served=True),
    Case("nat in health", (), more=SHOP, served=True),
    Case("VIP gone", (Code.VIP_NOT_LOCAL,), *undone(address("10.9.0.100/32", "lan")), WEB, served=False),
    Case("no forwarding", (Code.SETTING_WRONG,), *sysctl("net.ipv4.ip_forward", 0, 1), SHOP, served=False),
    Case("input dropped", (Code.INPUT_DROPPED,), *rules("INPUT -p tcp --dport 80 -j DROP"), WEB, served=False),
    Case("output dropped", (Code.OUTPUT_DROPPED,), *rules("OUTPUT -d 10.9.1.0/24 -p tcp -j DROP"), SHOP, served=False),
    Case("answers dropped", (Code.FORWARD_DROPPED,), *ESTABLISHED, SHOP, served=False),
    Case("its remedy", (), *both(TRACKING, ESTABLISHED), SHOP, served=True),
    Case("ends are invalid", (Code.INVALID_DROPPED,), *rules(INVALID), ENDED, served=False),
    Case(
        "its remedy too",
        (),
        *rules(INVALID, "PREROUTING -t raw -d 10.9.0.100 -j CT --notrack"),
        asking("10.9.0.100", "web"),
        served=True,
    ),
    Case("beside the servers", (), more=asking("10.9.0.101", "shop", by="web_3"), served=False),
    Case("seen beside them", (Code.CLIENTS_IN_SUBNET,), more=SHOP, served=True),
]


def test_what_is_found_is_what_clients_meet(lab: Lab) -> None:
    pids = in_health(lab)
    servers = [
        lab.host(name).start("python", "-S", "-c", GREETER) for name in ("l7proxy-1", "l7proxy-2", "web-1", "web-2")
    ]
    wait_until("the servers", lambda: all("ready" in server.output() for server in servers))
    try_all(lab.host("director"), CASES, pids)
