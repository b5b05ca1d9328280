"""The agent and the health path: what a director hears from l7proxy, and what asking costs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from l7proxy.agent import LEAVES_S, MOST_CONNECTIONS, MOST_HEARD_BYTES, Visit
from tests.wire.harness import PATIENCE_S, Origin, Running, config_text, fields_of, free_port, live, named, running
from tests.wire.test_process import Process
from tests.wire.test_running import CHECK, reloaded, taken, until_it_says

pytestmark = pytest.mark.unit

UP = {b"up ready %d%%\n" % percent for percent in range(5, 101, 5)}
"""A machine that is busy with other things makes any loop late."""


def agent_at(*ports: int) -> str:
    return "agent: {bind: [" + ", ".join(f"'127.0.0.1:{port}'" for port in ports) + "]}"


async def ask(port: int, says: bytes = b"") -> bytes:
    """What the agent says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(says)
    async with asyncio.timeout(PATIENCE_S):
        heard = await reader.read()
    writer.close()
    return heard


def held(port: int) -> list[str]:
    """The states of TCP connections whose agent's side the kernel still has (net/ipv4/tcp_states.h)."""
    names = {"01": "ESTABLISHED", "04": "FIN_WAIT1", "05": "FIN_WAIT2", "06": "TIME_WAIT", "08": "CLOSE_WAIT"}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [names.get(row[3], row[3]) for row in rows if row[1].endswith(f":{port:04X}") and row[3] != "0A"]


@live
async def test_whoever_connects_is_told_at_once(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with running(tmp_path, Origin(named), more=agent_at(first, second)) as proxy:
        assert await ask(first) in UP
        assert await ask(second) in UP
        assert await ask(first, b"web1\n") in UP
        assert await ask(first, b"x" * MOST_HEARD_BYTES) in UP
        assert proxy.server.proxy.connections == 0
        assert proxy.server.proxy.counters.requests == 0


@live
async def test_the_share_follows_the_clients(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, Origin(named), more=agent_at(port) + "\nlimits: {connections: 2}") as proxy:
        one = await proxy.connect()
        await proxy.until(lambda: proxy.server.proxy.load.percent <= 50)
        two = await proxy.connect()
        await proxy.until(lambda: proxy.server.proxy.load.percent == 1)
        assert await ask(port) == b"up ready 1%\n"  # the agent itself never meets the limit
        for _, writer in (one, two):
            writer.close()
        await proxy.until(lambda: proxy.server.proxy.load.percent > 50)


@live
async def test_a_loop_that_is_late_says_so(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, Origin(named), more=agent_at(port) + "\ntimeouts: {head: 200ms}") as proxy:
        async with asyncio.timeout(PATIENCE_S):
            while proxy.server.proxy.load.percent > 80:
                asyncio.get_running_loop().call_soon(time.sleep, 0.12)  # the sweeper comes every 50 ms
                await asyncio.sleep(0)
        assert await ask(port) in UP
        await proxy.until(lambda: proxy.server.proxy.load.percent > 80)


@live
async def test_without_any_backend_it_is_down_and_why(tmp_path: Path) -> None:
    port, sick = free_port(), free_port()
    async with running(tmp_path, sick, upstream=CHECK, more=agent_at(port)) as proxy:
        up = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: not up.weights)
        said = await ask(port)
        assert said.startswith(b"down#no upstream has a backend left; up: no backend is up: b0 is down: ")
        assert said.endswith(b"\n")
        origin = Origin(named)
        origin.port = sick
        await origin.start()
        await proxy.until(lambda: bool(up.weights))
        assert await ask(port) in UP
        await origin.stop()


@live
async def test_an_upstream_that_no_route_leads_to_does_not_count(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, free_port(), more=agent_at(port)) as proxy:
        assert await ask(port) in UP
        text = proxy.path.read_text()
        drained = text[: text.rindex("'}")] + "', weight: 0}\n"
        other = f"  x: {{backends: {{a: {{address: '127.0.0.1:{free_port()}'}}}}}}\n"
        proxy.path.write_text(drained + other)
        await reloaded(proxy)
        assert await ask(port) == b"down#no upstream has a backend left; up: no backend is up: b0 has weight 0\n"


@live
async def test_draining_is_said_until_the_end(tmp_path: Path) -> None:
    port, agent, path, go = free_port(), free_port(), tmp_path / "a.yaml", asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    origin = await Origin(answer).start()
    path.write_text(config_text(port, origin, more=agent_at(agent)))
    async with Process(path, port) as proxy:
        assert await ask(agent) in UP
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not origin.heads:  # noqa: ASYNC110 -- bounded by the test
            await asyncio.sleep(0.005)
        os.kill(proxy.process.pid, signal.SIGTERM)
        await proxy.logged("draining")
        for _ in range(3):
            assert await ask(agent) == b"drain\n"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        go.set()
        assert taken(await reader.read()) == "origin"
        assert await proxy.ended() == 0
        with pytest.raises(ConnectionRefusedError):
            await ask(agent)
        assert "Traceback" not in proxy.log.read_text()
        writer.close()
    await origin.stop()


@live
async def test_peers_that_do_not_leave_are_few_and_leave_nothing(tmp_path: Path) -> None:
    port = free_port()
    peers: list[socket.socket] = []
    async with running(tmp_path, Origin(named), more=agent_at(port)) as proxy:
        visits = agent_of(proxy)
        for _ in range(3 * MOST_CONNECTIONS):
            peers.append(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port), PATIENCE_S))
        assert await ask(port) in UP  # whoever stays cannot keep anybody out
        assert len(visits) <= MOST_CONNECTIONS
        began_at = time.monotonic()
        await proxy.until(lambda: not visits and set(held(port)) <= {"TIME_WAIT"})
        assert time.monotonic() - began_at < LEAVES_S + 1
        assert len(held(port)) <= 1  # of the one who asked
    for peer in peers:
        assert peer.recv(100) in UP  # the line was there before the reset
        with pytest.raises(ConnectionError):
            peer.send(b"x")
        peer.close()


@live
async def test_a_peer_that_says_too_much_is_reset(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, Origin(named), more=agent_at(port)) as proxy:
        visits = agent_of(proxy)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readuntil(b"\n")
        began_at = time.monotonic()
        with pytest.raises(ConnectionError):
            await pour(writer)
        await proxy.until(lambda: not visits)
        assert time.monotonic() - began_at < LEAVES_S / 2
        writer.close()


async def pour(writer: asyncio.StreamWriter) -> None:
    """Write until it fails."""
    while True:
        writer.write(b"x" * 1024)
        await writer.drain()
        await asyncio.sleep(0)


def agent_of(proxy: Running) -> dict[Visit, None]:
    """The agent's connections."""
    return proxy.server._listeners._agent.connections


@live
async def test_an_address_may_change_its_role_and_nobody_is_refused(tmp_path: Path) -> None:
    agent, admin = free_port(), free_port()
    more = f"admin: {{bind: '127.0.0.1:{admin}'}}\n{agent_at(agent)}"
    async with running(tmp_path, Origin(named, "one"), more=more) as proxy:
        assert await ask(agent) in UP
        ports = {"A": agent, "B": admin, "C": proxy.port}
        text = proxy.path.read_text()
        for name, port in ports.items():
            text = text.replace(str(port), name + name)
        for turn in range(3):  # each of the three addresses is each of the three, in turn
            agent, admin, client = [*ports.values()][turn:] + [*ports.values()][:turn]
            proxy.path.write_text(text.replace("AA", str(agent)).replace("BB", str(admin)).replace("CC", str(client)))
            await reloaded(proxy)
            proxy.port = client
            await until_it_says(proxy, "/", "one")
            proxy.port = admin
            await until_it_says(proxy, "/healthz", "ok\n")
            async with asyncio.timeout(PATIENCE_S):
                while await ask(agent) not in UP:  # noqa: ASYNC110 -- what is waited for has no event
                    await asyncio.sleep(0.01)


@live
async def test_an_agent_comes_and_goes_with_a_reload(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, Origin(named, "one")) as proxy:
        without = proxy.path.read_text()
        proxy.path.write_text(without + agent_at(port) + "\n")
        await reloaded(proxy)
        assert await ask(port) in UP
        proxy.path.write_text(without)
        await reloaded(proxy)
        with pytest.raises(ConnectionRefusedError):
            await ask(port)


@live
async def test_the_health_path_says_who_answers_and_keeps_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), listener=", health: /-/health") as proxy:
        reader, writer = await proxy.connect()
        for _ in range(3):
            writer.write(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert fields_of(head, b"server") == [b"l7proxy"]
            assert fields_of(head, b"connection") == []
            await reader.readexactly(int(fields_of(head, b"content-length")[0]))
        assert proxy.server.proxy.connections == 1
        writer.close()
        assert fields_of(await proxy.get("/"), b"server") == []  # what a backend says is passed on as it came


@live
async def test_notice_is_given_before_anybody_is_refused(tmp_path: Path) -> None:
    port = free_port()
    more = agent_at(port) + "\ntimeouts: {notice: 1h}"
    async with running(tmp_path, Origin(named), listener=", health: /-/health", more=more) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        proxy.server.request_stop()
        await proxy.until(lambda: proxy.server.proxy.draining)
        assert await ask(port) == b"drain\n"
        writer.write(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n")  # a connection that was kept is still heard
        last = await reader.read()
        assert last.startswith(b"HTTP/1.1 503 ")
        assert fields_of(last, b"connection") == [b"close"]
        writer.close()
        for _ in range(2):
            answer = await proxy.get("/")
            assert taken(answer) == "origin"
            assert fields_of(answer, b"connection") == [b"close"]
        proxy.server.request_stop()  # and a second one does not wait


@live
async def test_notice_ends_by_itself(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    path.write_text(config_text(port, free_port(), more="timeouts: {notice: 300ms}"))
    async with Process(path, port) as proxy:
        began_at = time.monotonic()
        os.kill(proxy.process.pid, signal.SIGTERM)
        os.kill(proxy.process.pid, signal.SIGHUP)  # nothing to wait for less
        assert await proxy.ended() == 0
        assert time.monotonic() - began_at >= 0.3
