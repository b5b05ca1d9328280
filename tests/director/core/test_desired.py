"""Which real servers are taken over, and which wait for a verdict."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

import pytest

from director.core.config import parse_config
from director.core.desired import adopted_weights, unproven_servers
from director.core.model import ServerRef
from director.core.table import Forward, Protocol, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
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
