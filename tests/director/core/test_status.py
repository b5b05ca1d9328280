"""What `status` says of a virtual server: the file, the kernel, the probes and the operator side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.model import ServerRef
from director.core.policy import Quorum
from director.core.serving import Known, serving
from director.core.status import virtual_servers
from director.core.table import (
    Counters,
    Forward,
    RealCounters,
    RealRow,
    Table,
    TableCounters,
    VirtualEntry,
    VirtualRow,
)
from director.core.weight import Maintenance, Wish
from director.kit.health import HealthState, ProbeResult, Status

pytestmark = pytest.mark.unit

CONFIG = parse_config(
    """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: sh
    interface: eth0
    persistence: {timeout: 5m}
    check: {type: tcp}
    real_servers:
      a: {address: 10.0.0.1, port: 8080, weight: 5}
      b: {address: 10.0.0.2, check: {type: none}}
  away:
    address: "2001:db8::1"
    port: 53
    protocol: udp
    forward: dr
    real_servers: {}
""",
    "f",
)
WEB = CONFIG.virtual_servers[0]
A, B = WEB.real_servers
KEY = WEB.keys[0]


def test_the_file_the_kernel_and_the_probes_stand_side_by_side() -> None:
    health = {ServerRef("web", "a"): HealthState(Status.UP, 4, 90.0, ProbeResult(True, "connected"))}
    wishes = {ServerRef("web", "b"): Wish(drain=True, weight=3)}
    table = Table({KEY: VirtualEntry(VirtualRow("sh"), {A.at(KEY): RealRow(Forward.NAT, 4)})})
    counters = TableCounters(
        {KEY: Counters(7, 70, 80, 700, 800)}, {(KEY, A.at(KEY)): RealCounters(2, 3, 0, Counters(7, 1, 2, 5, 6))}
    )
    found = virtual_servers(
        CONFIG,
        table,
        counters,
        frozenset(CONFIG.vips()),
        serving(CONFIG, Known(health, wishes)),
        health,
        wishes,
        now=100.0,
    )
    assert json.loads(json.dumps(found)) == found
    web, away = found
    first, second = web["real_servers"]
    assert first == {
        "name": "a",
        "address": "10.0.0.1",
        "host": "",
        "port": 8080,
        "forward": "nat",
        "configured_weight": 5,
        "weight": 5,
        "kernel_weight": 4,
        "entries": 1,
        "entries_wrong": 1,
        "health": "up",
        "health_since_s": 10.0,
        "reason": "up: connected",
        "check": "tcp 10.0.0.1:8080",
        "drained": False,
        "operator_weight": None,
        "maintenance": None,
        "warning": "",
        "active": 2,
        "inactive": 3,
        "connections": 7,
        "in_packets": 1,
        "out_packets": 2,
        "in_bytes": 5,
        "out_bytes": 6,
    }
    assert (second["weight"], second["kernel_weight"], second["health"]) == (0, None, "unchecked")
    assert (second["drained"], second["operator_weight"], second["check"]) == (True, 3, None)
    assert second["health_since_s"] is None
    assert {key: value for key, value in web.items() if key != "real_servers"} == {
        "name": "web",
        "protocol": "tcp",
        "address": "192.0.2.10",
        "port": 80,
        "keys": ["tcp 192.0.2.10:80"],
        "scheduler": "sh",
        "scheduler_flags": ["sh-fallback"],
        "persistence_s": 300,
        "forward": "nat",
        "in_kernel": True,
        "keys_in_kernel": 1,
        "interface": "eth0",
        "vip_present": True,
        "connections": 7,
        "in_packets": 70,
        "out_packets": 80,
        "in_bytes": 700,
        "out_bytes": 800,
        "quorum": "held",
        "alive": 1,
        "panic": False,
        "on_drift": "repair",
        "drift": [],
        "drift_repaired": 0,
    }
    assert (away["in_kernel"], away["interface"], away["vip_present"]) == (False, None, None)
    assert (away["address"], away["protocol"], away["connections"]) == ("2001:db8::1", "udp", 0)


LEFT_OUT = """
dead_connections: {dead}
virtual_servers:
  web:
    address: 192.0.2.10
    port: [53, 54]
    protocol: {protocol}
    forward: nat
    on_failure: {failure}
    check: {{type: tcp, port: 53}}
    real_servers:
      a: {{address: 10.0.0.1}}
"""


@pytest.mark.parametrize(
    ("dead", "protocol", "failure", "due"),
    [
        ("keep", "tcp", "inhibit", 0),
        ("keep", "tcp", "remove", None),
        ("expire", "tcp", "inhibit", 0),
        ("keep", "udp", "inhibit", 0),
        ("expire", "udp", "inhibit", None),
        ("expire", "udp", "remove", None),
    ],
)
def test_a_server_that_is_down_and_left_out_on_purpose_is_as_it_should_be(
    dead: str, protocol: str, failure: str, due: int | None
) -> None:
    config = parse_config(LEFT_OUT.format(dead=dead, protocol=protocol, failure=failure), "f")
    health = {ServerRef("web", "a"): HealthState(Status.DOWN, last=ProbeResult(False, "refused"))}
    (virtual,) = config.virtual_servers
    weights = serving(config, Known(health))

    def entry(weight: int | None) -> tuple[int | None, int, int]:
        """What is told where every entry of the kernel's has `weight`."""
        (real,) = virtual.real_servers
        entries = {
            key: VirtualEntry(virtual.row, {} if weight is None else {real.at(key): RealRow(Forward.NAT, weight)})
            for key in virtual.keys
        }
        (found,) = virtual_servers(
            config, Table(entries), TableCounters({}, {}), frozenset(), weights, health, {}, now=1.0
        )
        (told,) = found["real_servers"]
        return told["kernel_weight"], told["entries"], told["entries_wrong"]

    assert desired_table(config, weights.weights).entries[virtual.keys[0]].reals.keys() == (
        set() if due is None else {virtual.real_servers[0].at(virtual.keys[0])}
    )
    for there in (None, 0, 5):
        assert entry(there) == (there, 2, 0 if there == due else 2), there


def test_quorum_panic_maintenance_and_warnings_are_told() -> None:
    quorum = replace(WEB.policy, quorum=Quorum(up=2, down=2))
    config = replace(CONFIG, virtual_servers=(replace(WEB, policy=quorum),))
    first, second = WEB.refs
    good = HealthState(Status.UP, last=ProbeResult(True, "status 200", warning="certificate of a ends in 3 days"))
    health, wishes = {first: good}, {second: Wish(maintenance=Maintenance("new disk", 5.0))}
    who = serving(config, Known(health, wishes))
    (told,) = virtual_servers(config, Table({}), TableCounters({}, {}), frozenset(), who, health, wishes, 1.0)
    assert (told["quorum"], told["alive"], told["panic"]) == ("lost", 1, False)
    by_name = {real["name"]: real for real in told["real_servers"]}
    assert by_name[first.real_server]["warning"] == "certificate of a ends in 3 days"
    assert by_name[second.real_server]["maintenance"] == {"reason": "new disk", "until": 5.0}
