"""Probes through the forwarding path on a director: `python via_vip.py STEP...`, each step a line of JSON.

Steps: `with` and `without` apply a configuration that has such probes, or has none, `down` an empty one; `again` plans
the one with them; `probe` runs its TCP checks; `open` is what an operator may have done; `doctor` looks at the host as
it was applied last; `export` writes the table; `look` is what the system's own tools say.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from director.cli import alone
from director.core.config import parse_config
from director.core.export import export
from director.core.model import Config, RealServer, VirtualServer
from director.core.steering import with_marks, without
from director.core.table import Protocol
from director.kit import statefile
from director.kit.checks.base import Route
from director.kit.checks.check import Check, leaves
from director.kit.checks.tcp import TcpProbe
from director.kit.checks.udp import UdpProbe
from director.kit.probes.run import run_check

TEXT = """
dead_connections: expire
virtual_servers:
  web:
    {address: 10.9.0.100, port: 80, forward: dr, interface: lan, scheduler: rr,
     real_servers: {a: {address: 10.9.0.21}, b: {address: 10.9.0.22}}}
  web6:
    {address: "fd09::100", port: 80, forward: dr, interface: lan, scheduler: rr,
     real_servers: {a: {address: "fd09::21"}, b: {address: "fd09::22"}}}
  tun:
    {address: 10.9.0.101, port: 80, forward: tun, interface: lan, scheduler: rr,
     real_servers: {a: {address: 10.9.0.21}, b: {address: 10.9.0.22}}}
  tun6:
    {address: "fd09::101", port: 80, forward: tun, interface: lan, scheduler: rr,
     real_servers: {a: {address: "fd09::21"}, b: {address: "fd09::22"}}}
  names:
    {address: 10.9.0.102, port: 80, protocol: udp, forward: dr, interface: away,
     real_servers: {a: {address: 10.9.0.21}, b: {address: 10.9.0.22}}}
"""
INTERFACES = ("all", "lan", "inside", "away")
SETTINGS = [f"net.ipv4.conf.{each}.{setting}" for each in INTERFACES for setting in ("accept_local", "rp_filter")]


def through_the_vip() -> Config:
    config = parse_config(TEXT.replace("scheduler: rr", "scheduler: rr, check: {type: tcp, via: vip}"), "file")
    virtuals = tuple(
        replace(virtual, real_servers=tuple(_asked(virtual, real) for real in virtual.real_servers))
        for virtual in config.virtual_servers
    )
    return with_marks(replace(config, virtual_servers=virtuals))


def _asked(virtual: VirtualServer, real: RealServer) -> RealServer:
    """`real` with a probe that sends datagrams, where it is a UDP server: only that it is none of TCP matters here."""
    key = virtual.keys[0]
    if key.protocol is not Protocol.UDP or key.endpoint is None:
        return real
    return replace(real, check=Check(key.endpoint, UdpProbe(b"?"), route=Route(real=real.address)))


def apply(config: Config) -> Any:
    return alone.apply(config, TEXT, "file", statefile.DIRECTORY, None, lambda who, left_s: None)["steps"]


def doctor(config: Config) -> list[str]:
    from director.doctor.checkup import checkup
    from director.doctor.gather import Role
    from director.doctor.situation import of_config

    found = checkup(of_config(config, "file"), Role.DIRECTOR, 0.5).findings
    return [f"{each.code.value} {each.subject}" for each in found]


async def probed(config: Config) -> dict[str, bool]:
    found = {}
    for virtual in config.virtual_servers:
        for real in virtual.real_servers:
            for check in leaves(real.check):
                if isinstance(check.probe, TcpProbe):
                    found[str(virtual.ref(real))] = (await run_check(check)).ok
    return found


def exported() -> str:
    from director.ipvs.client import IpvsClient
    from director.memory import Memory

    with IpvsClient.open() as kernel:
        table = kernel.survey().table
    return export(without(table, Memory(statefile.DIRECTORY).load().virtual_servers)).text()


def look() -> dict[str, list[str]]:
    looks = {
        "table": ("ipvsadm", "-Sn"),
        "settings": ("sysctl", *SETTINGS),
        "rules": ("iptables-legacy-save",),
        "rules6": ("ip6tables-legacy-save",),
    }
    found = {
        name: subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
        for name, words in looks.items()
    }
    rules = {name: [line for line in found[name] if "LVS-" in line] for name in ("rules", "rules6")}
    return {**found, **rules, "table": sorted(found["table"])}


def main() -> None:
    config, plain = through_the_vip(), parse_config(TEXT, "file")
    marks = {each.name: each.mark for each in config.steerings}
    applied = plain
    for step in sys.argv[1:]:
        said: Any = None
        match step:
            case "with":
                applied = config
                said = {"marks": marks, "steps": apply(config)}
            case "without":
                applied = plain
                said = apply(plain)
            case "down":
                said = apply(Config())
            case "probe":
                said = asyncio.run(probed(config))
            case "open":
                subprocess.run(("sysctl", "-qw", "net.ipv4.conf.lan.accept_local=1"), check=True)
            case "again":
                said = alone.plan(config, statefile.DIRECTORY)["steps"]
            case "doctor":
                said = doctor(applied)
            case "export":
                said = exported()
            case "look":
                said = look()
        print(json.dumps(said))  # noqa: T201


if __name__ == "__main__":
    main()
