"""Probes that cannot be made for want of something on this host."""

from __future__ import annotations

import logging

import pytest

from director.kit.errors import ProbeError
from director.kit.health import HealthState, Status
from director.kit.troubles import MOST_NAMED
from tests.director.kit.probeworld import OK, A, B, World, a_check, run, watched

pytestmark = pytest.mark.unit


def test_probe_that_cannot_be_made_is_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(30)
            before = world.prober.state(A)
            assert before.status is Status.UP
            world.script[A] = [ProbeError("too many open files") for _ in range(5)]
            await world.advance(40)
            assert world.prober.state(A).status is Status.UP
            assert world.prober.state(A).last == OK
            await world.advance(100)
            assert world.script[A] == []

    assert len(run(story).changes) == 1
    assert [record.message for record in caplog.records] == ["probes cannot be made"]


def _cannot(_: int) -> ProbeError:
    return ProbeError("too many open files")


def test_trouble_of_one_check_is_told_once_beside_a_good_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        world.script[A] = list(map(_cannot, range(20)))
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(190)
            assert world.prober.state(A) == HealthState()
            assert len(world.times(B)) > 15
            await world.advance(200)
            assert world.prober.state(A).status is Status.UP

    run(story)
    assert [(record.message, record.__dict__["check"]) for record in caplog.records] == [
        ("probes cannot be made", str(A)),
        ("probes can be made again", str(A)),
    ]


def test_trouble_that_comes_and_goes_is_not_told_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        world.script[A] = [answer for n in range(50) for answer in (_cannot(n), OK)]
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(600)

    run(story)
    assert [record.message for record in caplog.records] == ["probes cannot be made"]


def test_another_reason_is_news(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.script[A] = [ProbeError("files"), ProbeError("files"), ProbeError("memory"), ProbeError("memory")]
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(60)

    run(story)
    assert [record.__dict__["reason"] for record in caplog.records] == ["files", "memory"]


def test_trouble_of_all_is_told_in_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    checks = [a_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        world.script = {check: list(map(_cannot, range(10))) for check in checks}
        world.prober.watch(watched(*checks))
        async with world.running_prober():
            await world.advance(50)
            assert len(caplog.records) == MOST_NAMED + 1
            assert caplog.records[-1].message == "probes of further checks cannot be made"
            await world.advance(300)

    run(story)
    again = [record.message for record in caplog.records[MOST_NAMED + 1 :]]
    assert set(again) == {"probes can be made again"}
    assert len(again) == MOST_NAMED


def test_check_that_is_forgotten_takes_its_trouble_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.script[A] = list(map(_cannot, range(10)))
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(15)
            world.prober.watch()
            world.prober.watch(watched(A))
            await world.advance(15)

    run(story)
    assert [record.message for record in caplog.records] == ["probes cannot be made"] * 2
