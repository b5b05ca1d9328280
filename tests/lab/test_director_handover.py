"""Changes that must not be seen by new connections: another forwarding method, and Maglev's choice after a restart."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from director.lab.demo.scene import FILES, Scene, told, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

VIP = "10.9.0.110"
SERVERS = ("l7proxy-1", "l7proxy-2")
# Connections that go on asking until SIGTERM, or a new one each time. All end with a reset, which IPVS forgets
# after 10 s (CLOSE, ip_vs_proto_tcp.c) where an orderly end takes 2 minutes (TIME_WAIT).
CLIENT = r"""
import json, signal, socket, struct, sys, time
held = int(sys.argv[2])
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
def opened():
    peer = socket.create_connection((sys.argv[1], 8080), 5)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return peer
def asked(peer):
    peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return peer.recv(65536).startswith(b"HTTP/1.1 200")
peers = [opened() for _ in range(held)]
while not over:
    told = {"ok": True}
    try:
        new = [] if held else [opened()]
        told["ok"] = all([asked(peer) for peer in peers + new])
        for peer in new:
            peer.close()
    except OSError as error:
        told = {"ok": False, "error": repr(error)}
    print(json.dumps(told), flush=True)
    time.sleep(0.05)
for peer in peers:
    peer.close()
"""
SEND = r"""
import socket, sys
for port in range(20000, 20200):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((sys.argv[2], port))
        peer.sendto(b"x", (sys.argv[1], 5353))
"""
MAGLEV = """
defaults: {interface: lan}
virtual_servers:
  maglev:
    address: 10.9.0.110
    port: 5353
    protocol: udp
    forward: nat
    scheduler: mh
    scheduler_flags: [mh-port, mh-fallback]
    real_servers:
      a: {address: 10.9.1.11, weight: 3}
      b: {address: 10.9.1.12, weight: 2}
      c: {address: 10.9.1.13, weight: 2}
"""


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    found = Scene(lab)
    yield found
    if "director" in found.running:
        stop(found)
    host = found.director
    host.run("sysctl", "-q", "-w", "net.ipv4.vs.expire_nodest_conn=1").check()
    host.run("ipvsadm", "-C").check()
    host.run("ip", "addr", "flush", "dev", "lan", "to", f"{VIP}/32").check()
    host.run("rm", "-rf", "/var/lib/director").check()
    host.run("sysctl", "-q", "-w", "net.ipv4.vs.expire_nodest_conn=0").check()


def stop(scene: Scene) -> None:
    process = scene.running.pop("director")
    process.kill(signal.SIGTERM)
    assert process.wait(20.0) == 0, process.output()


def serve_by_both_methods(scene: Scene) -> None:
    """Real servers whose answers pass the director under nat and dr alike, so that one client sees both."""
    client, director = scene.client.address("lan"), scene.director
    for name in SERVERS:
        host = scene.lab.host(name)
        host.write("/etc/nginx/lab.conf", FILES.joinpath("nginx.conf").read_text().replace("NAME", name))
        host.start("nginx", "-c", "/etc/nginx/lab.conf")
        host.run("director", "realserver", "apply", "--vip", VIP).check()
        host.run("ip", "route", "replace", f"{client}/32", "via", director.address("lan")).check()
    settings = ["ip_forward=1", "conf.lan.accept_local=1", "conf.all.rp_filter=0", "conf.lan.rp_filter=0"]
    settings += ["conf.all.send_redirects=0", "conf.lan.send_redirects=0"]
    director.run("sysctl", "-q", "-w", *(f"net.ipv4.{each}" for each in settings)).check()


def configure(scene: Scene, forward: str) -> None:
    reals = {name: {"address": scene.lab.host(name).address("lan")} for name in SERVERS}
    virtual = {"address": VIP, "port": 8080, "forward": forward, "scheduler": "rr", "real_servers": reals}
    scene.write_config(json.dumps({"defaults": {"interface": "lan"}, "virtual_servers": {"vs": virtual}}))


def rows(scene: Scene) -> list[str]:
    """Method and weight of each real server, such as `-m 100`."""
    lines = scene.director.run("ipvsadm", "-Sn").check().stdout.splitlines()
    return [f"{words[-3]} {words[-1]}" for words in map(str.split, lines) if words[0] == "-a"]


def converse(scene: Scene, held: int) -> Process:
    process = scene.client.start("python", "-S", "/tmp/client.py", VIP, str(held), name=f"client {held}")
    wait_until("answers", lambda: len(told(process)) > 5)
    return process


def goes_on(process: Process) -> None:
    before = len(told(process))
    wait_until("it goes on", lambda: len(told(process)) > before + 5)


@pytest.mark.parametrize(("before", "after"), [("nat", "dr")])  # the other way takes 40 s more and the same code
def test_another_forwarding_method_is_not_seen_by_any_connection(scene: Scene, before: str, after: str) -> None:
    serve_by_both_methods(scene)
    scene.client.write("/tmp/client.py", CLIENT)
    flags = {"nat": "-m", "dr": "-g"}
    configure(scene, before)
    director = scene.start_director(fresh=False)
    scene.wait_for_vip(VIP)
    holding, calling = converse(scene, 6), converse(scene, 0)
    configure(scene, after)
    director.kill(signal.SIGHUP)
    wait_until("one drains", lambda: f"{flags[before]} 0" in rows(scene))
    goes_on(calling)
    goes_on(holding)
    assert sorted(rows(scene)) == [f"{flags[before]} 0", f"{flags[before]} 100"], "it waits for those who hold on"
    status = scene.status()["daemon"]
    assert re.search(rf"waiting for \d+ connections of vs/l7proxy-\d under {before} to end", status["waiting"][0])
    assert status["waiting"][0] in " ".join(scene.director.run("director", "status").check().stdout.split())
    holding.kill(signal.SIGTERM)
    assert holding.wait(20.0) == 0, holding.output()[-2000:]
    wait_until("all have changed", lambda: rows(scene) == [f"{flags[after]} 100"] * 2, 90.0)
    goes_on(calling)
    calling.kill(signal.SIGTERM)
    calling.wait(20.0)
    for process in (holding, calling):
        assert [answer for answer in told(process) if not answer["ok"]] == []
    assert scene.status()["daemon"]["converged"] is True


def choices(scene: Scene) -> dict[str, str]:
    """The real server that each of 200 source ports is given, by the kernel's own list of connections."""
    scene.client.run("python", "-S", "-c", SEND, VIP, scene.client.address("lan")).check()
    lines = scene.director.run("cat", "/proc/net/ip_vs_conn").check().stdout.splitlines()
    found = {words[2]: words[5] for words in map(str.split, lines) if words[0] == "UDP"}
    assert len(found) == 200
    return found


def forget(scene: Scene) -> None:
    """An empty table and no connections: the kernel after a reboot."""
    scene.director.run("ipvsadm", "-C").check()
    wait_until("no connections", lambda: "UDP" not in scene.director.run("cat", "/proc/net/ip_vs_conn").stdout)


def test_maglev_chooses_alike_whether_a_server_was_lowered_or_found_down(scene: Scene) -> None:
    director = scene.director
    director.run("sysctl", "-q", "-w", "net.ipv4.vs.expire_nodest_conn=1").check()
    scene.write_config(MAGLEV)
    scene.start_director(fresh=False)
    scene.wait_for_vip(VIP)
    director.run("director", "drain", "maglev", "b").check()
    lowered = choices(scene)
    stop(scene)
    forget(scene)
    scene.start_director(fresh=False)
    scene.wait_for_weights({"10.9.1.11:5353": 3, "10.9.1.12:5353": 0, "10.9.1.13:5353": 2})
    assert choices(scene) == lowered
    stop(scene)
    forget(scene)
    service = ("-u", f"{VIP}:5353")
    director.run("ipvsadm", "-A", *service, "-s", "mh", "-b", "mh-port,mh-fallback").check()
    for address, weight in (("10.9.1.11", 3), ("10.9.1.12", 0), ("10.9.1.13", 2)):
        director.run("ipvsadm", "-a", *service, "-r", f"{address}:5353", "-m", "-w", str(weight)).check()
    assert choices(scene) != lowered, "added at 0 it is not the same: the trial tells one from the other"
