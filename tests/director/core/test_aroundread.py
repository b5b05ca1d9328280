"""What our own rules say of virtual servers, as iptables-save gives them back."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from director.core.aroundread import Around, read_around
from director.core.config import parse_config
from director.core.desired import desired_table
from director.core.export import export
from director.core.model import Config
from director.core.rules import chains, rules_of
from director.core.standing import KeptRules, KeptSetting, Standing
from director.core.table import Timeouts
from director.terms import Inputs

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: [192.0.2.10, "2001:db8::10"]
    port: [80, 443, 8000-8003]
    forward: fullnat
    real_servers: {}
  own-source:
    address: 192.0.2.11
    port: 53
    protocol: udp
    forward: fullnat
    source: 10.0.0.1
    real_servers: {a: {address: 10.0.0.2}}
  plain:
    {address: 192.0.2.11, port: 80, forward: nat, real_servers: {a: {address: 10.0.0.2}}}
  any:
    {address: 192.0.2.11, port: any, persistence: {}, forward: fullnat, real_servers: {a: {address: 10.0.0.2}}}
  marked:
    fwmark: 7
    traffic:
      - {address: 192.0.2.12, port: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31-40]}
      - {address: 192.0.2.13, protocol: udp}
    forward: fullnat
    real_servers: {a: {address: 10.0.0.2, port: 8080}}
  marked6:
    fwmark: 7
    family: ipv6
    traffic: [{address: "2001:db8::12"}]
    forward: nat
    real_servers: {a: {address: "2001:db8::2", port: 8080}}
"""


def standing(config: Config) -> Standing:
    rules = rules_of(config)
    kept = [KeptRules(version, chain.table, chain.rules) for version in (4, 6) for chain in chains(rules, version)]
    return Standing((), tuple(each for each in kept if each.lines))


def test_the_rules_of_an_export_are_the_rules_that_stand() -> None:
    config = parse_config(FILE, "x")
    table = desired_table(config, Inputs(config).weights())
    exported = export(replace(table, timeouts=Timeouts(900, 120, 300)), (), (), standing(config))
    assert exported.left_out == ()
    again = parse_config(exported.text(), "y")
    assert standing(again) == standing(config)
    assert desired_table(again, Inputs(again).weights()).entries == table.entries


def test_rules_and_settings_that_are_not_of_this_kind_say_nothing() -> None:
    lines = ("-j RETURN", "-m comment --comment x", "-d 192.0.2.1/32 -j MARK --set-xmark 0x7/0xffffffff")
    found = read_around(Standing((KeptSetting("net.ipv4.ip_forward", "0", "1"),), (KeptRules(4, "mangle", lines),)))
    assert found == Around(marked=MappingProxyType({(7, 4): ()}))


def test_what_the_director_itself_has_set_is_in_the_file() -> None:
    table = replace(desired_table(Config(), {}), timeouts=Timeouts(900, 120, 300))
    own = Standing((KeptSetting("net.ipv4.vs.expire_nodest_conn", "0", "1"),))
    found = parse_config(export(table, (), (), own, own_timeouts=True).text(), "x")
    assert (found.dead_connections.value, found.timeouts) == ("expire", Timeouts(900, 120, 300))
    assert not parse_config(export(table, report_settings=True).text(), "x").manage_settings
