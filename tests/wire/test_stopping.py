"""SIGTERM: no new clients, `Connection: close`, and what runs is finished, within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    config_text,
    fields_of,
    free_port,
    live,
    named,
    one_answer,
    running,
    status_of,
    take,
)
from tests.wire.test_process import Process

pytestmark = pytest.mark.unit

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@live
async def test_a_stop_closes_after_the_answer_that_runs_and_says_so(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET)
        await proxy.until(lambda: bool(origin.heads))
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        go.set()
        head, body = await one_answer(reader)
        assert (status_of(head), body) == (200, b"origin")
        assert fields_of(head, b"connection") == [b"close"]
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()


def refuses(port: int) -> bool:
    """Whether a new connection is refused."""
    with socket.socket() as client:
        client.settimeout(0.02)  # shortly before it is closed, whoever tries gets no answer
        try:
            client.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return False


@live
async def test_a_body_whose_head_is_gone_already_is_finished_and_then_closed(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await go.wait()
        writer.write(b"half")

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET)
        await reader.readuntil(b"half")
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b"half"
        writer.close()


@live
async def test_what_is_pipelined_behind_is_answered_or_plainly_not_begun(tmp_path: Path) -> None:
    """Whoever reads `Connection: close` knows that the rest was not begun (RFC 9112 9.6)."""
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET * 5)
        await proxy.until(lambda: bool(origin.heads))
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            got = await reader.read()
        writer.close()
    answers = [b"HTTP/1.1 " + part for part in got.split(b"HTTP/1.1 ")[1:]]
    assert 1 <= len(answers) == len(origin.heads)
    assert fields_of(answers[-1].partition(b"\r\n\r\n")[0] + b"\r\n\r\n", b"connection") == [b"close"]


@live
async def test_an_upload_that_runs_is_finished(tmp_path: Path) -> None:
    total = 8 * 1024 * 1024

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, total)
        await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
        await proxy.until(lambda: bool(origin.heads))
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        for _ in range(total // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        head, _ = await one_answer(reader)
        assert status_of(head) == 200
        assert fields_of(head, b"connection") == [b"close"]
        writer.close()


@live
async def test_a_head_that_has_begun_is_still_answered(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(GET[:20])
        await proxy.until(lambda: proxy.server.proxy.connections == 1)
        await asyncio.sleep(0.05)
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        writer.write(GET[20:])
        head, body = await one_answer(reader)
        assert (status_of(head), body) == (200, b"origin")
        assert fields_of(head, b"connection") == [b"close"]
        writer.close()


async def asks_until_told(port: int, think_s: float, outcome: Counter[str], seed: int) -> None:
    """GETs on one kept-alive connection after the other, as a browser would: what became of each.

    A connection that is over before anything is asked on it is no failure: a new one is made. A request on its way
    whose connection ends without a byte is one.
    """
    chance = random.Random(seed)  # noqa: S311 -- pauses
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            outcome["refused"] += 1
            return
        while True:
            if reader.at_eof():
                outcome["closed while idle"] += 1
                break
            writer.write(GET)
            try:
                head, _ = await one_answer(reader)
            except (EOFError, ConnectionError) as error:
                outcome[f"failed: {type(error).__name__}"] += 1
                break
            outcome[str(status_of(head))] += 1
            if fields_of(head, b"connection") == [b"close"]:
                outcome["told to close"] += 1
                break
            if think_s:
                await asyncio.sleep(chance.uniform(0, think_s))
        writer.close()


def failures(outcome: Counter[str]) -> dict[str, int]:
    fine = {"200", "told to close", "refused", "closed while idle"}
    return {what: count for what, count in outcome.items() if what not in fine}


@pytest.mark.parametrize("think_s", [0.0, 0.01])
@live
async def test_clients_that_ask_all_the_time_lose_nothing_when_it_stops(tmp_path: Path, think_s: float) -> None:
    """32 clients, four times over."""
    for round_ in range(4):
        outcome = Counter[str]()
        origin = Origin(named)
        async with running(tmp_path, origin) as proxy, asyncio.TaskGroup() as group:
            for index in range(32):
                group.create_task(asks_until_told(proxy.port, think_s, outcome, index))
            await proxy.until(lambda: outcome["200"] >= 200)  # noqa: B023 -- awaited here
            proxy.server.request_stop()
        assert failures(outcome) == {}, f"round {round_}: {outcome}"
        assert outcome["refused"] == 32


@live
async def test_the_program_loses_nothing_when_it_is_told_to_stop_under_load(tmp_path: Path) -> None:
    port, path, outcome = free_port(), tmp_path / "a.yaml", Counter[str]()
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        async with asyncio.TaskGroup() as group:
            for index in range(32):
                group.create_task(asks_until_told(port, 0.005, outcome, index))
            async with asyncio.timeout(PATIENCE_S):
                while outcome["200"] < 1000:  # noqa: ASYNC110 -- no event
                    await asyncio.sleep(0.005)
            os.kill(proxy.process.pid, signal.SIGTERM)
        assert await proxy.ended() == 0
        assert "Traceback" not in proxy.log.read_text()
    assert failures(outcome) == {}, outcome
    assert outcome["told to close"] > 0
    await origin.stop()


@live
async def test_connections_in_the_queue_are_answered_before_it_is_closed(tmp_path: Path) -> None:
    """Their handshake is done and their request sent: to close the socket would reset them."""
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        os.kill(proxy.process.pid, signal.SIGSTOP)
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in clients:
            writer.write(GET)
        os.kill(proxy.process.pid, signal.SIGTERM)
        os.kill(proxy.process.pid, signal.SIGCONT)
        outcome = Counter[str]()
        for reader, writer in clients:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    head, _ = await one_answer(reader)
                outcome[f"{status_of(head)} {fields_of(head, b'connection')}"] += 1
            except (EOFError, ConnectionError) as error:
                outcome[type(error).__name__] += 1
            writer.close()
        assert outcome == {"200 [b'close']": 50}
        assert await proxy.ended() == 0
    await origin.stop()


@live
async def test_a_stop_with_nothing_running_is_over_at_once(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await one_answer(reader)
        begun_at = time.monotonic()
        os.kill(proxy.process.pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        assert await proxy.ended() == 0
        assert time.monotonic() - begun_at < 3
        writer.close()
    await origin.stop()


@pytest.mark.parametrize("kind", ["answer", "upload", "tunnel"])
@live
async def test_what_does_not_finish_is_cut_off_at_the_deadline(tmp_path: Path, kind: str) -> None:
    request = {
        "answer": GET,
        "upload": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "tunnel": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    }[kind]
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fields_of(head, b"upgrade"):
            writer.write(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nopen")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        raise EOFError

    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(answer).start()
    path.write_text(config_text(port, origin, more="timeouts: {drain: 500ms}"))
    async with Process(path, port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        if kind == "tunnel":
            await reader.readuntil(b"open")
        while not origin.heads:  # noqa: ASYNC110 -- bounded by the test
            await asyncio.sleep(0.005)
        begun_at = time.monotonic()
        os.kill(proxy.process.pid, signal.SIGTERM)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
        assert 0.4 < time.monotonic() - begun_at < 2.5
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        assert await proxy.ended() == 0
        assert "Traceback" not in proxy.log.read_text()
        writer.close()
    await origin.stop()


@live
async def test_a_tunnel_goes_on_until_the_deadline(tmp_path: Path) -> None:
    async def echo(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while piece := await reader.read(65536):
            writer.write(piece)
        raise EOFError

    async with running(tmp_path, Origin(echo)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 101
        proxy.server.request_stop()
        await proxy.until(lambda: refuses(proxy.port))
        for _ in range(5):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            await asyncio.sleep(0.05)
        writer.close()


@live
async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def wait(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        raise EOFError

    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(wait).start()
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        while not origin.heads:  # noqa: ASYNC110 -- bounded by the test
            await asyncio.sleep(0.005)
        os.kill(proxy.process.pid, signal.SIGTERM)
        await proxy.logged("draining")
        begun_at = time.monotonic()
        os.kill(proxy.process.pid, signal.SIGTERM)
        assert await proxy.ended() == 0
        assert time.monotonic() - begun_at < 3
        writer.close()
    await origin.stop()
