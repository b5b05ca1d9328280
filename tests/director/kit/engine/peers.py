"""Peers on the loopback address, good and hostile, each connection in a thread of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from director.kit.checks.base import Route, Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Step

LOOPBACK = ip_address("127.0.0.1")
Talk = Callable[[socket.socket], None]


def a_check(port: int, timeout_s: float = 5.0, route: Route | None = None) -> Check:
    return Check(Endpoint(LOOPBACK, port), TcpProbe(), Timing(timeout_s=timeout_s), route or Route())


class Says:
    """Says `first`, and is content once it has heard `expected`."""

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, first: bytes = b"hello\n", expected: bytes = b"world\n") -> None:
        self.first, self.expected = first, expected
        self.all = b""

    def opened(self) -> Step:
        return self.first

    def secured(self) -> Step:
        return self.first

    def heard(self, data: bytes) -> Step:
        assert data
        self.all += data
        return ProbeResult(True, "said so") if self.expected in self.all else b""

    def ended(self) -> ProbeResult:
        return ProbeResult(False, "it ended")


@contextlib.contextmanager
def listening(talk: Talk, backlog: int = 128) -> Iterator[int]:
    """A port where each connection is given to `talk`, and closed after it."""
    ends = threading.Event()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
        threads: list[threading.Thread] = []
        peers: list[socket.socket] = []

        def converse(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                talk(peer)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while not ends.is_set():
                    peer = server.accept()[0]
                    peers.append(peer)
                    threads.append(threading.Thread(target=converse, args=(peer,), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server.getsockname()[1]
        finally:
            ends.set()
            server.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)
                assert not thread.is_alive()


def resets(peer: socket.socket) -> None:
    """What `peer` is closed with from now on is a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A listener that accepts nothing more: the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count
