"""`python -m tests.bench.probes`: what a probe costs, and 5,000 real servers probed once a second. A table, then JSON.

One rule: the peers run in a process of their own, on another core where there is one; only this process is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from director.kit.checks.base import Timing
from director.kit.checks.check import Check, Probe
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.health import HealthState, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober

PORT = 8099
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve() -> None:
    """Accept everything, answer every request, for ever."""
    listener = socket.create_server(("", PORT), backlog=4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    while True:
        for number, _ in epoll.poll():
            if number == listener.fileno():
                with suppress(BlockingIOError):
                    while True:
                        peer = listener.accept()[0]
                        peers[peer.fileno()] = peer
                        epoll.register(peer.fileno(), select.EPOLLIN)
                continue
            peer = peers[number]
            heard = b""
            with suppress(OSError):
                heard = peer.recv(65536)
                if heard:
                    peer.send(ANSWER)
            if not heard:
                del peers[number]
                peer.close()


@contextmanager
def server() -> Iterator[None]:
    cores = sorted(os.sched_getaffinity(0))
    pid = os.fork()
    if not pid:
        os.sched_setaffinity(0, cores[-1:])
        try:
            serve()
        finally:
            os._exit(1)
    os.sched_setaffinity(0, cores[:1])
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", PORT)):
                break
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.sched_setaffinity(0, cores)


def checks(count: int, probe: Probe, timing: Timing, sentinel: bool = False) -> list[Check]:
    """`count` real servers, each an address of the loopback interface."""
    first = int(ip_address("127.1.0.1"))
    return [Check(Endpoint(ip_address(first + n), PORT), probe, timing, sentinel=sentinel) for n in range(count)]


def watch(watched: list[Check], seconds: float, at_once: int | None = None) -> dict[str, float]:
    """Probe for so long; figures of the second half."""
    figures: dict[str, float] = {}

    async def story() -> None:
        prober = Prober(lambda *_: None, at_once=at_once)
        prober.watch(dict.fromkeys(watched, HealthState()))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(prober.run())
            await asyncio.sleep(seconds / 2)
            due, on_time = prober.punctuality.due, prober.punctuality.on_time
            cpu_s = time.process_time()
            await asyncio.sleep(seconds / 2)
            due, on_time = prober.punctuality.due - due, prober.punctuality.on_time - on_time
            cpu_s = time.process_time() - cpu_s
            figures.update(
                probes=due,
                on_time_pct=100 * on_time / max(1, due),
                cpu_us=cpu_s / max(1, due) * 1e6,
                core_pct=100 * cpu_s / (seconds / 2),
                up=sum(prober.state(check).status is Status.UP for check in watched),
                rss_mb=rss_mb(),
            )
            task.cancel()

    asyncio.run(story())
    return figures


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--servers", type=int, default=5000)
    parser.add_argument("--only", help="names, with commas between them")
    wanted = parser.parse_args()
    every_second = Timing(1.0, 1.0, 0.5, 2, 3)
    names = wanted.only.split(",") if wanted.only else None
    stories: dict[str, Callable[[], dict[str, float]]] = {
        "tcp_20": lambda: watch(checks(20, TcpProbe(), every_second), wanted.seconds),
        "tcp_100": lambda: watch(checks(100, TcpProbe(), every_second), wanted.seconds),
        "http_100": lambda: watch(checks(100, HttpProbe(), every_second), wanted.seconds),
        "http_kept_100": lambda: watch(checks(100, HttpProbe(), every_second, sentinel=True), wanted.seconds),
        "tcp_many": lambda: watch(checks(wanted.servers, TcpProbe(), every_second), wanted.seconds),
        "http_many": lambda: watch(checks(wanted.servers, HttpProbe(), every_second), wanted.seconds),
    }
    found: dict[str, dict[str, float]] = {}
    with server():
        for name, story in stories.items():
            if names and name not in names:
                continue
            found[name] = story()
            print(f"{name:14}", *(f"{key} {value:9.1f}" for key, value in found[name].items()), flush=True)  # noqa: T201
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
