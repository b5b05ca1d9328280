"""Which real servers are taken over, and which wait for a verdict."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

import pytest

from director.core.config import parse_config
from director.core.desired import adopted_weights, desired_table, insertion_weights, unproven_servers
from director.core.model import ServerRef
from director.core.serving import Known, serving
from director.core.table import Forward, Protocol, RealRow, Table, TunnelKind, VirtualEntry, VirtualKey, VirtualRow
from director.core.weight import Maintenance, Weight, Wish
from director.kit.health import HealthState, Status
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

CONFIG = parse_config(
    """
defaults: {check: {type: tcp}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
      c: {address: 10.0.0.3, check: {type: none}}
""",
    "f.yaml",
)


def table(**weights: int) -> Table:
    rows = {
        Endpoint(ip_address({"a": "10.0.0.1", "b": "10.0.0.2", "gone": "10.0.0.9"}[name]), 80): RealRow(
            Forward.NAT, weight
        )
        for name, weight in weights.items()
    }
    key = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
    return Table(MappingProxyType({key: VirtualEntry(VirtualRow("wlc"), MappingProxyType(rows))}))


@pytest.mark.parametrize(
    ("kernel", "unproven"),
    [
        (Table(), set()),  # a first start: the address waits, not the servers
        (table(), set()),
        (table(a=100), {"b"}),  # c is not checked: no verdict will come
        (table(a=0), set()),  # nobody serves: a new server is better than none
        (table(gone=100), set()),  # who serves now will be removed
        (table(a=100, b=0), set()),
    ],
)
def test_new_servers_wait_only_beside_servers_that_serve_and_stay(kernel: Table, unproven: set[str]) -> None:
    assert unproven_servers(CONFIG, kernel) == {ServerRef("web", name) for name in unproven}


def test_what_the_kernel_holds_is_adopted_with_its_weight() -> None:
    assert adopted_weights(CONFIG, table(a=0, gone=5)) == {ServerRef("web", "a"): 0}


def test_a_udp_server_that_is_down_leaves_the_table_where_its_connections_are_to_expire() -> None:
    text = """
dead_connections: {choice}
virtual_servers:
  dns: {{address: 192.0.2.10, port: 53, protocol: udp, forward: nat, real_servers: {{a: {{address: 10.0.0.1}}}}}}
  web: {{address: 192.0.2.10, port: 53, forward: nat, real_servers: {{a: {{address: 10.0.0.1}}}}}}
"""
    down = {ServerRef(name, "a"): Weight(0, "down", is_down=True) for name in ("dns", "web")}
    drained = {ref: Weight(0, "drained") for ref in down}
    for choice, weights, held in (("keep", down, [1, 1]), ("expire", down, [0, 1]), ("expire", drained, [1, 1])):
        table = desired_table(parse_config(text.format(choice=choice), "f"), weights)
        assert [len(entry.reals) for entry in table.entries.values()] == held, (choice, weights)


def test_every_port_and_address_has_its_own_entry_with_the_same_servers() -> None:
    config = parse_config(
        """
virtual_servers:
  web:
    address: [192.0.2.10, 192.0.2.11]
    port: [80, 8000-8001]
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, port: 8080, weight: 7}
      c: {address: 10.0.0.3, state: disabled}
""",
        "f",
    )
    weights = {ServerRef("web", name): Weight(weight, "") for name, weight in (("a", 100), ("b", 7), ("c", 0))}
    table = desired_table(config, weights)
    assert [str(key) for key in table] == [
        f"tcp 192.0.2.{host}:{port}" for host in (10, 11) for port in (80, 8000, 8001)
    ]
    for key, entry in table.entries.items():
        port = key.endpoint.port if key.endpoint else 0
        assert {str(real): row.weight for real, row in entry.reals.items()} == {
            f"10.0.0.1:{port}": 100,
            "10.0.0.2:8080": 7,
        }


def test_a_real_server_may_be_reached_in_another_way_than_its_neighbours() -> None:
    config = parse_config(
        """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2, forward: tun, tunnel: {type: gre}}
      c: {address: 10.0.0.3, forward: nat}
""",
        "f",
    )
    weights = {ServerRef("web", name): Weight(100, "") for name in "abc"}
    (entry,) = desired_table(config, weights).entries.values()
    assert [(row.forward, row.tunnel.kind) for row in entry.reals.values()] == [
        (Forward.NAT, TunnelKind.IPIP),
        (Forward.TUN, TunnelKind.GRE),
        (Forward.NAT, TunnelKind.IPIP),
    ]


SORRY = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: [80, 81]
    forward: nat
    on_failure: {choice}
    check: {{type: tcp}}
    sorry_server: {{address: 10.0.0.99, port: 8080, weight: 3}}
    real_servers:
      a: {{address: 10.0.0.1}}
      b: {{address: 10.0.0.2}}
"""


@pytest.mark.parametrize(
    ("choice", "states", "rows"),
    [
        ("inhibit", "UU", {"10.0.0.1:80": 100, "10.0.0.2:80": 100, "10.0.0.99:8080": 0}),
        ("inhibit", "UD", {"10.0.0.1:80": 100, "10.0.0.2:80": 0, "10.0.0.99:8080": 0}),
        ("inhibit", "DD", {"10.0.0.1:80": 0, "10.0.0.2:80": 0, "10.0.0.99:8080": 3}),
        ("remove", "UU", {"10.0.0.1:80": 100, "10.0.0.2:80": 100, "10.0.0.99:8080": 0}),
        ("remove", "UD", {"10.0.0.1:80": 100, "10.0.0.99:8080": 0}),
        ("remove", "DD", {"10.0.0.99:8080": 3}),
        ("remove", "??", {"10.0.0.1:80": 100, "10.0.0.2:80": 100, "10.0.0.99:8080": 0}),
    ],
)
def test_who_is_down_stays_at_0_or_leaves_and_the_sorry_server_waits_at_0(
    choice: str, states: str, rows: dict[str, int]
) -> None:
    config = parse_config(SORRY.format(choice=choice), "f")
    status = {"U": Status.UP, "D": Status.DOWN, "?": Status.PENDING}
    health = {ServerRef("web", name): HealthState(status[each]) for name, each in zip("ab", states, strict=True)}
    entries = desired_table(config, serving(config, Known(health)).weights).entries
    first, second = entries.values()
    assert {str(real): row.weight for real, row in first.reals.items()} == rows
    assert [row.weight for row in second.reals.values()] == list(rows.values())


def test_a_drained_server_stays_in_the_table_whatever_on_failure_says() -> None:
    config = parse_config(SORRY.format(choice="remove"), "f")
    wishes = {ServerRef("web", "a"): Wish(drain=True), ServerRef("web", "b"): Wish(maintenance=Maintenance())}
    down = {ref: HealthState(Status.DOWN) for ref in wishes}
    (entry, _) = desired_table(config, serving(config, Known(down, wishes)).weights).entries.values()
    assert [row.weight for row in entry.reals.values()] == [0, 0, 3]


def test_maglev_first_sees_real_servers_at_their_weight_and_the_sorry_server_when_it_serves() -> None:
    text = SORRY.format(choice="inhibit").replace("    forward: nat\n", "    forward: nat\n    scheduler: mh\n")
    config = parse_config(text, "f")
    found = insertion_weights(config, {ServerRef("web", "a"): Wish(weight=7), ServerRef("web", "b"): Wish(weight=0)})
    assert {str(endpoint): weight for (_, endpoint), weight in found.items()} == {
        "10.0.0.1:80": 7,
        "10.0.0.1:81": 7,
        "10.0.0.2:80": 100,
        "10.0.0.2:81": 100,
    }
