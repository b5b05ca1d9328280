"""The demonstration's four steps.

One rule: a step asserts what it shows, by what the client and the kernel say, and a step that does not hold ends
the demonstration with "ok": false.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from director.lab.demo.claims import claim
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene, finish, told, wait_until

LONG_S = 120.0
"""What is ended when it has been seen long enough; on its own it ends after this."""

WEB, PLAIN = "10.9.0.100", "10.9.0.101"
PROXY_1 = "10.9.0.21:80"
TARGETS: tuple[tuple[str, str, str], ...] = (
    (WEB, "shop.example.org", "/"),
    (WEB, "shop.example.org", "/api/orders"),
    (WEB, "img.static.example.org", "/logo.png"),
    (PLAIN, "plain.example.org", "/"),
)
# Who may answer which target, by the configuration.
ANSWERS = {
    "http://shop.example.org/": {"web-1", "web-2"},
    "http://shop.example.org/api/orders": {"web-2"},
    "http://img.static.example.org/logo.png": {"web-3"},
    "http://plain.example.org/": {"web-1", "web-2"},
}


def programme(scene: Scene, report: Report) -> None:
    """Step 1: the director programs the kernel; status and ipvsadm agree."""
    scene.start_backends()
    scene.start_proxies()
    report.say("nginx runs on web-1, web-2, web-3; l7proxy on l7proxy-1, l7proxy-2")
    scene.write_config()
    report.shell("l7proxy-1", "director realserver apply director.yaml", scene.prepare_real_servers())
    scene.start_director()
    for address in (WEB, PLAIN):
        scene.wait_for_vip(address)
    servers = {PROXY_1: 100, "10.9.0.22:80": 100, "10.9.1.11:8080": 100, "10.9.1.12:8080": 100}
    scene.wait_for_weights(servers)
    types(scene, report, "director", "director status")
    types(scene, report, "director", "ipvsadm -Ln")
    status = {
        f"{real['address']}:{real['port']}": real["kernel_weight"]
        for virtual in scene.status()["virtual_servers"]
        for real in virtual["real_servers"]
    }
    claim(status == scene.weights() == servers, f"status {status} and ipvsadm {scene.weights()} must agree")


def serve(scene: Scene, report: Report) -> None:
    """Step 2: requests through the VIPs reach the right backends, with the client's address."""
    load = scene.traffic(6.0, 0.01, *TARGETS)
    load.wait(30.0)
    requests = told(load)
    report.count(requests)
    claim(len(requests) >= 20, f"only {len(requests)} requests were made")
    failed = [request for request in requests if not request["ok"]]
    claim(not failed, f"{len(failed)} requests failed, the first: {failed[:1]}")
    report.served(requests)
    us = scene.client.address("lan")
    for request in requests:
        claim(request["server"] in ANSWERS[request["url"]], f"the wrong backend answered: {request}")
        seen = request["for"] if request["to"] == WEB else request["from"]
        claim(seen == us, f"the backend saw {seen!r} instead of the client's {us}: {request}")
    report.say(f"every backend was told the client's real address, {us}")
    proxies = {request["from"] for request in requests if request["to"] == WEB}
    claim(len(proxies) == 2, f"both l7proxy must have served, but only {proxies} did")


def fail_over(scene: Scene, report: Report, targets: Sequence[tuple[str, str, str]] = TARGETS) -> None:
    """Step 3: an l7proxy dies and comes back; the kernel's weight follows."""
    watch = scene.watch(LONG_S)
    load = scene.traffic(LONG_S, 0.01, *targets)
    wait_until("traffic flows", lambda: len(told(load)) > 10)
    died_at = scene.kill("l7proxy-1")
    report.say("l7proxy-1 was killed (SIGKILL)")
    scene.wait_for_weights({PROXY_1: 0})
    zero_at = _moment(told(watch), PROXY_1, 0, died_at)
    report.fact("failover_s", round(zero_at - died_at, 3))
    report.say(f"its weight was 0 in the kernel {zero_at - died_at:.3f} s after its death")
    types(scene, report, "director", "director status")
    scene.start_proxy("l7proxy-1")
    scene.wait_for_weights({PROXY_1: 100})
    back_at = _moment(told(watch), PROXY_1, 100, zero_at)
    report.say("l7proxy-1 was started again, its probe succeeds, its weight is back to 100")
    its_address = scene.lab.host("l7proxy-1").address("inside")
    wait_until(
        "l7proxy-1 gets requests again",
        lambda: any(r["ok"] and r["at"] > back_at and r["from"] == its_address for r in told(load)),
    )
    requests = finish(load)
    finish(watch)
    lost = [request for request in requests if not request["ok"]]
    before = [r for r in lost if died_at <= r["at"] < zero_at or r["at"] < died_at < _end(r)]
    report.fact("failed_before_failover", len(before))
    report.count([request for request in requests if request not in before])
    after = [request for request in lost if request not in before]
    report.say(f"{len(requests)} requests: {len(before)} failed before the weight was 0, {len(after)} after")
    claim(not after, f"{len(after)} requests failed that were started after the failover, the first: {after[:1]}")


def crash(scene: Scene, report: Report, targets: Sequence[tuple[str, str, str]] = TARGETS) -> None:
    """Step 4: the director dies and traffic goes on; it returns and changes nothing."""
    before = scene.director.run("ipvsadm", "-Sn").check().stdout
    watch = scene.watch(LONG_S)
    load = scene.traffic(LONG_S, 0.01, *targets)
    wait_until("traffic flows", lambda: len(told(load)) > 10)
    wait_until("the watch has seen the table", lambda: told(watch))
    killed_at = scene.kill("director")
    report.say("the director was killed (SIGKILL)")
    answered = len(told(load))
    wait_until("traffic goes on without a director", lambda: len(told(load)) > answered + 20)
    alone = [r for r in told(load) if r["at"] > killed_at]
    claim(all(r["ok"] for r in alone), "requests failed while the director was dead")
    report.say(f"{len(alone)} requests were answered while it was dead")
    process = scene.start_director()
    servers = sum(len(virtual["real_servers"]) for virtual in scene.wait_for_status()["virtual_servers"])
    wait_until("its verdicts are in", lambda: process.output().count("real server is up") == servers)
    answered = len(told(load))
    wait_until("traffic goes on with the new one", lambda: len(told(load)) > answered + 20)
    claim(watch.alive(), f"the watch on the kernel has ended: {watch.output()[-500:]}")
    changes = [change for change in finish(watch) if change["at"] > killed_at]
    requests = finish(load)
    report.count(requests)
    failed = [request for request in requests if not request["ok"]]
    claim(not failed, f"{len(failed)} of {len(requests)} requests failed, the first: {failed[:1]}")
    after = scene.director.run("ipvsadm", "-Sn").check().stdout
    claim(before == after, f"the table differs after the restart:\n{before}\n{after}")
    claim(not changes, f"the restarted director changed something: {changes}")
    report.fact("changes_after_restart", len(changes))
    report.say(f"it was started again, adopted the table and changed nothing; {len(requests)} requests, none failed")


def _moment(changes: list[dict[str, Any]], real: str, weight: int, after: float) -> float:
    moments = [c["at"] for c in changes if c["real"] == real and c["weight"] == weight and c["at"] > after]
    claim(moments, f"no change of {real} to weight {weight} was seen in the kernel")
    return float(moments[0])


def _end(request: dict[str, Any]) -> float:
    return float(request["at"]) + float(request["took_s"])
