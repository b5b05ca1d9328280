"""An apply that dies after every message to a real kernel, and what comes after: prints JSON, or a traceback.

One rule: each life begins with the same table, and is compared with what the kernel says, not with what was asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import Change
from director.core.model import Config
from director.core.table import Reading, Table, TableCounters
from director.core.vip import Vip
from director.host import addresses
from director.ipvs.client import IpvsClient
from director.ipvs.failure import Failure
from director.journal import Journal
from director.memory import Memory, Owned
from director.once import Once, inputs_once, undo
from director.reconcile import Reconciler
from director.terms import Inputs

OLD = """
virtual_servers:
  web:
    address: 10.9.0.191
    port: 80
    forward: nat
    scheduler: rr
    interface: lan
    real_servers:
      a: {address: 10.9.1.11}
      b: {address: 10.9.1.12, weight: 7}
  tls: {address: 10.9.0.192, port: 443, forward: dr, real_servers: {a: {address: 10.9.0.21}}}
"""
NEW = """
timeouts: {tcp: 10m, tcpfin: 1m, udp: 2m}
virtual_servers:
  web:
    address: 10.9.0.191
    port: 80
    forward: dr
    scheduler: mh
    interface: lan
    real_servers:
      a: {address: 10.9.1.11, port: 80, weight: 50}
      d: {address: 10.9.1.13, port: 80}
  dns: {address: 10.9.0.193, port: 53, protocol: udp, forward: nat, real_servers: {a: {address: 10.9.1.11}}}
"""
FOREIGN = "-A -t 10.9.0.199:99 -s rr"
CONFIGS = {"old": parse_config(OLD, "old"), "new": parse_config(NEW, "new")}


class _DeathError(BaseException):
    """The process ends here."""


@dataclass
class MortalKernel:
    """The kernel, for a process that dies after `lives` messages."""

    client: IpvsClient
    lives: int = 10**9

    def read(self) -> tuple[Table, TableCounters]:
        return self.client.read()

    def survey(self) -> Reading:
        return self.client.survey()

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        failures = self.client.write(changes[: self.lives])
        self.count(len(changes))
        return failures

    def present(self, vips: Iterable[Vip]) -> frozenset[Vip]:
        return addresses.present(vips)

    def missing(self, vips: Iterable[Vip]) -> dict[Vip, str]:
        return addresses.missing(vips)

    def add(self, vip: Vip) -> bool:
        done = addresses.add(vip)
        self.count(1)
        return done

    def remove(self, vip: Vip) -> bool:
        done = addresses.remove(vip)
        self.count(1)
        return done

    def count(self, messages: int) -> None:
        self.lives -= messages
        if self.lives <= 0:
            raise _DeathError


class Host:
    """What is on disk and in the kernel, and processes that know nothing else."""

    def __init__(self, client: IpvsClient, directory: Path) -> None:
        self.kernel, self.directory = MortalKernel(client), directory

    def begin(self) -> None:
        self.kernel.lives = 10**9
        self.journal = Journal(self.directory)
        self.reconciler = Reconciler(self.kernel, self.kernel, Memory(self.directory))

    def apply(self, name: str) -> None:
        left, table = self.journal.load(), self.reconciler.read_table()
        inputs = inputs_once(CONFIGS[name], left.before.over(table) if left else table, {})
        once = Once(self.reconciler, self.journal, inputs, name, {"old": OLD, "new": NEW}[name])
        once.change()
        once.remove()

    def undo(self) -> None:
        left = self.journal.load()
        if left is not None:
            undone = undo(self.reconciler, self.journal, left, Inputs(CONFIGS["new"]))
            assert (undone.failures, undone.waiting) == ((), ()), undone

    def seen(self) -> tuple[Table, frozenset[Vip], Owned]:
        vips = addresses.present({*CONFIGS["old"].vips(), *CONFIGS["new"].vips()})
        return self.kernel.read()[0], vips, Memory(self.directory).load()

    def agrees(self, config: Config) -> bool:
        wanted = desired_table(config, Inputs(config).weights())
        found = {key: entry for key, entry in self.kernel.read()[0].entries.items() if key.endpoint.port != 99}  # type: ignore[union-attr] # no marks here
        return found == wanted.entries


def main() -> None:
    deaths, begun_at = 0, time.monotonic()
    with IpvsClient.open() as client, tempfile.TemporaryDirectory() as directory:
        host = Host(client, Path(directory))
        subprocess.run(("ipvsadm", "-C"), check=True)
        subprocess.run(("ipvsadm", *FOREIGN.split()), check=True)
        host.begin()
        host.apply("old")
        before = host.seen()
        for lives in range(1, 100):
            host.kernel.lives = lives
            died = False
            try:
                host.apply("new")
            except _DeathError:
                died = True
            host.begin()
            if lives % 2:  # undone after every second death, applied again after the others: all of both on the fake
                host.undo()
                if died:
                    assert host.seen() == before, (lives, host.seen(), before)
            host.apply("new")
            assert host.agrees(CONFIGS["new"]), lives
            host.apply("old")
            assert host.agrees(CONFIGS["old"]), lives
            before = host.seen()  # timeouts stay as the new file had them: the old one leaves them alone
            deaths += died
            if not died:
                break
        left = subprocess.run(("ipvsadm", "-Sn"), check=True, capture_output=True, text=True).stdout
        assert FOREIGN in left
        subprocess.run(("ipvsadm", "-C"), check=True)
        subprocess.run(("ip", "address", "flush", "dev", "lan", "to", "10.9.0.191/32"), check=True)
        assert not (Path(directory) / "journal.json").exists()
    sys.stdout.write(json.dumps({"deaths": deaths, "seconds": round(time.monotonic() - begun_at, 1)}) + "\n")


if __name__ == "__main__":
    main()
