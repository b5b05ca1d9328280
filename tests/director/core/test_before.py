"""What an apply found: merged with an earlier one's, and without what a configuration settles."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

import pytest

from director.core.before import Before
from director.core.config import parse_config
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

CONFIG = parse_config(
    """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    interface: eth0
    real_servers:
      a: {address: 10.0.0.1}
""",
    "f",
)
WEB, TLS, DNS = (VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), port) for port in (80, 443, 53))
VIP, OTHER = (Vip(ip_address(f"192.0.2.{number}"), "eth0") for number in (10, 11))
A = Endpoint(ip_address("10.0.0.1"), 80)
ONE, TWO = Timeouts(1, 1, 1), Timeouts(2, 2, 2)
SYNC = frozenset({SyncDaemon(SyncRole.MASTER, "eth0")})


def entry(weight: int) -> VirtualEntry:
    return VirtualEntry(VirtualRow("rr"), {A: RealRow(Forward.NAT, weight)})


def table(timeouts: Timeouts | None = None, **weights: int) -> Table:
    keys = {"web": WEB, "tls": TLS, "dns": DNS}
    return Table(MappingProxyType({keys[name]: entry(weight) for name, weight in weights.items()}), timeouts)


def before(keys: set[VirtualKey], found: Table, own: set[VirtualKey] | None = None) -> Before:
    return Before(frozenset(keys), found, frozenset(), frozenset(), frozenset(own or ()), frozenset())


def test_the_earlier_one_wins_where_both_may_touch() -> None:
    earlier = Before(
        frozenset({WEB, TLS}), table(ONE, web=1), frozenset({VIP}), frozenset(), frozenset({WEB}), frozenset()
    )
    later = Before(
        frozenset({WEB, TLS, DNS}),
        Table(table(web=0, tls=7, dns=9).entries, TWO, SYNC),
        frozenset({VIP, OTHER}),
        frozenset({VIP, OTHER}),
        frozenset({TLS, DNS}),
        frozenset({VIP, OTHER}),
    )
    assert later.under(earlier) == Before(
        frozenset({WEB, TLS, DNS}),
        Table(table(web=1, dns=9).entries, ONE, SYNC),
        frozenset({VIP, OTHER}),
        frozenset({OTHER}),
        frozenset({WEB, DNS}),
        frozenset({OTHER}),
    )


def test_what_a_configuration_settles_is_not_put_back() -> None:
    found = Before(
        frozenset({WEB, TLS, DNS}),
        Table(table(web=1, tls=2, dns=3).entries, ONE, SYNC),
        frozenset({VIP, OTHER}),
        frozenset({VIP, OTHER}),
        frozenset({TLS}),
        frozenset(),
    )
    left = found.besides(CONFIG)
    assert (left.keys, left.table.entries) == (frozenset({DNS}), table(dns=3).entries), "ours or declared: not put back"
    assert (left.places, left.vips) == (frozenset({OTHER}), frozenset({OTHER}))
    assert (left.table.timeouts, left.table.sync) == (ONE, SYNC)
    timed = parse_config("timeouts: {tcp: 9s, tcpfin: 9s, udp: 9s}\nvirtual_servers: {}\n", "f")
    assert found.besides(timed).table.timeouts is None


def test_a_table_is_seen_as_it_was() -> None:
    assert before({WEB, TLS}, table(web=5)).over(table(web=0, tls=1, dns=2)) == table(web=5, dns=2)
