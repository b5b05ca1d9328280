"""What others change on a real kernel: put right without a connection noticing, or left and told."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from director.lab.demo.scene import CONFIG, Scene, told, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

WEB1, WEB2, WEB3 = "10.9.1.11:8080", "10.9.1.12:8080", "10.9.1.13:8080"
KEPT, TOLD = ("-t", "10.9.0.101:80"), ("-t", "10.9.0.102:80")
FILE = """
defaults: {interface: lan}
drift_interval: 1s
virtual_servers:
  kept:
    address: 10.9.0.101
    port: 80
    forward: nat
    scheduler: rr
    real_servers: &reals
      web-1: {address: 10.9.1.11, port: 8080}
      web-2: {address: 10.9.1.12, port: 8080}
  told:
    address: 10.9.0.102
    port: 80
    forward: nat
    scheduler: rr
    on_drift: report
    real_servers: *reals
"""
# Connections that go on asking until SIGTERM.
CLIENT = r"""
import json, signal, socket, sys, time
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
peers = [socket.create_connection((sys.argv[1], 80), 10) for _ in range(4)]
while not over:
    told = {"ok": True, "servers": []}
    try:
        for peer in peers:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            told["servers"].append(json.loads(peer.recv(65536).partition(b"\r\n\r\n")[2])["server"])
    except (OSError, ValueError) as error:
        told = {"ok": False, "error": repr(error)}
        over.append(1)
    print(json.dumps(told), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Iterator[Scene]:
    made = Scene(lab)
    made.start_backends()
    made.client.write("/tmp/client.py", CLIENT)
    made.write_config(FILE)
    made.start_director(fresh=False)
    made.wait_for_vip("10.9.0.102")
    yield made
    if "director" in made.running:
        stop(made)
    made.director.run("ipvsadm", "-C").check()


def stop(scene: Scene) -> None:
    process = scene.running.pop("director")
    process.kill(signal.SIGTERM)
    assert process.wait(20.0) == 0, process.output()


def converse(scene: Scene, address: str) -> Process:
    process = scene.client.start("python", "-S", "/tmp/client.py", address, name="client")
    wait_until("answers", lambda: len(told(process)) > 3)
    return process


def ipvsadm(scene: Scene, *words: str) -> None:
    scene.director.run("ipvsadm", *words).check()


def rows(scene: Scene, address: str) -> list[str]:
    lines = scene.director.run("ipvsadm", "-Sn").check().stdout.splitlines()
    return sorted(line for line in lines if address in line)


def test_drift_is_put_right_and_no_connection_notices(scene: Scene) -> None:
    before = rows(scene, "10.9.0.101")
    holding = converse(scene, "10.9.0.101")
    served = sorted(told(holding)[-1]["servers"])
    assert len(set(served)) == 2
    log = scene.running["director"].output

    def is_put_right(number: int) -> None:
        wait_until("it is told", lambda: log().count("drift, put right vs=kept") == number, 4.0)  # 1 s, and slack
        wait_until("it is put right", lambda: rows(scene, "10.9.0.101") == before)
        answers = len(told(holding))
        wait_until("connections go on", lambda: len(told(holding)) > answers + 3)

    ipvsadm(scene, "-e", *KEPT, "-r", WEB1, "-m", "-w", "3", "-x", "9", "-y", "2")
    is_put_right(1)
    ipvsadm(scene, "-E", *KEPT, "-s", "lc", "-p", "60")
    is_put_right(2)
    ipvsadm(scene, "-a", *KEPT, "-r", WEB3, "-m")
    is_put_right(3)
    ipvsadm(scene, "-d", *KEPT, "-r", WEB2)  # with expire_nodest_conn=0 its connections go on when it is back
    is_put_right(4)
    holding.kill(signal.SIGTERM)
    holding.wait(20.0)
    assert [answer for answer in told(holding) if not answer["ok"]] == []
    assert sorted(told(holding)[-1]["servers"]) == served
    assert 'rs=web-1 was="nat, weight 100" is="nat, weight 3, at most 9 connections, again below 2"' in log()
    assert scene.status()["virtual_servers"][0]["drift_repaired"] == 4


def test_reported_drift_is_told_and_left_until_an_apply(scene: Scene) -> None:
    before = rows(scene, "10.9.0.102")
    log = scene.running["director"].output
    ipvsadm(scene, "-e", *TOLD, "-r", WEB1, "-m", "-w", "3")
    ipvsadm(scene, "-d", *TOLD, "-r", WEB2)
    wait_until("it is told", lambda: log().count("drift, left as it is vs=told") == 2)
    left = rows(scene, "10.9.0.102")
    assert [line.split()[-1] for line in left if line.startswith("-a")] == ["3"]
    seen = scene.director.run("director", "drift")
    assert seen.exit_code == 2
    assert seen.stdout.splitlines() == [
        "~ real server told/web-1 (10.9.1.11:8080): was nat, weight 100, is nat, weight 3; left as it is (on_drift: "
        "report), `director apply` puts it right",
        "- real server told/web-2 (10.9.1.12:8080): was nat, weight 100, is absent; left as it is (on_drift: "
        "report), `director apply` puts it right",
        "2 things changed by somebody else.",
    ]
    assert len(scene.status()["virtual_servers"][1]["drift"]) == 2
    assert log().count("drift, left as it is") == 2, "at each look it is seen, once it is told"
    assert rows(scene, "10.9.0.102") == left
    scene.director.run("director", "apply", CONFIG).check()
    assert rows(scene, "10.9.0.102") == before


def test_an_exclusive_table_and_what_stands_in_the_way(scene: Scene) -> None:
    stop(scene)
    ipvsadm(scene, "-A", "-t", "10.9.0.199:99", "-s", "rr")
    scene.write_config(f"exclusive: true\n{FILE}")
    scene.director.run("director", "apply", CONFIG).check()
    assert rows(scene, "10.9.0.199") == []
    ipvsadm(scene, "-D", *TOLD)
    ipvsadm(scene, "-A", *TOLD, "-s", "rr", "-p", "60", "-M", "255.0.255.0")
    planned = scene.director.run("director", "plan", CONFIG, "--json")
    assert planned.exit_code == 1
    assert "remove it with `ipvsadm -D -t 10.9.0.102:80`" in planned.stderr
    assert json.loads(planned.stdout)["steps"] == []
    seen = scene.director.run("director", "drift", CONFIG)
    assert "- virtual server told (tcp 10.9.0.102:80): was rr, is absent; `director apply` puts it right" in seen.stdout
