"""A host on which an apply without a director can die at any message."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import AddReal, AddVirtual, Change, apply
from director.core.model import Config
from director.core.table import Forward, RealCounters, RealRow, Table, VirtualEntry, VirtualRow
from director.core.vip import Vip
from director.ipvs.failure import Failure
from director.journal import Journal
from director.memory import Memory, Owned
from director.once import Once, inputs_once
from director.reconcile import Reconciler
from director.terms import Inputs
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses

OLD = """
defaults: {interface: eth0, check: {type: tcp}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, weight: 7}
      c: {address: 10.0.0.3}
  tls:
    address: 192.0.2.11
    port: 443
    forward: dr
    real_servers:
      a: {address: 10.0.0.1}
"""
NEW = """
defaults: {interface: eth0, check: {type: tcp}}
timeouts: {tcp: 10m, tcpfin: 1m, udp: 2m}
sync: {master: {interface: lan, maxlen: 1400}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: dr
    scheduler: lc
    real_servers:
      a: {address: 10.0.0.1, weight: 50}
      d: {address: 10.0.0.4}
  dns:
    address: 192.0.2.12
    port: 53
    forward: nat
    real_servers:
      a: {address: 10.0.0.1, port: 5353}
  mail:
    address: 192.0.2.13
    port: 25
    forward: nat
    real_servers:
      a: {address: 10.0.0.5}
"""
OLD_CONFIG, NEW_CONFIG = parse_config(OLD, "old"), parse_config(NEW, "new")
(WEB,), (TLS,) = (virtual.keys for virtual in OLD_CONFIG.virtual_servers)
(MAIL,) = NEW_CONFIG.virtual_servers[2].keys
A, B, C = (place.endpoint for place in OLD_CONFIG.virtual_servers[0].placements)
MAIL_VIP = Vip(NEW_CONFIG.virtual_servers[2].vips[0].address, "eth0")
FOREIGN = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})
BUSY = {(WEB, B): RealCounters(3, 1)}


class DeathError(BaseException):
    """The process ends here."""


class MortalKernel(FakeKernel):
    """Dies after so many messages; `counts` a message, also one that is about an address."""

    lives = 10**9

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        changes = tuple(changes)
        made = super().write(changes[: self.lives])
        for _ in changes:
            self.counts()
        return made

    def counts(self, _: str = "") -> None:
        self.lives -= 1
        if self.lives <= 0:
            raise DeathError


class World:
    """A host that has OLD applied, and beside it what somebody else made at the place of NEW's `mail`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = MortalKernel()
        self.addresses = FakeAddresses(self.kernel.counts)
        self.begin()
        self.apply(OLD_CONFIG)
        self.kernel.table = apply(
            [AddVirtual(MAIL, FOREIGN.row), *(AddReal(MAIL, real, row) for real, row in FOREIGN.reals.items())],
            self.kernel.table,
        )
        self.addresses.held.add(MAIL_VIP)
        self.before = self.seen()

    def begin(self) -> None:
        """A process that knows nothing but what is on disk."""
        self.memory, self.journal = Memory(self.directory), Journal(self.directory)
        self.reconciler = Reconciler(self.kernel, self.addresses, self.memory)

    def once(self, config: Config = NEW_CONFIG) -> Once:
        left, table = self.journal.load(), self.reconciler.read_table()
        return Once(
            *(self.reconciler, self.journal, inputs_once(config, left.before.over(table) if left else table, {})),
            *("new", NEW),
        )

    def apply(self, config: Config = NEW_CONFIG) -> None:
        once = self.once(config)
        once.change()
        once.remove()

    def seen(self) -> tuple[Table, frozenset[Vip], Owned]:
        return self.kernel.read()[0], frozenset(self.addresses.held), Memory(self.directory).load()

    def has(self, config: Config) -> bool:
        """All of `config`, and nothing of the other one."""
        wanted = desired_table(config, Inputs(config).weights()).entries
        others = {} if config is NEW_CONFIG else {MAIL: FOREIGN}
        vips = {*config.vips(), MAIL_VIP}
        found = self.kernel.read()[0]
        agrees = config.timeouts in {None, found.timeouts} and config.sync in {None, found.sync}
        return found.entries == {**wanted, **others} and self.addresses.held == vips and agrees
