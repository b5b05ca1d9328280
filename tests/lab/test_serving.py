"""Who serves on a real kernel: the sorry server, slow start, quorum hooks, maintenance, and what a restart knows."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from director.lab.demo.scene import Scene, finish, told, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

WEB1, WEB2, SORRY = "10.9.1.11:8080", "10.9.1.12:8080", "10.9.1.13:8080"
FILE = """
defaults:
  interface: lan
  check: {type: tcp, interval: 200ms, fast_interval: 100ms, timeout: 2s, rise: 2, fall: 2}
virtual_servers:
  plain:
    address: 10.9.0.101
    port: 80
    forward: nat
    scheduler: rr
    slow_start: 2s
    sorry_server: {address: 10.9.1.13, port: 8080, weight: 1}
    quorum_up: {command: [/bin/sh, -c, 'echo "$DIRECTOR_VIRTUAL_SERVER $DIRECTOR_QUORUM" >> /tmp/hooks']}
    quorum_down: {command: [/bin/sh, -c, 'echo "$DIRECTOR_VIRTUAL_SERVER $DIRECTOR_QUORUM" >> /tmp/hooks']}
    real_servers:
      web-1: {address: 10.9.1.11, port: 8080}
      web-2: {address: 10.9.1.12, port: 8080}
"""
TARGET = ("10.9.0.101", "plain.example.org", "/")
LONG_S = 90.0  # what a trial starts, it ends itself when it has seen enough


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    scene = Scene(lab)
    scene.start_backends()
    scene.write_config(FILE)
    scene.start_director(fresh=False)
    scene.wait_for_vip("10.9.0.101")
    return scene


@pytest.fixture(autouse=True)
def _all_up(scene: Scene) -> None:
    scene.wait_for_weights({WEB1: 100, WEB2: 100, SORRY: 0})


@pytest.fixture
def watch(scene: Scene) -> Iterator[Process]:
    process = scene.watch(LONG_S)
    wait_until("the watch sees it", lambda: told(process))
    yield process
    finish(process)


def stop(scene: Scene, name: str) -> None:
    process = scene.running.pop(name)
    process.kill(signal.SIGTERM)
    assert process.wait(10.0) == 0, process.output()


def start(scene: Scene, name: str) -> None:
    scene.running[name] = scene.lab.host(name).start("nginx", "-c", "/etc/nginx/lab.conf", name=f"nginx on {name}")


def hooks(scene: Scene) -> list[str]:
    """What the hooks have written so far."""
    return scene.director.run("cat", "/tmp/hooks").stdout.splitlines()  # nothing before the first


def history(watch: Process, real: str) -> list[int | None]:
    return [change["weight"] for change in told(watch) if change["real"] == real]


def test_the_sorry_server_serves_while_all_are_down_and_one_that_is_back_takes_over_slowly(
    scene: Scene, watch: Process
) -> None:
    wait_until("the hook of the start has run", lambda: hooks(scene) == ["plain held"])
    load = scene.traffic(LONG_S, 0.02, TARGET)

    def answers(name: str) -> bool:
        last = told(load)[-5:]
        return len(last) == 5 and {each.get("server") for each in last} == {name}

    stop(scene, "web-1")
    stop(scene, "web-2")
    wait_until("the sorry server answers", lambda: answers("web-3"))
    assert scene.weights() == {WEB1: 0, WEB2: 0, SORRY: 1}
    wait_until("the hook has run", lambda: hooks(scene) == ["plain held", "plain lost"])
    start(scene, "web-1")
    wait_until("the one that is back answers", lambda: answers("web-1"))
    scene.wait_for_weights({WEB1: 100, WEB2: 0, SORRY: 0})
    wait_until("the hook has run", lambda: hooks(scene) == ["plain held", "plain lost", "plain held"])
    start(scene, "web-2")
    scene.wait_for_weights({WEB2: 100})
    finish(load)
    back = history(watch, WEB1)
    assert back[:2] == [100, 0]
    steps = [weight for weight in back[2:] if weight is not None]
    assert steps == sorted(set(steps)), "it only grows"
    assert len(steps) >= 4
    assert steps[0] < 50
    assert steps[-1] == 100
    assert history(watch, SORRY) == [0, 1, 0]
    both = [(change["real"], change["weight"]) for change in told(watch)]
    assert both.index((WEB1, 0)) < both.index((SORRY, 1)) < both.index((WEB1, steps[0]))
    said = scene.running["director"].output()
    assert "quorum held -> lost: 0 real servers take connections, 1 needed" in said
    assert said.count("sorry stands by -> serves: quorum is lost; weight 0 -> 1") == 1


def test_a_restart_on_an_empty_table_revives_no_dead_server_and_drops_no_live_one(scene: Scene) -> None:
    before = hooks(scene)
    stop(scene, "web-2")
    scene.wait_for_weights({WEB1: 100, WEB2: 0})
    stop(scene, "director")
    scene.director.run("ipvsadm", "-C").check()  # as after a reboot
    scene.director.run("ip", "addr", "flush", "dev", "lan", "to", "10.9.0.101/32").check()
    watch = scene.watch(LONG_S)
    process = scene.start_director(fresh=False)
    wait_until("it has its own verdicts", lambda: "real server is down vs=plain rs=web-2" in process.output())
    scene.wait_for_vip("10.9.0.101")
    assert history(watch, WEB1) == [100], "known to be up: it serves before its first verdict"
    assert history(watch, WEB2) == [0], "known to be down: it waits for one"
    assert history(watch, SORRY) == [0]
    start(scene, "web-2")
    scene.wait_for_weights({WEB2: 100})
    assert hooks(scene) == before, "what has not changed is not told again"
    assert [weight for weight in history(watch, WEB2) if weight == 0] == [0]
    finish(watch)


def test_maintenance_takes_a_server_out_until_its_time_is_over(scene: Scene, watch: Process) -> None:
    words = ("maintenance", "plain", "web-1", "--reason", "new disk", "--for", "3s")
    assert "plain/web-1 is in maintenance" in scene.director.run("director", *words).check().stdout
    assert {WEB1: 0, WEB2: 100}.items() <= scene.weights().items()
    wait_until("it is over", lambda: history(watch, WEB1) == [100, 0, 100])
    went, came = [change["at"] for change in told(watch) if change["real"] == WEB1][1:]
    assert 2.5 < came - went < 4.5
