"""What the scenes measure: the client's requests, and the kernel's packet counters."""

from __future__ import annotations

from importlib import resources
from typing import Any

from director.lab.demo.claims import claim
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene, told, wait_until

SECONDS = 2.0


def served(scene: Scene, report: Report, address: str, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Requests of the client to `address`, each over a connection of its own, all of which must succeed."""
    load = scene.traffic(seconds, 0.01, (address, "shop.example.org", "/"))
    load.wait(seconds + 30.0)
    requests = told(load)
    report.count(requests)
    failed = [request for request in requests if not request["ok"]]
    claim(requests and not failed, f"{len(failed)} of {len(requests)} requests failed, the first: {failed[:1]}")
    report.say(f"the client made {len(requests)} requests in {seconds:g} s; all were answered")
    report.served(requests)
    return requests


def packets(scene: Scene, address: str) -> tuple[int, int]:
    """Packets towards real servers and back at a VIP. The kernel brings these counters up to date every 2 s."""
    for line in scene.director.run("ipvsadm", "-Ln", "--stats", "--exact").check().stdout.splitlines():
        words = line.split()
        if words[1:2] == [f"{address}:80"]:
            return int(words[3]), int(words[4])
    return 0, 0


def counted(scene: Scene, address: str) -> tuple[int, int]:
    """`packets`, once the kernel has counted any."""
    wait_until("the kernel has counted packets", lambda: packets(scene, address)[0] > 0)
    return packets(scene, address)


def file_of(name: str) -> str:
    """A configuration of the scenes."""
    return resources.files("director.lab.scenes").joinpath(name).read_text()
