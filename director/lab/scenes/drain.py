"""Scene drain: a web server is taken out of service, and a download that it serves goes on to its end."""

from __future__ import annotations

import re
from typing import Any

from director.lab.demo.claims import claim
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene, wait_until
from director.lab.hosts import Process
from director.lab.scenes.measuring import file_of, served
from director.lab.scenes.nat import VIP

FILM_BYTES = 1_000_000
"""At the 100 KB/s of nginx.conf this takes 10 s."""
SERVERS = {"10.9.1.11:8080": "web-1", "10.9.1.12:8080": "web-2"}


class Download:
    """One long download by the client, and the web server that serves it."""

    def __init__(self, scene: Scene, report: Report) -> None:
        said = "%{http_code}, %{size_download} bytes, %{time_total} s\\n"
        line = f"curl -sS -o /dev/null -w '{said}' http://{VIP}/film"
        report.shell("client", f"{line} &", "")
        self.process: Process = scene.client.start("sh", "-c", line, name="the download")
        wait_until("the download has begun", lambda: self._server(scene))
        self.server = SERVERS[self._server(scene)]

    @staticmethod
    def _server(scene: Scene) -> str:
        """The real server of the established connection, as the kernel has it."""
        listed = scene.director.run("ipvsadm", "-Lnc").check().stdout
        found = re.search(r"ESTABLISHED .* (\S+)$", listed, re.MULTILINE)
        return found[1] if found else ""


def stand(scene: Scene, report: Report) -> None:
    report.explain(
        """A web server needs a new kernel, and somebody is in the middle of a download from it. To drain a real
        server is to give it weight 0: the kernel sends it no new connections, and those that it has go on."""
    )
    scene.start_backends()
    for host in scene.lab.hosts("backend"):
        host.write("/tmp/film", bytes(FILM_BYTES))  # noqa: S108 - the lab host's own
    scene.write_config(file_of("nat.yaml"))
    scene.start_director(fresh=False)
    scene.wait_for_vip(VIP)
    scene.wait_for_weights(dict.fromkeys(SERVERS, 100))


def drain(scene: Scene, report: Report) -> None:
    download = Download(scene, report)
    server = download.server
    other = next(name for name in SERVERS.values() if name != server)
    report.say(f"the kernel has given the download to {server}")
    types(scene, report, "director", f"director drain plain {server}")
    requests = served(scene, report, VIP, 1.5)
    claim({each["server"] for each in requests} == {other}, f"only {other} may have answered: {requests[-1:]}")
    report.explain(
        f"""All new requests went to {other}. Yet {server} still has 1 active connection, at weight 0: the download.
        `director status` is how you know when you may switch it off."""
    )
    types(scene, report, "director", "director status")
    claim(download.process.alive(), "the download must still run: it was meant to take longer")
    claim(_active(scene, server) == 1, f"{server} must have one active connection")
    code = download.process.wait(40.0)
    said = download.process.output().strip()
    report.shell("client", "# the download has ended", said)
    report.count([{"ok": code == 0}])
    claim(code == 0 and said.startswith(f"200, {FILM_BYTES} bytes"), f"the download must be whole, not: {said}")
    wait_until(f"{server} has no active connection", lambda: _active(scene, server) == 0)
    report.say(f"the download is whole, and {server} has no active connection left: it may be switched off")
    report.fact("drained", server)


def enable(scene: Scene, report: Report) -> None:
    server = next(name for name, real in _reals(scene).items() if real["kernel_weight"] == 0)
    report.explain(
        f"The work is done. enable takes back what was wanted of {server}; its probe has gone on all the time."
    )
    types(scene, report, "director", f"director enable plain {server}")
    requests = served(scene, report, VIP, 1.5)
    claim({each["server"] for each in requests} == set(SERVERS.values()), "both web servers must answer again")
    types(scene, report, "director", "director events --vs plain")


def _active(scene: Scene, server: str) -> int:
    return int(_reals(scene)[server]["active"])


def _reals(scene: Scene) -> dict[str, dict[str, Any]]:
    (plain,) = scene.status()["virtual_servers"]
    return {real["name"]: real for real in plain["real_servers"]}


STEPS = (
    ("two web servers serve", stand),
    ("one is drained while it serves a download", drain),
    ("it comes back", enable),
)
