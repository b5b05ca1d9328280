"""Trials of `director.ipvs` against the kernel they run on: `python ipvs_trials.py NAME` prints JSON.

One rule: each starts with `ipvsadm -C`, asserts for itself and ends with a traceback where it fails, so that
the test outside has only to look at the exit code. The scripts need root and a network namespace of their own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from types import MappingProxyType

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual, diff
from director.core.table import (
    Forward,
    Protocol,
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
from director.ipvs import channel
from director.ipvs.client import IpvsClient
from director.kit.errors import KernelError
from director.kit.net import Endpoint
from tests.lab.guest.ipvs_refusals import try_refusals
from tests.lab.guest.ipvs_tables import changed, random_table, saved_lines
from tests.lab.guest.ipvsadm import empty, ipvsadm

Result = dict[str, object]


def saved() -> list[str]:
    return sorted(line.rstrip() for line in ipvsadm("-Sn").splitlines())


def holding(entries: Mapping[VirtualKey, VirtualEntry]) -> Table:
    """A table as it is read where nobody touched timeouts or sync daemons."""
    return Table(MappingProxyType(dict(entries)), Timeouts(900, 120, 300), frozenset())


def orders(table: Table) -> dict[VirtualKey, list[Endpoint]]:
    return {key: list(entry.reals) for key, entry in table.entries.items()}


def try_tables(client: IpvsClient) -> Result:
    """Random tables, and random changes of them, read back as they were written, and as ipvsadm reads them."""
    rows = 0
    for seed in range(30):
        random = Random(seed)  # noqa: S311 -- a table to try, not a secret
        ipvsadm("-C")
        wanted = random_table(random)
        assert client.write(diff(Table(), wanted)) == [], seed
        found, counters = client.read()
        assert found == holding(wanted.entries), (seed, found, wanted)
        assert orders(found) == orders(wanted), seed
        assert set(counters.virtuals) == set(wanted.entries), seed
        assert set(counters.reals) == {(key, r) for key, e in wanted.entries.items() for r in e.reals}, seed
        assert saved() == saved_lines(wanted), (seed, set(saved()) ^ set(saved_lines(wanted)))
        after = changed(random, wanted)
        failures = client.write(diff(wanted, after, managed=frozenset(wanted.entries)))
        assert failures == [], (seed, failures)
        assert client.read()[0] == holding(after.entries), seed
        assert saved() == saved_lines(after), (seed, set(saved()) ^ set(saved_lines(after)))
        rows += len(saved_lines(wanted)) + len(saved_lines(after))
    return {"tables": 60, "rows": rows}


def try_errors(client: IpvsClient) -> Result:
    """In a batch of some thousand changes, each that fails is named, with its errno; the others are made."""
    there = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
    away = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.2"), 80)
    row, real_row = VirtualRow("wrr"), RealRow(Forward.NAT, 1)
    reals = [Endpoint(ip_address("10.1.0.0") + number, 80) for number in range(1, 3001)]
    stranger = Endpoint(ip_address("10.9.0.1"), 80)
    other_version = Endpoint(ip_address("2001:db8::1"), 80)
    changes: list[Change] = [AddVirtual(there, row), *(AddReal(there, real, real_row) for real in reals)]
    wrong: list[tuple[int, Change, int]] = [
        (100, AddVirtual(there, row), errno.EEXIST),
        (200, AddReal(there, reals[0], real_row), errno.EEXIST),
        (300, EditReal(there, stranger, real_row, real_row), errno.ENOENT),
        (400, RemoveReal(there, stranger, real_row), errno.ENOENT),
        (500, EditVirtual(away, row, row), errno.ESRCH),
        (600, RemoveVirtual(away, VirtualEntry(row)), errno.ESRCH),
        (700, AddReal(away, stranger, real_row), errno.ESRCH),
        (800, AddVirtual(away, VirtualRow("nosuch")), errno.ENOENT),
        (900, EditVirtual(there, row, VirtualRow("nosuch")), errno.ENOENT),
        (1000, AddReal(there, other_version, real_row), errno.EINVAL),
        (1100, AddReal(there, stranger, RealRow(Forward.NAT, 1, 5, 6)), errno.ERANGE),
        (1200, AddReal(there, stranger, RealRow(Forward.NAT, -1)), errno.ERANGE),
        (1300, AddVirtual(away, VirtualRow("name-of-sixteen!")), errno.EINVAL),
    ]
    for position, change, _ in wrong:
        changes.insert(position, change)
    failures = client.write(changes)
    by_change = {id(failure.change): failure for failure in failures}
    assert len(failures) == len(wrong), failures
    for _, change, code in wrong:
        assert by_change[id(change)].errno == code, (change, by_change[id(change)])
    table, _ = client.read()
    assert list(table.entries) == [there]
    assert list(table.entries[there].reals) == reals
    ipvsadm("-C")
    failures = client.write(changes[1:100])
    assert [failure.errno for failure in failures] == [errno.ESRCH] * 99, failures
    return {"wrong": len(wrong), "reasons": sorted({failure.reason for failure in by_change.values()})}


def try_lost_answers(client: IpvsClient) -> Result:
    """Answers that do not fit the receive buffer are reported as lost; the socket goes on."""
    key = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.2"), 80)
    row = RealRow(Forward.NAT, 1)
    changes = [RemoveReal(key, Endpoint(ip_address("10.1.0.0") + n, 80), row) for n in range(1, 3001)]
    assert {failure.errno for failure in client.write(changes)} == {errno.ESRCH}
    channel.RECEIVE_BUFFER_BYTES = 16 * 1024
    with IpvsClient.open() as narrow:
        failures = narrow.write(changes)
        codes = [failure.errno for failure in failures]
        assert len(failures) == len(changes)
        assert set(codes) == {errno.ESRCH, errno.ENOBUFS}, set(codes)
        assert narrow.write([AddVirtual(key, VirtualRow("rr"))]) == []
        assert list(narrow.read()[0].entries) == [key]
    return {"lost": codes.count(errno.ENOBUFS), "of": len(changes)}


def try_scale(client: IpvsClient) -> Result:
    """10,000 real servers of 200 virtual servers, written, read, edited and removed; in milliseconds."""
    entries = {}
    for v in range(200):
        key = VirtualKey.of(Protocol.TCP, ip_address(f"10.0.{v}.1"), 80)
        reals = {Endpoint(ip_address(f"10.{100 + v % 100}.{v}.{r + 1}"), 80): RealRow(Forward.DR, 1) for r in range(50)}
        entries[key] = VirtualEntry(VirtualRow("wlc"), MappingProxyType(reals))
    wanted = holding(entries)
    took: dict[str, float] = {}

    def timed(name: str, changes: tuple[Change, ...]) -> None:
        begun = time.perf_counter()
        assert client.write(changes) == []
        took[name] = round((time.perf_counter() - begun) * 1000, 1)

    timed("write", diff(Table(), wanted))
    for name in ("read", "read again"):
        begun = time.perf_counter()
        found, _ = client.read()
        took[name] = round((time.perf_counter() - begun) * 1000, 1)
        assert found == wanted
    begun = time.perf_counter()
    ipvsadm("-Sn")
    took["ipvsadm -Sn"] = round((time.perf_counter() - begun) * 1000, 1)
    drained = holding(
        {
            key: VirtualEntry(e.row, MappingProxyType(dict.fromkeys(e.reals, RealRow(Forward.DR, 0))))
            for key, e in wanted.entries.items()
        }
    )
    timed("edit", diff(wanted, drained))
    assert client.read()[0] == drained
    timed("remove", diff(drained, Table(), managed=frozenset(wanted.entries)))
    assert client.read()[0] == holding({})
    return dict(took)


def try_traffic(client: IpvsClient) -> Result:
    """Edits of weight, thresholds and scheduler keep connections and counters; a new one would start at 0."""
    subprocess.run(("ip", "address", "replace", "10.0.0.1/32", "dev", "lo"), check=True)
    key = VirtualKey.of(Protocol.UDP, ip_address("10.0.0.1"), 5000)
    real = Endpoint(ip_address("127.0.0.1"), 6000)
    row, real_row = VirtualRow("rr"), RealRow(Forward.NAT, 1)
    assert client.write([AddVirtual(key, row), AddReal(key, real, real_row)]) == []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        server.bind(("127.0.0.1", 6000))
        server.settimeout(5)
        for _ in range(5):
            sender.sendto(b"hello", ("10.0.0.1", 5000))
            assert server.recv(100) == b"hello"
    until = time.monotonic() + 30
    before = client.read()[1]
    while min(before.virtuals[key].in_packets, before.reals[key, real].totals.in_packets) < 5:
        assert time.monotonic() < until  # the estimator brings totals up to date every 2 s
        time.sleep(0.1)
        before = client.read()[1]
    counters = before.reals[key, real]
    assert (counters.totals.connections, counters.totals.in_packets, counters.totals.in_bytes) == (1, 5, 165)
    assert (counters.active, counters.inactive) == (0, 1)
    changed_row, changed_real = VirtualRow("wlc", one_packet=True), RealRow(Forward.NAT, 7, 20, 10)
    assert client.write([EditVirtual(key, row, changed_row), EditReal(key, real, real_row, changed_real)]) == []
    table, after = client.read()
    assert table.entries[key] == VirtualEntry(changed_row, {real: changed_real})
    assert after == before
    return {"packets": counters.totals.in_packets}


def try_foreign(client: IpvsClient) -> Result:
    """What ipvsadm made is read, all that it can make; what the model cannot hold is named, beside the table."""
    script = """\
        -A -t 10.0.0.1:80 -s wlc
        -a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 3 -x 500 -y 100
        -a -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
        -a -t 10.0.0.1:80 -r 10.0.0.6:80 -i -w 1 --tun-type gre --tun-csum
        -a -t 10.0.0.1:80 -r 10.0.0.8:80 -i -w 70000
        -A --sctp-service 10.0.0.1:99 -s rr
        -A -u 10.0.0.1:5060 -s rr -p 60 --pe sip
        -A -f 7 -s rr -p 300 -M 255.255.255.0
        -A -f 8 -s rr -p 300 -M 255.0.255.0
        -A -f 7 -6 -s sh -b sh-port
        --set 7200 60 30
        --start-daemon master --mcast-interface lan --syncid 7
        --start-daemon backup --mcast-interface lan --mcast-group ff02::81 --mcast-port 9 --mcast-ttl 3
    """
    for line in script.strip().splitlines():
        ipvsadm(*line.split())
    reading = client.survey()
    reals = {
        Endpoint(ip_address("10.0.0.2"), 80): RealRow(Forward.NAT, 3, 500, 100),
        Endpoint(ip_address("10.0.0.5"), 80): RealRow(
            Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE, 6080, TunnelFlags.REMOTE_CHECKSUM)
        ),
        Endpoint(ip_address("10.0.0.6"), 80): RealRow(
            Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GRE, flags=TunnelFlags.CHECKSUM)
        ),
        Endpoint(ip_address("10.0.0.8"), 80): RealRow(Forward.TUN, 70000),
    }
    address = ip_address("10.0.0.1")
    entries = {
        VirtualKey.of(Protocol.TCP, address, 80): VirtualEntry(VirtualRow("wlc"), reals),
        VirtualKey.of(Protocol.SCTP, address, 99): VirtualEntry(VirtualRow("rr")),
        VirtualKey.of(Protocol.UDP, address, 5060): VirtualEntry(VirtualRow("rr", persistence_s=60, engine="sip")),
        VirtualKey(4, mark=7): VirtualEntry(VirtualRow("rr", persistence_s=300, persistence_prefix=24)),
        VirtualKey(6, mark=7): VirtualEntry(VirtualRow("sh", SchedulerFlags.PORT)),
    }
    sync = {
        SyncDaemon(SyncRole.MASTER, "lan", 7, maxlen=1472),
        SyncDaemon(SyncRole.BACKUP, "lan", 0, ip_address("ff02::81"), 9, 3, 1452),
    }
    assert reading.table == Table(entries, Timeouts(7200, 60, 30), frozenset(sync)), reading.table
    named = [f"{foreign.what}: {foreign.reason}" for foreign in reading.foreign]
    assert named == ["fwmark 8: its persistence mask has holes"], named
    assert reading.foreign[0].key == VirtualKey(4, mark=8)
    return {"foreign": named}


def try_namespace(client: IpvsClient) -> Result:
    """Timeouts and sync daemons that we set are what ipvsadm shows."""
    wanted = frozenset(
        {
            SyncDaemon(SyncRole.MASTER, "lan", 255, ip_address("224.0.0.90"), 9000, 3, 1000),
            SyncDaemon(SyncRole.BACKUP, "inside", 1, ip_address("ff02::81")),
        }
    )
    aim = Table(MappingProxyType({}), Timeouts(7200, 60, 30), wanted)
    assert client.write(diff(client.read()[0], aim)) == []
    found = client.read()[0]
    assert diff(found, aim) == ()
    shown: Result = {
        "timeouts": ipvsadm("-L", "--timeout").strip(),
        "daemons": sorted(ipvsadm("-L", "--daemon").splitlines()),
    }
    assert shown == {
        "timeouts": "Timeout (tcp tcpfin udp): 7200 60 30",
        "daemons": [
            "backup sync daemon (mcast=inside, syncid=1, maxlen=1452, group=ff02::81, port=8848, ttl=1)",
            "master sync daemon (mcast=lan, syncid=255, maxlen=1000, group=224.0.0.90, port=9000, ttl=3)",
        ],
    }, shown
    other = SyncDaemon(SyncRole.MASTER, "lan", 254)
    moved = Table(MappingProxyType({}), Timeouts(900, 120, 300), frozenset({other}))
    assert client.write(diff(found, moved)) == []
    assert client.read()[0] == Table(moved.entries, moved.timeouts, frozenset({replace(other, maxlen=1472)}))
    assert client.write(diff(client.read()[0], holding({}))) == []
    assert client.read()[0] == holding({})
    return shown


def try_privileges(client: IpvsClient) -> Result:
    """Without CAP_NET_ADMIN the message says what to do."""
    assert client.version() == "1.2.1"
    os.setuid(65534)
    said = ""
    try:
        IpvsClient.open()
    except KernelError as error:
        said = str(error)
    assert "CAP_NET_ADMIN" in said
    return {"says": said}


TRIALS: dict[str, Callable[[IpvsClient], Result]] = {
    "tables": try_tables,
    "errors": try_errors,
    "lost-answers": try_lost_answers,
    "scale": try_scale,
    "traffic": try_traffic,
    "foreign": try_foreign,
    "namespace": try_namespace,
    "refusals": try_refusals,
    "privileges": try_privileges,
}


if __name__ == "__main__":
    with IpvsClient.open() as opened:
        empty()
        outcome = TRIALS[sys.argv[1]](opened)
    sys.stdout.write(json.dumps(outcome) + "\n")
