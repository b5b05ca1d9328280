"""That the default topology carries what it is laid out for: NAT to the inside, and direct routing on the lan.

One rule: programmed with ipvsadm and ip, so that a failure here is the lab's and not the director's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from director.lab.hosts import Lab, LabHost
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab

VIP = {4: "10.9.0.100", 6: "fd09::100"}


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[Lab]:
    """nginx on every backend and l7proxy host; it answers with the host's name and the client's address."""
    processes = []
    for host in (*lab.hosts("backend"), *lab.hosts("l7proxy")):
        site = f'server {{ listen 80; listen [::]:80; location / {{ return 200 "{host.name} $remote_addr\\n"; }} }}'
        host.write("/etc/nginx/lab.conf", f"daemon off; events {{}} http {{ access_log off; {site} }}")
        processes.append((host, host.start("nginx", "-c", "/etc/nginx/lab.conf", name=f"nginx on {host.name}")))
    for host, process in processes:
        assert wait_until(partial(_serves, host)), process.output()
    yield lab
    for _, process in processes:
        process.kill_tree()


def _serves(host: LabHost) -> bool:
    return host.run("curl", "-sf", "http://127.0.0.1/").exit_code == 0


def _url(family: int) -> str:
    return f"http://{VIP[family]}/" if family == 4 else f"http://[{VIP[family]}]/"


def _endpoint(address: str) -> str:
    return f"[{address}]:80" if ":" in address else f"{address}:80"


@pytest.mark.parametrize("family", [4, 6])
def test_nat_reaches_all_backends_and_keeps_the_clients_address(servers: Lab, family: int) -> None:
    director, client = servers.host("director"), servers.host("client")
    director.run("ip", "address", "add", VIP[family], "dev", "lan").check()
    director.run("ipvsadm", "-A", "-t", _endpoint(VIP[family]), "-s", "rr").check()
    for web in servers.hosts("backend"):
        real = _endpoint(web.address("inside", family))
        director.run("ipvsadm", "-a", "-t", _endpoint(VIP[family]), "-r", real, "-m").check()
    answers = [client.run("curl", "-s", "-m5", _url(family)).check().stdout for _ in range(3)]
    director.run("ipvsadm", "-C").check()
    director.run("ip", "address", "del", VIP[family], "dev", "lan").check()
    assert sorted(answers) == [f"web-{number} {client.address('lan', family)}\n" for number in (1, 2, 3)]


@pytest.mark.parametrize("family", [4, 6])
def test_direct_routing_reaches_all_l7proxies_and_keeps_the_clients_address(servers: Lab, family: int) -> None:
    director, client = servers.host("director"), servers.host("client")
    director.run("ip", "address", "add", VIP[family], "dev", "lan").check()
    director.run("ipvsadm", "-A", "-t", _endpoint(VIP[family]), "-s", "rr").check()
    for proxy in servers.hosts("l7proxy"):
        for key, value in (("arp_ignore", 1), ("arp_announce", 2)):
            proxy.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/all/{key}").check()
        proxy.run("ip", "address", "add", VIP[family], "dev", "lo").check()
        real = _endpoint(proxy.address("lan", family))
        director.run("ipvsadm", "-a", "-t", _endpoint(VIP[family]), "-r", real, "-g").check()
    answers = [client.run("curl", "-s", "-m5", _url(family)).check().stdout for _ in range(2)]
    for proxy in servers.hosts("l7proxy"):
        proxy.run("ip", "address", "del", VIP[family], "dev", "lo").check()
    director.run("ipvsadm", "-C").check()
    director.run("ip", "address", "del", VIP[family], "dev", "lan").check()
    assert sorted(answers) == [f"l7proxy-{number} {client.address('lan', family)}\n" for number in (1, 2)]
