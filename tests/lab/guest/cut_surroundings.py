"""An apply that dies after every write around the table (a setting, a chain, a file of its own), and after every batch
of messages to IPVS; and what comes after: prints JSON, or a traceback.

One rule: what is compared is what the system's own tools say, not what was asked for.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from director.cli import alone
from director.core.config import parse_config
from director.host import iptables
from director.ipvs.client import IpvsClient
from director.kit import statefile

EMPTY = "virtual_servers: {}\n"
OLD = """
virtual_servers:
  web: {address: 10.9.0.191, port: 80, forward: dr, interface: lan, real_servers: {a: {address: 10.9.0.21}}}
"""
NEW = """
dead_connections: expire
timeouts: {tcp: 10m}
virtual_servers:
  full: {address: 10.9.0.192, port: 80, forward: fullnat, interface: lan, real_servers: {a: {address: 10.9.1.11}}}
  marked:
    fwmark: 7
    traffic: [{address: 10.9.0.193, port: [80, 443]}]
    forward: nat
    real_servers: {a: {address: 10.9.1.11}}
"""
SETTINGS = ("ip_forward", "vs.conntrack", "vs.expire_nodest_conn", "conf.all.send_redirects")
State = dict[str, list[str]]


class _DeathError(BaseException):
    """The process ends here."""


class Lives:
    """How many writes are left."""

    left = 10**9

    def counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **more: Any) -> Any:
            done = write(*arguments, **more)
            self.left -= 1
            if self.left == 0:
                raise _DeathError
            return done

        return counting


def reading_once(backend: type[iptables.Backend]) -> None:
    """Have rules read anew only after they were written: nobody else is here, and a look costs 45 ms."""
    save, restore, seen = backend.save, backend.restore, dict[tuple[iptables.Backend, str], str]()

    def saving(self: iptables.Backend, table: str) -> str:
        if (self, table) not in seen:
            seen[self, table] = save(self, table)
        return seen[self, table]

    def restoring(self: iptables.Backend, text: str) -> None:
        seen.clear()
        restore(self, text)

    backend.save, backend.restore = saving, restoring  # type: ignore[method-assign]


def state() -> State:
    looks = {
        "table": ("ipvsadm", "-Sn"),
        "timeouts": ("ipvsadm", "-L", "--timeout"),
        "settings": ("sysctl", *(f"net.ipv4.{name}" for name in SETTINGS)),
        "addresses": ("ip", "-o", "-4", "address", "show", "dev", "lan"),
        "nat": ("iptables-legacy-save", "-t", "nat"),
        "mangle": ("iptables-legacy-save", "-t", "mangle"),
    }
    found = {
        name: subprocess.run(look, check=True, capture_output=True, text=True).stdout.splitlines()
        for name, look in looks.items()
    }
    rules = {name: [line for line in found[name] if "LVS-" in line] for name in ("nat", "mangle")}
    return {**found, **rules, "table": sorted(found["table"])}


def differences(found: State, wanted: State) -> State:
    return {name: [*found[name], "instead of", *wanted[name]] for name in found if found[name] != wanted[name]}


def main() -> None:
    lives = Lives()
    # The kind that works in this kernel, alone: each process would ask the other kind first, in vain. Which kind is
    # used is the firewall's trial.
    iptables.backends = lambda version: (iptables.Backend("legacy", version, f"{iptables.STEMS[version]}-legacy"),)
    # A setting is written by Path.write_text; the director's own files are not.
    pathlib.Path.write_text = lives.counted(pathlib.Path.write_text)  # type: ignore[method-assign]
    reading_once(iptables.Backend)
    iptables.Backend.restore = lives.counted(iptables.Backend.restore)  # type: ignore[method-assign]
    statefile.save = lives.counted(statefile.save)
    statefile.remove = lives.counted(statefile.remove)
    IpvsClient.write = lives.counted(IpvsClient.write)  # type: ignore[method-assign]
    deaths = 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def apply(text: str) -> State:
            alone.apply(parse_config(text, "file"), text, "file", directory, None, lambda who, left_s: None)
            return state()

        subprocess.run(("ipvsadm", "-C"), check=True)
        subprocess.run(("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv4.conf.all.send_redirects=1"), check=True)
        empty, before, goal = apply(EMPTY), apply(OLD), apply(NEW)
        assert apply(OLD) == before
        for number in range(1, 80, 3):
            lives.left, died = number, False
            try:
                apply(NEW)
            except _DeathError:
                died = True
            lives.left = 10**9
            if died and number % 2 and (directory / "journal.json").exists():
                alone.undo(directory)
                assert state() == before, (number, differences(state(), before))
            else:
                assert apply(NEW) == goal, number
                assert apply(OLD) == before, number
            deaths += died
            if not died:
                break
        assert apply(EMPTY) == empty
    sys.stdout.write(json.dumps({"deaths": deaths}) + "\n")


if __name__ == "__main__":
    main()
