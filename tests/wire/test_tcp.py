"""Connections that are forwarded as they are, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from l7proxy.http.front import Front
from l7proxy.tcp.front import TcpFront
from tests.wire.harness import Running, abort, free_port, live, running, stuck_port

pytestmark = pytest.mark.unit

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NONE = "  []"
"""No routes: nobody speaks HTTP."""
FORWARDED = ", tcp: {upstream: up}"


class Backend:
    """Serves each connection by `serve`; `ends` has how each reading ended."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.port = free_port()
        self.connections = 0
        self.failures: list[BaseException] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.serve(reader, writer)
        except ConnectionError as error:
            self.failures.append(error)
        finally:
            writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The digest of all that came, once its end has come."""
    found = hashlib.sha256()
    while piece := await reader.read(1 << 20):
        found.update(piece)
    writer.write(found.digest())


def front_of(proxy: Running) -> TcpFront:
    front = proxy.server._engine.listeners.entrances[0]
    assert isinstance(front, TcpFront)
    return front


@live
async def test_an_end_of_one_direction_leaves_the_other(tmp_path: Path) -> None:
    async with Backend(digest) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        for piece in (b"one", b"two"):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(b"onetwo").digest()
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert not front_of(proxy).clients
        assert not proxy.server.proxy.counters.in_flight


@live
async def test_a_backend_may_speak_first_and_end_first(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.write_eof()
        heard.append(await reader.read())

    async with Backend(greet) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        assert await reader.read() == b"220 hello\r\n"
        writer.write(b"bye")
        writer.write_eof()
        await proxy.until(lambda: heard == [b"bye"])
        writer.close()


@live
async def test_bulk_passes_whole_in_both_directions_at_one_time(tmp_path: Path) -> None:
    size = 24 << 20
    block = os.urandom(1 << 20)
    came = hashlib.sha256()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def read() -> None:
            while piece := await reader.read(1 << 18):
                came.update(piece)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for _ in range(size // len(block)):
                writer.write(block)
                await writer.drain()
            writer.write_eof()

    async with Backend(both) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        got = hashlib.sha256()
        most_pipes = 0

        async def read() -> None:
            nonlocal most_pipes
            while piece := await reader.read(1 << 18):
                got.update(piece)
                most_pipes = max(most_pipes, proxy.server.proxy.pipes.made)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for _ in range(size // len(block)):
                writer.write(block)
                await writer.drain()
            writer.write_eof()
        writer.close()
        whole = hashlib.sha256()
        for _ in range(size // len(block)):
            whole.update(block)
        assert got.digest() == whole.digest()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert came.digest() == whole.digest()
        assert most_pipes == 2
        meters = proxy.server.proxy.tcp_meters.counts()
        assert meters["http\nup/l7proxy_tcp_received_bytes"] == meters["http\nup/l7proxy_tcp_sent_bytes"] == size


@live
async def test_bulk_passes_whole_where_there_are_no_pipes(tmp_path: Path) -> None:
    data = os.urandom(8 << 20)
    async with Backend(digest) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        proxy.server.proxy.pipes.most = 0
        reader, writer = await proxy.connect()
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(data).digest()
        writer.close()


@live
async def test_who_reads_slowly_slows_the_other_side_down(tmp_path: Path) -> None:
    go = asyncio.Event()
    size = 48 << 20
    found = hashlib.sha256()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        while piece := await reader.read(1 << 20):
            found.update(piece)
        writer.write(b"done")

    async with Backend(slow) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        writer.transport.set_write_buffer_limits(0)
        block = os.urandom(1 << 20)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(size >> 20):
                writer.write(block)
                await writer.drain()
                sent += 1
            writer.write_eof()

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            before = -1
            while before != sent:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.05)
            assert not sending.done()
            assert sent < 40, "kernel's buffers, and one pipe"
            go.set()
            assert await reader.read() == b"done"
        whole = hashlib.sha256()
        for _ in range(size >> 20):
            whole.update(block)
        assert found.digest() == whole.digest()
        writer.close()


@live
async def test_a_reset_is_passed_on_as_a_reset_either_way(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"x":
            abort(writer)
        else:
            await reader.read()

    async with Backend(cut) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        assert await proxy.send(b"x") == b"<RST>"
        _, writer = await proxy.connect()
        writer.write(b"y")
        await proxy.until(lambda: backend.connections == 2 and proxy.server.proxy.connections == 1)
        await asyncio.sleep(0.01)  # the byte is through
        abort(writer)
        await proxy.until(lambda: len(backend.failures) == 1)
        assert isinstance(backend.failures[0], ConnectionResetError)
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\nup\nconnection_terminated/l7proxy_tcp_errors"] == 1
        assert counts["http\nup\nclient_left/l7proxy_tcp_errors"] == 1


@live
async def test_what_a_backend_says_before_it_refuses_more_arrives(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"no more")

    async with Backend(refuse) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"x")
        assert await reader.readexactly(7) == b"no more"
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@live
async def test_another_backend_is_tried_where_one_refuses(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(tmp_path, free_port(), backend.port, listener=FORWARDED, routes=NONE) as proxy,
    ):
        for _ in range(4):
            reader, writer = await proxy.connect()
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
        assert backend.connections == 4
        await proxy.until(lambda: not proxy.server.proxy.connections)
        states = proxy.server.proxy.snapshot.upstreams["up"].backends
        assert [state.counters.in_flight for state in states.values()] == [0, 0]


@live
async def test_a_backend_that_takes_too_long_is_left_for_another(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(
            tmp_path,
            stuck_port(),
            backend.port,
            listener=FORWARDED,
            routes=NONE,
            upstream="    timeouts: {connect: 100ms}",
        ) as proxy,
    ):
        for _ in range(2):
            reader, writer = await proxy.connect()
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()


@live
async def test_without_a_backend_the_client_is_closed_and_the_log_says_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, free_port(), listener=FORWARDED, routes=NONE, access_log="json") as proxy:
        assert await proxy.send() in {b"", b"<RST>"}
        proxy.server.proxy.access.close()
    line = json.loads(capfd.readouterr().out)
    assert line["mode"] == "tcp"
    assert line["listener"] == "http"
    assert line["upstream"] == "up"
    assert line["backend"] == "b0"
    assert line["cause"] == "connection_refused"
    assert line["bytes_out"] == 0


@live
async def test_each_connection_has_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with (
        Backend(echo) as backend,
        running(tmp_path, backend.port, listener=FORWARDED, routes=NONE, access_log="combined") as proxy,
    ):
        reader, writer = await proxy.connect()
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        proxy.server.proxy.access.close()
    line = capfd.readouterr().out
    assert line.startswith("127.0.0.1 - - [")
    assert '"TCP http" - 5 "-" "-" mode=tcp sni=- in=5 queue=' in line
    assert line.endswith("upstream=up backend=b0 retries=0 cause=-\n")


@live
async def test_what_is_idle_is_closed_and_what_is_half_closed_sooner(tmp_path: Path) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(60)

    tcp = ", tcp: {upstream: up, idle: 300ms, half_closed: 50ms}"
    async with Backend(wait) as backend, running(tmp_path, backend.port, listener=tcp, routes=NONE) as proxy:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        half_reader, half = await proxy.connect()
        half.write_eof()
        reader, writer = await proxy.connect()
        with pytest.raises(ConnectionResetError):
            await half_reader.read()
        half_s = loop.time() - began_at
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert half_s < 0.25 < loop.time() - began_at
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\nup\nidle_timeout/l7proxy_tcp_errors"] == 2
        half.close()
        writer.close()


@live
async def test_urgent_data_stops_nothing(tmp_path: Path) -> None:
    async with Backend(echo) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"before")
        client.send(b"!", socket.MSG_OOB)
        await loop.sock_sendall(client, b"after")
        got = b""
        while not got.endswith(b"after"):
            got += await loop.sock_recv(client, 100)
        assert got.startswith(b"before")
        client.close()


@live
async def test_proxy_headers_come_in_and_go_out(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    listener = FORWARDED + ", proxy_protocol: true, trusted_proxies: 127.0.0.1"
    told = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 5432\r\n"
    for version in ("v1", "v2"):
        async with (
            Backend(hear) as backend,
            running(
                tmp_path,
                backend.port,
                listener=listener,
                routes=NONE,
                upstream=f"    proxy_protocol: {version}",
            ) as proxy,
        ):
            await proxy.send(told[:9], told[9:] + b"hello", patience_s=0.02)
            await proxy.until(lambda: len(heard) == (1 if version == "v1" else 2))  # noqa: B023
            assert proxy.server.proxy.tcp_meters.counts()["http\nup/l7proxy_tcp_received_bytes"] == 5
            assert await proxy.send(b"SSH-2.0-nobody\r\n") in {b"", b"<RST>"}, "no PROXY header, no connection"
            assert backend.connections == 1
    assert heard[0] == told + b"hello"
    assert heard[1].startswith(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
    assert heard[1].endswith(b"hello")


@live
async def test_without_a_header_coming_in_the_backend_is_told_of_our_peer(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())

    async with (
        Backend(hear) as backend,
        running(tmp_path, backend.port, listener=FORWARDED, routes=NONE, upstream="    proxy_protocol: v1") as proxy,
    ):
        _, writer = await proxy.connect()
        port = writer.get_extra_info("sockname")[1]
        await proxy.until(lambda: bool(heard))
        assert heard == [f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {proxy.port}\r\n".encode()]
        writer.close()


@live
async def test_a_late_proxy_header_is_not_waited_for(tmp_path: Path) -> None:
    listener = ", tcp: {upstream: up, hello: 50ms}, proxy_protocol: true, trusted_proxies: 127.0.0.1"
    async with Backend(echo) as backend, running(tmp_path, backend.port, listener=listener, routes=NONE) as proxy:
        assert await proxy.send(b"PROXY TCP4 ") == b""
        assert not backend.connections


@live
async def test_connections_count_against_their_limit(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(tmp_path, backend.port, listener=FORWARDED, routes=NONE, more="limits: {connections: 2}") as proxy,
    ):
        held = [await proxy.connect() for _ in range(2)]
        await proxy.until(lambda: proxy.server.proxy.connections == 2)
        with socket.create_connection(("127.0.0.1", proxy.port)) as late:
            late.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(late, 1)
        held[0][1].close()
        await proxy.until(lambda: proxy.server.proxy.connections == 1)
        reader, writer = await proxy.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        for _, each in held:
            each.close()
        writer.close()


@live
async def test_connections_are_shared_out_by_weight_and_counted(tmp_path: Path) -> None:
    async with (
        Backend(echo) as one,
        Backend(echo) as two,
        running(tmp_path, one.port, two.port, listener=FORWARDED, routes=NONE) as proxy,
    ):
        held = [await proxy.connect() for _ in range(6)]
        await proxy.until(lambda: one.connections + two.connections == 6)
        assert (one.connections, two.connections) == (3, 3)
        states = proxy.server.proxy.snapshot.upstreams["up"].backends
        assert [state.counters.in_flight for state in states.values()] == [3, 3]
        for _, writer in held:
            writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert [state.counters.in_flight for state in states.values()] == [0, 0]


@live
async def test_backends_are_chosen_by_what_they_do_and_by_who_asks(tmp_path: Path) -> None:
    async with (
        Backend(echo) as one,
        Backend(echo) as two,
        running(
            tmp_path,
            one.port,
            two.port,
            listener=FORWARDED,
            routes=NONE,
            upstream="    balance: least_requests",
        ) as proxy,
    ):
        states = proxy.server.proxy.snapshot.upstreams["up"].backends
        held = [(await proxy.connect())[1] for _ in range(4)]
        await proxy.until(lambda: one.connections + two.connections == 4)
        assert [state.counters.in_flight for state in states.values()] == [2, 2]
        ports = {each.port for each in front_of(proxy).clients if each.backend is states["b0"]}
        for writer in held:
            if writer.get_extra_info("sockname")[1] in ports:
                writer.close()
        await proxy.until(lambda: states["b0"].counters.in_flight == 0)
        held += [(await proxy.connect())[1] for _ in range(2)]
        await proxy.until(lambda: states["b0"].counters.in_flight == 2)
        for writer in held:
            writer.close()
    for balance in ("{hash: source}", "{hash: source, bounded: 100}"):
        async with (
            Backend(echo) as one,
            Backend(echo) as two,
            running(
                tmp_path,
                one.port,
                two.port,
                listener=FORWARDED,
                routes=NONE,
                upstream=f"    balance: {balance}",
            ) as proxy,
        ):
            held = [(await proxy.connect())[1] for _ in range(4)]
            await proxy.until(lambda: one.connections + two.connections == 4)
            assert {one.connections, two.connections} == {0, 4}
            for writer in held:
                writer.close()


@live
async def test_a_backend_that_takes_no_connections_is_left_out_and_an_upstream_spared(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(
            tmp_path,
            free_port(),
            backend.port,
            listener=FORWARDED,
            routes=NONE,
            upstream="    outlier: {failures: 2, ejection: 30s, at_most: 50%}",
        ) as proxy,
    ):
        upstream = proxy.server.proxy.snapshot.upstreams["up"]
        for _ in range(6):
            reader, writer = await proxy.connect()
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
        assert set(upstream.weights) == {"b1"}
        assert upstream.backends["b0"].counters.requests == 2
    async with running(
        tmp_path,
        free_port(),
        listener=FORWARDED,
        routes=NONE,
        upstream="    breaker: {errors: 50%, of: 3, window: 10s, open: 10s}",
    ) as proxy:
        for _ in range(5):
            await proxy.send()
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\nup\nconnection_refused/l7proxy_tcp_errors"] == 3
        assert counts["http\nup\nbreaker_open/l7proxy_tcp_errors"] == 2


@live
async def test_a_backend_has_no_more_connections_than_it_may_have(tmp_path: Path) -> None:
    async with (
        Backend(echo) as one,
        Backend(echo) as two,
        running(
            tmp_path, one.port, two.port, listener=FORWARDED, routes=NONE, upstream="    max_connections: 2"
        ) as proxy,
    ):
        held = [await proxy.connect() for _ in range(4)]
        await proxy.until(lambda: (one.connections, two.connections) == (2, 2))
        assert await proxy.send(b"x") in {b"", b"<RST>"}
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\nup\nconnection_limit/l7proxy_tcp_errors"] == 1
        held[0][1].close()
        await proxy.until(lambda: proxy.server.proxy.connections == 3)
        reader, writer = await proxy.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        for _, each in held:
            each.close()
        writer.close()


@live
async def test_many_at_one_time_get_their_own_bytes_whole(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311 -- nothing here is secret
    async with Backend(echo) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:

        async def talk(size: int, block: int, nap_s: float) -> None:
            reader, writer = await proxy.connect()
            data = os.urandom(size)

            async def send() -> None:
                for at in range(0, size, block):
                    writer.write(data[at : at + block])
                    await writer.drain()
                writer.write_eof()

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                got = bytearray()
                while piece := await reader.read(block):
                    got += piece
                    await asyncio.sleep(nap_s)
            assert got == data
            writer.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(120):
                size = chance.choice([0, 1, 1000, 65536, 65537, 300_000, 2_000_000])
                group.create_task(talk(size, chance.choice([1000, 65536, 200_000]), chance.choice([0, 0, 0.001])))
        await proxy.until(lambda: not proxy.server.proxy.connections)
        assert not front_of(proxy).clients
        assert not proxy.server.proxy.snapshot.upstreams["up"].backends["b0"].counters.in_flight
        assert proxy.server.proxy.pipes.made <= 2 * 16


@live
async def test_a_stop_refuses_new_ones_and_lets_old_ones_finish(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(tmp_path, backend.port, listener=FORWARDED, routes=NONE, more="timeouts: {drain: 20s}") as proxy,
    ):
        reader, writer = await proxy.connect()
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.server.request_stop()

        async def is_refused() -> bool:
            try:
                _, late = await proxy.connect()
            except ConnectionRefusedError:
                return True
            late.close()
            return False

        while not await is_refused():  # noqa: ASYNC110 -- the test is bounded
            await asyncio.sleep(0.01)
        writer.write(b"two")
        writer.write_eof()
        assert await reader.read() == b"two"
        writer.close()


@live
async def test_the_deadline_of_a_stop_cuts_off_with_a_reset(tmp_path: Path) -> None:
    async with (
        Backend(echo) as backend,
        running(tmp_path, backend.port, listener=FORWARDED, routes=NONE, more="timeouts: {drain: 50ms}") as proxy,
    ):
        reader, writer = await proxy.connect()
        await proxy.until(lambda: backend.connections == 1)
        proxy.server.request_stop()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@live
async def test_a_reload_touches_no_connection_even_where_its_listener_goes(tmp_path: Path) -> None:
    async with Backend(echo) as backend, running(tmp_path, backend.port, listener=FORWARDED, routes=NONE) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        text = proxy.path.read_text()
        proxy.path.write_text(text.replace(FORWARDED, "").replace("routes:\n  []", "routes:\n  - {upstream: up}"))
        await proxy.server._reload(False)
        assert any(isinstance(front, Front) for front in proxy.server._engine.listeners.fronts)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        proxy.path.write_text(text)
        await proxy.server._reload(False)
        late_reader, late = await proxy.connect()
        late.write(b"three")
        assert await late_reader.readexactly(5) == b"three"
        writer.write(b"four")
        assert await reader.readexactly(4) == b"four"
        late.close()
        writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)
