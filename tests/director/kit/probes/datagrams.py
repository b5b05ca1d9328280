"""Peers that speak in datagrams, for tests: each behaves in one way, on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_address
from typing import cast

from director.kit.checks.base import Route, Timing
from director.kit.checks.check import Check, Probe
from director.kit.net import Endpoint

Answer = Callable[[bytes], Iterable[bytes]]
"""The datagrams that come back for one."""
DIRECT = Route()


class Peer(asyncio.DatagramProtocol):
    """Keeps what it hears, and answers it."""

    def __init__(self, answer: Answer) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(data)
        for reply in self._answer(data):
            if reply:
                self.transport.sendto(reply, addr)
                continue
            number = os.dup(self.transport.get_extra_info("socket").fileno())  # a transport sends no empty ones
            with socket.socket(fileno=number) as same:
                same.sendto(reply, addr)


@contextlib.asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, Peer]]:
    """A peer, and its port."""
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(lambda: Peer(answer), local_addr=(host, 0))
    try:
        yield transport.get_extra_info("sockname")[1], peer
    finally:
        transport.close()
        await asyncio.sleep(0)


def free_port() -> int:
    """A port on which nobody listens for datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def check_on(port: int, probe: Probe, timeout_s: float = 5.0, host: str = "127.0.0.1", route: Route = DIRECT) -> Check:
    """A check of `host`."""
    return Check(Endpoint(ip_address(host), port), probe, Timing(timeout_s=timeout_s), route)
