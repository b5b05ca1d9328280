"""When a check is due: the rule itself, and that a prober which follows it overlaps no probe and loses none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.health import Asks, HealthState, ProbeResult, Status
from director.kit.prober import RECENT
from director.kit.schedule import COARSEST_S, FINEST_S, grid_s, next_due_at
from tests.director.kit.clock import Clock
from tests.director.kit.probeworld import BAD, OK, A, B, World, a_check, run, seen, watched

pytestmark = pytest.mark.unit

SECONDS = st.floats(0.01, 100.0)
RANDOM = st.floats(0.0, 1.0, exclude_max=True)


@given(
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e5),
    SECONDS,
    SECONDS,
    st.sampled_from([0.0, 0.05, 0.1, 0.5]),
    st.booleans(),
    st.floats(FINEST_S, COARSEST_S),
    RANDOM,
)
def test_next_probe_is_due_within_its_jitter_and_later_than_now(
    due_at: float,
    took_s: float,
    interval_s: float,
    fast_s: float,
    jitter: float,
    is_fast: bool,
    grid: float,
    random: float,
) -> None:
    now = due_at + took_s
    pause_s = fast_s if is_fast else interval_s
    at = next_due_at(due_at, now, Timing(interval_s, 1.0, fast_s, jitter=jitter), is_fast, grid, random)
    slack_s = 1e-6
    assert at > now or at == pytest.approx(now, abs=slack_s)
    assert at <= now + pause_s * (1 + 2 * jitter) + slack_s
    if took_s < pause_s * (1 - jitter):
        assert pause_s * (1 - jitter) - slack_s <= at - due_at <= pause_s * (1 + jitter) + slack_s


def test_whole_pauses_that_have_gone_by_are_left_out() -> None:
    timing = Timing(interval_s=2.0, fast_interval_s=0.5, jitter=0.0)
    assert next_due_at(10.0, 15.1, timing, False, 0.05, 0.0) == pytest.approx(16.0)
    assert next_due_at(10.0, 11.0, timing, True, 0.05, 0.0) == pytest.approx(11.5)
    assert next_due_at(10.0, 10.2, timing, True, 0.05, 0.0) == pytest.approx(10.5)


@given(st.floats(0.0, 1e6))
def test_grid_is_coarse_for_few_and_fine_for_many(probes_a_s: float) -> None:
    assert FINEST_S <= grid_s(probes_a_s) <= COARSEST_S


def test_interval_of_nothing_is_no_busy_loop() -> None:
    nothing = a_check(timing=Timing(0.0, 1.0, 0.0, 1, 1, jitter=0.0))

    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, nothing))
        async with world.running_prober():
            await world.advance(1)

    assert len(run(story).begun) <= 1 / FINEST_S + 2


def test_probes_share_wake_ups() -> None:
    checks = [a_check(host, timing=Timing(1.0, 1.0, 1.0, 1, 2)) for host in range(1, 61)]

    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, *checks))
        async with world.running_prober():
            await world.advance(30)

    world = run(story)
    probes = len(world.begun)
    assert 1700 < probes < 1900
    assert len({at for at, _ in world.begun}) < probes / 2


def test_many_that_start_together_are_spread_after_their_first_verdict() -> None:
    checks = [a_check(host, timing=Timing(10.0, 1.0, 0.5, 2, 3)) for host in range(1, 301)]

    async def story(world: World) -> None:
        world.prober.watch(watched(*checks))
        async with world.running_prober():
            await world.advance(0.6)
            assert all(world.prober.state(check).status is Status.UP for check in checks), "first verdicts do not wait"
            await world.advance(10)
            world.begun.clear()
            await world.advance(10)

    world = run(story)
    in_each_s = [sum(int(at - world.begun[0][0]) == second for at, _ in world.begun) for second in range(9)]
    assert all(10 < count < 60 for count in in_each_s), in_each_s


def test_machine_that_slept_for_hours_probes_each_once_and_spread() -> None:
    checks = [a_check(host, timing=Timing(10.0, 1.0, 2.0, 2, 3)) for host in range(1, 201)]

    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, *checks))
        async with world.running_prober():
            await world.advance(30)
            world.clock.jump(7200.0)
            world.begun.clear()
            await world.advance(10.0)

    world = run(story)
    assert {len(world.times(check)) for check in checks} <= {1, 2}
    assert len(world.begun) < 1.2 * len(checks)
    in_each_s = [sum(int(at - world.begun[0][0]) == second for at, _ in world.begun) for second in range(9)]
    assert max(in_each_s) < 60, in_each_s


def test_few_that_were_late_are_probed_at_once() -> None:
    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, A, B))
        async with world.running_prober():
            await world.advance(15)
            world.clock.jump(3600.0)
            world.begun.clear()
            await world.advance(0.0)
            assert {check for _, check in world.begun} == {A, B}
            await world.advance(8.9)
            assert len(world.begun) <= 4, "what was missed is not made up for"
            assert world.prober.punctuality.on_time == world.prober.punctuality.due - 2

    run(story)


def test_probe_at_once_comes_at_once_and_never_twice() -> None:
    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, A))
        async with world.running_prober():
            await world.advance(5)
            count = len(world.begun)
            assert world.prober.probe_now(A)
            assert world.prober.probe_now(A)
            await world.settle()
            assert len(world.begun) == count + 1
            due_at = world.prober.next_at(A)
            assert due_at is not None
            assert 9.0 <= due_at - world.now <= 11.0
            world.script[A] = [None]
            world.prober.probe_now(A)
            await world.settle()
            assert world.prober.next_at(A) is None
            assert world.prober.probe_now(A)  # one runs
            await world.settle()
            assert len(world.begun) == count + 2
            assert not world.prober.probe_now(B)

    assert run(story).most_running == {A: 1}


def test_asking_for_probes_again_and_again_costs_bounded_memory() -> None:
    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, A))
        async with world.running_prober():
            for _ in range(1000):
                world.prober.probe_now(A)
                await world.advance(0.001)
            assert len(world.prober._due) < 200

    run(story)


def test_last_results_are_known() -> None:
    results = [ProbeResult(n % 3 > 0, str(n)) for n in range(20)]

    async def story(world: World) -> None:
        world.script[A] = list(results)
        world.prober.watch(seen(Status.UP, A))
        async with world.running_prober():
            while world.script[A]:
                await world.advance(1)
            recent = world.prober.recent(A)
            assert [result for _, result in recent] == results[-RECENT:]
            assert [at for at, _ in recent] == world.times(A)[-RECENT:]
            assert world.prober.recent(B) == ()

    run(story)


def test_whatever_a_check_says_is_told_when_it_changes() -> None:
    results = [
        OK,
        ProbeResult(True, "half", percent=50),
        ProbeResult(True, "half still", percent=50),
        ProbeResult(True, "weight", weight=7),
        ProbeResult(True, "drain", weight=7, asks=Asks.DRAIN),
        ProbeResult(True, "drain", weight=7, asks=Asks.DRAIN, warning="it ends"),
        OK,
        OK,
    ]
    told: list[str] = []

    async def story(world: World) -> None:
        def listen(check: Check) -> None:
            last = world.prober.state(check).last
            told.append(last.reason if last is not None else "")

        world.listener = listen
        world.script[A] = list(results)
        world.prober.watch(seen(Status.UP, A))
        async with world.running_prober():
            while world.script[A]:
                await world.advance(1)

    run(story)
    assert told == ["half", "weight", "drain", "drain", "fine"]


Step = Callable[[World], None]
HOSTS = [1, 2, 3]
FEW = [a_check(host, timing=Timing(1.0, 0.5, 0.2, 2, 2)) for host in HOSTS]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("watch"), st.sets(st.sampled_from(HOSTS))),
            st.tuples(st.just("go"), st.floats(0.0, 3.0)),
            st.tuples(st.just("jump"), st.floats(0.0, 1e5)),
            st.tuples(st.just("now"), st.sampled_from(HOSTS)),
        ),
        max_size=25,
    ),
    st.lists(st.tuples(st.sampled_from([OK, BAD, ProbeError("x"), ValueError("y")]), st.floats(0.0, 2.0)), max_size=30),
    st.integers(1, 4),
)
def test_no_check_overlaps_itself_and_none_is_lost(
    steps: list[tuple[str, object]], answers: list[tuple[ProbeResult | Exception, float]], at_once: int
) -> None:
    """Whatever is watched, however probes end, and however time jumps: each watched check is probed again soon."""
    running: dict[Check, int] = dict.fromkeys(FEW, 0)
    begun: dict[Check, list[float]] = {check: [] for check in FEW}
    pending = list(answers)

    async def story(world: World) -> None:
        clock: Clock = world.clock

        async def probe(check: Check) -> ProbeResult:
            running[check] += 1
            begun[check].append(clock.now_s)
            try:
                assert running[check] == 1
                assert sum(running.values()) <= at_once
                answer, took_s = pending.pop() if pending else (OK, 0.0)
                await clock.sleep(took_s)
                if isinstance(answer, Exception):
                    raise answer
                return answer
            finally:
                running[check] -= 1

        world.use(probe, at_once)
        watching: list[Check] = []
        async with world.running_prober():
            for kind, value in steps:
                if kind == "watch":
                    assert isinstance(value, set)
                    watching = [check for host, check in zip(HOSTS, FEW, strict=True) if host in value]
                    world.prober.watch(dict.fromkeys(watching, HealthState()))
                    await world.settle()  # a probe that is called off is over a moment later
                elif kind == "go":
                    assert isinstance(value, float)
                    await world.advance(value)
                elif kind == "jump":
                    assert isinstance(value, float)
                    clock.jump(value)
                elif kind == "now":
                    assert isinstance(value, int)
                    world.prober.probe_now(FEW[value - 1])
            await world.advance(40.0)
            before = {check: len(begun[check]) for check in FEW}
            await world.advance(5.0)
            for check in FEW:
                times = begun[check][before[check] :]
                assert (4 <= len(times) <= 6) if check in watching else not times
                assert all(0.85 <= later - earlier <= 1.15 for earlier, later in pairwise(times))
                assert world.prober.state(check).status is (Status.UP if check in watching else Status.PENDING)

    run(story)
    assert set(running.values()) == {0}


def test_next_time_is_told_only_of_what_is_watched() -> None:
    async def story(world: World) -> None:
        world.prober.watch(seen(Status.UP, A))
        async with world.running_prober():
            await world.advance(1)
            assert world.prober.next_at(A) is not None
            assert world.prober.next_at(B) is None
            await asyncio.sleep(0)

    run(story)


def test_trouble_of_this_host_can_be_asked_for() -> None:
    async def story(world: World) -> None:
        world.script[A] = [ProbeError("too many open files")]
        world.prober.watch(watched(A, B))
        async with world.running_prober():
            await world.advance(1)
            assert world.prober.trouble(A) == "too many open files"
            assert world.prober.trouble(B) == ""

    run(story)
