"""What the model cannot hold is set aside and told, never run into."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.foreign import notes, obstacles, set_aside
from director.core.serving import Known, serving
from director.core.table import Foreign, Table, VirtualKey
from director.kit.net import parse_endpoint

pytestmark = pytest.mark.unit

CONFIG = parse_config(
    """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
  mark:
    fwmark: 7
    family: ipv6
    forward: nat
    real_servers: {}
""",
    "f",
)
DESIRED = desired_table(CONFIG, serving(CONFIG, Known()).weights)
WEB, MARK, OTHER = map(VirtualKey.parse, ("tcp 192.0.2.10:80", "fwmark 7 (IPv6)", "sctp 192.0.2.10:80"))
A, B, C = (parse_endpoint(f"10.0.0.{number}:80") for number in (1, 2, 3))


def test_a_virtual_server_whose_place_is_taken_is_not_tried() -> None:
    taken = Foreign(str(MARK), "its persistence mask has holes", MARK)
    table, in_the_way = set_aside(Table(), DESIRED, [taken])
    assert list(table) == [WEB]
    assert in_the_way == (taken,)
    assert obstacles(in_the_way, CONFIG) == [
        "virtual server mark (fwmark 7 (IPv6)) cannot be made: the kernel holds it in a form that director does not "
        "know: its persistence mask has holes; remove it with `ipvsadm -D -f 7 -6`"
    ]


def test_a_real_server_whose_place_is_taken_is_not_tried() -> None:
    taken = Foreign(f"{WEB} -> {B}", "its tunnel is type 9", WEB, B)
    table, in_the_way = set_aside(Table(), DESIRED, [taken])
    assert list(table.entries[WEB].reals) == [A]
    assert obstacles(in_the_way, CONFIG) == [
        "real server web/b (10.0.0.2:80) cannot be made: the kernel holds it in a form that director does not know: "
        "its tunnel is type 9; remove it with `ipvsadm -d -t 192.0.2.10:80 -r 10.0.0.2:80`"
    ]


def test_what_is_in_nobodys_way_is_a_note() -> None:
    foreign = [Foreign(f"{WEB} -> {C}", "r1", WEB, C), Foreign(str(OTHER), "r2", OTHER), Foreign("esp x", "r3")]
    table, in_the_way = set_aside(Table(), DESIRED, foreign)
    assert table is DESIRED
    assert in_the_way == ()
    assert notes(foreign, in_the_way, exclusive=False) == [
        "the kernel also holds tcp 192.0.2.10:80 -> 10.0.0.3:80, which director leaves alone: r1",
        "the kernel also holds sctp 192.0.2.10:80, which director leaves alone: r2",
        "the kernel also holds esp x, which director leaves alone: r3",
    ]
    told = notes(foreign, in_the_way, exclusive=True)
    assert "(`ipvsadm -d -t 192.0.2.10:80 -r 10.0.0.3:80` does)" in told[0]
    assert "(`ipvsadm -D --sctp-service 192.0.2.10:80` does)" in told[1]
    assert told[2].endswith("which director leaves alone: r3")


def test_what_is_in_the_way_is_told_once() -> None:
    taken = Foreign(str(WEB), "r", WEB)
    within = Foreign(f"{WEB} -> {A}", "r", WEB, A)
    table, in_the_way = set_aside(Table(), DESIRED, [taken, within])
    assert list(table) == [MARK]
    assert in_the_way == (taken,)
    assert len(notes([taken, within], in_the_way, exclusive=False)) == 1


def test_a_real_server_without_an_address_is_in_nobodys_way() -> None:
    strange = Foreign(f"a real server of {WEB}", "its address family is 7", WEB)
    assert set_aside(DESIRED, DESIRED, [strange]) == (DESIRED, ())
