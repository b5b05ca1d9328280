"""What a running program is told at a bad moment.

One rule: each test is of one defect that was there once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.wire.harness import Origin, status_of
from tests.wire.test_workers import Workers, patiently, several

pytestmark = pytest.mark.unit


@patiently
async def test_a_reload_that_is_asked_for_while_workers_take_over_is_done_by_them(tmp_path: Path) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def late(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    origin = await Origin(late).start()
    path, port, admin = several(tmp_path, origin, 1)
    async with Workers(path, port, admin) as proxy:
        async with asyncio.TaskGroup() as group:
            request = group.create_task(proxy.get())
            await asked.wait()
            several_text = path.read_text().replace("workers: 1", "workers: 2")
            path.write_text(several_text)
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.logged("this process becomes their supervisor")
            path.write_text(several_text.replace("upstream: up}", "respond: {body: new}}"))
            os.kill(proxy.pid, signal.SIGHUP)
            await asyncio.sleep(0.1)  # the signal is handled: nothing tells of it
            go.set()
            assert status_of(await request) == 200
        await proxy.logged("INFO l7proxy reloaded")
        assert (await proxy.get()).endswith(b"\r\n\r\nnew")
        assert "Traceback" not in proxy.log.read_text()
    await origin.stop()
