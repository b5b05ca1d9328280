"""Answers of a real kernel, captured byte for byte (captured.txt), and what they mean."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.table import (
    Counters,
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualKey,
    VirtualRow,
)
from director.ipvs.decode import (
    Destination,
    Service,
    decode_daemon,
    decode_destination,
    decode_service,
    decode_timeouts,
    decode_version,
)
from director.kit.net import Endpoint, parse_endpoint

pytestmark = pytest.mark.unit

WEB = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
BOTH_FLAGS = SchedulerFlags.FALLBACK | SchedulerFlags.PORT
FIVE = Counters(connections=5, in_packets=5, in_bytes=165)


def captured() -> dict[str, bytes]:
    text = Path(__file__).with_name("captured.txt").read_text("ascii")
    blocks = (block.splitlines() for block in text.strip().split("\n\n")[1:])
    return {title: bytes.fromhex(body) for title, body in blocks}


CAPTURED = captured()


def of(protocol: Protocol, endpoint: str) -> VirtualKey:
    parsed: Endpoint = parse_endpoint(endpoint)
    return VirtualKey.of(protocol, parsed.address, parsed.port)


SERVICES = {
    "-t 10.0.0.1:80 -s wlc": Service(WEB, VirtualRow("wlc"), Counters()),
    "-t 10.0.0.1:443 -s sh -b sh-port -p 300 -M 255.255.255.0": Service(
        of(Protocol.TCP, "10.0.0.1:443"), VirtualRow("sh", SchedulerFlags.PORT, 300, 24), Counters()
    ),
    "-t [2001:db8::1]:80 -s mh -b mh-fallback,mh-port -p 77 -M 64": Service(
        of(Protocol.TCP, "[2001:db8::1]:80"), VirtualRow("mh", BOTH_FLAGS, 77, 64), Counters()
    ),
    "-f 7 -6 -s rr": Service(VirtualKey(6, mark=7), VirtualRow("rr"), Counters()),
    "-f 4294967295 -s lc": Service(VirtualKey(4, mark=2**32 - 1), VirtualRow("lc"), Counters()),
    "--sctp-service 10.0.0.1:99 -s rr": Service(of(Protocol.SCTP, "10.0.0.1:99"), VirtualRow("rr"), Counters()),
    "-u 10.0.0.1:5060 -s rr -p 60 --pe sip": Service(
        of(Protocol.UDP, "10.0.0.1:5060"), VirtualRow("rr", persistence_s=60, engine="sip"), Counters()
    ),
    "-u 10.0.0.1:5000 -s rr -o; then 5 datagrams of 33 bytes": Service(
        of(Protocol.UDP, "10.0.0.1:5000"), VirtualRow("rr", one_packet=True), FIVE
    ),
}
DESTINATIONS = {
    "-r 10.0.0.2:8080 -m -w 3 -x 500 -y 100": Destination(
        parse_endpoint("10.0.0.2:8080"), RealRow(Forward.NAT, 3, 500, 100), RealCounters()
    ),
    "-r 10.0.0.2:80 -g -w 70000": Destination(
        parse_endpoint("10.0.0.2:80"), RealRow(Forward.DR, 70000), RealCounters()
    ),
    "-r [2001:db8::7]:80 -i -w 1": Destination(
        parse_endpoint("[2001:db8::7]:80"), RealRow(Forward.TUN, 1), RealCounters()
    ),
    "-r 10.0.0.5:80 -i -w 1 --tun-type gue --tun-port 6080": Destination(
        parse_endpoint("10.0.0.5:80"), RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE, 6080)), RealCounters()
    ),
    "-r 10.0.0.6:80 -i -w 1 --tun-type gre --tun-csum": Destination(
        parse_endpoint("10.0.0.6:80"),
        RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GRE, flags=TunnelFlags.CHECKSUM)),
        RealCounters(),
    ),
}
DAEMONS = {
    "master --mcast-interface lan --syncid 7": SyncDaemon(SyncRole.MASTER, "lan", 7, maxlen=1472),
    "backup --mcast-interface lan --mcast-group ff02::81 --mcast-port 9000 --mcast-ttl 3": SyncDaemon(
        SyncRole.BACKUP, "lan", 0, ip_address("ff02::81"), 9000, 3, 1452
    ),
}


@pytest.mark.parametrize("command", SERVICES)
def test_service_of_a_real_kernel(command: str) -> None:
    assert decode_service(CAPTURED[f"service: ipvsadm -A {command}"]) == SERVICES[command]


@pytest.mark.parametrize("command", DESTINATIONS)
def test_destination_of_a_real_kernel(command: str) -> None:
    body = CAPTURED[f"destination: ipvsadm -a -t 10.0.0.1:80 {command}"]
    assert decode_destination(body, WEB) == DESTINATIONS[command]


def test_counters_of_a_real_kernel() -> None:
    title = "destination: ipvsadm -a -u 10.0.0.1:5000 -r 127.0.0.1:6000 -m -w 1; then 5 datagrams of 33 bytes"
    found = decode_destination(CAPTURED[title], of(Protocol.UDP, "10.0.0.1:5000"))
    assert found == Destination(parse_endpoint("127.0.0.1:6000"), RealRow(Forward.NAT, 1), RealCounters(totals=FIVE))


@pytest.mark.parametrize("command", DAEMONS)
def test_sync_daemon_of_a_real_kernel(command: str) -> None:
    assert decode_daemon(CAPTURED[f"daemon: ipvsadm --start-daemon {command}"]) == DAEMONS[command]


def test_timeouts_of_a_real_kernel() -> None:
    assert decode_timeouts(CAPTURED["config: GET_CONFIG"]) == Timeouts(900, 120, 300)


def test_version_of_a_real_kernel() -> None:
    assert decode_version(CAPTURED["version: GET_INFO"]) == "1.2.1"
