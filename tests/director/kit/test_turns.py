"""Which probe runs when more are due than may run at one time."""

from __future__ import annotations

import logging
import resource
from ipaddress import ip_address

import pytest

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.turns import probes_at_once
from tests.director.kit.probeworld import BAD, OK, World, a_check, run, seen, watched

pytestmark = pytest.mark.unit


def test_probes_at_one_time_are_bounded() -> None:
    checks = [a_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        world.script = {check: [None] for check in checks}
        world.prober.watch(seen(Status.UP, *checks))
        async with world.running_prober():
            await world.settle()
            assert len(world.running) == 64
            for check in world.running[:]:
                world.finish(check, OK)
            await world.settle()
            assert len(world.begun) == len(checks)
            world.prober.watch()
            await world.settle()
            assert world.running == []

    run(story, at_once=64)


@pytest.mark.parametrize(("status", "most"), [(Status.DOWN, 32), (Status.PENDING, 48), (Status.UP, 64)])
def test_slots_are_kept_free_for_servers_that_are_up(status: Status, most: int) -> None:
    crowd = [a_check(host) for host in range(1, 101)]
    good = a_check(200)

    async def story(world: World) -> None:
        world.script = {check: [None] for check in crowd}
        world.prober.watch(watched(*crowd) if status is Status.PENDING else seen(status, *crowd))
        async with world.running_prober():
            await world.settle()
            assert len(world.running) == most
            world.prober.watch(dict.fromkeys(crowd, HealthState()) | seen(Status.UP, good))
            await world.settle()
            assert len(world.times(good)) == (1 if most < 64 else 0)

    run(story, at_once=64)


def test_server_that_comes_back_does_not_wait_behind_the_dead() -> None:
    crowd = [a_check(host) for host in range(1, 101)]
    back = a_check(200)

    async def story(world: World) -> None:
        world.script = {check: [None] for check in crowd}
        world.prober.watch(seen(Status.DOWN, *crowd))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(seen(Status.DOWN, *crowd) | {back: HealthState(Status.DOWN, 1, 0.0, OK, 0.0)})
            await world.advance(1)
            assert world.prober.state(back).status is Status.UP

    run(story, at_once=64)


def test_death_among_many_dead_is_seen_in_time() -> None:
    """600 dead servers whose probes take five seconds each; another one dies."""
    timing = Timing(2.0, 5.0, 0.5, 2, 3)
    dead = [Check(Endpoint(ip_address(0x0A000000 + n), 80), TcpProbe(), timing) for n in range(600)]
    good = Check(Endpoint(ip_address("10.1.0.1"), 80), TcpProbe(), timing)
    down_at: list[float] = []

    async def story(world: World) -> None:
        alive = True

        async def probe(check: Check) -> ProbeResult:
            if check == good:
                return OK if alive else BAD
            await world.clock.sleep(5.0)
            return BAD

        def note(check: Check, _: HealthState, after: HealthState) -> None:
            if check == good and after.status is Status.DOWN:
                down_at.append(world.now)

        world.prober = Prober(note, probe, world.clock.now, world.clock.call_at, 256)
        world.prober.watch(seen(Status.DOWN, *dead) | seen(Status.UP, good))
        async with world.running_prober():
            await world.advance(25)
            alive = False
            await world.advance(20)

    run(story)
    assert len(down_at) == 1
    assert down_at[0] - 125.0 < 2.2 + 2 * 0.55 + 0.01  # an interval, then the fast ones, with jitter


def test_cancelled_wait_gives_its_turn_back() -> None:
    first, second, third = (a_check(host) for host in (1, 2, 3))

    async def story(world: World) -> None:
        world.script = {first: [None, None]}
        world.prober.watch(seen(Status.DOWN, first))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(seen(Status.DOWN, first, second, third))
            await world.settle()
            assert world.begun == [(100.0, first)]
            world.prober.watch(seen(Status.DOWN, first, third))
            await world.settle()
            world.finish(first, BAD)
            await world.settle()
            assert [check for _, check in world.begun] == [first, third]

    run(story, at_once=2)


def test_late_probes_are_told_once_with_a_number_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    crowd = [a_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        async def slow(check: Check) -> ProbeResult:
            await world.clock.sleep(20.0)
            return BAD

        world.use(slow, 8)
        world.prober.watch(seen(Status.DOWN, *crowd))
        async with world.running_prober():
            await world.advance(500)
            world.prober.watch(seen(Status.DOWN, *crowd[:2]))
            await world.advance(200)

    run(story)
    late, on_time = caplog.records
    assert (late.message, late.levelname) == ("probes run late: more wait than may run at one time", "WARNING")
    fields = late.__dict__
    assert (fields["waiting"], fields["at_once"], fields["late_s"]) == (95, 8, 20.0)
    assert "LimitNOFILE=" in fields["advice"]
    assert (on_time.message, on_time.levelname) == ("probes run on time again", "INFO")


def test_probes_that_wait_shorter_than_their_interval_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async def slow(check: Check) -> ProbeResult:
            await world.clock.sleep(1.0)
            return OK

        world.use(slow, 8)
        world.prober.watch(seen(Status.UP, *(a_check(host) for host in range(1, 50))))
        async with world.running_prober():
            await world.advance(300)

    run(story)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("limit", "most"), [(1024, 256), (64, 16), (20, 16), (1 << 20, 1024), (resource.RLIM_INFINITY, 1024)]
)
def test_bound_follows_the_limit_of_open_files(limit: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    assert probes_at_once() == most
