"""What packet filters do with a packet: rules as iptables-nft-save 1.8.9 and nft 1.0.6 printed them."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.doctor.filters import dropper
from director.doctor.packets import iptables, nft
from director.doctor.packets.rules import (
    Chain,
    Condition,
    Fate,
    Field,
    Match,
    Packet,
    Rule,
    Table,
    Verdict,
    at_hook,
    walk,
)

pytestmark = pytest.mark.unit

CAPTURED = Path(__file__).parent / "captured"
LAN = frozenset({"lan"})
VIP = Packet(4, 6, destination=ip_address("10.9.0.100"), destination_port=80, interfaces=LAN)
SIX = Packet(6, 6, destination=ip_address("fd09::100"), destination_port=80, interfaces=LAN)


def captured(name: str) -> str:
    return (CAPTURED / name).read_text()


DOCKER = iptables.parse(captured("iptables-docker.txt"), "iptables", 4)
SETS = nft.parse(captured("nft-sets.json"))
MAPS = nft.parse(captured("nft-maps.json"))
ZONES = nft.parse(captured("nft-zones.json"))


def fates(tables: tuple[Table, ...], hook: str, packet: Packet) -> str:
    """A letter for each thing that may become of it."""
    return "".join(sorted(fate.value[0] for fate in at_hook(tables, hook, packet).fates))


def to(port: int, **more: object) -> Packet:
    return replace(VIP, destination_port=port, **more)  # type: ignore[arg-type]


def from_(text: str) -> dict[str, object]:
    return {"source": ip_address(text)}


@pytest.mark.parametrize(
    ("tables", "hook", "packet", "expected"),
    [
        # Default DROP with services in a chain of their own.
        (DOCKER, "input", to(80), "a"),
        (DOCKER, "input", to(8050), "a"),
        (DOCKER, "input", to(8100), "d"),
        (DOCKER, "input", to(80, state="invalid"), "d"),
        (DOCKER, "input", to(80, state="untracked"), "d"),
        (DOCKER, "input", to(80, state="established"), "a"),
        (DOCKER, "input", to(9100), "ad"),  # some clients
        (DOCKER, "input", to(9100, **from_("10.1.2.3")), "a"),
        (DOCKER, "input", to(9100, **from_("192.0.2.1")), "d"),
        (DOCKER, "input", to(81), "d"),  # returned to the end
        (DOCKER, "input", to(82), "ad"),  # some source ports
        (DOCKER, "input", to(82, source_port=1024), "a"),
        (DOCKER, "input", to(82, source_port=1023), "d"),
        (DOCKER, "input", to(99, interfaces=frozenset({"lo"})), "a"),
        (DOCKER, "input", replace(VIP, protocol=17), "d"),
        (DOCKER, "input", Packet(4, 4, source=ip_address("10.9.0.2"), interfaces=LAN), "d"),
        (DOCKER, "input", replace(VIP, version=6, destination=ip_address("fd09::100")), "a"),  # no rules for IPv6
        (DOCKER, "forward", to(80, leaves=LAN, state="established"), "d"),
        (DOCKER, "forward", to(80, state="established"), "ad"),  # it may leave by docker0
        (DOCKER, "forward", to(80, interfaces=frozenset({"docker0"}), leaves=LAN), "a"),
        (DOCKER, "prerouting", to(443), "au"),
        (DOCKER, "prerouting", to(80), "a"),
        (DOCKER, "output", to(80), "a"),
        # Sets, ranges, a verdict map of states, a limit, a jump.
        (SETS, "input", to(80), "a"),
        (SETS, "input", to(8099), "a"),
        (SETS, "input", to(8100), "ad"),  # of @trusted clients
        (SETS, "input", to(8100, **from_("192.0.2.5")), "a"),
        (SETS, "input", to(8100, **from_("192.0.2.10")), "d"),
        (SETS, "input", to(443), "a"),
        (SETS, "input", to(80, state="invalid"), "d"),
        (SETS, "input", to(80, state="established"), "a"),
        (SETS, "input", to(9000, **from_("192.0.2.10")), "a"),
        (SETS, "input", to(9000, destination=ip_address("10.8.0.1"), **from_("192.0.2.10")), "d"),
        (SETS, "input", to(25, **from_("192.0.2.10")), "d"),
        (SETS, "input", to(99, interfaces=frozenset({"lo"})), "a"),
        (SETS, "input", replace(to(53, **from_("192.0.2.10")), protocol=17), "ad"),
        (SETS, "input", replace(to(80, **from_("192.0.2.10")), protocol=17), "d"),
        (SETS, "input", SIX, "a"),
        (SETS, "input", replace(SIX, destination_port=9000), "d"),  # `ip daddr` fits no packet of IPv6
        (SETS, "forward", to(80, state="invalid"), "d"),
        (SETS, "forward", to(80, state="established"), "a"),
        (SETS, "prerouting", to(80), "au"),
        (SETS, "prerouting", to(81), "a"),
        # A map of ports to verdicts, and matches that are not understood.
        (MAPS, "input", to(81, state="established"), "d"),
        (MAPS, "input", to(82, state="established"), "ad"),  # flags are not known
        (MAPS, "input", to(80, state="new"), "ad"),  # a mark may save it
        (MAPS, "input", to(99, state="established", interfaces=frozenset({"eth1"})), "d"),
        (MAPS, "input", to(80, state="established", interfaces=frozenset({"wg0"})), "d"),
        (MAPS, "input", replace(to(7, state="established"), protocol=17), "d"),
        (MAPS, "input", Packet(4, 4, source=ip_address("192.0.2.1"), interfaces=LAN), "d"),
        (MAPS, "input", SIX, "a"),
        # Zones by interface, the rest rejected; `goto` does not come back to the chain that it left.
        (ZONES, "input", to(80), "a"),
        (ZONES, "input", to(81), "d"),
        (ZONES, "input", to(81, interfaces=frozenset({"inside"})), "a"),
        (ZONES, "input", to(81, interfaces=frozenset({"lan", "inside"})), "ad"),
        (ZONES, "input", to(81, translated="dnat"), "a"),
        (ZONES, "input", to(80, state="invalid"), "d"),
        (ZONES, "input", SIX, "a"),
        (ZONES, "forward", to(80, state="established"), "a"),
        (ZONES, "forward", to(80, state="invalid"), "d"),
        (ZONES, "output", to(80), "a"),
    ],
)
def test_what_may_become_of_a_packet(tables: tuple[Table, ...], hook: str, packet: Packet, expected: str) -> None:
    assert fates(tables, hook, packet) == expected


def test_what_drops_a_packet_is_named_as_its_program_shows_it() -> None:
    assert dropper(DOCKER, ("prerouting", "input"), to(8100)) == "iptables filter: policy of INPUT is DROP"
    assert dropper(MAPS, ("input",), to(81)) == "nft ip other: chain in handle 4"
    assert (
        dropper(SETS, ("prerouting", "forward"), to(80, state="invalid")) == "nft inet filter: chain forward handle 21"
    )
    assert dropper(DOCKER, ("prerouting", "input"), to(80)) is None


def test_a_packet_that_may_be_untracked_is_dropped_only_where_both_are() -> None:
    closed = Rule("drop invalid", (Condition(Field.STATE, ("invalid",)),), Verdict.DROP)
    table = Table("iptables", "filter", frozenset({4}), {"INPUT": Chain("INPUT", (closed,), "input")})
    invalid = to(443, state="invalid")
    assert dropper((table,), ("prerouting", "input"), invalid)
    assert dropper((*DOCKER[:1], table), ("prerouting", "input"), replace(invalid, destination_port=444))
    raw = tuple(table for table in DOCKER if table.name == "raw")
    assert dropper((*raw, table), ("prerouting", "input"), invalid) is None


def test_a_table_that_iptables_cannot_show_whole_is_left_to_nft() -> None:
    assert iptables.tables_that_need_nft(captured("iptables-incompatible.txt")) == {"filter"}
    assert iptables.tables_that_need_nft(captured("iptables-docker.txt")) == frozenset()
    assert [table.name for table in nft.parse(captured("nft-sets.json"), frozenset({("ip", "raw")}))] == ["inet filter"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": 1}', "no JSON"])
def test_what_nft_does_not_print_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- json's own among them
        nft.parse(text)


def test_nobody_is_sure_of_what_is_not_understood() -> None:
    rule = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {} -j DROP\nCOMMIT\n"
    for words in ("-m quantum --spin up", "-p 'tcp", "--dport http", "-s nowhere", "! --spin up", "-p tcp --dport"):
        assert "a" in fates(iptables.parse(rule.format(words), "iptables", 4), "input", VIP), words
    odd = json.loads(captured("nft-maps.json"))
    for each in odd["nftables"]:
        if "rule" in each:
            each["rule"]["expr"] = [{"match": {"op": "<", "left": {"payload": {}}, "right": 7}}, {"drop": None}]
    assert fates(nft.parse(json.dumps(odd)), "input", VIP) == "ad"


def test_a_chain_that_jumps_in_a_circle_ends() -> None:
    again = Rule("again", (), Verdict.JUMP, "a")
    chains = {"a": Chain("a", (again,)), "INPUT": Chain("INPUT", (again,), "input", policy=Verdict.DROP)}
    assert not walk(Table("t", "t", frozenset({4}), chains), chains["INPUT"], VIP).certainly_dropped


@pytest.mark.parametrize("fits", list(Match))
def test_to_negate_twice_changes_nothing(fits: Match) -> None:
    assert ~~fits is fits
    assert (~fits is fits) == (fits is Match.MAYBE)


def test_every_fate_has_a_letter_of_its_own() -> None:
    assert len({fate.value[0] for fate in Fate}) == len(Fate)
