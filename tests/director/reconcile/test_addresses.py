"""The reconciler on a fake kernel: which addresses are raised, when, and which of them are ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from director.core.config import parse_config
from director.core.table import VirtualRow
from director.undertaking import planned
from tests.director.reconcile.world import CONFIG, FILE, TLS, TLS_VIP, WEB_ONLY, WEB_VIP, World, inputs, wanted

pytestmark = pytest.mark.unit


def test_an_address_comes_last_and_goes_first(world: World) -> None:
    world.run(inputs())
    assert world.events == ["write", f"add {WEB_VIP}", f"add {TLS_VIP}"]
    world.events.clear()
    world.run(inputs(WEB_ONLY))
    assert world.events == [f"remove {TLS_VIP}", "write"]


def test_an_address_waits_until_its_virtual_server_is_ready(world: World) -> None:
    outcome = world.run(inputs(ready=frozenset({"tls"})))
    assert outcome.converged
    assert world.addresses.held == {TLS_VIP}
    plan = world.reconciler.plan(inputs(ready=frozenset()), outcome.observed)
    assert plan.waiting == (WEB_VIP,)
    world.run(inputs())
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_a_shared_address_waits_for_all_who_use_it(world: World) -> None:
    config = parse_config(FILE.replace("192.0.2.11", "192.0.2.10"), "f")
    world.run(inputs(config, frozenset({"web"})))
    assert not world.addresses.held
    world.run(inputs(config))
    assert world.addresses.held == {WEB_VIP}


def test_an_address_once_raised_stays_when_its_virtual_server_waits_again(world: World) -> None:
    world.run(inputs())
    world.run(inputs(ready=frozenset()))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_an_address_that_moves_leaves_its_old_interface_last(world: World) -> None:
    world.run(inputs())
    moved = parse_config(FILE.replace("interface: eth0", "interface: eth1"), "f")
    web, tls = moved.vips()
    world.addresses.broken = {web}
    world.run(inputs(moved, ready=frozenset()))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}, "it waits for verdicts"
    outcome = world.run(inputs(moved))
    assert outcome.failures == (f"could not add {web}",)
    assert world.addresses.held == {WEB_VIP, tls}, "an interface that is not there stops nothing"
    assert [str(step) for step in outcome.steps] == [f"+ address {tls}", f"- address {TLS_VIP}"]
    world.addresses.broken.clear()
    assert world.run(inputs(moved)).converged
    assert world.addresses.held == {web, tls}
    assert world.on_disk().vips == {web, tls}


def test_an_address_that_was_there_before_us_is_not_taken_away(world: World) -> None:
    world.addresses.held = {TLS_VIP}
    world.run(inputs())
    world.run(inputs(WEB_ONLY))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}
    assert TLS not in world.kernel.table.entries


def test_an_address_that_somebody_adds_while_we_do_is_not_ours(world: World) -> None:
    def race() -> None:
        world.addresses.held.add(TLS_VIP)

    world.kernel.before_write = race
    world.run(inputs())
    assert world.on_disk().vips == {WEB_VIP}


def test_an_address_that_could_not_be_added_is_not_ours_when_somebody_else_adds_it(world: World) -> None:
    world.addresses.broken = {TLS_VIP}
    world.run(inputs())
    assert world.on_disk().vips == {WEB_VIP}
    world.addresses.broken.clear()
    world.addresses.held.add(TLS_VIP)
    world.run(inputs())
    world.run(inputs(WEB_ONLY))
    assert world.addresses.held == {WEB_VIP, TLS_VIP}


def test_an_address_of_what_could_not_be_made_is_not_ours(world: World) -> None:
    broken = replace(CONFIG.virtual_servers[0], row=VirtualRow("nosuch"))
    world.run(inputs(replace(CONFIG, virtual_servers=(broken, CONFIG.virtual_servers[1]))))
    assert world.on_disk().vips == {TLS_VIP}


def test_an_address_of_ours_that_went_while_it_waits_is_not_ours_any_more(world: World) -> None:
    world.run(inputs())
    world.addresses.held.discard(WEB_VIP)
    world.run(inputs(ready=frozenset({"tls"})))
    assert world.on_disk().vips == {TLS_VIP}


def test_an_address_that_cannot_be_added_does_not_stop_the_rest(world: World) -> None:
    world.addresses.broken = {WEB_VIP}
    outcome = world.run(inputs())
    assert outcome.failures == (f"could not add {WEB_VIP}",)
    assert world.kernel.table == wanted()
    assert world.addresses.held == {TLS_VIP}
    assert world.kernel.writes == 1, "nothing stale: the next try is the caller's"
    world.addresses.broken.clear()
    assert world.run(inputs()).converged


def test_an_address_that_cannot_be_removed_stays_remembered(world: World) -> None:
    world.run(inputs())
    world.addresses.broken = {TLS_VIP}
    assert world.run(inputs(WEB_ONLY)).failures == (f"could not remove {TLS_VIP}",)
    world.begin()
    world.addresses.broken.clear()
    assert world.run(inputs(WEB_ONLY)).converged
    assert world.addresses.held == {WEB_VIP}


def test_an_interface_that_does_not_exist_is_told_once_and_not_for_each_address(world: World) -> None:
    world.addresses.absent = {"eth0"}
    asked = inputs()
    shown = planned(world.reconciler, asked, world.reconciler.observe(CONFIG))
    assert shown.failures == ("interface eth0 does not exist",)
    outcome = world.run(asked)
    assert outcome.failures == ("interface eth0 does not exist",)
    assert world.addresses.held == set()
    assert world.on_disk().vips == frozenset()
    world.addresses.absent = set()
    assert world.run(asked).converged
    assert world.addresses.held == {WEB_VIP, TLS_VIP}
