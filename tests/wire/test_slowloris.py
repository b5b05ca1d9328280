"""A thousand clients that drip: the others are not slowed, and the dripping ones are shown out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.wire.harness import PATIENCE_S, Origin, body_back, config_text, free_port, live, one_answer, status_of
from tests.wire.test_process import Process

pytestmark = pytest.mark.unit

MANY = 1000
ROUNDS = 400
DRIP_EVERY_S = 0.5
HEAD_S = 3.0
DRIPS = {
    "heads": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n"),
    "lines that never end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y"),
    "nothing": (b"", b""),
    "bodies": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "chunks": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "chunk sizes": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


async def latencies(port: int) -> list[float]:
    """The seconds that each of many requests took, on a connection kept alive and now and then on a new one."""
    taken = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(ROUNDS // 8):
            begun_at = time.perf_counter()
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nquick")
            async with asyncio.timeout(PATIENCE_S):
                head, body = await one_answer(reader)
            taken.append(time.perf_counter() - begun_at)
            assert (status_of(head), body) == (200, b"quick")
        writer.close()
    return taken


class Crowd:
    """Clients that drip. `left` are those that are still connected."""

    def __init__(self, port: int, kind: str) -> None:
        self._first, self._drip = DRIPS[kind]
        self._port = port
        self._clients: list[socket.socket] = []
        self.left = 0

    async def come(self) -> None:
        for _ in range(MANY):
            client = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", self._port), PATIENCE_S)
            client.setblocking(False)
            client.send(self._first)
            self._clients.append(client)
        self.left = MANY

    async def drip(self) -> None:
        """Each of them every DRIP_EVERY_S, spread evenly, until cancelled."""
        while True:
            begun_at = time.monotonic()
            for at in range(0, len(self._clients), MANY // 50):
                for client in self._clients[at : at + MANY // 50]:
                    with contextlib.suppress(OSError):
                        client.send(self._drip)
                await asyncio.sleep(max(0, begun_at + DRIP_EVERY_S * at / MANY - time.monotonic()))
            self.left = sum(map(connected, self._clients))
            await asyncio.sleep(max(0, begun_at + DRIP_EVERY_S - time.monotonic()))

    def go(self) -> None:
        for client in self._clients:
            client.close()


def connected(client: socket.socket) -> bool:
    """Whether the other side has neither closed nor reset it; reads what is there."""
    try:
        while piece := client.recv(65536):
            if piece.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in piece:
                continue
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@asynccontextmanager
async def beset(tmp_path: Path, kind: str) -> AsyncIterator[tuple[Crowd, int, list[float]]]:
    """The program, with its latencies before the crowd came."""
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(body_back).start()
    path.write_text(config_text(port, origin, more=f"timeouts: {{head: {HEAD_S:g}s, keepalive: {HEAD_S:g}s}}"))
    async with Process(path, port):
        await latencies(port)
        alone = await latencies(port)
        crowd = Crowd(port, kind)
        try:
            yield crowd, port, alone
        finally:
            crowd.go()
    await origin.stop()


@pytest.mark.parametrize("kind", DRIPS)
@live
async def test_a_thousand_dripping_clients_do_not_slow_the_others(tmp_path: Path, kind: str) -> None:
    async with beset(tmp_path, kind) as (crowd, port, alone):
        async with asyncio.TaskGroup() as group:
            await crowd.come()
            dripping = group.create_task(crowd.drip())
            beside = await latencies(port)
            dripping.cancel()
        # The dripping itself takes this process's time, which is in `beside` too: hence not closer.
        assert statistics.median(beside) < 2 * statistics.median(alone) + 0.002
        assert statistics.quantiles(beside, n=20)[-1] < 5 * statistics.quantiles(alone, n=20)[-1] + 0.02


@pytest.mark.parametrize("kind", ["heads", "lines that never end", "nothing"])
@live
async def test_a_thousand_clients_without_a_head_are_shown_out_in_time(tmp_path: Path, kind: str) -> None:
    async with beset(tmp_path, kind) as (crowd, port, _):
        async with asyncio.TaskGroup() as group:
            await crowd.come()
            begun_at = time.monotonic()
            dripping = group.create_task(crowd.drip())
            async with asyncio.timeout(HEAD_S + PATIENCE_S):
                while crowd.left:  # noqa: ASYNC110 -- sockets have no common event
                    await asyncio.sleep(0.05)
            took_s = time.monotonic() - begun_at
            dripping.cancel()
        assert took_s < HEAD_S + 3
        await latencies(port)
