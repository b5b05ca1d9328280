"""Puts the product on the lab's hosts: web servers, l7proxy, real-server set-up, director.

One rule: everything is started as its operator would start it, by its command and its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from director.lab import waiting
from director.lab.errors import LabError
from director.lab.hosts import Lab, LabHost, Process

CONFIG = "/etc/director/director.yaml"
FILES = resources.files("director.lab.demo")


class NotReachedError(LabError):
    """Something that had to become true did not, in time."""


def wait_until(what: str, holds: Callable[[], object], timeout_s: float = 20.0, pause_s: float = 0.05) -> None:
    """Return once `holds()` is true. Raises: NotReachedError."""
    if not waiting.wait_until(lambda: bool(holds()), timeout_s, pause_s):
        raise NotReachedError(f"{what}: not within {timeout_s:g} s")


@dataclass
class Scene:
    """The running pieces, by the host's name."""

    lab: Lab
    running: dict[str, Process] = field(default_factory=dict)

    @property
    def director(self) -> LabHost:
        return self.lab.host("director")

    @property
    def client(self) -> LabHost:
        return self.lab.host("client")

    def start_backends(self) -> None:
        """nginx on every backend; each answers with its name and what it was asked."""
        text = FILES.joinpath("nginx.conf").read_text()
        for host in self.lab.hosts("backend"):
            host.write("/etc/nginx/lab.conf", text.replace("NAME", host.name))
            self.running[host.name] = host.start("nginx", "-c", "/etc/nginx/lab.conf", name=f"nginx on {host.name}")

    def start_proxies(self, config: str | None = None) -> None:
        """l7proxy on every l7proxy host, from one file."""
        text = config or FILES.joinpath("l7proxy.yaml").read_text()
        for host in self.lab.hosts("l7proxy"):
            host.write("/etc/l7proxy/l7proxy.yaml", text)
            self.start_proxy(host.name)

    def start_proxy(self, name: str) -> None:
        host = self.lab.host(name)
        self.running[name] = host.start("l7proxy", "run", "/etc/l7proxy/l7proxy.yaml", name=f"l7proxy on {name}")

    def prepare_real_servers(self) -> str:
        """`director realserver apply` on every l7proxy host; what the first one said."""
        said = []
        for host in self.lab.hosts("l7proxy"):
            host.write(CONFIG, self.director.read(CONFIG))
            said.append(host.run("director", "realserver", "apply", CONFIG).check().stdout)
        return said[0]

    def write_config(self, text: str | None = None) -> None:
        self.director.write(CONFIG, text or FILES.joinpath("director.yaml").read_text())

    def start_director(self, *, fresh: bool = True) -> Process:
        """`director run`, from the file that `write_config` wrote; not fresh, it begins a second or two sooner."""
        self.running["director"] = self.director.start("director", "run", CONFIG, name="director", fresh=fresh)
        return self.running["director"]

    def wait_for_vip(self, address: str, timeout_s: float = 30.0) -> None:
        """The director's host holds `address`: its virtual servers' first verdicts are in."""

        def held() -> bool:
            self.check_alive("director")
            return f" {address}/" in self.director.run("ip", "-o", "addr").check().stdout

        wait_until(f"the VIP {address} is up", held, timeout_s)

    def check_alive(self, name: str) -> None:
        """Raises: NotReachedError with its last words, when it has ended."""
        process = self.running[name]
        if not process.alive():
            raise NotReachedError(f"{process.name} has ended:\n{process.output()[-3000:]}")

    def weights(self) -> dict[str, int]:
        """Real servers' weights by address:port, as ipvsadm sees them."""
        found: dict[str, int] = {}
        for line in self.director.run("ipvsadm", "-Sn").check().stdout.splitlines():
            words = line.split()
            if words[:1] == ["-a"]:
                found[words[words.index("-r") + 1]] = int(words[words.index("-w") + 1])
        return found

    def wait_for_weights(self, expected: Mapping[str, int], timeout_s: float = 20.0) -> None:
        wait_until(f"weights {dict(expected)}", lambda: expected.items() <= self.weights().items(), timeout_s)

    def status(self) -> dict[str, Any]:
        """`director status --json`."""
        found: dict[str, Any] = json.loads(self.director.run("director", "status", "--json").check().stdout)
        return found

    def wait_for_status(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """`status`, once the director answers."""
        wait_until("the director answers", lambda: self.director.run("director", "status").exit_code == 0, timeout_s)
        return self.status()

    def kill(self, name: str) -> float:
        """SIGKILL the piece that runs on host `name`, and its monotonic moment there."""
        script = "import os,sys,time; at=time.monotonic(); os.kill(int(sys.argv[1]),9); print(at)"
        process = self.running.pop(name)
        at = self.lab.host(name).run("python", "-S", "-c", script, str(process.pid)).check().stdout
        process.wait(10.0)
        return float(at)

    def traffic(self, seconds: float, pause_s: float, *targets: tuple[str, str, str]) -> Process:
        """Requests from the client for `seconds`, to each (address, host, path) in turn."""
        words = [word for target in targets for word in target]
        script = str(FILES.joinpath("traffic.py"))
        return self.client.start("python", "-S", script, str(seconds), str(pause_s), *words, name="traffic")

    def watch(self, seconds: float) -> Process:
        """Every change of a weight in the kernel, for `seconds`, seen from outside the daemon."""
        return self.director.start("python", str(FILES.joinpath("watch.py")), str(seconds), name="watch")


def told(process: Process) -> list[dict[str, Any]]:
    """The JSON lines that a script of the lab has written so far."""
    lines = process.output().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]


def finish(process: Process) -> list[dict[str, Any]]:
    """End a script of the lab that goes on until told, and what it has told."""
    process.kill()
    process.wait(10.0)
    return told(process)
