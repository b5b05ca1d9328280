"""A director and its real servers in health, and ways to break them one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from director.doctor.finding import Code
from director.lab.demo.scene import CONFIG
from director.lab.hosts import Lab, LabHost

FILE = """
dead_connections: expire
defaults: {interface: lan}
virtual_servers:
  web:
    address: 10.9.0.100
    port: 80
    forward: dr
    real_servers:
      a: {address: 10.9.0.21}
      b: {address: 10.9.0.22}
  web6:
    address: fd09::100
    port: 80
    forward: dr
    real_servers:
      a: {address: "fd09::21"}
      b: {address: "fd09::22"}
  shop:
    address: 10.9.0.101
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.9.1.11}
      b: {address: 10.9.1.12}
  shop6:
    address: fd09::101
    port: 80
    forward: nat
    real_servers:
      a: {address: "fd09:1::11"}
"""

REALSERVER = """
sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip addr add 10.9.0.100/32 dev lo
ip addr add fd09::100/128 dev lo nodad
"""


@dataclass(frozen=True)
class Case:
    """One way to break a host: what the doctor must say then and nothing else, and how it is mended.

    `more` is what tests/lab/guest/doctor_cases.py takes besides; `served` whether clients are, where `tries` tries it.
    """

    name: str
    codes: tuple[Code, ...]
    breaks: str = ""
    mends: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    served: bool | None = None

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "breaks": self.breaks, "mends": self.mends, **self.more}


def sysctl(name: str, broken: int, whole: int, on: str = "") -> tuple[str, str]:
    """A setting made wrong and right again, on this host or another."""
    path = f"/proc/sys/{name.replace('.', '/')}"
    first, last = (f"echo {value} > {path}" for value in (broken, whole))
    return (f"nsenter -n -t ${on} sh -c '{first}'", f"nsenter -n -t ${on} sh -c '{last}'") if on else (first, last)


def rules(*words: str) -> tuple[str, str]:
    """Rules of iptables appended, and deleted."""
    return tuple("".join(f"iptables-legacy {verb} {each}; " for each in words) for verb in ("-A", "-D"))  # type: ignore[return-value]


def address(text: str, link: str, on: str = "") -> tuple[str, str]:
    """An address added to a link, of this host or another, and taken off."""
    at = f"nsenter -n -t ${on} " if on else ""
    return f"{at}ip addr add {text} dev {link}", f"{at}ip addr del {text} dev {link}"


def undone(ways: tuple[str, str]) -> tuple[str, str]:
    """What is there in health, taken away and put back."""
    return ways[1], ways[0]


def both(first: tuple[str, str], second: tuple[str, str]) -> tuple[str, str]:
    """Two ways at once."""
    return f"{first[0]}; {second[0]}", f"{first[1]}; {second[1]}"


def in_health(lab: Lab) -> dict[str, str]:
    """Make the lab's hosts serve FILE; a process on each host, by whose number another gets into its namespace."""
    for name in ("l7proxy-1", "l7proxy-2"):
        lab.host(name).run("bash", "-ec", REALSERVER).check()
    director = lab.host("director")
    director.write(CONFIG, FILE)
    director.run("director", "apply", CONFIG).check()
    settings = ["net.ipv4.vs.expire_nodest_conn=1", "net.ipv6.conf.lan.accept_ra=2", "net.ipv6.conf.inside.accept_ra=2"]
    director.run("sysctl", "-qw", *settings).check()
    return {host.name.replace("-", "_"): str(host.start("sleep", "1000").pid) for host in lab.hosts()}


def try_all(
    host: LabHost, cases: list[Case], pids: dict[str, str], file: str = FILE, *, besides: frozenset[str] = frozenset()
) -> None:
    """Break and mend a host case by case: each must be found, and nothing else but the codes `besides`."""
    host.write("/etc/director/cases.yaml", file)
    text = json.dumps({"processes": pids, "cases": [case.plain() for case in cases]})
    words = ["python", "-m", "tests.lab.guest.doctor_cases", "/etc/director/cases.yaml"]
    done = host.run(*words, stdin=text, timeout_s=90, fresh=False)
    said: dict[str, dict[str, Any]] = json.loads(done.check().stdout)
    print(json.dumps(said, indent=1))  # noqa: T201 -- pytest shows it with -rP or on failure
    found = {
        name: (sorted({line.split()[1] for line in each["found"]} - besides), each["served"])
        for name, each in said.items()
    }
    assert found == {case.name: (sorted(code.value for code in case.codes), case.served) for case in cases}
