"""A director with direct routing before two l7proxy, which are replaced one after the other under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from director.lab.demo.scene import Scene, told, wait_until
from director.lab.hosts import Lab
from tests.lab.test_director_handover import stop

pytestmark = pytest.mark.lab

GUEST = Path(__file__).parent / "guest"
VIP = "10.9.0.100"
A, B = "10.9.0.21:80", "10.9.0.22:80"
PROXIES = {"l7proxy-1": A, "l7proxy-2": B}
# Patient: on a busy machine the one that serves must not be taken for dead while the other one is replaced.
DIRECTOR = """
defaults:
  interface: lan
virtual_servers:
  web:
    address: 10.9.0.100
    port: 80
    forward: dr
    scheduler: rr
    check: {type: agent, port: 9181, interval: 500ms, fast_interval: 200ms, timeout: 5s, rise: 1, fall: 9}
    real_servers:
      a: {address: 10.9.0.21}
      b: {address: 10.9.0.22}
"""
L7PROXY = """
listeners:
  http: {bind: "0.0.0.0:80"}
routes:
  - {name: all, upstream: web}
upstreams:
  web:
    backends:
      web-1: {address: "10.9.1.11:8080"}
      web-2: {address: "10.9.1.12:8080"}
agent: {bind: "0.0.0.0:9181"}
admin: {socket: /run/l7proxy/admin.sock}
timeouts: {drain: 15s}
access_log: none
"""
# The VIP comes with the first verdicts or a deadline: proxies that take long to start may not listen yet.
CONNECT = f"import socket; [socket.create_connection((each, 80), 2).close() for each in {[VIP, A[:-3], B[:-3]]}]"
REAL_SERVER = f"""
sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip addr add {VIP}/32 dev lo
"""


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    scene = Scene(lab)
    for name in ("web-1", "web-2"):
        scene.running[name] = lab.host(name).start("python", "-S", GUEST / "tier_origin.py", name=name)
    for name in PROXIES:
        host = lab.host(name)
        host.run("sh", "-ec", REAL_SERVER).check()
        host.write("/etc/l7proxy/l7proxy.yaml", L7PROXY)
        scene.start_proxy(name)
    scene.write_config(DIRECTOR)
    scene.start_director(fresh=False)
    wait_until("both are up", lambda: serve(scene) == {A, B}, 30.0)
    yield scene
    stop(scene)


def serve(scene: Scene) -> set[str]:
    """The real servers that get new connections."""
    return {address for address, weight in scene.weights().items() if weight}


def is_spared(scene: Scene, address: str) -> bool:
    return address not in serve(scene)


def test_all_l7proxy_are_replaced_under_load_and_nothing_is_lost(scene: Scene) -> None:
    wait_until("all answer", lambda: scene.client.run("python", "-S", "-c", CONNECT).exit_code == 0, 30.0)
    clients = scene.client.start("python", "-S", GUEST / "tier_clients.py", VIP, "30", "3", name="clients")
    wait_until("clients are served", lambda: len(told(clients)) > 20)
    for name, address in PROXIES.items():
        host, process = scene.lab.host(name), scene.running[name]
        host.run("l7proxy", "drain").check()
        wait_until(f"{name} has weight 0", partial(is_spared, scene, address))
        done = host.run("l7proxy", "drain", "--stop", "--wait").check()
        assert done.stderr.splitlines()[-1] == "stopped"
        assert process.wait(10.0) == 0
        assert "requests cut off" not in process.output()
        scene.start_proxy(name)
        wait_until(f"{name} is back", lambda: serve(scene) == {A, B}, 30.0)
    before = len(told(clients))
    wait_until("clients go on", lambda: len(told(clients)) > before + 20)
    clients.kill()
    assert clients.wait(15.0) == 0, clients.output()[-2000:]
    seen = told(clients)
    bad = [each for each in seen if not each["ok"]]
    assert bad == [], [f"{each['at'] - seen[0]['at']:.3f} s: {each}" for each in bad]
    counted = Counter(str(each["kind"]) for each in seen)
    assert counted["short"] > 50
    assert counted["kept"] > 50
    assert counted["download"] >= 4
    assert counted["tunnel"] >= 4
