"""Verdicts, readiness and deadlines, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from director.core.config import parse_config
from director.core.model import Config, ServerRef
from director.kit.checks.check import Check
from director.kit.health import ProbeResult, Status
from director.kit.prober import Prober
from director.monitor import Monitor, grace_s
from tests.director.kit.clock import Clock

pytestmark = pytest.mark.unit

FILE = """
defaults: {check: {type: tcp, interval: 4s, timeout: 1s, fast_interval: 1s, rise: 2, fall: 3}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    interface: eth0
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
  plain:
    address: 192.0.2.11
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1}
      c: {address: 10.0.0.3, check: {type: none}}
  unchecked:
    address: 192.0.2.12
    port: 80
    forward: nat
    real_servers:
      a: {address: 10.0.0.1, check: {type: none}}
"""
CONFIG = parse_config(FILE, "f")
GRACE_S = 3 * (1.0 + 1.1) + 1.0


class Scene:
    """A monitor whose probes answer as `answers` says by address; up where it says nothing,
    never where it says None. `says` has whole answers by port.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.answers: dict[str, bool | None] = {}
        self.says: dict[int, ProbeResult] = {}
        self.probed: list[str] = []
        self.wakes = 0

        def prober(on_change: Callable[..., None], now: Callable[[], float]) -> Prober:
            return Prober(on_change, self.probe, now, self.clock.call_at)

        monkeypatch.setattr("director.monitor.Prober", prober)
        self.monitor = Monitor(self.wake, self.clock.now)

    def wake(self) -> None:
        self.wakes += 1

    async def probe(self, check: Check) -> ProbeResult:
        address = str(check.target.address)
        self.probed.append(address)
        answer = self.answers.get(address, True)
        if answer is None:
            await asyncio.Event().wait()
        return self.says.get(check.target.port, ProbeResult(bool(answer), "asked"))

    def statuses(self, config: Config = CONFIG) -> dict[str, Status]:
        return {str(ref): state.status for ref, state in self.monitor.health(config).items()}

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.monitor.run())
                await story()
                task.cancel()

        asyncio.run(main())


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_verdicts_come_wake_and_are_shared_by_equal_checks(scene: Scene) -> None:
    scene.answers = {"10.0.0.2": False}

    async def story() -> None:
        scene.monitor.watch(CONFIG)
        assert set(scene.statuses().values()) == {Status.PENDING}
        await scene.clock.go(0.5)
        assert sorted(scene.probed) == ["10.0.0.1", "10.0.0.2"], "web/a and plain/a are one probe"
        await scene.clock.go(5.0)
        assert scene.statuses() == {"web/a": Status.UP, "web/b": Status.DOWN, "plain/a": Status.UP}
        assert scene.wakes == 2
        scene.answers = {}
        await scene.clock.go(10.0)
        assert scene.statuses()["web/b"] is Status.UP
        assert scene.wakes == 3

    scene.run(story)


def test_a_virtual_server_is_ready_when_all_verdicts_are_in(scene: Scene) -> None:
    async def story() -> None:
        scene.monitor.watch(CONFIG)
        assert scene.monitor.ready(CONFIG) == {"unchecked"}
        assert scene.monitor.next_deadline_s() == pytest.approx(GRACE_S)
        await scene.clock.go(3.0)
        assert scene.monitor.ready(CONFIG) == {"web", "plain", "unchecked"}
        assert scene.monitor.next_deadline_s() is None

    scene.run(story)


def test_a_virtual_server_without_verdicts_is_ready_after_the_time_for_them(scene: Scene) -> None:
    async def story() -> None:
        scene.monitor.watch(CONFIG)
        await scene.clock.go(GRACE_S - 0.1)
        assert scene.monitor.ready(CONFIG) == {"unchecked"}
        assert scene.monitor.next_deadline_s() == pytest.approx(0.1)
        await scene.clock.go(0.2)
        assert scene.monitor.ready(CONFIG) == {"web", "plain", "unchecked"}
        assert scene.monitor.next_deadline_s() is None

    scene.answers = {"10.0.0.1": None}
    scene.run(story)


def test_the_time_for_verdicts_is_that_of_the_slowest_check() -> None:
    web, _, unchecked = CONFIG.virtual_servers
    assert grace_s(web) == pytest.approx(GRACE_S)
    assert grace_s(unchecked) == 0.0


def test_a_reload_keeps_what_is_known_and_forgets_what_is_gone(scene: Scene) -> None:
    smaller = parse_config(FILE.replace("      b: {address: 10.0.0.2}\n", ""), "f")

    async def story() -> None:
        scene.monitor.watch(CONFIG)
        await scene.clock.go(3.0)
        scene.probed.clear()
        scene.monitor.watch(smaller)
        assert scene.statuses(smaller)["web/a"] is Status.UP
        await scene.clock.go(10.0)
        assert set(scene.probed) == {"10.0.0.1"}
        scene.monitor.watch(CONFIG)
        assert scene.statuses()["web/b"] is Status.PENDING

    scene.run(story)


def test_a_new_address_waits_for_verdicts_again(scene: Scene) -> None:
    moved = parse_config(FILE.replace("192.0.2.10", "192.0.2.20").replace("10.0.0.2}", "10.0.0.9}"), "f")

    async def story() -> None:
        scene.monitor.watch(CONFIG)
        await scene.clock.go(60.0)
        assert "web" in scene.monitor.ready(CONFIG)
        assert "web" not in scene.monitor.ready(moved), "as a plan asks"
        scene.monitor.watch(moved)
        assert "web" not in scene.monitor.ready(moved)
        await scene.clock.go(3.0)
        assert "web" in scene.monitor.ready(moved)

    scene.run(story)


def test_a_failure_to_tell_a_load_leaves_the_last_one_and_does_not_touch_health(scene: Scene) -> None:
    config = parse_config(FILE.replace("    interface: eth0\n", "    load: {type: agent, port: 81}\n"), "f")
    a, b = (ServerRef("web", name) for name in "ab")

    async def story() -> None:
        scene.monitor.watch(config)
        assert scene.monitor.loads(config) == {}
        await scene.clock.go(20.0)
        assert scene.monitor.loads(config) == {a: scene.says[81], b: scene.says[81]}
        tenth, scene.says[81] = scene.says[81], ProbeResult(False, "refused")
        await scene.clock.go(60.0)
        assert scene.monitor.loads(config) == {a: tenth, b: tenth}
        assert set(scene.statuses(config).values()) == {Status.UP}

    scene.says[81] = ProbeResult(True, "10%", percent=10)
    scene.run(story)
