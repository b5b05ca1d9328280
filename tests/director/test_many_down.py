"""Ten thousand real servers that go down at once: real probes, the decision, and what is told of it."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from pathlib import Path

import pytest

from director.core.config import parse_config
from director.core.event import Event
from director.core.model import Config
from director.kit.health import Status
from director.lastknown import LastKnown
from director.monitor import Monitor
from director.terms import Inputs
from director.witness import Witness

pytestmark = pytest.mark.unit

VIRTUALS, EACH = 100, 100
MOST_MB = 200


def many(port: int) -> Config:
    """Ten thousand addresses of this host, on a port where nobody listens once the test says so."""
    lines = ["defaults: {check: {type: tcp, interval: 1s, fast_interval: 500ms, timeout: 1s, rise: 1, fall: 2}}"]
    lines += ["virtual_servers:"]
    for virtual in range(VIRTUALS):
        lines += [f"  v{virtual}:", f"    address: 192.0.2.{virtual + 1}", "    port: 80", "    forward: nat"]
        lines += ["    real_servers:"]
        lines += [f"      r{real}: {{address: 127.9.{virtual}.{real + 1}, port: {port}}}" for real in range(EACH)]
    return parse_config("\n".join(lines), "f")


def test_ten_thousand_down_at_once_are_seen_told_once_and_cost_a_bounded_time(tmp_path: Path) -> None:
    events: list[Event] = []
    witness = Witness(LastKnown(tmp_path), events.append)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slow_s: list[float] = []

    async def story() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0, backlog=4096)
        port = server.sockets[0].getsockname()[1]
        config = many(port)
        monitor = Monitor(lambda: None)
        monitor.watch(config)

        def look() -> Counter[Status]:
            began = time.perf_counter()
            health = monitor.health(config)
            inputs = Inputs(config, health=health, ready=monitor.ready(config), now=time.monotonic())
            witness.look(inputs)()
            slow_s.append(time.perf_counter() - began)
            return Counter(state.status for state in health.values())

        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            probing = group.create_task(monitor.run())
            while look()[Status.UP] < VIRTUALS * EACH:  # noqa: ASYNC110 -- the test looks as often as the loop would
                await asyncio.sleep(0.2)
            events.clear()
            server.close()
            await server.wait_closed()
            while look()[Status.DOWN] < VIRTUALS * EACH:  # noqa: ASYNC110 -- the test looks as often as the loop would
                await asyncio.sleep(0.2)
            look()
            probing.cancel()

    asyncio.run(story())
    told = Counter((event.kind.value, event.now) for event in events)
    assert told[("health", "down")] == VIRTUALS * EACH
    assert told[("quorum", "lost")] == VIRTUALS
    assert {event.reason for event in events if event.kind.value == "health"} == {"connection refused"}
    assert max(slow_s) < 5, "a look at ten thousand changes, with its journal of what is known"
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < MOST_MB
