"""Every refusal that this kernel can be brought to, and what an operator is told of it.

One rule: the kernel itself says no; the words must name the object, what is wrong with it, and what to do.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from ipaddress import ip_address

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
)
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs.client import IpvsClient
from director.kit.net import Endpoint, IPAddress

WEB = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
WEB6 = VirtualKey.of(Protocol.TCP, ip_address("2001:db8::1"), 80)
AWAY = VirtualKey.of(Protocol.UDP, ip_address("10.0.0.1"), 53)
RR, NAT, TUN = VirtualRow("rr"), RealRow(Forward.NAT, 1), RealRow(Forward.TUN, 1)
GUE = RealRow(Forward.TUN, 1, tunnel=Tunnel(TunnelKind.GUE))
GROUP, GROUP6 = ip_address("224.0.0.81"), ip_address("ff02::81")


def at(address: str) -> Endpoint:
    return Endpoint(ip_address(address), 80)


def master(interface: str = "lan", group: IPAddress = GROUP, number: int = 0) -> SyncDaemon:
    return SyncDaemon(SyncRole.MASTER, interface, number, group)


BACKUP = SyncDaemon(SyncRole.BACKUP, "lan")
THERE, OTHER = at("10.0.0.2"), at("2001:db8::2")

Case = tuple[Change, int, str]
"""A change, the errno it must get, and the words that must be in the reason."""

IMPOSSIBLE: list[Case] = [
    (AddVirtual(AWAY, VirtualRow("nosuch")), errno.ENOENT, "53: scheduler 'nosuch' is not in this kernel"),
    (EditVirtual(WEB, RR, VirtualRow("nosuch")), errno.ENOENT, "`modprobe ip_vs_nosuch`"),
    (
        AddVirtual(AWAY, VirtualRow("rr", persistence_s=60, engine="nosuch")),
        errno.ENOENT,
        "persistence engine 'nosuch' is not in this kernel: check their names, or run `modprobe ip_vs_rr` and "
        "`modprobe ip_vs_pe_nosuch`",
    ),
    (EditVirtual(WEB, RR, VirtualRow("rr", engine="nosuch")), errno.ENOENT, "persistence engine 'nosuch'"),
    (AddVirtual(AWAY, VirtualRow("name-of-sixteen!")), errno.EINVAL, "up to 15 letters"),
    (AddVirtual(WEB6, VirtualRow("rr", persistence_s=60, persistence_prefix=0)), errno.EINVAL, "IPv6: 1 to 128"),
    (AddVirtual(WEB6, VirtualRow("rr", persistence_s=60, persistence_prefix=129)), errno.EINVAL, "IPv6: 1 to 128"),
    (AddVirtual(AWAY, VirtualRow("rr", persistence_s=60, persistence_prefix=33)), errno.ERANGE, "0 to 32, not 33"),
    (AddReal(WEB, at("224.0.0.1"), NAT), errno.EINVAL, "must be a unicast one"),
    (AddReal(WEB, at("10.9.0.255"), NAT), errno.EINVAL, "no broadcast address"),
    (AddReal(WEB, OTHER, NAT), errno.EINVAL, "IPv6 behind an IPv4 virtual server needs forwarding method `tun`"),
    (AddReal(WEB, at("10.0.0.3"), GUE), errno.EINVAL, "gue tunnel needs the UDP port"),
    (EditReal(WEB, THERE, NAT, GUE), errno.EINVAL, "cannot change 10.0.0.2:80 of tcp 10.0.0.1:80: refused: a gue"),
    (AddReal(WEB, at("10.0.0.3"), RealRow(Forward.NAT, 1, 5, 6)), errno.ERANGE, "lower threshold must not exceed"),
    (EditReal(WEB, THERE, NAT, RealRow(Forward.NAT, -1)), errno.ERANGE, "does not fit the kernel's field"),
    (SetTimeouts(None, Timeouts(2**31 - 1, 1, 1)), errno.EINVAL, "cannot set the timeouts to tcp 2147483647 s"),
    (StartSync(master("nosuch")), errno.ENODEV, "no interface 'nosuch': use one that `ip link` shows"),
    (StartSync(master("name-of-sixteen!")), errno.EINVAL, "a name has up to 15 letters"),
    (StartSync(master("idle")), errno.ENETUNREACH, "no way to 224.0.0.81 by idle: give it an IPv4 address"),
    (StartSync(master("idle", GROUP6)), errno.ENETUNREACH, "(`ip link set idle up`)"),
    (StartSync(master(group=ip_address("10.0.0.1"))), errno.EINVAL, "10.0.0.1 is no multicast address"),
    (StartSync(master(group=ip_address("2001:db8::1"))), errno.EINVAL, "2001:db8::1 is no multicast address"),
    (StartSync(BACKUP), errno.EADDRINUSE, "UDP port 8848 is in use"),
]
"""With `THERE` behind `WEB`, an interface `idle` that is down, and a socket on the sync daemons' port."""

STALE: list[Case] = [
    (AddVirtual(WEB, RR), errno.EEXIST, "cannot create tcp 10.0.0.1:80: it exists already"),
    (EditVirtual(AWAY, RR, RR), errno.ESRCH, "virtual server udp 10.0.0.1:53 is not in the kernel"),
    (RemoveVirtual(AWAY, VirtualEntry(RR)), errno.ESRCH, "cannot remove udp 10.0.0.1:53: virtual server"),
    (AddReal(WEB, THERE, NAT), errno.EEXIST, "cannot add 10.0.0.2:80 to tcp 10.0.0.1:80: it exists already"),
    (AddReal(AWAY, THERE, NAT), errno.ESRCH, "virtual server udp 10.0.0.1:53 is not in the kernel"),
    (EditReal(WEB, at("10.0.0.3"), NAT, NAT), errno.ENOENT, "it is not in the kernel; read the table again"),
    (RemoveReal(WEB, at("10.0.0.3"), NAT), errno.ENOENT, "it is not in the kernel; read the table again"),
    (StopSync(master()), errno.ESRCH, "cannot stop the sync master on lan: none runs"),
]
WITH_MASTER: list[Case] = [
    (StartSync(master(number=9)), errno.EEXIST, "cannot start the sync master on lan: a sync master runs already"),
    (AddReal(WEB, OTHER, TUN), errno.EINVAL, "sync daemons exclude each other: stop the daemons"),
]
WITH_OTHER_FAMILY: list[Case] = [
    (StartSync(master()), errno.EINVAL, "real servers of another IP version than their virtual server exclude"),
]


def expect(client: IpvsClient, cases: list[Case]) -> list[str]:
    """The reasons, when each change was refused as its case says."""
    found = {id(each.change): each for each in client.write([change for change, _, _ in cases])}
    for change, code, words in cases:
        refusal = found.get(id(change))
        assert refusal is not None, change
        assert refusal.errno == code, (refusal, code)
        assert words in refusal.reason, (refusal.reason, words)
        assert refusal.is_stale is (cases is STALE or code == errno.EEXIST), refusal
    assert len(found) == len(cases)
    return [each.reason for each in found.values()]


def try_refusals(client: IpvsClient) -> dict[str, object]:
    """Each refusal is told in words, and changes nothing."""
    subprocess.run(("ip", "link", "add", "idle", "type", "dummy"), check=True)
    assert client.write([AddVirtual(WEB, RR), AddReal(WEB, THERE, NAT)]) == []
    before = client.read()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 8848))
        said = expect(client, IMPOSSIBLE) + expect(client, STALE)
    assert client.read()[0] == before
    assert client.write([StartSync(master())]) == []
    said += expect(client, WITH_MASTER)
    assert client.write([StopSync(master()), AddReal(WEB, OTHER, TUN)]) == []
    said += expect(client, WITH_OTHER_FAMILY)
    subprocess.run(("ip", "link", "delete", "idle"), check=True)
    return {"said": said}
