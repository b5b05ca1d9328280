"""A director that probes through the VIP, on a real kernel: what it finds, what it does about it, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from director.lab.demo.scene import Scene, wait_until
from director.lab.hosts import Lab
from tests.lab.test_director_daemon import stop
from tests.lab.test_via_vip import DIRECTOR, GUEST, REAL_SERVER

pytestmark = pytest.mark.lab

A, B = "10.9.0.21:80", "10.9.0.22:80"
FILE = """
defaults:
  interface: away
  check: {type: tcp, via: vip, interval: 300ms, fast_interval: 100ms, timeout: 300ms, rise: 2, fall: 2}
virtual_servers:
  web:
    address: 10.9.0.100
    port: 80
    forward: dr
    load: {type: file, path: "/run/load/{address}", missing: keep}
    real_servers:
      a: {address: 10.9.0.21}
      b: {address: 10.9.0.22}
"""


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Iterator[Scene]:
    scene = Scene(lab)
    for name in ("l7proxy-1", "l7proxy-2"):
        host = lab.host(name)
        text = REAL_SERVER.format(four=host.address("lan", 4), six=host.address("lan", 6))
        host.run("sh", "-ec", text).check()
        scene.running[name] = host.start("python", "-S", GUEST / "name_server.py", name)
    scene.director.run("sh", "-ec", DIRECTOR).check()
    scene.write_config(FILE)
    scene.start_director(fresh=False)
    scene.wait_for_weights({A: 100, B: 100})
    wait_until("its first verdict", lambda: explained(scene, "b")["health"] == "up")
    yield scene
    stop(scene)


def explained(scene: Scene, name: str) -> dict[str, Any]:
    found = scene.director.run("director", "explain", "web", name, "--json").check().stdout
    (real,) = json.loads(found)["real_servers"]
    assert isinstance(real, dict)
    return real


def test_lost_vip_is_told_from_a_dead_server(scene: Scene) -> None:
    host = scene.lab.host("l7proxy-2")
    host.run("ip", "addr", "del", "10.9.0.100/32", "dev", "lo").check()
    scene.wait_for_weights({A: 100, B: 0})
    wait_until("it says so", lambda: "its VIP or the way there is broken" in explained(scene, "b")["reason"])
    real = explained(scene, "b")
    through, itself = "through the VIP: no answer within 300ms", "the server itself answers (connected)"
    assert real["reason"] == f"down: {through}; {itself}: its VIP or the way there is broken"
    assert real["back"].startswith("up after 2 more successes in a row")
    probed = scene.director.run("director", "probe", "web", "b", "-f", "/etc/director/director.yaml")
    assert probed.exit_code == 2
    assert "the server itself answers" in probed.stdout
    host.run("ip", "addr", "add", "10.9.0.100/32", "dev", "lo").check()
    scene.wait_for_weights({A: 100, B: 100})
    scene.kill("l7proxy-2")
    scene.wait_for_weights({A: 100, B: 0})
    assert explained(scene, "b")["reason"] == "down: connection refused, through the VIP and at its own address"
    events = scene.director.run("director", "events", "--json", "--vs", "web", "--rs", "b").check().stdout
    seen = [json.loads(line) for line in events.splitlines()]
    changes = [(each["was"], each["now"]) for each in seen if each["kind"] == "health"]
    assert changes == [("pending", "up"), ("up", "down"), ("down", "up"), ("up", "down")]
    assert [(each["weight_before"], each["weight_after"]) for each in seen if each["kind"] == "health"][1:] == [
        (100, 0),
        (0, 100),
        (100, 0),
    ]


def test_load_that_a_file_tells_reaches_the_kernel_at_once_with_its_reason(scene: Scene) -> None:
    scene.director.run("sh", "-ec", "mkdir -p /run/load; echo 37% > /run/load/10.9.0.21").check()
    scene.wait_for_weights({A: 37})
    assert [each["what"] for each in explained(scene, "a")["factors"]] == [
        "configured weight",
        "up: connected",
        "37% by its load",
    ]
