"""When checks run: on a virtual clock, with probes whose end the test decides."""

from __future__ import annotations

import asyncio
import heapq
import logging
import resource
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import pairwise

import pytest

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.errors import ProbeError
from director.kit.health import HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.troubles import MOST_NAMED
from director.kit.turns import probes_at_once

pytestmark = pytest.mark.unit

OK, BAD = ProbeResult(True, "fine"), ProbeResult(False, "refused")


def _check(host: int = 1, rise: int = 2, fall: int = 2) -> Check:
    return Check(Endpoint(ip_address(f"10.0.0.{host}"), 80), TcpProbe(), Timing(10.0, 1.0, 2.0, rise, fall))


A, B = _check(1), _check(2)


class World:
    """A clock that moves only when told, and probes that answer from a script; None is a probe that hangs."""

    def __init__(self, at_once: int | None = None) -> None:
        self.now = 100.0
        self.begun: list[tuple[float, Check]] = []
        self.running: list[Check] = []
        self.most_running: dict[Check, int] = {}
        self.script: dict[Check, list[ProbeResult | BaseException | None]] = {}
        self.changes: list[tuple[Check, Status, Status]] = []
        self.listener: Callable[[Check], None] | None = None
        self.pauses: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._hanging: dict[Check, asyncio.Future[ProbeResult]] = {}
        self.prober = Prober(self._changed, self._probe, lambda: self.now, self._sleep, at_once)

    def _changed(self, check: Check, before: HealthState, after: HealthState) -> None:
        self.changes.append((check, before.status, after.status))
        if self.listener is not None:
            self.listener(check)

    async def _probe(self, check: Check) -> ProbeResult:
        self.begun.append((self.now, check))
        self.running.append(check)
        self.most_running[check] = max(self.most_running.get(check, 0), self.running.count(check))
        try:
            script = self.script.get(check)
            answer = script.pop(0) if script else OK
            if answer is None:
                self._hanging[check] = asyncio.get_running_loop().create_future()
                answer = await self._hanging[check]
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            self.running.remove(check)

    def finish(self, check: Check, result: ProbeResult) -> None:
        self._hanging[check].set_result(result)

    async def _sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + pause_s, len(self.pauses), future))
        await future

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self.now = end

    @asynccontextmanager
    async def running_prober(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.prober.run())
            await self.settle()
            try:
                yield
            finally:
                task.cancel()
        assert self.running == []

    def times(self, check: Check) -> list[float]:
        return [at for at, each in self.begun if each == check]


def run(story: Callable[[World], Coroutine[None, None, None]], at_once: int | None = None) -> World:
    world = World(at_once)
    asyncio.run(story(world))
    return world


def _watched(*checks: Check) -> dict[Check, HealthState]:
    return dict.fromkeys(checks, HealthState())


def test_every_check_is_probed_at_once_and_then_at_its_interval() -> None:
    async def story(world: World) -> None:
        world.prober.watch(_watched(A, B))
        async with world.running_prober():
            await world.advance(200)

    world = run(story)
    for check in (A, B):
        times = world.times(check)
        assert times[0] == 100.0
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert 1.8 <= gaps[0] <= 2.2  # pending: fast
        assert all(9.0 <= gap <= 11.0 for gap in gaps[1:])  # up: no more hurry
        assert len(set(gaps)) == len(gaps)  # jitter


def test_interval_is_fast_while_a_change_is_suspected() -> None:
    async def story(world: World) -> None:
        world.script[A] = [OK, OK, BAD, OK, BAD, BAD, BAD, OK, OK, OK]
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(100)

    world = run(story)
    fast = [pause < 5 for pause in world.pauses[:10]]
    assert fast == [True, False, True, False, True, False, False, True, False, False]
    assert [after for _, _, after in world.changes] == [Status.UP, Status.DOWN, Status.UP]


def test_pauses_stay_within_a_tenth() -> None:
    async def story(world: World) -> None:
        world.prober.watch(_watched(*(_check(host, rise=1) for host in range(1, 40))))
        async with world.running_prober():
            await world.advance(300)

    pauses = run(story).pauses
    assert len(pauses) > 500
    assert 9.0 <= min(pauses) < 9.2
    assert 10.8 < max(pauses) <= 11.0


def test_check_never_overlaps_itself_however_slow_it_is() -> None:
    async def story(world: World) -> None:
        world.script[A] = [None]
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(500)
            assert world.times(A) == [100.0]
            world.finish(A, OK)
            await world.advance(3)
            assert len(world.times(A)) == 2

    assert run(story).most_running == {A: 1}


def test_equal_checks_run_once() -> None:
    async def story(world: World) -> None:
        world.prober.watch({A: HealthState(), _check(1): HealthState()})
        async with world.running_prober():
            world.prober.watch({_check(1): HealthState()})
            await world.advance(1)

    assert run(story).times(A) == [100.0]


def test_watching_adds_removes_and_keeps() -> None:
    async def story(world: World) -> None:
        world.prober.watch(_watched(A, B))
        async with world.running_prober():
            await world.advance(50)
            kept = world.prober.state(A)
            assert kept.status is Status.UP
            new = _check(3)
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
        world.prober.watch(_watched(A))
        world.prober.watch(_watched(B))
        async with world.running_prober():
            await world.advance(1)
        world.prober.watch(_watched(A))
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
        world.prober.watch(_watched(A, B))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(_watched(B))
            await world.advance(100)
            assert world.running == []
            assert len(world.times(B)) > 5

    assert [check for check, _, _ in run(story).changes] == [B]


def test_check_removed_in_the_instant_its_probe_ends_is_forgotten() -> None:
    async def story(world: World) -> None:
        once = _check(1, fall=1)
        world.script[once] = [None]
        world.prober.watch(_watched(once, B))
        async with world.running_prober():
            await world.settle()
            world.finish(once, BAD)
            world.prober.watch(_watched(B))
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
        once = _check(1, fall=1)
        prober.watch(_watched(once))
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
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(50)
            world.script[A] = [None]
            world.prober.watch()
            world.prober.watch(_watched(A))
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
            world.prober.watch(_watched(B) if check == A else _watched(A, B))

        world.listener = swap
        world.prober.watch(_watched(A))
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
        world.prober.watch(_watched(A, B))
        async with world.running_prober():
            await world.advance(100)
            assert world.prober.state(A).status is Status.UP
            assert len(world.times(A)) > 5

    run(story)
    assert [record.message for record in caplog.records] == ["a change of health was not taken in"] * 2


def test_probe_that_raises_counts_as_failed_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.script[A] = [RuntimeError("bug") for _ in range(5)]
        world.prober.watch(_watched(A, B))
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
        world.prober.watch(_watched(A, B))
        async with world.running_prober():
            await world.settle()
        assert world.running == []
        assert len(asyncio.all_tasks()) == 1
        assert world.prober.state(A) == HealthState()

    run(story)


def test_probe_that_cannot_be_made_is_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.prober.watch(_watched(A))
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
        world.prober.watch(_watched(A, B))
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
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(600)

    run(story)
    assert [record.message for record in caplog.records] == ["probes cannot be made"]


def test_another_reason_is_news(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        world.script[A] = [ProbeError("files"), ProbeError("files"), ProbeError("memory"), ProbeError("memory")]
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(60)

    run(story)
    assert [record.__dict__["reason"] for record in caplog.records] == ["files", "memory"]


def test_trouble_of_all_is_told_in_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    checks = [_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        world.script = {check: list(map(_cannot, range(10))) for check in checks}
        world.prober.watch(_watched(*checks))
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
        world.prober.watch(_watched(A))
        async with world.running_prober():
            await world.advance(15)
            world.prober.watch()
            world.prober.watch(_watched(A))
            await world.advance(15)

    run(story)
    assert [record.message for record in caplog.records] == ["probes cannot be made"] * 2


def test_probes_at_one_time_are_bounded() -> None:
    checks = [_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        world.script = {check: [None] for check in checks}
        world.prober.watch(_seen(Status.UP, *checks))
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


def _seen(status: Status, *checks: Check) -> dict[Check, HealthState]:
    return dict.fromkeys(checks, HealthState(status, 5, 0.0, OK if status is Status.UP else BAD, 0.0))


@pytest.mark.parametrize(("status", "most"), [(Status.DOWN, 32), (Status.PENDING, 48), (Status.UP, 64)])
def test_slots_are_kept_free_for_servers_that_are_up(status: Status, most: int) -> None:
    crowd = [_check(host) for host in range(1, 101)]
    good = _check(200)

    async def story(world: World) -> None:
        world.script = {check: [None] for check in crowd}
        world.prober.watch(_watched(*crowd) if status is Status.PENDING else _seen(status, *crowd))
        async with world.running_prober():
            await world.settle()
            assert len(world.running) == most
            world.prober.watch(dict.fromkeys(crowd, HealthState()) | _seen(Status.UP, good))
            await world.settle()
            assert len(world.times(good)) == (1 if most < 64 else 0)

    run(story, at_once=64)


def test_server_that_comes_back_does_not_wait_behind_the_dead() -> None:
    crowd = [_check(host) for host in range(1, 101)]
    back = _check(200)

    async def story(world: World) -> None:
        world.script = {check: [None] for check in crowd}
        world.prober.watch(_seen(Status.DOWN, *crowd))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(_seen(Status.DOWN, *crowd) | {back: HealthState(Status.DOWN, 1, 0.0, OK, 0.0)})
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
            await world._sleep(5.0)
            return BAD

        def note(check: Check, _: HealthState, after: HealthState) -> None:
            if check == good and after.status is Status.DOWN:
                down_at.append(world.now)

        world.prober = Prober(note, probe, lambda: world.now, world._sleep, 256)
        world.prober.watch(_seen(Status.DOWN, *dead) | _seen(Status.UP, good))
        async with world.running_prober():
            await world.advance(25)
            alive = False
            await world.advance(20)

    run(story)
    assert len(down_at) == 1
    assert down_at[0] - 125.0 < 2.2 + 2 * 0.55 + 0.01  # an interval, then the fast ones, with jitter


def test_cancelled_wait_gives_its_turn_back() -> None:
    first, second, third = (_check(host) for host in (1, 2, 3))

    async def story(world: World) -> None:
        world.script = {first: [None, None]}
        world.prober.watch(_seen(Status.DOWN, first))
        async with world.running_prober():
            await world.settle()
            world.prober.watch(_seen(Status.DOWN, first, second, third))
            await world.settle()
            assert world.begun == [(100.0, first)]
            world.prober.watch(_seen(Status.DOWN, first, third))
            await world.settle()
            world.finish(first, BAD)
            await world.settle()
            assert [check for _, check in world.begun] == [first, third]

    run(story, at_once=2)


def test_late_probes_are_told_once_with_a_number_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    crowd = [_check(host) for host in range(1, 101)]

    async def story(world: World) -> None:
        async def slow(check: Check) -> ProbeResult:
            await world._sleep(20.0)
            return BAD

        world.prober = Prober(lambda *_: None, slow, lambda: world.now, world._sleep, 8)
        world.prober.watch(_seen(Status.DOWN, *crowd))
        async with world.running_prober():
            await world.advance(500)
            world.prober.watch(_seen(Status.DOWN, *crowd[:2]))
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
            await world._sleep(1.0)
            return OK

        world.prober = Prober(lambda *_: None, slow, lambda: world.now, world._sleep, 8)
        world.prober.watch(_seen(Status.UP, *(_check(host) for host in range(1, 50))))
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
