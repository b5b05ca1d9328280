"""Connections that are kept between probes, against real servers that die, close, and misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from statistics import median

import pytest
import uvloop

from director.kit.checks.base import Timing
from director.kit.checks.check import Check, Probe
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.health import HealthState, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.probes import sentinels
from tests.director.kit.engine.peers import LOOPBACK, free_port

pytestmark = pytest.mark.unit

FAST = Timing(interval_s=1.0, timeout_s=1.0, fast_interval_s=0.03, rise=2, fall=2)


def a_check(port: int, probe: Probe, timing: Timing = FAST, sentinel: bool | None = True) -> Check:
    return Check(Endpoint(LOOPBACK, port), probe, timing, sentinel=sentinel)


class HttpServer:
    """Answers 200 to every request; after `requests` of a connection, or `idle_s` without any, it ends it."""

    def __init__(
        self, requests: int = 10**9, idle_s: float | None = None, rudely: bool = False, name: str = "other"
    ) -> None:
        self.requests, self.idle_s, self.rudely = requests, idle_s, rudely
        self.answer = f"HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: 2\r\n\r\nok".encode()
        self.accepted = 0
        self.served = 0
        self.open = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        with socket.create_server(("0.0.0.0", 0)) as server:
            threads = []
            peers = []

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        peer = server.accept()[0]
                        self.accepted += 1
                        peers.append(peer)
                        threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
                        threads[-1].start()

            accepting = threading.Thread(target=accept, daemon=True)
            accepting.start()
            yield server.getsockname()[1]
            server.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)

    def _serve(self, peer: socket.socket) -> None:
        self.open += 1
        with peer, contextlib.suppress(OSError):
            peer.settimeout(self.idle_s)
            for _ in range(self.requests):
                heard = b""
                while not heard.endswith(b"\r\n\r\n"):
                    part = peer.recv(65536)
                    if not part:
                        return
                    heard += part
                self.served += 1
                peer.sendall(self.answer)
            if self.rudely:
                peer.recv(65536)  # a request that it does not answer
        self.open -= 1


@contextlib.asynccontextmanager
async def probing(*checks: Check) -> AsyncIterator[tuple[Prober, list[tuple[float, Check, Status]]]]:
    changes: list[tuple[float, Check, Status]] = []
    prober = Prober(lambda check, _, after: changes.append((time.monotonic(), check, after.status)))
    prober.watch(dict.fromkeys(checks, HealthState()))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(prober.run())
        try:
            yield prober, changes
        finally:
            task.cancel()


async def until(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110 -- no event tells of it
            await asyncio.sleep(0.001)


SERVER = """
import contextlib, socketserver, sys
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError):
            while self.request.recv(65536):
                self.request.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.mark.parametrize(
    ("loop", "probe"), [(asyncio.new_event_loop, TcpProbe()), (uvloop.new_event_loop, HttpProbe())]
)
def test_death_of_a_process_is_known_within_a_hundred_milliseconds(
    loop: Callable[[], asyncio.AbstractEventLoop], probe: Probe
) -> None:
    port = free_port()
    check = a_check(port, probe)
    took_s: list[float] = []

    async def story() -> None:
        async with probing(check) as (prober, changes):
            for _ in range(5):
                with subprocess.Popen([sys.executable, "-S", "-c", SERVER, str(port)]) as server:  # noqa: ASYNC220
                    await until(lambda: prober.state(check).status is Status.UP)
                    await until(lambda: prober.next_at(check) is not None)
                    await asyncio.sleep(0.05)
                    began_at = time.monotonic()
                    server.send_signal(signal.SIGKILL)
                    await until(lambda: prober.state(check).status is Status.DOWN)
                    took_s.append(changes[-1][0] - began_at)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())
    assert median(took_s) < 0.1, took_s


def run(story: Callable[[int], Awaitable[None]], server: HttpServer) -> None:
    async def main() -> None:
        await story(port)

    with server.running() as port:
        asyncio.run(main())


def test_requests_go_over_the_kept_connection_and_a_share_over_new_ones() -> None:
    server = HttpServer()
    timing = Timing(0.02, 1.0, 0.02, 1, 2, jitter=0.0)

    async def story(port: int) -> None:
        check = a_check(port, HttpProbe(), timing)
        async with probing(check) as (prober, _):
            await until(lambda: server.served >= 5 * sentinels.FRESH_EVERY)
            assert prober.state(check).status is Status.UP
            assert server.open <= 2
        assert server.accepted == 5

    run(story, server)


@pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe()])
def test_one_connection_stands_for_all_checks_of_a_target(probe: Probe) -> None:
    server = HttpServer()

    async def story(port: int) -> None:
        checks = [a_check(port, probe), a_check(port, HttpProbe(path="/b")), a_check(port, HttpProbe(path="/c"))]
        async with probing(*checks) as (prober, _):
            await until(lambda: all(prober.state(check).status is Status.UP for check in checks))
            await until(lambda: server.open == 1)
            prober.watch({checks[1]: HealthState()})
            await asyncio.sleep(0.05)
            assert server.open == 1
            prober.watch()
            await until(lambda: server.open == 0)

    run(story, server)


@pytest.mark.parametrize("sentinel", [True, False])
def test_only_who_wants_a_sentinel_has_one(sentinel: bool) -> None:
    server = HttpServer()

    async def story(port: int) -> None:
        check = a_check(port, TcpProbe(), sentinel=sentinel)
        async with probing(check) as (prober, _):
            await until(lambda: prober.state(check).status is Status.UP)
            await asyncio.sleep(0.05)
            assert server.open == sentinel
        await until(lambda: server.open == 0)

    run(story, server)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (HttpServer(idle_s=0.03), {1}),
        (HttpServer(requests=1), {0, 1}),  # its end may come with the answer, and then nothing is kept
        (HttpServer(requests=2), {0, 1}),
        (HttpServer(requests=2, rudely=True), {0, 1}),
        (HttpServer(requests=0), {1}),
    ],
    ids=["idle", "one", "two", "rude", "none"],
)
def test_server_that_ends_connections_is_no_storm_and_no_failure(
    server: HttpServer, told: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Once it has ended three too soon, it is left without."""
    caplog.set_level(logging.INFO)
    probe = TcpProbe() if server.requests == 0 else HttpProbe()
    timing = Timing(0.2, 1.0, 0.05, 1, 1, jitter=0.0)

    async def story(port: int) -> None:
        check = a_check(port, probe, timing)
        async with probing(check) as (prober, changes):
            await asyncio.sleep(1.5)
            assert prober.state(check).status is Status.UP
            assert [status for _, _, status in changes] == [Status.UP]
            assert 6 <= prober.punctuality.due <= 8 + sentinels.SHORT_AT_MOST + 1
            assert prober.punctuality.on_time == prober.punctuality.due

    run(story, server)
    assert sum("sentinel" in record.message for record in caplog.records) in told


def test_no_more_are_kept_than_may_be(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.kit.prober.sentinels_at_most", lambda: 2)
    server = HttpServer()

    async def story(port: int) -> None:
        checks = [
            Check(Endpoint(type(LOOPBACK)(f"127.0.0.{n}"), port), TcpProbe(), FAST, sentinel=True) for n in range(1, 6)
        ]
        async with probing(*checks) as (prober, _):
            await until(lambda: all(prober.state(check).status is Status.UP for check in checks))
            await until(lambda: server.open == 2)
            prober.watch(dict.fromkeys(checks[3:], HealthState()))
            await until(lambda: prober.punctuality.due > 12)
            await until(lambda: server.open == 2)

    run(story, server)
    assert [record.message for record in caplog.records] == ["no more sentinels: they are at their most"]


@pytest.mark.parametrize(
    ("name", "sentinel", "kept"), [("l7proxy", None, 1), ("l7proxy", False, 0), ("nginx", None, 0)]
)
def test_only_an_l7proxy_has_one_without_being_told(name: str, sentinel: bool | None, kept: int) -> None:
    server = HttpServer(name=name)
    timing = Timing(interval_s=0.02, timeout_s=1.0, fast_interval_s=0.02)

    async def story() -> None:
        with server.running() as port:
            check = a_check(port, HttpProbe(), timing, sentinel)
            async with probing(check) as (prober, _):
                await until(lambda: server.served >= 12 and server.open == kept and prober.state(check).streak >= 12)
                assert (server.accepted < server.served) is bool(kept)

    asyncio.run(story())
