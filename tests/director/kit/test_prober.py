"""When checks run: on a virtual clock, with probes whose end the test decides."""

from __future__ import annotations

import asyncio

import pytest

from director.kit.checks.check import Check
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.prober import Prober
from tests.director.kit.probeworld import BAD, OK, A, B, World, a_check, run, watched

pytestmark = pytest.mark.unit


def test_every_check_is_probed_at_once_and_then_at_its_interval() -> None:
    async def story(world: World) -> None:
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(200)

    world = run(story)
    for check in (A, B):
        gaps = world.gaps(check)
        assert world.times(check)[0] == 100.0
        assert 1.8 <= gaps[0] <= 2.2  # pending: fast
        assert all(9.0 <= gap <= 11.0 for gap in gaps[1:])  # up: no more hurry
        assert len(set(gaps)) > len(gaps) / 2  # jitter


def test_interval_is_fast_while_a_change_is_suspected() -> None:
    async def story(world: World) -> None:
        world.script[A] = [OK, OK, BAD, OK, BAD, BAD, BAD, OK, OK, OK]
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(100)

    world = run(story)
    fast = [gap < 5 for gap in world.gaps(A)[:10]]
    assert fast == [True, False, True, False, True, False, False, True, False, False]
    assert [after for _, _, after in world.changes] == [Status.UP, Status.DOWN, Status.UP]


def test_pauses_stay_within_a_tenth() -> None:
    checks = [a_check(host, rise=1) for host in range(1, 40)]

    async def story(world: World) -> None:
        world.prober.watch(watched(*checks))
        async with world.running_prober():
            await world.advance(300)

    world = run(story)
    pauses = [gap for check in checks for gap in world.gaps(check)]
    assert len(pauses) > 500
    assert 9.0 <= min(pauses) + 1e-9 < 9.2
    assert 10.8 < max(pauses) <= 11.0 + 1e-9


def test_check_never_overlaps_itself_however_slow_it_is() -> None:
    async def story(world: World) -> None:
        world.script[A] = [None]
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(500)
            assert world.times(A) == [100.0]
            world.finish(A, OK)
            await world.advance(3)
            assert len(world.times(A)) == 2

    assert run(story).most_running == {A: 1}


def test_equal_checks_run_once() -> None:
    async def story(world: World) -> None:
        world.prober.watch({A: HealthState(), a_check(1): HealthState()})
        async with world.running_prober():
            world.prober.watch({a_check(1): HealthState()})
            await world.advance(1)

    assert run(story).times(A) == [100.0]


def test_watching_adds_removes_and_keeps() -> None:
    async def story(world: World) -> None:
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(50)
            kept = world.prober.state(A)
            assert kept.status is Status.UP
            new = a_check(3)
            world.prober.watch({A: HealthState(), new: HealthState(Status.DOWN, since_at=5.0)})
            assert world.prober.state(A) is kept
            assert world.prober.state(B) == HealthState()
            assert world.prober.state(new).status is Status.DOWN
            b_count = len(world.times(B))
            await world.advance(50)
            assert len(world.times(B)) == b_count
            assert world.times(new)[0] == 150.0
            assert world.prober.state(new).status is Status.UP
            world.prober.watch()
            count = len(world.begun)
            await world.advance(100)
            assert len(world.begun) == count

    run(story)


def test_watching_before_the_start_and_after_the_end_is_fine() -> None:
    async def story(world: World) -> None:
        world.prober.watch(watched(A))
        world.prober.watch(watched(B))
        async with world.running_prober():
            await world.advance(1)
        world.prober.watch(watched(A))
        assert [check for _, check in world.begun] == [B]
        async with world.running_prober():
            await world.advance(1)
        assert [check for _, check in world.begun] == [B, A]
        async with world.running_prober():
            await world.advance(1)
        assert [check for _, check in world.begun] == [B, A, A]

    run(story)


def test_check_removed_in_the_middle_of_its_probe_is_forgotten() -> None:
    async def story(world: World) -> None:
        world.script[A] = [None]
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(watched(B))
            await world.advance(100)
            assert world.running == []
            assert len(world.times(B)) > 5

    assert [check for check, _, _ in run(story).changes] == [B]


def test_check_removed_in_the_instant_its_probe_ends_is_forgotten() -> None:
    async def story(world: World) -> None:
        once = a_check(1, fall=1)
        world.script[once] = [None]
        world.prober.watch(watched(once, B))
        async with world.running_prober():
            await world.settle()
            world.finish(once, BAD)
            world.prober.watch(watched(B))
            await world.advance(100)
            assert len(world.times(B)) > 5

    assert [check for check, _, _ in run(story).changes] == [B]


def test_probe_that_outlives_its_cancellation_changes_nothing() -> None:
    began = asyncio.Event()

    async def stubborn(check: Check) -> ProbeResult:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return BAD  # against the rules; the others must not suffer
        return OK

    changes: list[Check] = []

    async def story() -> None:
        prober = Prober(lambda check, *_: changes.append(check), stubborn)
        once = a_check(1, fall=1)
        prober.watch(watched(once))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(prober.run())
            await began.wait()
            prober.watch()
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()

    asyncio.run(story())
    assert changes == []


def test_check_removed_and_added_again_starts_anew() -> None:
    async def story(world: World) -> None:
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(50)
            world.script[A] = [None]
            world.prober.watch()
            world.prober.watch(watched(A))
            assert world.prober.state(A) == HealthState()
            await world.settle()
            world.finish(A, BAD)
            await world.settle()
            assert world.prober.state(A).last == BAD
            assert world.prober.state(A).streak == 1

    assert run(story).most_running == {A: 1}


def test_listener_may_watch_something_else() -> None:
    async def story(world: World) -> None:
        def swap(check: Check) -> None:
            world.prober.watch(watched(B) if check == A else watched(A, B))

        world.listener = swap
        world.prober.watch(watched(A))
        async with world.running_prober():
            await world.advance(200)
            assert world.prober.state(B).status is Status.UP
            assert len(world.times(B)) > 10

    assert run(story).most_running == {A: 1, B: 1}


def test_listener_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        def fail(check: Check) -> None:
            raise RuntimeError("listener")

        world.listener = fail
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(100)
            assert world.prober.state(A).status is Status.UP
            assert len(world.times(A)) > 5

    run(story)
    assert [record.message for record in caplog.records] == ["a change of health was not taken in"] * 2


def test_probe_that_raises_counts_as_failed_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.script[A] = [RuntimeError("bug") for _ in range(5)]
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(30)
            assert world.prober.state(B).status is Status.UP
            await world.advance(200)
            assert world.prober.state(A).status is Status.UP

    world = run(story)
    assert (A, Status.PENDING, Status.DOWN) in world.changes
    assert [record.message for record in caplog.records] == ["probe failed in itself"]  # told once, not each time


def test_cancellation_ends_every_probe() -> None:
    async def story(world: World) -> None:
        world.script[A] = [None]
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.settle()
        assert world.running == []
        assert len(asyncio.all_tasks()) == 1
        assert world.prober.state(A) == HealthState()

    run(story)
