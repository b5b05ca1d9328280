"""A load for what wrk cannot do: large bodies, requests at set times, connections that lie idle. A process of its own.

One rule: what it takes of its core is small: bodies are counted by the kernel and thrown away there (MSG_TRUNC), and
where times matter, the kernel says when an answer came in (SO_TIMESTAMPNS).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.l7_figures import quantile
from tests.bench.l7_load import heads

HEAD_BYTES = 16384
PIECE = bytearray(4 << 20)
SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; Python does not name it."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TIMESPEC = struct.Struct("@ll")


def requests(kind: str, first: int) -> Iterator[bytes]:
    """Heads that differ, without end."""
    forms = heads(kind)
    number = first
    while True:
        number += 1
        yield forms[number % len(forms)].of(number).encode()


def body_bytes(head: bytes) -> int:
    """How long the body is that comes after this head; an answer that is not 200 is a failure.

    >>> body_bytes(b"HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\n\\r\\n")
    7
    """
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise ValueError(f"not a 200 with Content-Length: {head[:200]!r}")
    return int(length[1])


class Asker:
    """One connection: one request at a time."""

    def __init__(self, port: int, timed: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timed = timed
        if timed:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.due_at = 0
        self.heard_at = 0
        self._head = b""
        self._left = -1

    def ask(self, request: bytes) -> None:
        self._head, self._left = b"", -1
        self.socket.sendall(request)

    def hear(self) -> tuple[int, bool]:
        """Take what has come: how many bytes, and whether the answer is complete.

        Raises: OSError, ValueError.
        """
        if self._left < 0:
            count = self._hear_head()
        else:
            count = self.socket.recv_into(PIECE, min(self._left, len(PIECE)), socket.MSG_TRUNC)
            self._left -= count
        if count == 0:
            raise ConnectionError("closed in the middle of an answer")
        return count, self._left == 0

    def _hear_head(self) -> int:
        if self.timed:
            data, told, _, _ = self.socket.recvmsg(HEAD_BYTES, 64)
            for _, kind, value in told:
                if kind == SO_TIMESTAMPNS:
                    seconds, rest = _TIMESPEC.unpack_from(value)
                    self.heard_at = seconds * 1_000_000_000 + rest
        else:
            data = self.socket.recv(HEAD_BYTES)
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end > 3:
            self._left = body_bytes(self._head[:end]) - (len(self._head) - end)
        return len(data)


@dataclass(slots=True)
class Found:
    """What a load has seen. `times_ns`: from a request to the end of its answer."""

    times_ns: list[int]
    bytes: int = 0
    errors: int = 0

    def told(self, seconds: float, not_timed: int = 0) -> str:
        times = self.times_ns[not_timed:] or [0]
        return json.dumps(
            {
                "requests": len(self.times_ns),
                "requests_s": len(self.times_ns) / seconds,
                "p50_ms": quantile(times, 0.5) / 1e6,
                "p99_ms": quantile(times, 0.99) / 1e6,
                "errors": self.errors,
                "bytes_s": self.bytes / seconds,
            }
        )


def closed(port: int, kind: str, connections: int, seconds: float, first: int) -> str:
    """Each connection asks again as soon as it was answered."""
    found = Found([])
    source = requests(kind, first)
    askers = {each.socket.fileno(): each for each in (Asker(port) for _ in range(connections))}
    poller = select.epoll()
    began_at = time.monotonic_ns()
    until = began_at + int(seconds * 1e9)
    for number, asker in askers.items():
        poller.register(number, select.EPOLLIN)
        asker.due_at = time.monotonic_ns()
        asker.ask(next(source))
    while (now := time.monotonic_ns()) < until and askers:
        for number, _ in poller.poll(0.5):
            asker = askers[number]
            try:
                count, done = asker.hear()
            except (OSError, ValueError):
                found.errors += 1
                poller.unregister(number)
                askers.pop(number).socket.close()
                continue
            found.bytes += count
            if done:
                now = time.monotonic_ns()
                found.times_ns.append(now - asker.due_at)
                asker.due_at = now
                asker.ask(next(source))
    took_s = (time.monotonic_ns() - began_at) / 1e9
    poller.close()
    for asker in askers.values():
        asker.socket.close()
    return found.told(took_s)


def at_times(port: int, rate: float, connections: int, seconds: float, first: int) -> str:
    """Requests at random times, `rate` a second, whether answers come or not; the same times for the same `seconds`.

    A request that finds no free connection waits, and its time counts from when it was due. The first tenth of the
    times does not count.
    """
    found = Found([])
    source = requests("k1", first)
    chance = random.Random(7)  # noqa: S311 - nothing here is secret
    gaps = [int(chance.expovariate(rate) * 1e9) for _ in range(int(rate * seconds))]
    askers = {each.socket.fileno(): each for each in (Asker(port, timed=True) for _ in range(connections))}
    free = list(askers.values())
    poller = select.epoll()
    for number in askers:
        poller.register(number, select.EPOLLIN)
    waiting: deque[int] = deque()
    clock = time.time_ns
    due_at = began_at = clock()
    sent = 0
    give_up_at = began_at + int((seconds + 5) * 1e9)
    while (sent < len(gaps) or waiting or len(free) < len(askers)) and (now := clock()) < give_up_at:
        while sent < len(gaps) and due_at <= now:
            if free:
                asker = free.pop()
                request = next(source)
                asker.due_at = clock()
                asker.ask(request)
            else:
                waiting.append(due_at)
            due_at += gaps[sent]
            sent += 1
        pause_s = max(0.0, (due_at - clock()) / 1e9) if sent < len(gaps) else 0.1
        select.select([poller], [], [], pause_s)  # epoll itself counts in ms
        for number, _ in poller.poll(0):
            asker = askers[number]
            try:
                _, done = asker.hear()
            except (OSError, ValueError):
                found.errors += 1
                poller.unregister(number)
                askers.pop(number).socket.close()
                continue
            if not done:
                continue
            found.times_ns.append((asker.heard_at or clock()) - asker.due_at)
            if waiting:
                asker.due_at = waiting.popleft()
                asker.ask(next(source))
            else:
                free.append(asker)
    found.errors += len(waiting) + len(askers) - len(free)
    took_s = (clock() - began_at) / 1e9
    poller.close()
    for asker in askers.values():
        asker.socket.close()
    return found.told(took_s, len(gaps) // 10)


def idle(port: int) -> None:
    """Told a number on standard input, have so many connections open, each of which has asked once, and say so."""
    source = requests("k1", 0)
    askers: list[Asker] = []
    for line in sys.stdin:
        while len(askers) < int(line):
            asker = Asker(port)
            asker.ask(next(source))
            while not asker.hear()[1]:
                pass
            askers.append(asker)
        sys.stdout.write(f"{len(askers)}\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["closed", "at_times", "idle"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", default="k1")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--first", type=int, default=0)
    said = parser.parse_args()
    if said.what == "idle":
        idle(said.port)
    elif said.what == "closed":
        sys.stdout.write(closed(said.port, said.kind, said.connections, said.seconds, said.first))
    else:
        sys.stdout.write(at_times(said.port, said.rate, said.connections, said.seconds, said.first))


if __name__ == "__main__":
    main()
