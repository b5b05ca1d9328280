"""The booted machine as its operator works on it: backends and a client around it, playbooks, what is lost meanwhile.

One rule: what is installed comes from a release's wheels by the project's own roles, never from the checkout.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from director.lab.demo.scene import FILES, finish, wait_until
from director.lab.hosts import Lab, LabHost, Process, Result

PROJECT = "/run/lab/project"
VIP = "10.8.0.100"
BACKENDS = {"web-1": "10.8.1.11:8080", "web-2": "10.8.1.12:8080"}
_COLLECTIONS = "/root/.ansible/collections/ansible_collections/lvs"
_RECAP = re.compile(r"^localhost +: (.*)$", re.MULTILINE)
_CHANGED = re.compile(r"^TASK \[(.*?)\].*\n(?:(?!TASK ).*\n)*?changed: ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Played:
    """What a playbook did: how many tasks ended how, and which of them changed something."""

    result: Result
    counts: Mapping[str, int]
    changed: tuple[str, ...]

    def check(self) -> Played:
        """Itself, if it went well.

        Raises: CommandError, with all it has said.
        """
        self.result.check()
        return self


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a client's requests: by server, and those that were lost."""

    by_server: Counter[str]
    lost: tuple[Mapping[str, Any], ...]
    slowest_s: float


class Stage:
    """The machine and who stands around it."""

    def __init__(self, around: Lab) -> None:
        self.around = around
        self.machine = around.host("machine")
        self.client = around.host("client")
        text = FILES.joinpath("nginx.conf").read_text()
        for host in around.hosts("backend"):
            host.write("/etc/nginx/lab.conf", text.replace("NAME", host.name))
            host.start("nginx", "-c", "/etc/nginx/lab.conf", name=f"nginx on {host.name}")
        self.shell(f"mkdir -p {_COLLECTIONS}; ln -sfn {PROJECT}/deploy/ansible {_COLLECTIONS}/director")

    def shell(self, script: str, timeout_s: float = 30.0) -> str:
        """What a script of the shell says, on the machine. Raises: CommandError."""
        return self.machine.run("bash", "-euc", script, timeout_s=timeout_s).check().stdout

    def play(self, *roles: str, check: bool = False, limit_s: float = 600.0, **variables: Any) -> Played:
        """Apply roles of the collection to the machine, as root on it would."""
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "/usr/bin/python3", **variables},
            "roles": [f"lvs.director.{role}" for role in roles],
        }
        self.machine.write("/root/play.yml", json.dumps([play]))
        return self.playbook("/root/play.yml", check=check, limit_s=limit_s)

    def playbook(
        self, path: str, inventory: str = "localhost,", *, check: bool = False, limit_s: float = 600.0
    ) -> Played:
        """Run a playbook that is on the machine."""
        command = ["ansible-playbook", "-i", inventory, path, *(["--check"] if check else [])]
        env = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_DEPRECATION_WARNINGS": "0", "ANSIBLE_NOCOLOR": "1"}
        result = self.machine.run(*command, timeout_s=limit_s, env=env)
        recap = _RECAP.search(result.stdout)
        pairs = [pair.partition("=") for pair in recap[1].split()] if recap else []
        counts = {name: int(value) for name, _, value in pairs}
        return Played(result, counts, tuple(_CHANGED.findall(result.stdout)))

    def weights(self) -> dict[str, int]:
        """Weights of the VIP's real servers by address:port, as the kernel has them."""
        found = {}
        for line in self.machine.run("ipvsadm", "-Sn").check().stdout.splitlines():
            words = line.split()
            if words[:1] == ["-a"]:
                found[words[words.index("-r") + 1]] = int(words[words.index("-w") + 1])
        return found

    def wait_for(self, what: str, script: str, timeout_s: float = 20.0) -> None:
        """Until a script of the shell ends well on the machine. Raises: NotReachedError."""
        wait_until(what, lambda: self.machine.run("bash", "-euc", script).exit_code == 0, timeout_s, 0.2)

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self.shell(f"systemctl show --value -p {name} {unit}").strip()

    def traffic(self, pause_s: float = 0.1, address: str = VIP, path: str = "/") -> Process:
        """Requests from the client, one after another, each by a connection of its own, until `stop` is called.

        It waits a minute for each: what comes late is told by `Sent.slowest_s`.
        """
        script = f"{PROJECT}/tests/deploy/guest/patient.py"
        return self.client.start("python3", "-SE", script, "3600", str(pause_s), address, "a", path, name="traffic")

    @staticmethod
    def stop(traffic: Process) -> Sent:
        """End a client, and what became of its requests."""
        told = finish(traffic)
        lost = tuple(each for each in told if not each["ok"])
        served = Counter(str(each["server"]) for each in told if each["ok"])
        return Sent(served, lost, max((float(each["took_s"]) for each in told), default=0.0))

    def ask(self, seconds: float = 2.0, pause_s: float = 0.05, address: str = VIP) -> Sent:
        """`seconds` of requests from the client."""
        traffic = self.traffic(pause_s, address)
        wait_until("the client is served", lambda: traffic.output().count("\n") > seconds / 0.1, 30.0)
        return self.stop(traffic)


def journal(host: LabHost, *units: str, priority: str = "warning") -> str:
    """What units have logged that is at least so urgent; without a date."""
    named = [word for unit in units for word in ("-u", unit)]
    return host.run("journalctl", "-q", "--no-pager", "-o", "cat", "-p", priority, *named).check().stdout
