"""What others change under a running director, in the table and at the addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from director.core.diff import EditReal, RemoveVirtual, apply
from director.core.table import Forward, RealRow
from director.core.vip import Vip
from tests.director.daemon.world import FILE, VIP, WEB, A, B, HostChanges, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit


def test_drift_is_repaired_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        world.kernel.table = apply([RemoveVirtual(WEB, world.kernel.table.entries[WEB])], world.kernel.table)
        world.addresses.held.clear()
        await until(lambda: WEB in world.kernel.table.entries and world.addresses.held == {VIP})
        assert world.weights() == {A: 100, B: 100}
        virtual = (await world.status())["virtual_servers"][0]
        assert (virtual["drift"], virtual["drift_repaired"]) == ([], 1)

    world.run(story, "drift_interval: 100ms\n" + FILE)
    (record,) = said(caplog, "drift, put right")
    assert (vars(record)["vs"], vars(record)["is"]) == ("web", "absent")


def test_reported_drift_is_told_until_an_apply_or_a_check_decides(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lowered = RealRow(Forward.NAT, 3)
    text = f"drift_interval: 100ms\ndefaults: {{on_drift: report}}\n{FILE}"

    async def story() -> None:
        world.kernel.table = apply([EditReal(WEB, A, RealRow(Forward.NAT, 100), lowered)], world.kernel.table)
        await until(lambda: bool(said(caplog, "drift, left as it is")))
        (line,) = await asyncio.to_thread(world.client.drift)
        told = {"real_server": "a", "was": "nat, weight 100", "now": "nat, weight 3", "kept": True}
        assert told.items() <= line.items()
        status = await world.status()
        assert status["daemon"]["converged"]
        assert "was nat, weight 100, is nat, weight 3; left as it is" in status["virtual_servers"][0]["drift"][0]
        planned = await asyncio.to_thread(world.client.plan, text, "f")
        assert [step["subject"] for step in planned["steps"]] == ["real server web/a (10.0.0.1:80)"]
        await world.ask(lambda client: client.drain("web", "b"))
        assert world.weights() == {A: 3, B: 0}
        await world.ask(lambda client: client.apply(text, "f"))
        assert world.weights() == {A: 100, B: 0}
        assert await asyncio.to_thread(world.client.drift) == []

    world.run(story, text)
    assert len(said(caplog, "drift, left as it is")) == 1


def test_an_address_that_has_gone_is_not_announced_any_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.announcements.TIMES", 10**6)
    stays = FILE[FILE.index("  web:") :].replace("web:", "tls:").replace("192.0.2.10", "192.0.2.11")
    other = Vip(ip_address("192.0.2.11"), "eth0")

    async def story() -> None:
        await until(lambda: {VIP, other} <= set(world.announcer.sent))
        await world.ask(lambda client: client.apply(FILE.replace("    interface: eth0\n", "") + stays, "g"))
        assert world.addresses.held == {other}
        world.announcer.sent.clear()
        await until(lambda: len(world.announcer.sent) >= 3)
        assert set(world.announcer.sent) == {other}

    world.run(story, FILE + stays)


def test_a_change_of_the_hosts_addresses_is_looked_at_at_once(world: World) -> None:
    world.changes = HostChanges()

    async def story() -> None:
        assert world.changes is not None
        world.addresses.held.clear()
        for _ in range(20):
            world.changes.happen()
        await until(lambda: world.addresses.held == {VIP})

    world.run(story, "drift_interval: 60s\n" + FILE)
    world.changes.close()
