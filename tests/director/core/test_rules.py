"""What our chains should hold, and how a saved table is told apart from it; kernels are in tests/lab."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.rules import (
    MARK_CHAIN,
    MULTIPORT_SLOTS,
    SNAT_CHAIN,
    Chain,
    Found,
    Mark,
    PortRange,
    Rules,
    Snat,
    chains,
    differences,
    parse,
    restoring,
    rules_of,
)
from director.core.table import Protocol, VirtualKey
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

VIP, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")


def key(port: int, protocol: Protocol = Protocol.TCP, address: str = "192.0.2.10") -> VirtualKey:
    return VirtualKey.of(protocol, ip_address(address), port)


WEB, API, ANY = key(80), key(81), key(0)
MARKED, OTHER_MARKED = VirtualKey(4, mark=7), VirtualKey(4, mark=9)


def snat_rules(rules: Rules, version: int = 4) -> tuple[str, ...]:
    return chains(rules, version)[1].rules


def mark_rules(*marks: Mark, version: int = 4) -> tuple[str, ...]:
    return chains(Rules(marks=marks), version)[0].rules


def test_full_nat_is_matched_by_what_ipvs_knows_of_the_connection() -> None:
    rules = Rules(
        snats=(
            Snat(key(53, Protocol.UDP), ip_address("10.0.0.1")),
            Snat(key(80, Protocol.SCTP)),
            Snat(key(80, address="2001:db8::10"), ip_address("2001:db8:1::1")),
        )
    )
    assert snat_rules(rules) == (
        "-m ipvs --vproto 132 --vaddr 192.0.2.10 --vport 80 --vmethod MASQ -j MASQUERADE",
        "-m ipvs --vproto 17 --vaddr 192.0.2.10 --vport 53 --vmethod MASQ -j SNAT --to-source 10.0.0.1",
    )
    assert snat_rules(rules, 6) == (
        "-m ipvs --vproto 6 --vaddr 2001:db8::10 --vport 80 --vmethod MASQ -j SNAT --to-source 2001:db8:1::1",
    )


def test_full_nat_of_a_mark_is_matched_by_the_packets_mark() -> None:
    assert snat_rules(Rules(snats=(Snat(MARKED),))) == ("-m mark --mark 0x7 -m ipvs --vmethod MASQ -j MASQUERADE",)


@pytest.mark.parametrize(
    ("snat", "plain", "returns"),
    [
        (WEB, API, []),
        (ANY, API, ["--vport 81"]),
        (ANY, key(81, Protocol.UDP), []),
        (ANY, key(81, address="192.0.2.11"), []),
        (ANY, key(81, address="2001:db8::10"), []),
        (MARKED, API, []),
        (MARKED, OTHER_MARKED, []),
        # A connection by mark 9 may have come to 192.0.2.10:80 too.
        (WEB, OTHER_MARKED, ["--mark 0x9"]),
    ],
)
def test_plain_nat_is_left_out_of_a_wider_match(snat: VirtualKey, plain: VirtualKey, returns: list[str]) -> None:
    rules = snat_rules(Rules(snats=(Snat(snat),), plain=frozenset({plain})))
    found = [rule for rule in rules if rule.endswith("-j RETURN")]
    assert len(found) == len(returns)
    assert all(text in rule for text, rule in zip(returns, found, strict=True))
    assert rules.index(next(rule for rule in rules if "MASQUERADE" in rule)) == len(found)


def test_marks_come_before_ports_and_ports_before_any_port() -> None:
    targets = [snat_rules(Rules(snats=tuple(map(Snat, keys)))) for keys in ([ANY, WEB, MARKED], [MARKED, WEB, ANY])]
    assert targets[0] == targets[1]
    assert ["--mark" in targets[0][0], "--vport 80" in targets[0][1]] == [True, True]


def test_marks_of_each_version_go_to_its_own_chain() -> None:
    marks = Mark(7, Protocol.TCP, VIP, ((80, 80),)), Mark(0xFFFFFFFF, Protocol.UDP, VIP6)
    assert mark_rules(*marks) == (
        "-d 192.0.2.10/32 -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x7/0xffffffff",
    )
    assert mark_rules(*marks, version=6) == ("-d 2001:db8::10/128 -p udp -j MARK --set-xmark 0xffffffff/0xffffffff",)


PORTS = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(PORTS.filter(bool))
def test_ports_are_split_as_multiport_holds_them(ports: list[PortRange]) -> None:
    seen: list[int] = []
    for rule in mark_rules(Mark(7, Protocol.TCP, VIP, tuple(ports))):
        words = rule.partition("--dports ")[2].partition(" ")[0].split(",")
        assert sum(1 + (":" in word) for word in words) <= MULTIPORT_SLOTS
        for word in words:
            first, _, last = word.partition(":")
            seen += range(int(first), int(last or first) + 1)
    assert seen == sorted({port for first, last in ports for port in range(first, last + 1)})


@pytest.mark.parametrize("ports", [((0, 0),), ((80, 79),), ((1, 65536),)])
def test_impossible_ports_are_refused(ports: tuple[PortRange, ...]) -> None:
    with pytest.raises(ValueError, match="not a range of ports"):
        Mark(7, Protocol.TCP, VIP, ports)


def test_values_that_could_carry_text_into_a_rule_are_refused() -> None:
    zoned = IPv6Address("fe80::1%x -j ACCEPT\nCOMMIT")
    with pytest.raises(ValueError, match="zone"):
        Mark(7, Protocol.TCP, zoned)
    with pytest.raises(ValueError, match="zone"):
        Snat(VirtualKey(6, Protocol.TCP, Endpoint(zoned, 80)))
    with pytest.raises(ValueError, match="zone"):
        Snat(VirtualKey(6, mark=1), zoned)
    for mark in (0, 2**32):
        with pytest.raises(ValueError, match="firewall mark"):
            Mark(mark, Protocol.TCP, VIP)
    with pytest.raises(ValueError, match="source"):
        Snat(WEB, VIP6)


CONFIG = """
virtual_servers:
  full:
    address: [192.0.2.10, "2001:db8::10"]
    port: 80-81
    forward: fullnat
    real_servers: {}
  plain: {address: 192.0.2.11, port: 80, forward: nat, real_servers: {}}
  direct: {address: 192.0.2.12, port: 80, forward: dr, real_servers: {}}
  marked:
    fwmark: 7
    forward: fullnat
    source: 10.0.0.1
    traffic:
      - {address: 192.0.2.13, port: [80, 443, 8000-8002]}
      - {address: 192.0.2.13, protocol: udp}
    real_servers: {}
  theirs: {fwmark: 9, forward: nat, real_servers: {}}
"""


def test_a_configuration_asks_for_marks_and_sources() -> None:
    vip = ip_address("192.0.2.13")
    assert rules_of(parse_config(CONFIG, "x")) == Rules(
        marks=(
            Mark(7, Protocol.TCP, vip, tuple((port, port) for port in (80, 443, 8000, 8001, 8002))),
            Mark(7, Protocol.UDP, vip),
        ),
        snats=(
            *(Snat(key(port, address=address)) for address in ("192.0.2.10", "2001:db8::10") for port in (80, 81)),
            Snat(VirtualKey(4, mark=7), ip_address("10.0.0.1")),
        ),
        plain=frozenset({key(80, address="192.0.2.11"), VirtualKey(4, mark=9)}),
    )


NAT = chains(Rules(snats=(Snat(WEB), Snat(API))), 4)[1]
MANGLE = chains(Rules(marks=(Mark(7, Protocol.TCP, VIP, ((80, 80),)),)), 4)[0]
NO_NAT = chains(Rules(), 4)[1]
JUMP = f"-A POSTROUTING -j {SNAT_CHAIN}"
HEAD = "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [5:300]\n"
FOREIGN = (
    f'-A POSTROUTING -m comment --comment "it\\\'s \\"ours\\" -j {SNAT_CHAIN}" -j ACCEPT',
    f"-A {SNAT_CHAIN}-NOT -j ACCEPT",
    f'-A POSTROUTING -m comment --comment "no end -j {SNAT_CHAIN}',
)


def saved(rules: tuple[str, ...] | None, *lines: str) -> str:
    declared = "" if rules is None else f":{SNAT_CHAIN} - [0:0]\n"
    own = [f"-A {SNAT_CHAIN} {rule}" for rule in rules or ()]
    return "\n".join([HEAD + declared + f":{SNAT_CHAIN}-NOT - [0:0]", *FOREIGN[:2], *lines, *own, "COMMIT", ""])


def test_other_rules_are_not_taken_for_ours() -> None:
    assert parse(saved(None, FOREIGN[0]), NAT) == Found()
    assert parse(saved(NAT.rules, JUMP), NAT) == Found(NAT.rules, (JUMP,))


@pytest.mark.parametrize(
    ("text", "said", "lines"),
    [
        (saved(NAT.rules, JUMP), [], []),
        (
            saved(None),
            ["the chain is missing"],
            [":", "-A", "-A", f"-I POSTROUTING -j {SNAT_CHAIN}"],
        ),
        ("", ["the chain is missing"], [":", "-A", "-A", f"-I POSTROUTING -j {SNAT_CHAIN}"]),
        (saved(NAT.rules), ["the jump from POSTROUTING is missing"], [f"-I POSTROUTING -j {SNAT_CHAIN}"]),
        (
            saved(NAT.rules, JUMP, JUMP, JUMP),
            ["the jump from POSTROUTING is there 3 times"],
            [f"-D POSTROUTING -j {SNAT_CHAIN}"] * 2,
        ),
        (saved((), JUMP), ["2 of its 2 rules missing"], [":", "-A", "-A"]),
        (saved(NAT.rules[::-1], JUMP), ["its rules are in another order"], [":", "-A", "-A"]),
        (saved((*NAT.rules, "-j ACCEPT"), JUMP), ["a rule too many: -j ACCEPT"], [":", "-A", "-A"]),
        (saved((*NAT.rules, NAT.rules[0]), JUMP), [f"a rule too many: {NAT.rules[0]}"], [":", "-A", "-A"]),
        (
            saved(NAT.rules, JUMP, f"-A POSTROUTING -o eth0 -g {SNAT_CHAIN}"),
            [f"a jump too many: -A POSTROUTING -o eth0 -g {SNAT_CHAIN}"],
            [f"-D POSTROUTING -o eth0 -g {SNAT_CHAIN}"],
        ),
    ],
)
def test_each_difference_is_told_and_made_up_for(text: str, said: list[str], lines: list[str]) -> None:
    found = parse(text, NAT)
    assert list(differences(NAT, found)) == said
    written = restoring(NAT, found).splitlines()
    assert written[:1] + written[-1:] == (["*nat", "COMMIT"] if lines else [])
    assert len(written[1:-1]) == len(lines)
    assert all(line.startswith(start) for line, start in zip(written[1:-1], lines, strict=True)), written


def test_what_is_not_needed_is_removed_whole() -> None:
    assert differences(NO_NAT, parse(saved(None), NO_NAT)) == ()
    assert restoring(NO_NAT, parse(saved(None), NO_NAT)) == ""
    strange = f'-A OUTPUT -m comment --comment "a b" -j {SNAT_CHAIN}'
    found = parse(saved(NAT.rules, JUMP, strange), NO_NAT)
    assert differences(NO_NAT, found) == ("the chain is there and nothing needs it",)
    assert restoring(NO_NAT, found).splitlines() == [
        "*nat",
        f"-D POSTROUTING -j {SNAT_CHAIN}",
        f'-D OUTPUT -m comment --comment "a b" -j {SNAT_CHAIN}',
        f"-F {SNAT_CHAIN}",
        f"-X {SNAT_CHAIN}",
        "COMMIT",
    ]


def test_marks_are_set_last_and_those_of_local_clients_are_kept() -> None:
    assert restoring(MANGLE, Found()).splitlines() == [
        "*mangle",
        f":{MARK_CHAIN} - [0:0]",
        f"-A {MARK_CHAIN} {MANGLE.rules[0]}",
        f"-A PREROUTING -j {MARK_CHAIN}",
        f"-A OUTPUT -m mark --mark 0x0 -j {MARK_CHAIN}",
        "COMMIT",
    ]


def test_another_spelling_of_the_same_rules_agrees() -> None:
    found = Found(
        ("-d 192.0.2.10 -p 6 -m multiport --dports 80 -j MARK --set-mark 7",),
        (f"-A PREROUTING -j {MARK_CHAIN}", f"-A OUTPUT -m mark --mark 0 -j {MARK_CHAIN}"),
    )
    assert differences(MANGLE, found) == ()


def obeyed(text: str, chain: Chain, found: Found) -> Found:
    """What iptables-restore --noflush makes of `found`."""
    rules = None if found.rules is None else list(found.rules)
    jumps = list(found.jumps)
    for line in text.splitlines()[1:-1]:
        verb, _, rest = line.partition(" ")
        if line.startswith(":"):
            rules = []
        elif line.startswith(f"-A {chain.name} "):
            assert rules is not None
            rules.append(line.removeprefix(f"-A {chain.name} "))
        elif verb in ("-A", "-I"):
            jumps.insert(0 if verb == "-I" else len(jumps), f"-A {rest}")
        elif verb == "-D":
            jumps.remove(f"-A {rest}")
        elif verb == "-F":
            rules = []
        else:
            assert line == f"-X {chain.name}"
            assert rules == jumps == []
            rules = None
    return Found(None if rules is None else tuple(rules), tuple(jumps))


POOL = st.sampled_from([*NAT.rules, *MANGLE.rules, "-j ACCEPT"])
ORIGINS = st.sampled_from(["POSTROUTING -j", "PREROUTING -j", "OUTPUT -m mark --mark 0x0 -j", "X -o eth0 -g"])


@given(st.sampled_from([NAT, MANGLE, NO_NAT]), st.none() | st.lists(POOL, max_size=4), st.lists(ORIGINS, max_size=5))
def test_whatever_is_found_one_restoring_leads_to_agreement(
    chain: Chain, rules: list[str] | None, origins: list[str]
) -> None:
    jumps = [] if rules is None else [f"-A {origin} {chain.name}" for origin in origins]
    found = Found(None if rules is None else tuple(rules), tuple(jumps))
    after = obeyed(restoring(chain, found), chain, found)
    assert differences(chain, after) == ()
    assert restoring(chain, after) == ""
