"""A reconciler on a fake kernel, and the file that it is given."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.model import Config
from director.core.table import Table, VirtualKey
from director.core.vip import Vip
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.memory import Memory, Owned
from director.reconcile import Reconciler
from director.terms import Inputs, Outcome
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses

FILE = """
defaults: {check: {type: tcp}, interface: eth0}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
  tls:
    address: 192.0.2.11
    port: 443
    forward: dr
    real_servers:
      a: {address: 10.0.0.1}
"""
CONFIG = parse_config(FILE, "f")
WEB_ONLY = parse_config(FILE[: FILE.index("  tls:")], "f")
WEB, TLS = (virtual.keys[0] for virtual in CONFIG.virtual_servers)
WEB_VIP, TLS_VIP = CONFIG.vips()
A, B = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2))
BOTH = frozenset({"web", "tls"})
UP = HealthState(Status.UP, last=ProbeResult(True, "connected"))
DOWN = HealthState(Status.DOWN, last=ProbeResult(False, "refused"))


class World:
    """A kernel, its addresses and the director's memory on disk; `begin` is a director that starts anew."""

    def __init__(self, directory: Path, table: Table | None = None) -> None:
        self.directory = directory
        self.events: list[str] = []
        self.kernel = FakeKernel(table)
        self.addresses = FakeAddresses(self.events.append)
        self.kernel.before_write = lambda: self.events.append("write")
        self.announced: list[Vip] = []
        self.begin()

    def begin(self) -> None:
        self.memory = Memory(self.directory)
        self.reconciler = Reconciler(self.kernel, self.addresses, self.memory, self.announced.append)

    def run(self, inputs: Inputs) -> Outcome:
        return self.reconciler.reconcile(inputs)

    def on_disk(self) -> Owned:
        return Memory(self.directory).load()

    def weights(self, key: VirtualKey = WEB) -> dict[Endpoint, int]:
        return {real: row.weight for real, row in self.kernel.table.entries[key].reals.items()}


def inputs(config: Config = CONFIG, ready: frozenset[str] = BOTH) -> Inputs:
    return Inputs(config, ready=ready)


def wanted(config: Config = CONFIG) -> Table:
    return desired_table(config, Inputs(config).weights())
