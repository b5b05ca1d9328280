"""Why a weight is what it is, and what would bring it back, in words and with places in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from director.core.config import parse_config
from director.core.explain import Asked, Explanation, Probing, RealServerLine, explain
from director.core.model import ServerRef
from director.core.serving import Known, serving
from director.core.verdict import verdict
from director.core.weight import Maintenance, Wish
from director.kit.checks.check import Check
from director.kit.health import Asks, HealthState, ProbeResult, Status
from director.kit.yamltree import places_in

pytestmark = pytest.mark.unit

NOW, CLOCK = 1000.0, 1.7e9
GOOD, BAD = ProbeResult(True, "connected", 0.001), ProbeResult(False, "refused", 0.002, output=b"no\x1b\n", errno=111)
UP = HealthState(Status.UP, 5, 900.0, GOOD, 999.0)
BACK = replace(UP, since_at=990.0, was_down=True)
DOWN = HealthState(Status.DOWN, 4, 985.0, BAD, 999.0)
PENDING = HealthState()
UP_AGAIN = "up after 2 more successes in a row, about 2.5s"
REALS = """
      a: {address: 10.0.0.1}
      b:
        address: 10.0.0.2
        weight: 50
        check:
          type: all
          of:
            - {type: tcp}
            - {type: http, interval: 1s}
      none: {address: 10.0.0.3, weight: 0}
      out: {address: 10.0.0.4, state: drained}
      plain: {address: 10.0.0.5, check: {type: none}}
"""
BEFORE_KEYS = 6
"""Lines of the file before `keys`."""


def told(
    state: HealthState = UP,
    *keys: str,
    wishes: Mapping[str, Wish] | None = None,
    states: Mapping[str, HealthState] | None = None,
    unproven: tuple[str, ...] = (),
    real_server: str | None = None,
) -> Explanation:
    """What is told of a virtual server with `keys` whose checks are in `state`, but for those named in `states`."""
    head = "virtual_servers:\n  web:\n    address: 192.0.2.10\n    port: 80\n    forward: dr\n    check: {type: tcp}\n"
    text = head + "".join(f"    {key}\n" for key in keys) + f"    real_servers:{REALS}"
    config = parse_config(text, "f")
    virtual = config.virtual_servers[0]

    def of(check: Check) -> HealthState:
        return (states or {}).get(str(check), state)

    health = {virtual.ref(real): verdict(real.check, of) for real in virtual.real_servers if real.check is not None}
    wanted = {ServerRef("web", name): wish for name, wish in (wishes or {}).items()}
    waiting = frozenset(ServerRef("web", name) for name in unproven)
    found = serving(config, Known(health=health, wishes=wanted, unproven=waiting, now=NOW))

    def probing(check: Check) -> Probing:
        last = of(check).last
        return Probing(of(check), ((999.0, last),) if last else (), 1001.0)

    kernel = {ServerRef("web", "a"): 7}
    asked = Asked(found, health, wanted, kernel, probing, places_in(text, "f"), "f", NOW, CLOCK)
    return explain(virtual, asked, real_server)


def of(name: str, found: Explanation) -> RealServerLine:
    return next(real for real in found["real_servers"] if real["name"] == name)


def test_factors_lead_from_the_file_to_the_weight_and_the_kernels_stands_beside() -> None:
    real = of("a", told(BACK, "slow_start: 40s"))
    assert [(each["what"], each["weight"]) for each in real["factors"]] == [
        ("configured weight", 100),
        ("up: connected", 100),
        ("30% by slow start", 30),
    ]
    assert (real["weight"], real["kernel_weight"], real["back"]) == (30, 7, "")
    assert of("b", told())["kernel_weight"] is None


def test_every_line_of_the_file_is_its_own() -> None:
    found = told()
    assert found["at"] == "f:2:3"
    first = BEFORE_KEYS + 2
    assert [real["at"] for real in found["real_servers"][:2]] == [f"f:{first}:7", f"f:{first + 3}:9"]
    assert [check["at"] for check in of("a", found)["checks"]] == ["f:6:5"]
    assert [check["at"] for check in of("b", found)["checks"]] == [f"f:{first + 7}:15", f"f:{first + 8}:15"]


def test_a_result_cannot_steer_a_terminal() -> None:
    (check,) = of("a", told(DOWN))["checks"]
    (result,) = check["recent"]
    assert (result["output"], result["ago_s"], result["duration_ms"]) == ("no..", 1.0, 2.0)
    assert (check["next_s"], check["since_s"], check["status"]) == (1.0, 15.0, "down")


def test_one_real_server_may_be_asked_for() -> None:
    assert [real["name"] for real in told(real_server="b")["real_servers"]] == ["b"]


DRAINED, RESTING = Wish(drain=True), Wish(maintenance=Maintenance("disk", CLOCK + 90))


@pytest.mark.parametrize(
    ("name", "state", "keys", "wish", "back"),
    [
        ("a", UP, (), None, ""),
        ("a", DOWN, (), None, UP_AGAIN),
        ("a", DOWN, ("slow_start: 30s",), None, f"{UP_AGAIN}, and then over 30s"),
        ("a", DOWN, ("slow_start: 30s", "scheduler: mh"), None, UP_AGAIN),
        # Who was never down does not come back slowly.
        ("a", PENDING, ("slow_start: 30s", "on_start: down"), None, "up after 2 more successes in a row"),
        ("b", DOWN, (), None, f"tcp 10.0.0.2:80 is {UP_AGAIN}; http GET / 10.0.0.2:80 is {UP_AGAIN[:-4]}1.2s"),
        ("a", UP, (), DRAINED, "by `director enable web a`"),
        ("a", DOWN, (), DRAINED, f"by `director enable web a`; and it is down: {UP_AGAIN}"),
        ("a", DOWN, (), Wish(weight=0), f"by `director enable web a`; and it is down: {UP_AGAIN}"),
        ("a", UP, (), RESTING, "in 90s, or by `director enable web a`"),
        ("none", UP, (), None, "when the file gives it a weight above 0"),
        ("none", DOWN, (), Wish(weight=20), UP_AGAIN),
        ("out", UP, (), None, "when the file no longer has `state: drained`"),
        ("plain", UP, (), None, ""),
        ("a", replace(UP, last=replace(GOOD, asks=Asks.DRAIN)), (), None, "when it asks for traffic again"),
    ],
)
def test_what_brings_a_server_back(
    name: str, state: HealthState, keys: tuple[str, ...], wish: Wish | None, back: str
) -> None:
    assert of(name, told(state, *keys, wishes={name: wish} if wish else None))["back"] == back


def test_quorum_says_who_takes_connections_and_who_would() -> None:
    assert told()["quorum"] == "held: 3 real servers take connections (held from 1 on, lost below 1)"
    assert told(DOWN)["quorum"] == "held: 1 real server takes connections (held from 1 on, lost below 1)"
    alone = ("quorum: {up: 3}", "sorry_server: {address: 10.0.0.99}")
    found = told(DOWN, *alone)
    assert found["quorum"] == (
        "lost: 1 real server would take connections in place of the sorry server (held from 3 on, lost below 3)"
    )
    assert of("plain", found)["back"] == "when 3 real servers are up: quorum is lost"
    assert of("sorry_server", found)["weight"] == 1
    assert of("sorry_server", told(UP, *alone))["back"] == "when quorum is lost"
