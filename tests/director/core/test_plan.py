"""A plan as lines for people."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from director.core.config import parse_config
from director.core.describe import describe_keys, describe_virtual
from director.core.diff import AddReal, AddVirtual, EditReal, EditVirtual, RemoveReal, RemoveVirtual
from director.core.handover import Held
from director.core.model import Config, ServerRef
from director.core.plan import Plan
from director.core.removal import Leaving
from director.core.steps import steps, waiting_for
from director.core.table import (
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    SchedulerFlags,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.core.weight import Weight
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

CONFIG = parse_config(
    """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
""",
    "f",
)
WEB = CONFIG.virtual_servers[0].keys[0]
OLD = VirtualKey.of(Protocol.TCP, ip_address("192.0.2.99"), 80)
A, B, C = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3))
VIP, GONE = Vip(ip_address("192.0.2.10"), "eth0"), Vip(ip_address("192.0.2.11"), "eth0")


def test_every_step_has_a_line_with_its_name_and_its_reason() -> None:
    plan = Plan(
        changes=(
            AddVirtual(WEB, VirtualRow("wlc")),
            EditVirtual(WEB, VirtualRow("rr"), VirtualRow("wlc", persistence_s=300, persistence_prefix=24)),
            AddReal(WEB, A, RealRow(Forward.NAT, 100)),
            EditReal(WEB, B, RealRow(Forward.NAT, 100), RealRow(Forward.NAT, 0)),
            EditReal(WEB, B, RealRow(Forward.NAT, 1, 9, 3), RealRow(Forward.NAT, 1)),
            RemoveReal(WEB, C, RealRow(Forward.DR, 5, 9)),
            RemoveVirtual(OLD, VirtualEntry(VirtualRow("rr"), {A: RealRow(Forward.NAT, 1)})),
        ),
        vips_remove=(GONE,),
        vips_add=(VIP,),
        vips_replaced=(GONE,),
        waiting=(VIP,),
    )
    weights = {ServerRef("web", "a"): Weight(100, "up: connected"), ServerRef("web", "b"): Weight(0, "down: refused")}
    assert [str(step) for step in steps(plan, CONFIG, weights)] == [
        "+ virtual server web (tcp 192.0.2.10:80): wlc",
        "~ virtual server web (tcp 192.0.2.10:80): rr -> wlc persistence 5m by /24",
        "+ real server web/a (10.0.0.1:80): nat, weight 100 (up: connected)",
        "~ real server web/b (10.0.0.2:80): weight 100 -> 0 (down: refused)",
        "~ real server web/b (10.0.0.2:80): thresholds 3-9 -> 0-0 (down: refused)",
        "+ address 192.0.2.10 on eth0",
        "- address 192.0.2.11 on eth0",
        "- real server web/10.0.0.3:80: dr, weight 5, at most 9 connections",
        "- virtual server tcp 192.0.2.99:80: with 1 real server",
        "- address 192.0.2.11 on eth0",
        "+ address 192.0.2.10 on eth0: once its real servers' first verdicts are in",
    ]


def test_what_people_call_one_change_is_one_line() -> None:
    low, high = RealRow(Forward.NAT, 0), RealRow(Forward.NAT, 5)
    plan = Plan(
        changes=(
            AddReal(WEB, A, high),
            EditReal(WEB, A, high, low),
            RemoveReal(WEB, B, RealRow(Forward.DR, 0)),
            AddReal(WEB, B, high),
            EditReal(WEB, B, high, low),
        )
    )
    weights = {ServerRef("web", "a"): Weight(0, "drained by the operator")}
    assert [str(step) for step in steps(plan, CONFIG, weights)] == [
        "+ real server web/a (10.0.0.1:80): nat, weight 0 (drained by the operator)",
        "~ real server web/b (10.0.0.2:80): dr -> nat, weight 0",
    ]


def test_a_change_of_method_tells_what_it_waits_for() -> None:
    busy = Held(WEB, A, Forward.DR, Forward.NAT, 3, drains=True)
    later = Held(WEB, B, Forward.DR, Forward.NAT, 1, drains=False)
    free = Held(WEB, A, Forward.DR, Forward.NAT, 0, drains=True)
    edit = EditReal(WEB, A, RealRow(Forward.DR, 5), RealRow(Forward.DR, 0))
    told = "~ real server web/a (10.0.0.1:80): dr -> nat drains it first: its 3 connections end by themselves "
    told += "(closed ones within 2m, idle ones within 15m); until then it gets no new ones"
    plan = Plan(changes=(edit,), held=(busy, later))
    assert [str(step) for step in steps(plan, CONFIG, {})] == [
        told,
        "~ real server web/b (10.0.0.2:80): dr -> nat later: it serves on until others have changed, "
        "and is drained then",
    ]
    assert [str(step) for step in steps(Plan(held=(busy,)), CONFIG, {})] == [told]
    assert [str(step) for step in steps(Plan(changes=(edit,), held=(free,)), CONFIG, {})] == [
        "~ real server web/a (10.0.0.1:80): dr -> nat: weight 0, and made anew at once if nothing came meanwhile"
    ]
    assert waiting_for(plan, CONFIG) == [
        "waiting for 3 connections of web/a under dr to end before it changes to nat",
        "waiting for 1 connection of web/b under dr to end before it changes to nat; it serves on meanwhile, and is "
        "drained when others have changed",
    ]
    assert (Plan(held=(busy,)).acts, Plan(held=(busy,)).is_empty) == (False, False)


def test_what_a_removal_breaks_is_told_with_it() -> None:
    plan = Plan(
        changes=(
            RemoveReal(WEB, B, RealRow(Forward.NAT, 5)),
            RemoveVirtual(
                OLD, VirtualEntry(VirtualRow("rr"), {A: RealRow(Forward.NAT, 1), B: RealRow(Forward.NAT, 1)})
            ),
        )
    )
    carried = {(WEB, B): RealCounters(212, 9), (OLD, A): RealCounters(1), (OLD, B): RealCounters()}
    assert [(step.subject, step.effect) for step in steps(plan, Config(), {}, carried, CONFIG)] == [
        ("real server web/b (10.0.0.2:80)", "212 active connections would break; drain first?"),
        ("virtual server tcp 192.0.2.99:80", "1 active connection would break; drain first?"),
    ]


def test_what_leaves_is_told_until_it_has_gone() -> None:
    lowered = EditReal(WEB, A, RealRow(Forward.NAT, 5), RealRow(Forward.NAT, 0))
    busy, held, empty = Leaving(WEB, A, 3, True), Leaving(WEB, C, 1, False), Leaving(OLD, None, 0, False)
    plan = Plan(changes=(lowered,), leaving=(busy, held, empty))
    told = steps(plan, CONFIG, {})
    assert [str(step) for step in told] == [
        "~ real server web/a (10.0.0.1:80): weight 5 -> 0, removed when its 3 connections have ended",
        "~ real server web/10.0.0.3:80: removed last of all",
        "~ virtual server tcp 192.0.2.99:80: removed last of all",
    ]
    assert all(step.interim for step in told)
    assert waiting_for(plan, CONFIG) == ["waiting for 3 connections of web/a to end before it is removed"]
    assert not Plan(leaving=(busy,)).is_empty
    assert not Plan(leaving=(busy,)).acts


def test_an_empty_plan_has_no_lines() -> None:
    assert Plan().is_empty
    assert steps(Plan(), CONFIG, {}) == []
    assert not Plan(waiting=(VIP,)).is_empty


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (VirtualRow("rr"), "rr"),
        (VirtualRow("mh", SchedulerFlags.FALLBACK | SchedulerFlags.PORT), "mh mh-fallback mh-port"),
        (VirtualRow("sh", SchedulerFlags.THIRD), "sh sh-flag-3"),
        (VirtualRow("wlc", persistence_s=90), "wlc persistence 90s"),
        (VirtualRow("rr", one_packet=True), "rr one-packet"),
    ],
)
def test_a_virtual_server_in_a_few_words(row: VirtualRow, words: str) -> None:
    assert describe_virtual(row) == words


def test_servers_of_several_ports_are_told_apart() -> None:
    text = """
virtual_servers:
  web: {address: 192.0.2.10, port: [80, 81], forward: nat, real_servers: {a: {address: 10.0.0.1, port: 8}}}
"""
    config = parse_config(text, "f")
    key = config.virtual_servers[0].keys[1]
    plan = Plan(changes=(RemoveReal(key, Endpoint(ip_address("10.0.0.1"), 8), RealRow(Forward.NAT, 5)),))
    carried = {(key, Endpoint(ip_address("10.0.0.1"), 8)): RealCounters(active=212)}
    assert [str(step) for step in steps(plan, config, {}, carried)] == [
        "- real server web/a (10.0.0.1:8) of tcp 192.0.2.10:81: nat, weight 5; "
        "212 active connections would break; drain first?"
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("fwmark 7",), "fwmark 7"),
        (("fwmark 7", "fwmark 7 (IPv6)"), "fwmark 7 (IPv4 and IPv6)"),
        (("tcp 10.0.0.1:0",), "tcp 10.0.0.1:any"),
        (("udp 10.0.0.1:80", "udp [fd00::1]:80"), "udp 10.0.0.1,[fd00::1]:80"),
    ],
)
def test_what_a_virtual_server_listens_on(keys: tuple[str, ...], words: str) -> None:
    assert describe_keys(map(VirtualKey.parse, keys)) == words
