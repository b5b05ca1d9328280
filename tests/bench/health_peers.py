"""The real servers of `make bench-health`: they accept, answer every HTTP request, and are there to be killed.

`health_peers.py` obeys lines on its standard input, and answers each with lines:
`start ADDRESS...` forks a process for each address, which says `ADDRESS PID` when it listens. `serve` begins to serve
all addresses in this process, which nobody else interrupts; `count` then says how many connections and requests there
were, and how many seconds it has taken for them.
One rule: only the standard library, little memory, and the same server for whoever probes.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

PORT = 80
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"


class Server:
    """A server of one listener, which knows how many connections and requests it has had."""

    def __init__(self, address: str) -> None:
        self.connections = self.requests = 0
        self.busy_s = 0.0
        self._listener = socket.create_server((address, PORT), backlog=1024)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._peers: dict[int, socket.socket] = {}

    def serve(self, also: int = -1, hear: Callable[[], bool] = lambda: True) -> None:
        """Serve until `hear`, which is called when `also` can be read, says False."""
        if also >= 0:
            self._epoll.register(also, select.EPOLLIN)
        while True:
            news = self._epoll.poll()
            began_at = time.perf_counter()
            for number, _ in news:
                if number == self._listener.fileno():
                    self._accept()
                elif number != also:
                    self._answer(number)
                elif not hear():
                    return
            self.busy_s += time.perf_counter() - began_at

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                peer = self._listener.accept()[0]
                self.connections += 1
                self._peers[peer.fileno()] = peer
                self._epoll.register(peer.fileno(), select.EPOLLIN)

    def _answer(self, number: int) -> None:
        peer = self._peers[number]
        heard, stays = b"", False
        with suppress(OSError):
            heard = peer.recv(65536)
            if heard:
                self.requests += 1
                first, _, fields = heard.lower().partition(b"\r\n")
                stays = first.endswith(b"http/1.1") and b"connection: close" not in fields
                peer.send(ANSWER % (b"" if stays else b"Connection: close\r\n"))
        if not stays:
            del self._peers[number]
            peer.close()


def start(address: str) -> None:
    """Fork a server at `address`."""
    if os.fork():
        return
    try:
        server = Server(address)
        os.write(1, f"{address} {os.getpid()}\n".encode())
        for number in (0, 1):
            os.close(number)
        server.serve()
    finally:
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    server: Server | None = None

    def obey() -> bool:
        nonlocal server
        line = sys.stdin.readline()
        match line.split():
            case ["start", *addresses]:
                for address in addresses:
                    start(address)
            case ["serve"]:
                server = Server("")
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # what it takes is its own time then
                os.write(1, b"ready\n")
            case ["count"] if server is not None:
                os.write(1, f"{server.connections} {server.requests} {server.busy_s}\n".encode())
        return bool(line)

    while server is None:
        if not obey():
            return
    server.serve(0, obey)


if __name__ == "__main__":
    main()
