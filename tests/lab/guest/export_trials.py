"""Trials of `director export` against the kernel they run on, in one process: `python -m ... NAME` prints JSON.

One rule: each asserts for itself and ends with a traceback where it fails. They need a network namespace of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import MappingProxyType

from director.core.config import parse_config
from director.core.diff import AddReal, AddVirtual, SetTimeouts, diff
from director.core.export import Export, export
from director.core.model import Config
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    Tunnel,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.host import addresses
from director.ipvs.client import IpvsClient
from director.kit.net import Endpoint
from director.memory import Memory
from director.reconcile import Reconciler
from director.terms import Inputs
from tests.lab.guest.ipvs_tables import random_table
from tests.lab.guest.ipvsadm import empty, ipvsadm

Result = Mapping[str, object]
KERNELS_OWN = Timeouts(900, 120, 300)


def sayable(entry: VirtualEntry, key: VirtualKey) -> VirtualEntry:
    """`entry` with the real servers that their forwarding methods allow: what a file can say."""
    port = key.endpoint.port if key.endpoint else 0
    reals = {
        at if row.forward is Forward.NAT else Endpoint(at.address, port): replace(
            row, tunnel=row.tunnel if row.forward is Forward.TUN else Tunnel()
        )
        for at, row in entry.reals.items()
        if row.forward in {Forward.NAT, Forward.DR, Forward.TUN}
        if row.forward is Forward.TUN or at.address.version == key.family
    }
    return replace(entry, reals=MappingProxyType(reals))


def declarable(random: Random) -> Table:
    """A random table that a file can say; some entries stand under several ports."""
    entries: dict[VirtualKey, VirtualEntry] = {}
    for key, found in random_table(random).entries.items():
        entry = sayable(found, key)
        entries[key] = entry
        if key.endpoint is None or key.endpoint.port == 0:
            continue
        for _ in range(random.choice((0, 0, 1, 5))):
            port = random.randrange(1, 65536)
            other = replace(key, endpoint=Endpoint(key.endpoint.address, port))
            follows = random.random() < 0.5
            reals = {
                Endpoint(at.address, port if follows or row.forward is not Forward.NAT else at.port): row
                for at, row in entry.reals.items()
            }
            entries[other] = replace(entry, reals=MappingProxyType(reals))
    mixed = any(at.address.version != key.family for key, entry in entries.items() for at in entry.reals)
    timeouts = random.choice((KERNELS_OWN, Timeouts(*(random.randrange(1, 90000) for _ in range(3)))))
    master = SyncDaemon(SyncRole.MASTER, "lan", random.randrange(256), ip_address("224.0.0.99"), 9000, 3, 1200)
    sync = frozenset({master}) if not mixed and random.random() < 0.3 else frozenset()
    return Table(MappingProxyType(entries), timeouts, sync)


class World:
    """The kernel, and a director that has just been installed."""

    def __init__(self, client: IpvsClient, directory: str) -> None:
        self.client = client
        self.reconciler = Reconciler(client, addresses, Memory(Path(directory)))

    def make(self, table: Table) -> None:
        failures = self.client.write(diff(self.client.read()[0], table, self.client.read()[0].entries))
        assert failures == [], failures

    def read_back(self) -> tuple[Table, Export, Config]:
        reading = self.client.survey()
        exported = export(reading.table, (), reading.foreign)
        return reading.table, exported, parse_config(exported.text("head"), "exported.yaml")

    def planned(self, config: Config) -> object:
        inputs = Inputs(config, ready=frozenset(virtual.name for virtual in config.virtual_servers))
        plan = self.reconciler.plan(inputs, self.reconciler.observe(config))
        return plan if not plan.is_empty else None

    def apply(self, config: Config) -> None:
        inputs = Inputs(config, ready=frozenset(virtual.name for virtual in config.virtual_servers))
        outcome = self.reconciler.reconcile(inputs)
        assert outcome.converged, outcome


def try_what_a_file_can_say(world: World) -> Result:
    """Random table, export, nothing to plan, flush, apply: the same table."""
    servers, entries = 0, 0
    for seed in range(30):
        random = Random(seed)  # noqa: S311 -- a table to try, not a secret
        wanted = declarable(random)
        world.make(wanted)
        current, exported, config = world.read_back()
        assert current == wanted, (seed, current, wanted)
        assert exported.left_out == (), (seed, exported.left_out)
        assert world.planned(config) is None, (seed, world.planned(config))
        world.make(Table(timeouts=KERNELS_OWN, sync=frozenset()))
        world.apply(config)
        again = world.client.read()[0]
        assert again == current, (seed, again, current)
        assert export(again) == exported, seed
        servers, entries = servers + len(config.virtual_servers), entries + len(current.entries)
    return {"virtual_servers": servers, "entries": entries}


def try_what_a_kernel_may_hold(world: World) -> Result:
    """Random tables, also such that no file can say: what is exported changes nothing, the rest is named."""
    left_out, exported_entries = 0, 0
    for seed in range(1000, 1020):
        wanted = random_table(Random(seed))  # noqa: S311
        world.make(replace(wanted, timeouts=KERNELS_OWN, sync=frozenset()))
        current, exported, config = world.read_back()
        assert world.planned(config) is None, (seed, world.planned(config))
        named = {key for each in exported.left_out for key in each.keys}
        assert named == current.entries.keys() - config.keys(), seed
        world.make(Table(timeouts=KERNELS_OWN, sync=frozenset()))
        world.apply(config)
        again = world.client.read()[0]
        assert dict(again.entries) == {key: current.entries[key] for key in sorted(config.keys(), key=str)}, seed
        left_out, exported_entries = left_out + len(named), exported_entries + len(config.keys())
    return {"left_out": left_out, "exported": exported_entries}


def try_a_real_server_on_the_director(world: World) -> Result:
    """One that has an address of this host keeps the method that it was given: no endless change."""
    empty()
    world.client.write([SetTimeouts(None, KERNELS_OWN)])
    file = """
virtual_servers:
  web: {address: 10.9.0.100, port: 80, forward: FORWARD, real_servers: {here: {address: 10.9.0.2}, lo: {address: LO}}}
"""
    for forward in ("nat", "dr", "tun"):
        config = parse_config(file.replace("FORWARD", forward).replace("LO", "127.0.0.1"), "f")
        ipvsadm("-C")
        world.apply(config)
        assert world.planned(config) is None, forward
        entry = world.client.read()[0].entries[next(iter(config.keys()))]
        assert [row.forward.value for row in entry.reals.values()] == [forward] * 2, entry
        assert world.read_back()[1].left_out == ()
    return {}


def try_what_nobody_but_netlink_makes(world: World) -> Result:
    """Methods that ipvsadm does not know and flags that do nothing are left out, and named."""
    empty()
    keys = [VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), port) for port in (80, 81, 82, 83)]
    real = Endpoint(ip_address("10.1.0.1"), 80)
    world.client.write(
        [
            *(AddVirtual(key, VirtualRow("rr", one_packet=key is keys[2])) for key in keys),
            AddReal(keys[0], real, RealRow(Forward.LOCAL, 1)),
            AddReal(keys[1], real, RealRow(Forward.BYPASS, 1)),
            AddReal(keys[2], real, RealRow(Forward.NAT, 1)),
            AddReal(keys[3], real, RealRow(Forward.NAT, 70000)),
        ]
    )
    ipvsadm("-A", "-t", "10.0.0.2:80", "-s", "rr", "-p", "300", "-M", "255.0.255.0")
    current, exported, config = world.read_back()
    assert set(current.entries) == set(keys), current
    assert config.virtual_servers == ()
    assert world.planned(config) is None
    return {"left_out": [str(each) for each in exported.left_out]}


TRIALS: dict[str, Callable[[World], Result]] = {
    "file": try_what_a_file_can_say,
    "kernel": try_what_a_kernel_may_hold,
    "local": try_a_real_server_on_the_director,
    "netlink": try_what_nobody_but_netlink_makes,
}


if __name__ == "__main__":
    results = {}
    with TemporaryDirectory() as directory, IpvsClient.open() as opened:
        for name in sys.argv[1:] or TRIALS:
            empty()
            results[name] = TRIALS[name](World(opened, f"{directory}/{name}"))
        empty()
    sys.stdout.write(json.dumps(results) + "\n")
