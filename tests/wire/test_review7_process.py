"""What a running program is told at a bad moment.

One rule: each test is of one defect that was there once.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import ssl
from pathlib import Path

import pytest

from l7proxy.board import Board
from l7proxy.crew import Crew, WorkerError
from tests.wire.harness import Origin, config_text, free_port, live, status_of
from tests.wire.sealed import make_certificate
from tests.wire.test_process import Process
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


@live
async def test_a_worker_that_no_descriptor_is_left_for_is_an_error_that_leaves_nothing() -> None:
    board = Board.make(seated=False)
    crew = Crew(["/bin/true"], "INFO", lambda *_: None, lambda _: None, board)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null", "rb") as lowest:  # noqa: PTH123, ASYNC230 -- its number is what is wanted
        for left in range(5):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1 + left, hard))
            try:
                with pytest.raises(WorkerError, match="no worker can be started: /bin/true: Too many open files"):
                    crew.spawn()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert not crew.members
            first = board.seat()
            board.leave(first)
            assert first == 0, "its slot is given back"


@live
async def test_a_name_that_is_not_ascii_is_a_line_in_the_log_and_no_traceback(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    port, path = free_port(), tmp_path / "a.yaml"
    path.write_text(config_text(port, 1, listener=f", tls: {{certificate: {certificate}, key: {key}}}"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="shop.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read().replace(b"shop.example", b"sh\xffp.example")
    async with Process(path, port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hello)
        assert (await reader.read())[:1] == b"\x15", "an alert"
        writer.close()
        await proxy.logged("the client asks for a name that is none")
        assert "Traceback" not in proxy.log.read_text()
