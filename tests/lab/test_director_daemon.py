"""The running director on a real kernel: adopts, repairs, reloads, obeys, and dies without stopping traffic."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from director.lab.demo.scene import CONFIG, Scene, finish, told, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

WEB1, WEB2 = "10.9.1.11:8080", "10.9.1.12:8080"
FILE = """
defaults:
  interface: lan
  check: {type: http, path: /, interval: 500ms, fast_interval: 100ms, timeout: 3s, rise: 2, fall: 3}
drift_interval: 1s
metrics: {bind: "127.0.0.1:9109"}
virtual_servers:
  plain:
    address: 10.9.0.101
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      web-1: {address: 10.9.1.11, port: 8080}
      web-2: {address: 10.9.1.12, port: 8080}
"""
LONG_S = 90.0  # what a trial starts, it ends itself when it has seen enough
TARGET = ("10.9.0.101", "plain.example.org", "/")


@pytest.fixture(scope="module")
def backends(lab: Lab) -> Scene:
    scene = Scene(lab)
    scene.start_backends()
    return scene


@pytest.fixture
def scene(backends: Scene) -> Iterator[Scene]:
    backends.write_config(FILE)
    backends.start_director(fresh=False)
    backends.wait_for_vip("10.9.0.101")
    backends.wait_for_weights({WEB1: 100, WEB2: 100})
    yield backends
    if "director" in backends.running:
        stop(backends)
    host = backends.director
    host.run("ipvsadm", "-C").check()
    host.run("ip", "addr", "flush", "dev", "lan", "to", "10.9.0.101/32").check()
    host.run("rm", "-rf", "/var/lib/director").check()


def stop(scene: Scene) -> str:
    process = scene.running.pop("director")
    process.kill(signal.SIGTERM)
    assert process.wait(10.0) == 0, process.output()
    return process.output()


def end(process: Process) -> None:
    process.kill(signal.SIGTERM)
    process.wait(20.0)


def has_vip(scene: Scene) -> bool:
    return "10.9.0.101/32" in scene.director.run("ip", "-o", "addr", "show", "lan").check().stdout


def director(scene: Scene, *words: str) -> str:
    return scene.director.run("director", *words).check().stdout


def test_sigterm_leaves_the_table_and_the_address_and_a_restart_adopts_them(scene: Scene) -> None:
    before = scene.director.run("ipvsadm", "-Sn").check().stdout
    output = stop(scene)
    assert "Traceback" not in output
    assert scene.director.run("ipvsadm", "-Sn").check().stdout == before
    assert has_vip(scene)
    process = scene.start_director()
    wait_until("it runs", lambda: "director is running" in process.output())
    wait_until("verdicts", lambda: process.output().count("real server is up") == 2)
    assert " changed " not in process.output()
    assert scene.director.run("ipvsadm", "-Sn").check().stdout == before


def test_an_adopted_server_keeps_weight_0_until_its_probe_says_otherwise(scene: Scene) -> None:
    scene.kill("director")
    scene.director.run("ipvsadm", "-e", "-t", "10.9.0.101:80", "-r", WEB1, "-m", "-w", "0").check()
    watch = scene.watch(LONG_S)
    wait_until("the watch sees it", lambda: told(watch))
    scene.start_director(fresh=False)
    scene.wait_for_weights({WEB1: 100})
    wait_until("the watch sees it too", lambda: {"real": WEB1, "weight": 100}.items() <= told(watch)[-1].items())
    end(watch)
    weights = [change["weight"] for change in told(watch) if change["real"] == WEB1]
    assert weights == [0, 100], "once 0, then up by its verdict, and nothing in between"
    output = scene.running["director"].output()
    assert output.index("real server is up vs=plain rs=web-1") < output.index("weight 0 -> 100")


def test_status_agrees_with_ipvsadm_and_says_why(scene: Scene) -> None:
    status = scene.status()
    (virtual,) = status["virtual_servers"]
    shown = {f"{real['address']}:{real['port']}": real["kernel_weight"] for real in virtual["real_servers"]}
    assert shown == scene.weights() == {WEB1: 100, WEB2: 100}
    assert all(real["reason"] == "up: status 200" for real in virtual["real_servers"])
    assert virtual["vip_present"] is True
    assert status["daemon"]["converged"] is True
    text = director(scene, "status")
    assert "plain  tcp 10.9.0.101:80  nat  rr  vip on lan" in text


def test_metrics_are_what_the_kernel_counts(scene: Scene) -> None:
    load = scene.traffic(1.5, 0.02, TARGET)
    load.wait(20.0)
    answered = len([request for request in told(load) if request.get("server")])
    assert answered > 10

    def shown() -> dict[str, float]:
        text = scene.director.run("curl", "-s", "http://127.0.0.1:9109/metrics").check().stdout
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    connections = 'director_virtual_server_connections_total{virtual_server="plain"}'
    wait_until("the kernel's counters have come", lambda: shown()[connections] == answered)  # they are 2 s late
    found = shown()
    counted = scene.director.run("ipvsadm", "-Ln", "--stats", "--exact").check().stdout
    _, _, _, *totals = next(line for line in counted.splitlines() if line.startswith("TCP")).split()[:8]
    families = ("received_packets", "sent_packets", "received_bytes", "sent_bytes")
    virtual = [found[f'director_virtual_server_{family}_total{{virtual_server="plain"}}'] for family in families]
    assert virtual == [float(total) for total in totals[:4]]
    per_server = [
        found[f'director_real_server_connections_total{{real_server="web-{each}",virtual_server="plain"}}']
        for each in (1, 2)
    ]
    assert sum(per_server) == answered
    assert min(per_server) > 0
    assert found['director_real_server_probe_failures_total{real_server="web-1",virtual_server="plain"}'] == 0


def test_drain_weight_and_enable_reach_the_kernel_and_survive_a_restart(scene: Scene) -> None:
    director(scene, "drain", "plain", "web-1")
    director(scene, "weight", "plain", "web-2", "7")
    assert scene.weights() == {WEB1: 0, WEB2: 7}
    stop(scene)
    process = scene.start_director(fresh=False)
    wait_until("verdicts", lambda: process.output().count("real server is up") == 2)
    assert scene.weights() == {WEB1: 0, WEB2: 7}
    assert "drained by the operator" in director(scene, "status")
    director(scene, "enable", "plain", "web-1")
    director(scene, "enable", "plain", "web-2")
    assert scene.weights() == {WEB1: 100, WEB2: 100}


def test_drain_gives_no_new_connections(scene: Scene) -> None:
    load = scene.traffic(LONG_S, 0.01, TARGET)
    wait_until("traffic flows", lambda: len(told(load)) > 10)
    director(scene, "drain", "plain", "web-1")
    drained_at = float(scene.client.run("cut", "-d ", "-f1", "/proc/uptime").check().stdout)

    def later() -> list[str]:
        return [request.get("server", "") for request in told(load) if request["at"] > drained_at + 0.05]

    wait_until("requests after the drain", lambda: len(later()) > 30)
    end(load)
    assert all(request["ok"] for request in told(load))
    assert set(later()) == {"web-2"}
    director(scene, "enable", "plain", "web-1")


def test_a_wrong_answer_takes_a_server_out_and_a_right_one_brings_it_back(scene: Scene) -> None:
    host = scene.lab.host("web-1")
    good = host.read("/etc/nginx/lab.conf")
    host.write("/etc/nginx/lab.conf", good.replace("return 200", "return 503"))
    scene.running["web-1"].kill(signal.SIGHUP)
    scene.wait_for_weights({WEB1: 0, WEB2: 100})
    assert "down: status 503, expected 200-399" in director(scene, "status")
    host.write("/etc/nginx/lab.conf", good)
    scene.running["web-1"].kill(signal.SIGHUP)
    scene.wait_for_weights({WEB1: 100})


def test_a_server_that_is_cut_off_goes_to_0_and_comes_back(scene: Scene) -> None:
    scene.write_config(FILE.replace("timeout: 3s", "timeout: 1s"))  # it must run out three times
    scene.running["director"].kill(signal.SIGHUP)
    wait_until("it has reloaded", lambda: " reloaded " in scene.running["director"].output())
    cable = scene.lab.host("web-2").link("inside")
    cable.down()
    scene.wait_for_weights({WEB2: 0}, 40.0)
    assert "down: no answer within 1s" in director(scene, "status")
    cable.up()
    scene.wait_for_weights({WEB2: 100})


def test_what_others_change_is_repaired_within_the_drift_interval(scene: Scene) -> None:
    scene.director.run("ipvsadm", "-d", "-t", "10.9.0.101:80", "-r", WEB1).check()
    scene.director.run("ipvsadm", "-E", "-t", "10.9.0.101:80", "-s", "lc").check()
    scene.director.run("ip", "addr", "del", "10.9.0.101/32", "dev", "lan").check()
    scene.wait_for_weights({WEB1: 100, WEB2: 100})
    wait_until("the address is back", lambda: has_vip(scene))
    assert "-A -t 10.9.0.101:80 -s rr" in scene.director.run("ipvsadm", "-Sn").check().stdout


def test_sighup_reloads_and_a_bad_file_changes_nothing(scene: Scene) -> None:
    process = scene.running["director"]
    before = scene.director.run("ipvsadm", "-Sn").check().stdout
    scene.write_config(FILE.replace("scheduler: rr", "scheduler: rrr"))
    process.kill(signal.SIGHUP)
    wait_until("the refusal is logged", lambda: "reload refused" in process.output())
    assert "'rrr' is not known: did you mean 'rr'?" in process.output()
    assert scene.director.run("ipvsadm", "-Sn").check().stdout == before
    assert "'rrr'" in scene.status()["daemon"]["reload_refused"][0]
    scene.write_config(FILE.replace("scheduler: rr", "scheduler: wrr").replace("port: 80\n", "port: 81\n"))
    process.kill(signal.SIGHUP)
    wait_until("the new service", lambda: ":81 -s wrr" in scene.director.run("ipvsadm", "-Sn").check().stdout)
    wait_until("the old one goes", lambda: ":80 -s" not in scene.director.run("ipvsadm", "-Sn").check().stdout)
    assert has_vip(scene)
    assert scene.status()["daemon"]["reload_refused"] == []


def test_a_dead_server_that_joins_serving_ones_gets_no_connection(scene: Scene) -> None:
    watch = scene.watch(120.0)
    load = scene.traffic(120.0, 0.01, TARGET)
    wait_until("traffic flows", lambda: len(told(load)) > 10)
    scene.write_config(FILE + "      dead: {address: 10.9.1.13, port: 9999}\n")
    process = scene.running["director"]
    process.kill(signal.SIGHUP)
    wait_until("its verdict", lambda: "real server is down vs=plain rs=dead" in process.output())
    wait_until("it is in the table", lambda: "10.9.1.13:9999" in [change["real"] for change in told(watch)])
    assert {change["weight"] for change in finish(watch) if change["real"] == "10.9.1.13:9999"} == {0}
    assert all(request["ok"] for request in finish(load))


def test_a_virtual_server_without_any_server_says_so(scene: Scene) -> None:
    director(scene, "drain", "plain", "web-1")
    director(scene, "drain", "plain", "web-2")
    assert "NO REAL SERVER TAKES CONNECTIONS" in director(scene, "status")
    assert "ERROR director.control no real server takes connections vs=plain" in scene.running["director"].output()
    director(scene, "enable", "plain", "web-1")
    director(scene, "enable", "plain", "web-2")
    assert "real servers take connections again vs=plain" in scene.running["director"].output()


def test_a_second_director_and_apply_find_the_running_one(scene: Scene) -> None:
    second = scene.director.run("director", "run", CONFIG)
    assert second.exit_code == 1
    assert f"process {scene.running['director'].pid} (director run {CONFIG})" in second.stderr
    assert director(scene, "plan", CONFIG).startswith("Nothing to change")
    scene.director.write("/etc/director/other.yaml", FILE.replace("scheduler: rr", "scheduler: wlc"))
    planned = scene.director.run("director", "plan", "/etc/director/other.yaml")
    assert planned.exit_code == 2
    assert "rr -> wlc" in planned.stdout
    applied = director(scene, "apply", "/etc/director/other.yaml", "--json")
    assert [step["sign"] for step in json.loads(applied)["steps"]] == ["~"]
    assert scene.weights() == {WEB1: 100, WEB2: 100}


def test_an_address_that_others_remove_is_back_long_before_the_next_look(scene: Scene) -> None:
    process = scene.running["director"]
    scene.write_config(FILE.replace("drift_interval: 1s", "drift_interval: 1h"))
    process.kill(signal.SIGHUP)
    wait_until("it has reloaded", lambda: " reloaded " in process.output())
    for _ in range(3):
        scene.director.run("ip", "addr", "del", "10.9.0.101/32", "dev", "lan").check()
        wait_until("the address is back", lambda: has_vip(scene))


def test_a_command_in_another_network_namespace_does_not_reach_this_director(scene: Scene) -> None:
    scene.director.write("/etc/director/other.yaml", FILE.replace("scheduler: rr", "scheduler: wlc"))
    for words in (("apply", "/etc/director/other.yaml"), ("drain", "plain", "web-1"), ("status",)):
        refused = scene.director.run("unshare", "-n", "director", *words)
        assert refused.exit_code == 1
        assert "--socket and --state-dir" in refused.stderr
        assert "nothing was done" in refused.stderr
    assert scene.weights() == {WEB1: 100, WEB2: 100}
    refused = scene.director.run("unshare", "-n", "director", "run", CONFIG, "--socket", "/run/other.sock")
    assert refused.exit_code == 1
    pid = scene.running["director"].pid
    assert f"process {pid} (director run {CONFIG}) keeps its state in /var/lib/director" in refused.stderr


def test_a_hangup_while_it_begins_is_a_reload(scene: Scene) -> None:
    stop(scene)
    process = scene.start_director()
    # As early as it can be told from outside: its own first act is to hold the signal back (bit 1 of the mask).
    blocked = f"/proc/{process.pid}/status"
    wait_until("it holds it back", lambda: "SigBlk:\t0000000000000001" in scene.director.read(blocked), pause_s=0.0)
    process.kill(signal.SIGHUP)
    wait_until("it has reloaded", lambda: " reloaded " in process.output())
    assert process.alive()


def test_a_director_that_is_killed_does_not_stop_traffic(scene: Scene) -> None:
    load = scene.traffic(LONG_S, 0.01, TARGET)
    wait_until("traffic flows", lambda: len(told(load)) > 10)
    scene.kill("director")
    before = len(told(load))
    wait_until("traffic goes on", lambda: len(told(load)) > before + 50)
    end(load)
    assert all(request["ok"] for request in told(load))
