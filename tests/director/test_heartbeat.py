"""When the service manager hears that a director is alive: on a clock of the test's, over a real datagram socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from director.heartbeat import LATE_S, LONGEST_ACT_S, LONGEST_LOOK_S, Heartbeat
from director.kit.service import ServiceManager

pytestmark = pytest.mark.unit

STATUS = "2 virtual servers, 5 of 6 real servers serve"


@dataclass
class Manager:
    """What a service manager hears; `now`, `busy_s` and `late_s` are the director's state."""

    listener: socket.socket
    heartbeat: Heartbeat
    now: float = 1000.0
    busy_s: float = 0.0
    late_s: float = 0.0

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.listener.recv(4096).decode())
            except BlockingIOError:
                return found

    def beat(self) -> list[str]:
        self.heartbeat.beat()
        return self.heard()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        told = ServiceManager({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000000"})
        heartbeat = Heartbeat(told, lambda: made.busy_s, lambda: made.late_s, lambda: made.now)
        made = Manager(listener, heartbeat)
        yield made


def test_idle_director_with_a_long_drift_interval_is_alive_all_the_time(manager: Manager) -> None:
    manager.heartbeat.ready(STATUS)
    assert manager.heard() == [f"READY=1\nSTATUS={STATUS}"]
    manager.heartbeat.waits(86400)
    for _ in range(100):
        manager.now += 864
        assert manager.beat() == ["WATCHDOG=1"]


def test_loop_that_does_not_come_back_is_not_alive(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    manager.heartbeat.ready(STATUS)
    manager.heartbeat.waits(60)
    manager.now += 60 + LATE_S
    assert "WATCHDOG=1" in manager.beat()
    manager.now += 1
    assert manager.beat() == ["STATUS=NOT HEALTHY: the reconcile loop is 1s late"]
    assert manager.beat() == []
    assert [record.__dict__["reason"] for record in caplog.records] == ["the reconcile loop is 1s late"]
    manager.heartbeat.waits(60)
    assert manager.beat() == [f"STATUS={STATUS}", "WATCHDOG=1"]


def test_look_may_last_as_long_as_an_apply_it_waits_for(manager: Manager) -> None:
    manager.heartbeat.ready("")
    manager.heartbeat.looks()
    manager.heard()
    manager.now += LONGEST_LOOK_S
    assert manager.beat() == ["WATCHDOG=1"]
    manager.now += 1
    assert "WATCHDOG=1" not in manager.beat()


@pytest.mark.parametrize(
    ("busy_s", "late_s", "told"),
    [
        (LONGEST_ACT_S + 1, 0.0, "a look at the kernel or a change of it has not ended in 91s"),
        (0.0, LATE_S + 1, "a probe is 31s late"),
    ],
)
def test_stuck_part_stops_the_feeding(manager: Manager, busy_s: float, late_s: float, told: str) -> None:
    manager.heartbeat.ready("")
    manager.heard()
    manager.busy_s, manager.late_s = busy_s, late_s
    assert manager.beat() == [f"STATUS=NOT HEALTHY: {told}"]


def test_task_that_has_ended_stops_the_feeding(manager: Manager) -> None:
    async def story() -> None:
        async def nothing() -> None: ...

        async with asyncio.TaskGroup() as group:
            task = group.create_task(nothing(), name="probes")
            manager.heartbeat.watch([task])
            assert manager.heartbeat.illness() == ""
        assert manager.heartbeat.illness() == "the task 'probes' has ended"

    asyncio.run(story())


def test_status_is_told_when_it_changes_and_not_before_it_is_ready(manager: Manager) -> None:
    heartbeat = manager.heartbeat
    heartbeat.starting()
    heartbeat.say("1 virtual server")
    assert manager.heard() == [f"EXTEND_TIMEOUT_USEC={LONGEST_LOOK_S * 1e6:.0f}"]
    heartbeat.ready("1 virtual server")
    heartbeat.say("1 virtual server")
    heartbeat.say("2 virtual servers")
    assert manager.heard() == ["READY=1\nSTATUS=1 virtual server", "STATUS=2 virtual servers"]


def test_stopping_asks_for_time_and_feeds_no_watchdog(manager: Manager) -> None:
    manager.heartbeat.ready("")
    manager.heard()
    manager.heartbeat.stopping()
    assert manager.beat() == ["STOPPING=1\nSTATUS=stops; the kernel keeps forwarding", "EXTEND_TIMEOUT_USEC=20000000"]
    manager.busy_s = LONGEST_ACT_S + 1
    assert not any("EXTEND" in line for line in manager.beat())


def test_manager_hears_at_least_twice_in_the_time_it_waits() -> None:
    for watchdog_us, every_s in (("3000000", 1.5), ("60000000", 5.0), ("", 5.0)):
        told = ServiceManager({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": watchdog_us})
        assert Heartbeat(told, lambda: 0.0, lambda: 0.0).every_s == every_s


def test_reload_asks_for_time_for_as_long_as_it_lasts_and_is_well(manager: Manager) -> None:
    manager.heartbeat.ready("")
    manager.heartbeat.reloading()
    manager.heard()
    assert manager.beat() == ["EXTEND_TIMEOUT_USEC=20000000", "WATCHDOG=1"]
    manager.busy_s = LONGEST_ACT_S + 1
    assert not any(line.startswith("EXTEND") for line in manager.beat())
    manager.busy_s = 0.0
    manager.heartbeat.ready("")
    manager.heard()
    manager.beat()
    assert manager.beat() == ["WATCHDOG=1"]


def test_reload_that_ends_in_a_stop_says_nothing_against_it(manager: Manager) -> None:
    manager.heartbeat.ready("")
    manager.heartbeat.reloading()
    manager.heartbeat.stopping()
    manager.heard()
    manager.heartbeat.ready("1 virtual server")
    manager.heartbeat.reloading()
    assert manager.heard() == []
