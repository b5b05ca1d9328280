"""What the options and the file say that this host is, and where its tunnels end."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from director.cli.realserver_parts import Part, parts_of_file, served
from director.core.table import Tunnel, TunnelFlags, TunnelKind
from director.core.vip import Vip
from director.host.decapsulation import Served
from director.kit.errors import ConfigError

pytestmark = pytest.mark.unit

VIP, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
HERE, HERE6 = ip_address("10.0.0.21"), ip_address("fd00::21")
DIRECTOR, DIRECTOR6 = ip_address("10.0.0.1"), ip_address("fd00::1")
HELD = [
    Vip(ip_address("127.0.0.1"), "lo"),
    Vip(HERE, "eth0"),
    Vip(HERE6, "eth0"),
    Vip(ip_address("fe80::1"), "eth0"),
    Vip(VIP, "lvs-ipip0"),
    Vip(ip_address("192.0.2.9"), "lvs-ipip0"),  # an earlier VIP
]


def test_dr_needs_no_ends_and_nat_nothing() -> None:
    parts = [Part("a", VIP, "dr"), Part("b", VIP6, "nat", HERE6), Part("c", VIP6, "fullnat", HERE6)]
    assert served(parts, [DIRECTOR], HELD) == [Served(VIP)]


def test_a_tunnel_ends_at_the_directors_and_else_at_this_hosts_own_addresses() -> None:
    tunneled = Part("web", VIP, "tun")
    assert served([tunneled], [DIRECTOR, DIRECTOR6], HELD) == [Served(VIP, Tunnel(), (DIRECTOR, DIRECTOR6))]
    assert served([tunneled], [], HELD) == [Served(VIP, Tunnel(), (), (HERE,))]
    assert served([Part("web", VIP6, "tun")], [], HELD) == [Served(VIP6, Tunnel(), (), (HERE6,))]


def test_the_files_address_decides_the_outer_family() -> None:
    tunneled = Part("web", VIP, "tun", HERE6)
    assert served([tunneled], [DIRECTOR, DIRECTOR6], HELD) == [Served(VIP, Tunnel(), (DIRECTOR6,))]
    assert served([tunneled], [], HELD) == [Served(VIP, Tunnel(), (), (HERE6,))]
    with pytest.raises(ConfigError, match=r"web: the tunnel to fd00::21 is IPv6, and no --director is"):
        served([tunneled], [DIRECTOR], HELD)


@pytest.mark.parametrize(
    ("directors", "held", "told"),
    [
        ([], HELD[:1], "this host has no IPv4 address that a tunnel could end at: name the director's"),
        ([ip_address("fe80::2")], HELD, "a tunnel cannot begin at a link-local address"),
    ],
)
def test_a_tunnel_without_an_end_is_told(directors: list[object], held: list[Vip], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        served([Part("web", VIP, "tun")], directors, held)  # type: ignore[arg-type]  # addresses of both families


FILE = """
virtual_servers:
  web:
    {address: 192.0.2.10, port: [80, 443], forward: dr, real_servers: {a: {address: 10.0.0.21}, b: {address: 10.0.0.9}}}
  far:
    address: [192.0.2.13, "2001:db8::10"]
    port: 81
    forward: tun
    tunnel: {type: gre, checksum: full}
    real_servers: {a: {address: 10.0.0.21}, b: {address: "fd00::21", tunnel: {type: gue, port: 6080}}}
  marked:
    fwmark: 7
    forward: dr
    traffic: [{address: 192.0.2.14}]
    real_servers: {a: {address: 10.0.0.21}}
  back: {address: 192.0.2.11, port: 80, forward: nat, real_servers: {a: {address: 10.0.0.21, port: 8080}}}
  else: {address: 192.0.2.12, port: 80, forward: dr, real_servers: {a: {address: 10.0.0.22}}}
"""


def test_the_file_says_what_this_host_is(tmp_path: Path) -> None:
    file = tmp_path / "director.yaml"
    file.write_text(FILE)
    parts = parts_of_file(file, HELD)
    gre = Tunnel(TunnelKind.GRE, 0, TunnelFlags.CHECKSUM)
    gue = Tunnel(TunnelKind.GUE, 6080)
    far, marked, back = (ip_address(f"192.0.2.{last}") for last in (13, 14, 11))
    assert parts == [
        Part("web", VIP, "dr", HERE),
        Part("far", far, "tun", HERE, gre),
        Part("far", far, "tun", HERE6, gue),
        Part("far", VIP6, "tun", HERE, gre),
        Part("far", VIP6, "tun", HERE6, gue),
        Part("marked", marked, "dr", HERE),
        Part("back", back, "nat", HERE),
    ]
    assert served(parts[:2], [DIRECTOR], HELD) == [Served(VIP), Served(far, gre, (DIRECTOR,))]
    with pytest.raises(ConfigError, match=r"no virtual server with an address has one of this host's .*127\.0\.0\.1"):
        parts_of_file(file, HELD[:1])
