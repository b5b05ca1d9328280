"""An export is a file that changes nothing, and says what it leaves out."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.diff import diff
from director.core.export import Export, export
from director.core.model import Config
from director.core.serving import Known, serving
from director.core.table import (
    Foreign,
    Forward,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.kit.net import parse_endpoint
from tests.director.core.kernel_tables import tables

pytestmark = pytest.mark.unit

RR, WLC = VirtualRow("rr"), VirtualRow("wlc")
NAT, DR, TUN = (RealRow(forward, 100) for forward in (Forward.NAT, Forward.DR, Forward.TUN))
Entries = dict[str, tuple[VirtualRow, dict[str, RealRow]]]


def table(entries: Entries, timeouts: Timeouts | None = None, sync: frozenset[SyncDaemon] | None = None) -> Table:
    found = {
        VirtualKey.parse(key): VirtualEntry(
            row, MappingProxyType({parse_endpoint(real): each for real, each in reals.items()})
        )
        for key, (row, reals) in entries.items()
    }
    return Table(MappingProxyType(found), timeouts, sync)


def read(exported: Export) -> tuple[Config, Table]:
    config = parse_config(exported.text(), "exported.yaml")
    return config, desired_table(config, serving(config, Known()).weights)


@given(tables())
def test_what_director_can_make_comes_back_whole(current: Table) -> None:
    exported = export(current)
    assert exported.left_out == ()
    _, there = read(exported)
    assert dict(there.entries) == dict(current.entries)
    assert diff(current, there, managed=current.entries) == ()


@given(tables(foreign=True))
def test_any_table_gives_a_good_file_that_changes_nothing_and_names_the_rest(current: Table) -> None:
    exported = export(current)
    _, there = read(exported)
    assert diff(current, there) == ()
    missing = [key for each in exported.left_out for key in each.keys]
    assert sorted(map(str, missing)) == sorted(map(str, current.entries.keys() - there.entries.keys()))
    assert all(each.reason for each in exported.left_out)


@given(tables(foreign=True), st.randoms(use_true_random=False))
def test_equal_tables_give_equal_files(current: Table, random: Random) -> None:
    keys = list(current.entries)
    random.shuffle(keys)
    shuffled = {}
    for key in keys:
        reals = list(current.entries[key].reals.items())
        random.shuffle(reals)
        shuffled[key] = VirtualEntry(current.entries[key].row, MappingProxyType(dict(reals)))
    other = Table(MappingProxyType(shuffled), current.timeouts, current.sync)
    assert export(other) == export(current)


def test_it_reads_as_people_write_it() -> None:
    flagged = VirtualRow("mh", SchedulerFlags.PORT | SchedulerFlags.FALLBACK, 300, 24)
    gue = RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE, 6080, TunnelFlags.REMOTE_CHECKSUM))
    entries: Entries = {f"tcp 192.0.2.10:{port}": (WLC, {"10.0.0.2:443": NAT}) for port in (8000, 8001, 8002, 9000)}
    entries |= {
        "tcp 192.0.2.10:80": (WLC, {"10.0.0.2:80": DR, "10.0.0.1:80": RealRow(Forward.DR, 3, 500, 400)}),
        "tcp 192.0.2.10:443": (WLC, {"10.0.0.1:443": RealRow(Forward.DR, 3, 500, 400), "10.0.0.2:443": DR}),
        "udp [2001:db8::10]:53": (flagged, {"[2001:db8::1]:53": gue, "[2001:db8::2]:53": gue}),
        "tcp 192.0.2.11:80": (VirtualRow("sh", SchedulerFlags.NONE), {}),
        "fwmark 7 (IPv6)": (VirtualRow("rr", one_packet=True), {"[2001:db8::1]:0": TUN, "[2001:db8::2]:0": gue}),
    }
    sync = frozenset({SyncDaemon(SyncRole.BACKUP, "lan"), SyncDaemon(SyncRole.MASTER, "lan", 7, port=9000)})
    assert export(table(entries, Timeouts(901, 120, 300), sync), [Vip(ip_address("192.0.2.11"), "eth0")]).text() == (
        """\
timeouts: {tcp: 901s, tcpfin: 2m, udp: 5m}
sync:
  master: {interface: lan, id: 7, port: 9000}
  backup: {interface: lan, id: 0}
virtual_servers:
  http-192.0.2.10:
    address: 192.0.2.10
    port: [80, 443]
    forward: dr
    scheduler: wlc
    real_servers:
      a: {address: 10.0.0.1, weight: 3, upper_threshold: 500, lower_threshold: 400}
      b: {address: 10.0.0.2}
  tcp-8000-8002:
    address: 192.0.2.10
    port: [8000-8002, 9000]
    forward: nat
    scheduler: wlc
    real_servers:
      a: {address: 10.0.0.2, port: 443}
  http-192.0.2.11:
    address: 192.0.2.11
    port: 80
    interface: eth0
    forward: nat  # a guess: there is no real server to tell by
    scheduler: sh
    scheduler_flags: []
    real_servers: {}
  fwmark-7-ipv6:
    fwmark: 7
    family: ipv6
    forward: tun
    scheduler: rr
    one_packet: true
    real_servers:
      a: {address: "2001:db8::1"}
      b: {address: "2001:db8::2", weight: 1, tunnel: {type: gue, port: 6080, checksum: remote}}
  dns-udp:
    address: "2001:db8::10"
    port: 53
    protocol: udp
    forward: tun
    tunnel: {type: gue, port: 6080, checksum: remote}
    scheduler: mh
    scheduler_flags: [mh-fallback, mh-port]
    persistence: {timeout: 5m, prefix: 24}
    real_servers:
      a: {address: "2001:db8::1", weight: 1}
      b: {address: "2001:db8::2", weight: 1}
"""
    )


@pytest.mark.parametrize(
    ("row", "reals", "said"),
    [
        (RR, {"10.0.0.1:80": RealRow(Forward.LOCAL, 1)}, "real server 10.0.0.1 has forwarding method local"),
        (RR, {"10.0.0.1:80": RealRow(Forward.BYPASS, 1)}, "forwarding method bypass"),
        (RR, {"10.0.0.1:81": DR}, "real server 10.0.0.1:81, port: 81 differs"),
        (RR, {"10.0.0.1:80": RealRow(Forward.NAT, 70000)}, "real server 10.0.0.1, weight: 70000 is too large"),
        (RR, {"192.0.2.10:8080": NAT}, "real server 192.0.2.10:8080, address: 192.0.2.10 is the VIP itself"),
        (RR, {"10.0.0.1:80": RealRow(Forward.NAT, 1, 0, 5)}, "lower_threshold: it does nothing without"),
        (VirtualRow("nosuch"), {}, "scheduler: 'nosuch' is not known"),
        (VirtualRow("rr", one_packet=True), {}, "one_packet: one-packet scheduling is for udp"),
        (VirtualRow("rr", persistence_s=2**32 - 1), {}, "persistence.timeout: '4294967295s' is too long"),
        (VirtualRow("rr", SchedulerFlags.THIRD), {}, "'rr rr-flag-3' would become 'rr'"),
        (VirtualRow("rr", engine="sip"), {}, "'rr by sip' would become 'rr'"),
    ],
)  # fmt: skip
def test_what_no_file_can_say_is_left_out_with_its_reason(
    row: VirtualRow, reals: dict[str, RealRow], said: str
) -> None:
    exported = export(table({"tcp 192.0.2.10:80": (row, reals), "tcp 192.0.2.11:443": (RR, {"10.0.0.1:443": NAT})}))
    assert list(read(exported)[1]) == [VirtualKey.parse("tcp 192.0.2.11:443")]
    (left_out,) = exported.left_out
    assert left_out.what == "tcp 192.0.2.10:80"
    assert said in left_out.reason


def test_a_real_server_that_is_another_virtual_servers_address_leaves_out_that_one_only() -> None:
    exported = export(
        table({"tcp 192.0.2.10:80": (RR, {"192.0.2.11:80": DR}), "tcp 192.0.2.11:80": (RR, {"10.0.0.1:80": DR})})
    )
    assert list(read(exported)[1]) == [VirtualKey.parse("tcp 192.0.2.11:80")]
    assert "an address of this director" in exported.left_out[0].reason


def test_a_virtual_server_that_is_partly_foreign_is_left_out_whole() -> None:
    entries: Entries = {f"tcp 192.0.2.10:{port}": (RR, {f"10.0.0.1:{port}": NAT}) for port in (80, 443)}
    web = VirtualKey.parse("tcp 192.0.2.10:80")
    foreign = [
        Foreign("tcp 192.0.2.10:80 -> 10.0.0.2:80", "its tunnel is type 9", web, parse_endpoint("10.0.0.2:80")),
        Foreign("tcp 192.0.2.12:80", "its persistence mask has holes", VirtualKey.parse("tcp 192.0.2.12:80")),
        Foreign("esp 192.0.2.12:0", "esp is not supported"),
    ]
    exported = export(table(entries), foreign=foreign)
    assert list(read(exported)[1]) == [VirtualKey.parse("tcp 192.0.2.10:443")]
    assert [each.keys for each in exported.left_out] == [(web,), (), ()]
    assert exported.text("head").splitlines()[:5] == [
        "# head",
        "# not exported: tcp 192.0.2.10:80 -> 10.0.0.2:80: its tunnel is type 9",
        "# not exported: tcp 192.0.2.12:80: its persistence mask has holes",
        "# not exported: esp 192.0.2.12:0: esp is not supported",
        "virtual_servers:",
    ]


def test_timeouts_that_no_file_can_say_are_left_out() -> None:
    exported = export(table({}, Timeouts(0, 120, 300)))
    assert read(exported)[0].timeouts is None
    assert [each.what for each in exported.left_out] == ["timeouts"]


def test_an_address_that_the_director_keeps_for_nobody_in_the_file_is_told() -> None:
    kept = [Vip(ip_address("192.0.2.10"), "lan"), Vip(ip_address("192.0.2.77"), "lan")]
    exported = export(table({"tcp 192.0.2.10:80": (RR, {})}), kept)
    assert read(exported)[0].vips() == (kept[0],)
    assert [each.what for each in exported.left_out] == ["address 192.0.2.77 on lan"]


def test_ports_that_would_collide_in_one_virtual_server_stay_apart() -> None:
    reals: dict[str, RealRow] = {"10.0.0.1:80": NAT, "10.0.0.1:81": NAT}
    exported = export(table({"tcp 192.0.2.10:80": (RR, reals), "tcp 192.0.2.10:81": (RR, reals)}))
    config, there = read(exported)
    assert exported.left_out == ()
    assert [len(virtual.keys) for virtual in config.virtual_servers] == [2]
    assert all(set(entry.reals) == set(map(parse_endpoint, reals)) for entry in there.entries.values())


def test_reasons_come_in_one_order_also_for_ports_that_only_the_kernel_tells_apart() -> None:
    reals = {"10.0.0.1:80": RealRow(Forward.LOCAL, 1), "10.0.0.1:0": RealRow(Forward.BYPASS, 1)}
    for ordered in (reals, dict(reversed(reals.items()))):
        (left_out,) = export(table({"tcp 192.0.2.10:80": (RR, ordered)})).left_out
        assert left_out.reason.startswith("real server 10.0.0.1 has forwarding method local")


def test_any_port_stands_alone() -> None:
    row = VirtualRow("wlc", persistence_s=300)
    exported = export(table({f"tcp 192.0.2.10:{port}": (row, {f"10.0.0.1:{port}": DR}) for port in (0, 80, 81)}))
    assert exported.left_out == ()
    assert [virtual.name for virtual in read(exported)[0].virtual_servers] == ["tcp-any", "http"]


def test_more_real_servers_than_letters_are_numbered() -> None:
    reals = {f"10.0.0.{number}:80": DR for number in range(1, 41)}
    config, there = read(export(table({"tcp 192.0.2.10:80": (RR, reals)})))
    assert [real.name for real in config.virtual_servers[0].real_servers][::39] == ["rs1", "rs40"]
    assert len(there.entries[config.virtual_servers[0].keys[0]].reals) == 40
