"""director.yaml: every mistake with its place and its remedy, and what a good file means."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from director.core.config import parse_config
from director.core.model import Config, Method, RealServer, VirtualServer
from director.core.table import Protocol, SchedulerFlags, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.kit.checks.base import Timing
from director.kit.checks.check import Check, leaves
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.configfile import InvalidConfigError
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

GOOD = """\
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.11}
      b: {address: 10.0.0.12}
"""
NO_ADDRESS = "is not an IP address: use one such as 192.0.2.10 or 2001:db8::10"
UNUSABLE = "cannot be used here: give a unicast address, neither link-local nor IPv4-mapped"
WEB = "virtual_servers.web"


def lines(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(text, "f")
    return caught.value.lines()


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


BAD = {
    "unknown key": (
        changed(("    port: 80", "    prot: 80\n    port: 80")),
        [f"f:4:5: {WEB}.prot: unknown key 'prot': did you mean 'port'?"],
    ),
    "unknown key at the top": (
        GOOD + "virtual_server: {}\n",
        ["f:9:1: virtual_server: unknown key 'virtual_server': did you mean 'virtual_servers'?"],
    ),
    "duplicate key": (
        changed(("    port: 80", "    port: 80\n    port: 81")),
        [f"f:5:5: {WEB}.port: duplicate key 'port', first in line 4: remove one of them"],
    ),
    "duplicate name": (
        changed(("      b: ", "      a: ")),
        [f"f:8:7: {WEB}.real_servers.a: duplicate key 'a', first in line 7: remove one of them"],
    ),
    "bad address": (
        changed(("10.0.0.11", "10.0.0.256")),
        [f"f:7:20: {WEB}.real_servers.a.address: '10.0.0.256' {NO_ADDRESS}"],
    ),
    "host name": (
        changed(("192.0.2.10", "www.example.org")),
        [f"f:3:14: {WEB}.address: 'www.example.org' {NO_ADDRESS}"],
    ),
    "multicast": (changed(("192.0.2.10", "224.0.0.1")), [f"f:3:14: {WEB}.address: 224.0.0.1 {UNUSABLE}"]),
    "broadcast": (changed(("192.0.2.10", "255.255.255.255")), [f"f:3:14: {WEB}.address: 255.255.255.255 {UNUSABLE}"]),
    "link-local": (
        changed(("192.0.2.10", "fe80::1"), ("10.0.0.11", "fd00::1"), ("10.0.0.12", "fd00::2")),
        [f"f:3:14: {WEB}.address: fe80::1 {UNUSABLE}"],
    ),
    "no address": (
        changed(("    address: 192.0.2.10\n", "")),
        [f"f:3:5: {WEB}: neither address nor fwmark: write `address:` and `port:`, or `fwmark:`"],
    ),
    "port 70000": (
        changed(("port: 80", "port: 70000")),
        [
            f"f:4:11: {WEB}.port: 70000 is not a port: use a number from 1 to 65535, a range such as 8000-8099, "
            "a list of these, or any"
        ],
    ),
    "port 0": (
        changed(("port: 80", "port: 0")),
        [
            f"f:4:11: {WEB}.port: 0 is not a port: use a number from 1 to 65535, a range such as 8000-8099, "
            "a list of these, or any"
        ],
    ),
    "duplicate virtual server": (
        GOOD + "  again: {address: 192.0.2.10, port: 80, forward: nat, real_servers: {}}\n",
        [
            "f:9:20: virtual_servers.again.address: tcp 192.0.2.10:80 is a duplicate of virtual server 'web': "
            "change port or address"
        ],
    ),
    "duplicate real server": (
        changed(("10.0.0.12", "10.0.0.11")),
        [f"f:8:20: {WEB}.real_servers.b.address: 10.0.0.11:80 is a duplicate of real server 'a': remove one of them"],
    ),
    "dr on another port": (
        changed(("nat", "dr"), ("10.0.0.12}", "10.0.0.12, port: 8080}")),
        [
            f"f:8:37: {WEB}.real_servers.b.port: 8080 differs from the virtual server's port 80: "
            "with dr packets arrive unchanged, so use 80, or forward: nat"
        ],
    ),
    "unknown scheduler": (
        changed(("forward: nat", "forward: nat\n    scheduler: wwlc")),
        [f"f:6:16: {WEB}.scheduler: 'wwlc' is not known: did you mean 'wlc'?"],
    ),
    "unknown forwarding method": (
        changed(("nat", "masq")),
        [f"f:5:14: {WEB}.forward: 'masq' is not known: use one of nat, dr, tun, fullnat"],
    ),
    "mixed family": (
        changed(("10.0.0.12", "2001:db8::12")),
        [
            f"f:8:20: {WEB}.real_servers.b.address: 2001:db8::12 is IPv6 and the virtual server's address is IPv4: "
            "nat cannot change the family, use an IPv4 address, or forward: tun"
        ],
    ),
    "VIP as real server": (
        changed(("10.0.0.12", "192.0.2.10")),
        [f"f:8:20: {WEB}.real_servers.b.address: 192.0.2.10 is the VIP itself: give the real server's own address"],
    ),
    "weight too large": (
        changed(("10.0.0.11}", "10.0.0.11, weight: 65536}")),
        [f"f:7:39: {WEB}.real_servers.a.weight: 65536 is too large: use a number from 0 to 65535"],
    ),
    "weight below 0": (
        changed(("10.0.0.11}", "10.0.0.11, weight: -1}")),
        [f"f:7:39: {WEB}.real_servers.a.weight: -1 is too small: use a number from 0 to 65535"],
    ),
    "weight with a fraction": (
        changed(("10.0.0.11}", "10.0.0.11, weight: 1.5}")),
        [f"f:7:39: {WEB}.real_servers.a.weight: 1.5 is not a whole number: write one from 0 to 65535"],
    ),
    "udp with a tcp check": (
        changed(("forward: nat", "forward: nat\n    protocol: udp\n    check: {type: tcp}")),
        [f"f:7:12: {WEB}.check: a tcp check of a udp virtual server needs `port:`, a TCP port; or use type: none"],
    ),
    "flags of another scheduler": (
        changed(("forward: nat", "forward: nat\n    scheduler: mh\n    scheduler_flags: [mh-port, sh-port]")),
        [f"f:7:22: {WEB}.scheduler_flags: 'sh-port' does not go with scheduler 'mh': remove it, or use scheduler 'sh'"],
    ),
    "persistence prefix": (
        changed(("forward: nat", "forward: nat\n    persistence: {timeout: 5m, prefix: 64}")),
        [f"f:6:40: {WEB}.persistence.prefix: 64 is longer than an address: use at most 32"],
    ),
    "persistence with a fraction": (
        changed(("forward: nat", "forward: nat\n    persistence: {timeout: 1500ms}")),
        [f"f:6:28: {WEB}.persistence.timeout: 1.5s has a fraction: the kernel counts whole seconds"],
    ),
    "interface name": (
        changed(("forward: nat", "forward: nat\n    interface: a-name-of-16-char")),
        [
            f"f:6:16: {WEB}.interface: 'a-name-of-16-char' is not an interface name: "
            "use one that `ip link` shows, such as eth0"
        ],
    ),
    "two interfaces for one address": (
        changed(("forward: nat", "forward: nat\n    interface: eth0"))
        + "  tls: {address: 192.0.2.10, port: 443, forward: nat, interface: eth1, real_servers: {}}\n",
        ["f:10:66: virtual_servers.tls.interface: 192.0.2.10 is kept on eth0 by 'web': use one interface"],
    ),
    "no unit": (
        "drift_interval: 5\n" + GOOD,
        ["f:1:17: drift_interval: 5 has no unit: write 5s, 5ms or 5m"],
    ),
    "drift interval": (
        "drift_interval: 1ms\n" + GOOD,
        ["f:1:17: drift_interval: 1ms leaves no time for anything else: use at least 100ms"],
    ),
    "fast interval": (
        "defaults: {check: {type: tcp, interval: 1s, fast_interval: 2s}}\n" + GOOD,
        ["f:1:19: defaults.check: fast_interval 2s is longer than interval 1s: write a shorter fast_interval"],
    ),
    "unknown check": (
        changed(("forward: nat", "forward: nat\n    check: {type: htp}")),
        [f"f:6:19: {WEB}.check.type: 'htp' is not known: did you mean 'http'?"],
    ),
    "no name": (
        changed(("  web:", "  -web:")),
        [
            "f:2:3: virtual_servers.-web: '-web' is not a name: use up to 63 letters, digits, '_', '-' and '.', "
            "a letter or digit first"
        ],
    ),
    "empty": ("", ["f:1:1: the file is empty: it needs at least `virtual_servers:`"]),
    "no mapping": ("- a\n", ["f:1:1: a list cannot stand here: write a mapping (key: value)"]),
}


@pytest.mark.parametrize("name", BAD)
def test_mistake_is_named_with_its_place_and_what_to_do(name: str) -> None:
    text, expected = BAD[name]
    assert lines(text) == expected


def test_all_mistakes_of_a_file_are_told_at_once_in_its_order() -> None:
    text = """\
defaults: {interface: "a/b", chek: {type: tcp}}
drift_interval: 10
virtual_servers:
  web:
    address: 192.0.2.300
    port: 70000
    forward: dr
    scheduler: wwlc
    real_servers:
      a: {address: 10.0.0.11, weight: 70000}
      a: {address: 10.0.0.12}
  tls:
    address: 192.0.2.10
    port: 443
    forward: dr
    scheduler: rr
    scheduler_flags: [sh-port]
    persistence: {prefix: 33}
    real_servers:
      a: {address: 2001:db8::1}
      b: {address: 192.0.2.10}
      c: {address: 10.0.0.13, port: 444}
  dns:
    address: 192.0.2.10
    port: 53
    protocol: udp
    forward: nat
    check: {type: tcp}
    real_servers:
      a: {address: 10.0.0.53}
  again:
    address: 192.0.2.10
    port: 443
    forward: nat
    real_servers: {}
"""
    told = [line.split(": ")[:2] for line in lines(text)]
    assert told == [
        ["f:1:23", "defaults.interface"],
        ["f:1:30", "defaults.chek"],
        ["f:2:17", "drift_interval"],
        ["f:5:14", f"{WEB}.address"],
        ["f:6:11", f"{WEB}.port"],
        ["f:8:16", f"{WEB}.scheduler"],
        ["f:10:39", f"{WEB}.real_servers.a.weight"],
        ["f:11:7", f"{WEB}.real_servers.a"],
        ["f:17:22", "virtual_servers.tls.scheduler_flags"],
        ["f:18:27", "virtual_servers.tls.persistence.prefix"],
        ["f:20:20", "virtual_servers.tls.real_servers.a.address"],
        ["f:21:20", "virtual_servers.tls.real_servers.b.address"],
        ["f:22:37", "virtual_servers.tls.real_servers.c.port"],
        ["f:28:12", "virtual_servers.dns.check"],
        ["f:32:14", "virtual_servers.again.address"],
    ]


def test_defaults_of_a_short_file() -> None:
    key = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80)
    reals = (
        RealServer("a", ip_address("10.0.0.11"), 100),
        RealServer("b", ip_address("10.0.0.12"), 100),
    )
    expected = VirtualServer("web", (key,), VirtualRow("wlc"), Method.NAT, reals)
    assert parse_config(GOOD, "f") == Config((expected,), 10.0)


def test_a_full_file() -> None:
    text = """\
defaults:
  check: {type: http, path: /up, interval: 4s, timeout: 500ms, fall: 5, expect: {status: [200, 301-302]}}
  interface: eth0
drift_interval: 30s
virtual_servers:
  six:
    address: "2001:db8::10"
    port: 443
    forward: dr
    scheduler: mh
    persistence: {prefix: 64}
    interface: eth1
    check: {type: tcp, rise: 3, port: 8443}
    real_servers:
      b: {address: "2001:db8::2", weight: 0}
      a: {address: "2001:db8::1", check: {type: none}}
  dns:
    address: 192.0.2.10
    port: 53
    protocol: udp
    forward: nat
    scheduler: sh
    scheduler_flags: []
    persistence: {timeout: 2m, prefix: 24}
    real_servers:
      a: {address: 10.0.0.1, port: 5353}
      b: {address: 10.0.0.2, check: {type: http, port: 8080}}
"""
    two, dns = ip_address("2001:db8::2"), ip_address("10.0.0.2")
    assert parse_config(text, "f") == Config(
        (
            VirtualServer(
                "six",
                (VirtualKey.of(Protocol.TCP, ip_address("2001:db8::10"), 443),),
                VirtualRow("mh", SchedulerFlags.FALLBACK, 300, 64),
                Method.DR,
                (  # by address, whatever the file's order: both directors insert alike
                    RealServer("a", ip_address("2001:db8::1"), 100),
                    RealServer(
                        "b",
                        two,
                        0,
                        check=Check(Endpoint(two, 8443), TcpProbe(), Timing(4.0, 0.5, 1.0, 3, 5)),
                    ),
                ),
                (Vip(ip_address("2001:db8::10"), "eth1"),),
            ),
            VirtualServer(
                "dns",
                (VirtualKey.of(Protocol.UDP, ip_address("192.0.2.10"), 53),),
                VirtualRow("sh", SchedulerFlags.NONE, 120, 24),
                Method.NAT,
                (
                    RealServer("a", ip_address("10.0.0.1"), 100, 5353),
                    RealServer(
                        "b",
                        dns,
                        100,
                        check=Check(Endpoint(dns, 8080), HttpProbe(), Timing(4.0, 0.5, 1.0, 2, 5)),
                    ),
                ),
                (Vip(ip_address("192.0.2.10"), "eth0"),),
            ),
        ),
        30.0,
    )


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_default_check_of_tcp_servers_does_not_probe_udp_ports(kind: str) -> None:
    text = f"defaults: {{check: {{type: {kind}}}}}\n" + changed(("forward: nat", "forward: nat\n    protocol: udp"))
    assert {real.check for real in parse_config(text, "f").virtual_servers[0].real_servers} == {None}
    with_port = text.replace(f"type: {kind}", f"type: {kind}, port: 8080")
    checks = [real.check for real in parse_config(with_port, "f").virtual_servers[0].real_servers]
    assert [leaf.target.port for check in checks for leaf in leaves(check)] == [8080, 8080]


def test_one_file_is_one_config_whatever_the_order_of_real_servers() -> None:
    turned = GOOD.replace("a: {address: 10.0.0.11}", "x").replace("b: {", "a: {address: 10.0.0.11}\n      b: {")
    turned = turned.replace("      x\n", "")
    assert parse_config(turned, "f") == parse_config(GOOD, "g")


def test_vips_are_named_once() -> None:
    text = "defaults: {interface: eth0}\n" + GOOD
    text += "  tls: {address: 192.0.2.10, port: 443, forward: nat, real_servers: {}}\n"
    assert parse_config(text, "f").vips() == (Vip(ip_address("192.0.2.10"), "eth0"),)
