"""Connections forwarded as they are by the program: a restart of all its workers, and want of descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.wire.harness import Origin, config_text, free_port, named, one_answer
from tests.wire.load import Load
from tests.wire.test_process import Process
from tests.wire.test_tcp import FORWARDED, NONE, Backend, echo
from tests.wire.test_workers import Workers, all_gone, patiently, several

pytestmark = pytest.mark.unit


@patiently
async def test_not_one_connection_fails_in_a_restart_and_old_ones_go_on(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2, listener=FORWARDED, routes=NONE)
    load = Load(port, kept=0, fresh=4)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(request)
        assert (await one_answer(reader))[1] == b"origin"
        async with load.running():
            await load.more(200)
            os.kill(proxy.pid, signal.SIGUSR2)
            await proxy.times("INFO l7proxy serving", 2)
            await load.more(200)
        writer.write(request)
        assert (await one_answer(reader))[1] == b"origin", "a worker that has been replaced finishes what it has"
        writer.close()
        await all_gone(before - {proxy.pid})
        assert not load.failures
        shown = (await proxy.get("/metrics", admin)).decode()
        told = [line for line in shown.splitlines() if line.startswith("l7proxy_tcp_connections_total{")]
        assert len(told) == 1
        assert float(told[0].split()[1]) >= load.answered
        assert "Traceback" not in proxy.log.read_text()
    await origin.stop()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15]))


@patiently
async def test_without_descriptors_clients_wait_and_come_in_when_there_are_some(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    async with Backend(echo) as backend:
        path.write_text(config_text(port, backend.port, listener=FORWARDED, routes=NONE))
        async with Process(path, port) as proxy:
            pid = proxy.process.pid
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = open_files(pid)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 6, hard))
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
            await proxy.logged("connections wait")
            ticks = cpu_ticks(pid)
            await asyncio.sleep(0.3)
            assert cpu_ticks(pid) - ticks < 10, "it does not spin"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            for reader, writer in held[-2:]:
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            for _, writer in held:
                writer.close()
            assert "Traceback" not in proxy.log.read_text()
