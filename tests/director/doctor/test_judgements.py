"""Facts and what they mean: what a lab cannot have; and what cannot be seen is said, and is no finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.table import Protocol, Table, Tunnel, TunnelKind, VirtualEntry, VirtualRow
from director.doctor import filters, kernel, listening, sysctls, tunnels, ways
from director.doctor.checkup import judge
from director.doctor.facts import Conntrack, Facts, Flow, Modules, Process, Socket, Unseen
from director.doctor.finding import Finding
from director.doctor.network import FAR, Held, Link, Neighbour, Network, Route
from director.doctor.packets import iptables, nft
from director.doctor.situation import Virtual, of_config, of_vips
from director.doctor.wire import Echo
from director.host.sysctl import key_of

pytestmark = pytest.mark.unit

FILE = """
defaults: {interface: eth0}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: METHOD
    real_servers:
      a: {address: 10.0.0.21}
      b: {address: 10.0.0.22}
"""
VIP, A, B = (ip_address(text) for text in ("192.0.2.10", "10.0.0.21", "10.0.0.22"))
ROUTER = ip_address("10.0.0.1")
UNSEEN = Unseen("it", "it hides", "seek it")
LINKS = {
    "lo": Link("lo", 1, 65536, loopback=True, speaks_arp=False),
    "eth0": Link("eth0", 2, 1500, mac="02:00:00:00:00:01"),
    "eth1": Link("eth1", 3, 1500, mac="02:00:00:00:00:02"),
}


def director(method: str = "nat", more: str = "") -> Facts:
    """A director in health: VIP on eth0, both real servers on eth1."""
    situation = of_config(parse_config(FILE.replace("METHOD", method) + more, "f"), "f")
    held = (Held(ip_address("192.0.2.2"), 24, "eth0"), Held(VIP, 32, "eth0"), Held(ROUTER, 24, "eth1"))
    routes = {A: Route("eth1"), B: Route("eth1"), VIP: Route("lo", is_local=True)}
    return Facts(
        situation,
        directs=situation.virtuals,
        network=Network(LINKS, held, {**routes, **dict.fromkeys(FAR.values(), Route("eth0", ip_address("192.0.2.1")))}),
        modules=Modules("6.1", loaded=frozenset({"ip_vs"}), available=frozenset({"ip_vs_wlc"})),
        table=Table({key: VirtualEntry(VirtualRow("wlc")) for key in situation.keys}),
        heard={("eth1", A): frozenset({"02:00:00:00:00:21"}), ("eth1", B): frozenset({"02:00:00:00:00:22"})},
    )


def server(method: str = "nat") -> Facts:
    """Real server `a` in health."""
    situation = of_config(parse_config(FILE.replace("METHOD", method), "f"), "f")
    held = [Held(A, 24, "eth1"), *([Held(VIP, 32, "lo")] if method == "dr" else [])]  # tun: see `unpacking`
    way = Route("eth1", ROUTER)
    return Facts(
        situation,
        serves=situation.served_by([A]),
        network=Network(LINKS, tuple(held), {**dict.fromkeys(FAR.values(), way), VIP: way, B: Route("eth1")}),
        sysctls={
            key_of(f"net.ipv4.conf.all.{name}"): value for name, value in (("arp_ignore", "1"), ("arp_announce", "2"))
        },
        heard={("eth1", B): frozenset({"02:00:00:00:00:22"})},
        echoes={VIP: Echo(True, VIP)},
        sockets=(Socket(Protocol.TCP, ip_address("0.0.0.0"), 80),),
    )


def changed(facts: Facts, **more: object) -> Facts:
    return replace(facts, **more)  # type: ignore[arg-type]


def codes(found: Iterable[Finding]) -> list[str]:
    return [f"{each.severity.value} {each.code.value}" for each in found]


@pytest.mark.parametrize("facts", [director("nat"), director("dr"), server("nat"), server("dr")])
def test_health_is_silence_and_a_line_that_says_how_much_was_looked_at(facts: Facts) -> None:
    report = judge(facts)
    assert report.findings == ()
    role, looks = ("a director", 16) if facts.directs else ("a real server", 11)
    assert report.summary() == f"{looks} looks as {role} of 1 virtual server: 0 errors, 0 warnings, 0 notes."


def test_a_host_that_nothing_concerns_is_told_so() -> None:
    facts = director()
    assert judge(changed(facts, directs=())).summary() == "Nothing to look at: no virtual server concerns this host."


def test_findings_are_sorted_by_severity() -> None:
    facts = changed(director("dr"), conntrack=Conntrack(85, 100), filters=UNSEEN, flows=UNSEEN, has_ipvs=False)
    assert codes(judge(facts).findings) == ["error module-missing", "warning conntrack-full", "note skipped"]


@pytest.mark.parametrize(
    ("facts", "unmade"),
    [
        (changed(director(), table=UNSEEN), ["table"]),
        (changed(director(), filters=UNSEEN), ["invalid packets", "answers", "outgoing packets", "incoming packets"]),
        (changed(director(), heard=UNSEEN, neighbours={("eth1", each): Neighbour("x", False) for each in (A, B)}),
         ["who answers for VIPs"]),
        (changed(director(), unseen=(UNSEEN,)), []),
        (changed(server(), filters=UNSEEN), ["incoming packets"]),
        (changed(server(), echoes=UNSEEN), ["default route"]),
        (changed(server("dr"), heard=UNSEEN), ["who answers for VIPs"]),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_a_note_and_nothing_else(facts: Facts, unmade: list[str]) -> None:
    report = judge(facts)
    assert [str(each) for each in report.findings] == ["note  skipped  it: not looked at: it hides: seek it"]
    assert list(report.unmade) == unmade
    assert (f"{len(unmade)} of them not made" in report.summary()) == bool(unmade)


VS = {"expire_nodest_conn": "1", "expire_quiescent_template": "0", "conn_reuse_mode": "1", "conntrack": "0"}
EXPIRE = "dead_connections: expire\n"


@pytest.mark.parametrize(
    ("method", "more", "settings", "expected"),
    [
        ("dr", "", {}, []),
        ("dr", "", {"expire_nodest_conn": "0"}, ["warning expire-nodest"]),
        ("dr", EXPIRE, {"expire_nodest_conn": "0"}, ["warning expire-nodest"]),
        ("nat", "", {"expire_nodest_conn": "0"}, []),
        ("nat", EXPIRE, {"expire_nodest_conn": "0"}, ["warning expire-nodest"]),
        ("nat", "", {"conn_reuse_mode": "0"}, ["warning reuse-mode"]),
        ("dr", "", {"conntrack": "1"}, ["warning setting-wrong"]),
        ("fullnat", "", {}, ["error setting-wrong"]),
        ("nat", "settings: report\n", {"conn_reuse_mode": "0"}, ["warning reuse-mode"]),
    ],
)
def test_settings_that_hurt(method: str, more: str, settings: dict[str, str], expected: list[str]) -> None:
    found = {key_of(f"net.ipv4.vs.{name}"): value for name, value in {**VS, **settings}.items()}
    facts = changed(director(method, more), sysctls=found)
    findings = [*sysctls.forwarding(facts), *sysctls.expiry(facts)]
    assert codes(findings) == expected
    assert all("report" in more or "` in f" in each.remedy or "`director apply f`" in each.remedy for each in findings)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (Modules("6.1", loaded=frozenset({"ip_vs_wlc"})), ""),
        (Modules("6.1", available=frozenset({"ip_vs_wlc"})), ""),
        (
            Modules("6.1", available=frozenset({"ip_vs_wlc"}), may_load=False),
            "at boot, before modules are switched off",
        ),
        (Modules("6.1"), "or use another scheduler"),
        (Modules("6.1", complete=False), "note  skipped  module ip_vs_wlc"),
    ],
)
def test_a_scheduler_is_there_or_can_be_loaded(modules: Modules, expected: str) -> None:
    found = [str(each) for each in kernel.schedulers(changed(director(), modules=modules, table=Table()))]
    assert expected in found[0] if expected else not found


def test_a_scheduler_that_is_in_use_is_there() -> None:
    assert codes(kernel.schedulers(changed(director(), modules=Modules("6.1")))) == []


def test_fullnat_needs_a_module_of_its_own() -> None:
    facts = director("fullnat")
    assert codes(kernel.modules(facts)) == ["error module-missing"]
    loaded = frozenset({"xt_ipvs"})
    assert codes(kernel.modules(changed(facts, modules=Modules("6.1", loaded=loaded)))) == []


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(0, 0, []), (79, 100, []), (80, 100, ["warning conntrack-full"]), (95, 100, ["error conntrack-full"])],
)
def test_a_table_of_connections_fills(count: int, limit: int, expected: list[str]) -> None:
    assert codes(sysctls.tracking(changed(director(), conntrack=Conntrack(count, limit)))) == expected


@pytest.mark.parametrize(
    ("name", "declares", "expected"),
    [
        ("keepalived", True, ["warning rival"]),
        ("keepalived", None, ["warning rival"]),
        ("keepalived", False, []),
        ("kube-proxy", True, ["error rival"]),
        ("kube-proxy", False, []),
        ("ldirectord", True, ["warning rival"]),
    ],
)
def test_who_else_writes_the_table(name: str, declares: bool | None, expected: list[str]) -> None:
    found = list(kernel.rivals(changed(director(), processes=(Process(7, name, (), declares),))))
    assert codes(found) == expected
    assert all(("could not be read" in each.found) == (declares is None) for each in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"heard": UNSEEN}, ["error no-neighbour"] * 2),
        ({"heard": UNSEEN, "neighbours": {("eth1", A): Neighbour("x", False)}}, ["error no-neighbour"]),
        ({"heard": {}, "neighbours": {("eth1", A): Neighbour("x", False)}}, ["error no-neighbour"] * 2),
        ({"heard": {}, "neighbours": {("eth1", A): Neighbour("x", True)}}, ["error no-neighbour"]),
    ],
)
def test_a_neighbour_answers_or_was_written_down(change: dict[str, object], expected: list[str]) -> None:
    assert codes(ways.to_real_servers(changed(director(), **change))) == expected


def gateway(**change: object) -> list[str]:
    return codes(ways.from_nat_servers(changed(server(), **change)))


def test_the_default_route_leads_to_the_director() -> None:
    wrong, unknown = ["error gateway-not-director"], ["note skipped"]
    assert gateway() == []
    assert gateway(echoes={VIP: Echo(False, ROUTER)}) == wrong
    assert gateway(echoes={VIP: Echo(False)}) == unknown
    assert gateway(echoes={}) == unknown
    one, other = frozenset({"02:00:00:00:00:0a"}), frozenset({"02:00:00:00:00:0b"})
    assert gateway(heard={("eth1", VIP): one, ("eth1", ROUTER): one}, echoes=UNSEEN) == []
    assert gateway(heard={("eth1", VIP): one, ("eth1", ROUTER): other}) == wrong
    assert (
        gateway(heard={("eth1", VIP): one}, neighbours={("eth1", ROUTER): Neighbour("02:00:00:00:00:0a", False)}) == []
    )


def test_a_client_beside_the_servers_is_found_among_connections() -> None:
    inside = Flow("tcp", ip_address("10.0.0.99"), VIP, 80, A)
    assert codes(ways.clients_nearby(changed(director(), flows=(inside,)))) == ["error clients-in-subnet"]
    for flow in (replace(inside, client=ip_address("198.51.100.7")), replace(inside, port=81)):
        assert codes(ways.clients_nearby(changed(director(), flows=(flow,)))) == []
    assert codes(ways.clients_nearby(changed(director("dr"), flows=(inside,)))) == []


@pytest.mark.parametrize(
    ("sockets", "answers", "expected"),
    [
        (["0.0.0.0"], None, []),
        (["10.0.0.21"], None, []),
        (["::"], True, []),
        (["::"], False, ["error not-listening"]),
        (["10.0.0.22"], None, ["error not-listening"]),
        ([], None, ["error not-listening"]),
    ],
)
def test_who_listens(sockets: list[str], answers: bool | None, expected: list[str]) -> None:
    there = tuple(Socket(Protocol.TCP, ip_address(each), 80) for each in sockets)
    answering = {} if answers is None else {(A, 80): answers}
    facts = changed(server(), sockets=there, answering=answering)
    assert list(listening.doubtful(facts)) == ([(A, 80)] if answers is not None else [])
    assert codes(listening.listeners(facts)) == expected


def test_a_real_server_without_a_file_is_looked_at_as_far_as_it_goes() -> None:
    facts = server("dr")
    named = of_vips([VIP], "dr")
    facts = changed(facts, situation=named, serves=named.served_by([A]), sysctls={})
    found = [str(each) for each in judge(facts).findings]
    assert [line.split()[1] for line in found] == ["arp-settings", "arp-settings", "skipped"]
    assert "`director realserver apply --vip 192.0.2.10 --forward dr`" in found[0]
    assert "the port is not known" in found[2]


@pytest.mark.parametrize(
    ("mtu", "tunnel", "expected"),
    [(1519, "ipip", 1), (1520, "ipip", 0), (1523, "gre", 1), (1524, "gre", 0), (1539, "gue", 1), (1540, "gue", 0)],
)
@pytest.mark.parametrize("told", ["1", "0"])
def test_a_director_tells_whether_a_full_packet_fits(mtu: int, tunnel: str, expected: int, told: str) -> None:
    facts = tunneled(director("tun"), tunnel)
    links = {**LINKS, "eth1": replace(LINKS["eth1"], mtu=mtu)}
    facts = changed(facts, network=replace(facts.network, links=links), sysctls={sysctls.PMTU_DISC: told})
    found = list(tunnels.widths(facts))
    assert codes(found) == [f"{'note' if told == '1' else 'warning'} tunnel-mtu"] * expected
    assert all("by 1" in each.remedy for each in found)


def tunneled(facts: Facts, kind: str) -> Facts:
    """The same by another kind of tunnel."""
    tunnel = Tunnel(TunnelKind(kind), 6080 if kind == "gue" else 0)

    def wrapped(virtuals: tuple[Virtual, ...]) -> tuple[Virtual, ...]:
        return tuple(replace(v, reals=tuple(replace(real, tunnel=tunnel) for real in v.reals)) for v in virtuals)

    return changed(facts, directs=wrapped(facts.directs), serves=wrapped(facts.serves))


def unpacking(kind: str, device: str, **more: object) -> Facts:
    """A tun real server in health."""
    facts = tunneled(server("tun"), kind)
    links = {**LINKS, "t": Link("t", 9, 1480, speaks_arp=False, kind=device, remote=ip_address("10.0.0.1"))}
    held = (*facts.network.held, Held(VIP, 32, "t"))
    clamp = iptables.parse("*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -s 192.0.2.10/32 -p tcp -m tcp --tcp-flags "
                           "SYN,RST SYN -j TCPMSS --set-mss 1400\nCOMMIT\n", "iptables", 4)  # fmt: skip
    return changed(facts, network=replace(facts.network, links=links, held=held), filters=clamp,
                   gue_ports=frozenset({6080}), **more)  # fmt: skip


KINDS = [("ipip", "ipip"), ("gre", "gre"), ("gue", "ipip")]


@pytest.mark.parametrize(("kind", "device"), KINDS)
def test_a_tun_server_in_health_unpacks_what_one_director_sends(kind: str, device: str) -> None:
    facts = unpacking(kind, device)
    assert judge(facts).findings == ()
    assert codes(tunnels.segments(changed(facts, filters=()))) == ["warning tunnel-mtu"]
    links = {**facts.network.links, "t": replace(facts.network.links["t"], remote=None)}
    assert codes(tunnels.openness(changed(facts, network=replace(facts.network, links=links)))) == [
        "warning tunnel-open"
    ]
    for broken in (replace(links["t"], up=False), replace(links["t"], kind="sit")):
        network = replace(facts.network, links={**links, "t": broken})
        assert codes(tunnels.devices(changed(facts, network=network))) == ["error tunnel-missing"]
    assert codes(tunnels.devices(changed(facts, gue_ports=frozenset()))) == ["error tunnel-missing"] * (kind == "gue")


@pytest.mark.parametrize(
    ("kind", "rule", "expected"),
    [
        ("ipip", "-p ipencap ! -s 10.0.0.1/32 -j DROP", []),
        ("ipip", "-p gre ! -s 10.0.0.1/32 -j DROP", ["warning tunnel-open"]),
        ("gre", "-p gre ! -s 10.0.0.1/32 -j DROP", []),
        ("gue", "-p udp -m udp --dport 6080 ! -s 10.0.0.1/32 -j DROP", []),
        ("gue", "-p udp -m udp --dport 6081 ! -s 10.0.0.1/32 -j DROP", ["warning tunnel-open"]),
    ],
)
def test_a_filter_closes_a_tunnel_that_is_open(kind: str, rule: str, expected: list[str]) -> None:
    facts = unpacking(kind, dict(KINDS)[kind])
    links = {**facts.network.links, "t": replace(facts.network.links["t"], remote=None)}
    rules = iptables.parse(f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n", "iptables", 4)
    facts = changed(facts, network=replace(facts.network, links=links), filters=rules)
    assert codes(tunnels.openness(facts)) == expected


CAPTURED = Path(__file__).parent / "captured"


@pytest.mark.parametrize(
    ("look", "method", "remedy"),
    [
        (filters.incoming, "nat", "nft insert rule inet firewalld CHAIN ip daddr 192.0.2.10 tcp dport 81 accept"),
        (filters.answers, "nat", "net.ipv4.vs.conntrack=1"),
        (filters.invalid, "dr", "-j CT --notrack"),
    ],
)
def test_nftables_rules_have_a_remedy_in_their_own_words(
    look: Callable[[Facts], Iterable[Finding]], method: str, remedy: str
) -> None:
    zones = nft.parse((CAPTURED / "nft-zones.json").read_text())
    facts = changed(director(method), filters=zones)
    if look is filters.incoming:
        facts = changed(facts, directs=tuple(replace(each, port=81) for each in facts.directs))
    (found,) = look(facts)
    assert remedy in found.remedy


@pytest.mark.parametrize("program", ["iptables", "iptables-legacy", "iptables-nft"])
def test_a_remedy_is_for_the_kind_of_iptables_that_has_the_rule(program: str) -> None:
    rules = iptables.parse("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\nCOMMIT\n", program, 4)
    (found,) = filters.incoming(changed(director("nat"), filters=rules))
    assert f"accept them before that: {program} -I INPUT -p tcp " in found.remedy
    halves = "-A INPUT -m conntrack --ctstate INVALID -j DROP"
    rules = iptables.parse(f"*filter\n:INPUT ACCEPT [0:0]\n{halves}\nCOMMIT\n", program, 4)
    (found,) = filters.invalid(changed(director("dr"), filters=rules))
    assert f"untracked: {program} -t raw -A PREROUTING" in found.remedy
