"""Every combination that IPVS would take and not serve, or refuse with a bare errno: its place and its remedy."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.kit.configfile import InvalidConfigError

pytestmark = pytest.mark.unit

TOP = "virtual_servers.web"


def lines(text: str) -> list[str]:
    try:
        parse_config(text, "f")
    except InvalidConfigError as error:
        return [str(line) for line in error.lines()]
    return []


def web(real: str = "address: 10.0.0.1", top: str = "", **keys: str) -> str:
    """A file of one virtual server with one real server, some keys other than usual; an empty one is left out."""
    chosen = {"address": "192.0.2.10", "port": "80", "forward": "nat", **keys}
    body = "".join(f"    {key}: {value}\n" for key, value in chosen.items() if value)
    return f"{top}virtual_servers:\n  web:\n{body}    real_servers:\n      a: {{{real}}}\n"


BAD: dict[str, tuple[str, str]] = {
    "through the VIP with nat": (
        web(check="{type: tcp, via: vip}"),
        f"{TOP}.check: with nat a probe of the real server goes the way that packets go: remove `via: vip`",
    ),
    "load through the VIP with nat": (
        web(load="{type: agent, via: vip}"),
        f"{TOP}.load: with nat a probe of the real server goes the way that packets go: remove `via: vip`",
    ),
    "through a VIP of another IP version": (
        web('address: "2001:db8::1"', forward="tun", check="{type: tcp, via: vip}"),
        f"{TOP}.check: the VIP 192.0.2.10 is IPv4, and the way to 2001:db8::1 tells no such address to probe it from: ",
    ),
    "through the VIP from the VIP": (
        web(forward="dr", check="{type: tcp, via: vip, source: 192.0.2.10}"),
        f"{TOP}.check: 192.0.2.10 cannot be the source of probes of 192.0.2.10: give an IPv4 address of the director",
    ),
    "through a VIP that nobody names": (
        web(address="", port="", fwmark="7", forward="dr", check="{type: tcp, port: 80, via: vip}"),
        f"{TOP}.check.via: there is no VIP to probe: name what is to be marked under `traffic:`, or remove it",
    ),
    "neither address nor fwmark": (web(address="", port=""), f"f:3:5: {TOP}: neither address nor fwmark: write"),
    "address without port": (web(port=""), f"f:3:5: {TOP}: `port` is missing"),
    "fwmark with a port": (web(address="", fwmark="7"), f"f:3:11: {TOP}.port: port does not go with fwmark 7"),
    "fwmark with an address": (web(port="", fwmark="7"), f"f:3:14: {TOP}.address: address does not go with fwmark 7"),
    "fwmark with a protocol": (
        web(address="", port="", fwmark="7", protocol="udp"),
        f"{TOP}.protocol: protocol does not go with fwmark 7: the mark alone decides; remove it, and say under",
    ),
    "family without fwmark": (web(family="ipv6"), f"{TOP}.family: family goes with fwmark"),
    "traffic without fwmark": (
        web(traffic="[{address: 192.0.2.11}]"),
        f"{TOP}.traffic: traffic goes with fwmark: remove it, or serve a firewall mark",
    ),
    "traffic of another family": (
        web(address="", port="", fwmark="7", traffic='[{address: "2001:db8::1"}]'),
        f"{TOP}.traffic.0.address: 2001:db8::1 is IPv6 and the virtual server is IPv4: use an IPv4 address, or "
        "`family: ipv6`",
    ),
    "any port without persistence": (web(port="any"), f"{TOP}.port: IPVS serves `any` port only with persistence"),
    "port range upside down": (web(port="90-80"), f"{TOP}.port: the range 90-80 is upside down: write 80-90"),
    "port twice": (web(port="[80, 79-81]"), f"{TOP}.port: port 80 stands here twice: remove one"),
    "too many ports": (web(port="1-65535"), f"{TOP}.port: 65535 ports would be as many virtual servers in the kernel"),
    "no port": (web(port="[]"), f"{TOP}.port: no port is given"),
    "address twice": (web(address="[192.0.2.10, 192.0.2.10]"), f"{TOP}.address: 192.0.2.10 stands here twice"),
    "interface without address": (
        web(address="", port="", fwmark="7", interface="eth0"),
        f"{TOP}.interface: there is no address to keep on it",
    ),
    "flag of another scheduler": (web(scheduler="rr", scheduler_flags="[mh-port]"), "'mh-port' does not go with"),
    "one-packet on tcp": (web(one_packet="true"), f"{TOP}.one_packet: one-packet scheduling is for udp, and this is"),
    "prefix and netmask": (
        web(persistence="{prefix: 24, netmask: 255.255.255.0}"),
        f"{TOP}.persistence.netmask: prefix says the same: remove one of them",
    ),
    "mask with holes": (web(persistence="{netmask: 255.0.255.0}"), "'255.0.255.0' is not a netmask: use one such as"),
    "prefix too long": (web(persistence="{prefix: 33}"), f"{TOP}.persistence.prefix: 33 is longer than an address"),
    "netmask with IPv6": (
        web("address: '2001:db8::2'", address="2001:db8::1", persistence="{netmask: 255.0.0.0}"),
        f"{TOP}.persistence.netmask: a netmask is IPv4's: write `prefix:`, 1 to 128",
    ),
    "prefix 0 with IPv6": (
        web("address: '2001:db8::2'", address="2001:db8::1", persistence="{prefix: 0}"),
        f"{TOP}.persistence.prefix: the kernel refuses 0 with IPv6",
    ),
    "persistence of half a second": (web(persistence="{timeout: 500ms}"), "0.5s has a fraction: the kernel counts"),
    "sip on tcp": (web(persistence="{engine: sip}"), f"{TOP}.persistence.engine: sip reads Call-IDs from udp packets"),
    "source without full NAT": (web(source="10.0.0.9"), f"{TOP}.source: nat keeps the client's address"),
    "source of another family": (
        web(forward="fullnat", source="2001:db8::9"),
        f"{TOP}.source: 2001:db8::9 is not an IPv4 address",
    ),
    "source that nothing comes back to": (
        web(forward="fullnat", source="192.0.2.10"),
        f"{TOP}.source: 192.0.2.10 is no address that answers come back to",
    ),
    "tunnel without tun": (web(tunnel="{type: gre}"), f"{TOP}.tunnel: nat has no tunnel"),
    "gue without port": (web(forward="tun", tunnel="{type: gue}"), f"{TOP}.tunnel: gue needs `port:`"),
    "gre with port": (web(forward="tun", tunnel="{type: gre, port: 1}"), f"{TOP}.tunnel.port: gre has no port"),
    "ipip with checksum": (
        web(forward="tun", tunnel="{checksum: full}"),
        f"{TOP}.tunnel.checksum: ipip has no checksum of its own",
    ),
    "gre with remote checksum": (
        web(forward="tun", tunnel="{type: gre, checksum: remote}"),
        f"{TOP}.tunnel.checksum: gre has no remote checksum",
    ),
    "tunnel of a real server without tun": (
        web("address: 10.0.0.1, tunnel: {type: gre}", forward="dr"),
        f"{TOP}.real_servers.a.tunnel: dr has no tunnel",
    ),
    "nat beside fullnat": (
        web("address: 10.0.0.1, forward: nat", forward="fullnat"),
        f"{TOP}.real_servers.a.forward: beside fullnat it would be rewritten as well",
    ),
    "dr on another port, beside nat": (
        web("address: 10.0.0.1, port: 81, forward: dr"),
        "81 differs from the virtual server's port 80: with dr packets arrive unchanged, so use 80, or forward: nat",
    ),
    "dr on another port": (
        web("address: 10.0.0.1, port: 81", forward="dr"),
        f"{TOP}.real_servers.a.port: 81 differs from the virtual server's port 80: with dr packets arrive unchanged, "
        "so use 80, or forward: nat",
    ),
    "tun on one port of several": (
        web("address: 10.0.0.1, port: 80", port="[80, 81]", forward="tun"),
        "80 differs from the virtual server's port 80-81: with tun packets arrive unchanged, so remove it, or",
    ),
    "dr on a port with fwmark": (
        web("address: 10.0.0.1, port: 80", address="", port="", fwmark="7", forward="dr"),
        f"{TOP}.real_servers.a.port: with dr packets arrive unchanged, on whichever port the client named: remove it",
    ),
    "mixed families without tun": (
        web("address: '2001:db8::2'"),
        "2001:db8::2 is IPv6 and the virtual server's address is IPv4: nat cannot change the family, use an IPv4 "
        "address, or forward: tun",
    ),
    "mixed VIPs without tun": (
        web("address: 10.0.0.1", address='[192.0.2.10, "2001:db8::1"]'),
        "10.0.0.1 is IPv4 and the virtual server's address is IPv6: nat cannot change the family",
    ),
    "mixed families with a sync daemon": (
        web("address: '2001:db8::2'", top="sync: {master: {interface: eth0}}\n", forward="tun"),
        f"{TOP}.real_servers.a.address: 2001:db8::2 is of another IP version than its virtual server, and the kernel "
        "refuses that together with a sync daemon",
    ),
    "message of a backup too short": (
        web(top="sync: {backup: {interface: eth0, maxlen: 1023}}\n"),
        "sync.backup.maxlen: the kernel would make it another: a backup with an IPv4 group has 1024 to 65507 bytes",
    ),
    "message too long for IPv6": (
        web(top="sync: {master: {interface: eth0, group: 'ff02::81', maxlen: 65488}}\n"),
        "sync.master.maxlen: the kernel would make it another: a master with an IPv6 group has 1 to 65487 bytes",
    ),
    "one-packet on marked tcp": (
        web(address="", port="", fwmark="7", traffic="[{address: 192.0.2.10}]", one_packet="true"),
        f"{TOP}.one_packet: one-packet scheduling is for udp, and this is tcp: remove it",
    ),
    "sip on marked tcp": (
        web(address="", port="", fwmark="7", traffic="[{address: 192.0.2.10}]", persistence="{engine: sip}"),
        f"{TOP}.persistence.engine: sip reads Call-IDs from udp packets, and this is tcp: use protocol: udp, or",
    ),
    "VIP of marked traffic as real server": (
        web("address: 192.0.2.10", address="", port="", fwmark="7", traffic="[{address: 192.0.2.10}]", forward="dr"),
        "192.0.2.10 is the VIP itself",
    ),
    "VIP of another's marked traffic as real server under dr": (
        web("address: 192.0.2.11", forward="dr")
        + "  other: {fwmark: 7, traffic: [{address: 192.0.2.11}], forward: nat, real_servers: {}}\n",
        "192.0.2.11 is the VIP of virtual server 'other', an address of this director: packets would not leave it",
    ),
    "VIP as real server": (web("address: 192.0.2.10", forward="dr"), "192.0.2.10 is the VIP itself"),
    "another VIP as real server under dr": (
        web("address: 192.0.2.11", forward="dr")
        + "  other: {address: 192.0.2.11, port: 80, forward: nat, real_servers: {}}\n",
        "192.0.2.11 is the VIP of virtual server 'other', an address of this director: packets would not leave it",
    ),
    "thresholds upside down": (
        web("address: 10.0.0.1, upper_threshold: 5, lower_threshold: 6"),
        f"{TOP}.real_servers.a.lower_threshold: 6 is above upper_threshold 5",
    ),
    "lower threshold alone": (
        web("address: 10.0.0.1, lower_threshold: 6"),
        f"{TOP}.real_servers.a.lower_threshold: it does nothing without upper_threshold",
    ),
    "same real server by two spellings": (
        web("address: 10.0.0.1}\n      b: {address: 10.0.0.1, port: 81", port="[80, 81]"),
        f"{TOP}.real_servers.b.address: 10.0.0.1:81 is a duplicate of real server 'a'",
    ),
    "same key by a range": (
        web(port="80-90") + "  other: {address: 192.0.2.10, port: 85, forward: nat, real_servers: {}}\n",
        "virtual_servers.other.address: tcp 192.0.2.10:85 is a duplicate of virtual server 'web'",
    ),
    "same mark": (
        web(address="", port="", fwmark="7") + "  other: {fwmark: 7, forward: nat, real_servers: {}}\n",
        "virtual_servers.other.fwmark: fwmark 7 is a duplicate of virtual server 'web': use another",
    ),
    "traffic of two marks": (
        web(address="", port="", fwmark="7", traffic="[{address: 192.0.2.10, port: 80-90}]")
        + "  other: {fwmark: 8, traffic: [{address: 192.0.2.10, port: 85}], forward: nat, real_servers: {}}\n",
        "virtual_servers.other.traffic.0: tcp 192.0.2.10 port 85 belongs to virtual server 'web' already",
    ),
    "traffic that has its own virtual server": (
        web() + "  other: {fwmark: 8, traffic: [{address: 192.0.2.10}], forward: nat, real_servers: {}}\n",
        "virtual_servers.other.traffic.0: tcp 192.0.2.10 belongs to virtual server 'web' already",
    ),
    "check of any port": (
        web(port="any", persistence="{}", check="{type: tcp}"),
        f"{TOP}.check: it needs `port:`, since the virtual server names none",
    ),
    "check of sctp": (web(protocol="sctp", check="{type: tcp}"), "a tcp check of a sctp virtual server needs `port:`"),
    "sync without a daemon": (web(top="sync: {}\n"), "sync: no daemon is asked for"),
    "sync group": (web(top="sync: {backup: {interface: eth0, group: 10.0.0.1}}\n"), "is not a multicast address"),
    "sync id": (
        web(top="sync: {backup: {interface: eth0, id: 256}}\n"),
        "256 is too large: use a number from 0 to 255",
    ),
    "timeout of nothing": (web(top="timeouts: {tcp: 30d}\n"), "timeouts.tcp: 30d is out of range: use 1s to"),
    "unknown tunnel": (web(forward="tun", tunnel="{type: vxlan}"), "'vxlan' is not known: use one of ipip, gre, gue"),
    "unknown state": (web("address: 10.0.0.1, state: off"), f"{TOP}.real_servers.a.state"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_combination_is_refused_with_its_place_and_what_to_do(name: str) -> None:
    text, expected = BAD[name]
    found = lines(text)
    assert any(expected in line for line in found), found


def test_what_each_of_them_is_a_step_away_from_is_accepted() -> None:
    for text in (
        web(),
        web(port="[443, 80, 8000-8009]"),
        web(port="any", persistence="{timeout: 10m}"),
        web(address="", port="", fwmark="7", traffic="[{address: [192.0.2.10, 192.0.2.11], port: [80, 443]}]"),
        web("address: '2001:db8::2'", forward="tun", tunnel="{type: gue, port: 6080, checksum: remote}"),
        web("address: 10.0.0.1, port: 81", port="[80, 81]"),
        web("address: 10.0.0.1, upper_threshold: 8, lower_threshold: 6, state: drained"),
        web(protocol="udp", one_packet="true", persistence="{engine: sip, netmask: 255.255.255.0}"),
        web(top="sync: {master: {interface: eth0, id: 3}, backup: {interface: eth0}}\ntimeouts: {udp: 30s}\n"),
        web(forward="fullnat", source="10.0.0.9"),
        web("address: '2001:db8::2', forward: tun, tunnel: {type: gre}"),
        web("address: '2001:db8::2', state: disabled", forward="tun", top="sync: {master: {interface: eth0}}\n"),
        web(protocol="sctp", check="{type: tcp, port: 80}"),
        web(on_drift="report", top="exclusive: true\nsettings: report\ndead_connections: expire\n"),
    ):
        assert lines(text) == [], text
