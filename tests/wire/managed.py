"""What systemd does for l7proxy, done by a test: listening sockets that are handed over, and a socket that is told.

One rule: the program is started as sd_listen_fds(3) and sd_notify(3) say, by an exec that sets LISTEN_PID.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.wire.outside import SLOW_S, Program, until

_LAUNCHER = """
import fcntl, os, sys
count, *words = sys.argv[1:]
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in words[:int(count)]]
for place, fd in enumerate(fds):
    os.dup2(fd, 3 + place)
    os.close(fd)
os.closerange(3 + len(fds), 1 << 16)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_FDNAMES"] = ":".join("l7proxy" for _ in fds)
rest = words[int(count):]
os.execv(rest[0], rest)
"""


def readable(waiting: socket.socket, within_s: float) -> bool:
    """Whether something comes within that time; select() knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(waiting, select.POLLIN)
    return bool(poll.poll(1000 * within_s))


class Manager:
    """Hears what one process tells: datagrams with the time they came at. `main` is the only one it listens to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self.heard: list[tuple[float, int, dict[str, str]]] = []

    def close(self) -> None:
        self._socket.close()

    def listen(self, for_s: float = 0.0) -> None:
        """Take what comes for so long."""
        ends_at = time.monotonic() + for_s
        while True:
            while readable(self._socket, max(0.0, min(0.05, ends_at - time.monotonic()))):
                data, control, _, _ = self._socket.recvmsg(4096, 64)
                pid = int.from_bytes(control[0][2][:4], sys.byteorder)
                said = dict(line.partition("=")[::2] for line in data.decode().splitlines())
                self.heard.append((time.monotonic(), pid, said))
            if time.monotonic() >= ends_at:
                return

    def until(self, key: str, value: str = "1", since: int = 0) -> dict[str, str]:
        """What is said first with this, after `since` messages."""
        ends_at = time.monotonic() + SLOW_S
        while True:
            for _, _, said in self.heard[since:]:
                if said.get(key, "").startswith(value) and key in said:
                    return said
            assert time.monotonic() < ends_at, f"nobody said {key}={value}: {self.heard[since:]}"
            self.listen(0.02)

    def until_fed(self) -> None:
        """Wait for the next time that the watchdog is."""
        self.listen()
        self.until("WATCHDOG", since=len(self.heard))

    @property
    def told(self) -> list[str]:
        """States and no more, one after the other."""
        states = ("READY", "RELOADING", "STOPPING")
        return [key for _, _, said in self.heard for key in said if key in states]

    @property
    def status(self) -> str:
        return next(said["STATUS"] for _, _, said in reversed(self.heard) if "STATUS" in said)

    def fed(self) -> list[float]:
        """When the watchdog was."""
        return [at for at, _, said in self.heard if "WATCHDOG" in said]


@dataclass
class Managed(Program):
    """`l7proxy run` as a service manager starts it. `handed` are given to it and stay open here."""

    handed: Sequence[socket.socket] = ()
    watchdog_s: float | None = None
    manager: Manager = field(init=False)

    def start(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self.write()
        self.manager = Manager(self.folder / f"notify{len(list(self.folder.glob('notify*')))}")
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.manager.path)}
        if self.watchdog_s is not None:
            environment["WATCHDOG_USEC"] = str(int(self.watchdog_s * 1e6))
        fds = [each.fileno() for each in self.handed]
        launcher = [sys.executable, "-c", _LAUNCHER, str(len(fds)), *map(str, fds)]
        command = [*launcher, sys.executable, "-m", "l7proxy", "run", str(self.path)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, pass_fds=fds, env=environment
            )
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.manager.close()

    def stop(self) -> None:
        """As a service manager does, and wait for its end."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SLOW_S) == 0, self.said


def listening(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """As a .socket unit has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=1024)


@contextlib.contextmanager
def answering(bound: socket.socket) -> Iterator[None]:
    """Whoever follows, as little as will do: everyone who queues gets an answer."""
    ends = threading.Event()

    def run() -> None:
        while not ends.is_set():
            if readable(bound, 0.05):
                client, _ = bound.accept()
                with client:
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    ends.set()
    thread.join()


class Clients:
    """Each connects, asks once, reads to the end, and does it again; what goes wrong is counted."""

    def __init__(self, port: int, count: int = 3) -> None:
        self._port = port
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        self.answered = 0
        self._numbers = itertools.count(1)
        self.failures: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """While somebody answers them."""
        self._ends.set()
        for each in self._threads:
            each.join(SLOW_S)

    def more(self, count: int = 30) -> None:
        """Wait until so many more are answered."""
        enough = self.answered + count
        until(lambda: self.answered >= enough, f"clients stand still: {self.failures}")

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), SLOW_S) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    head = b"".join(_all_of(client))
            except OSError as error:
                self.failures[type(error).__name__] += 1
                time.sleep(0.002)
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                self.failures[repr(head[:40])] += 1
            self.answered = next(self._numbers)
            time.sleep(0.005)


def _all_of(client: socket.socket) -> Iterator[bytes]:
    while data := client.recv(65536):
        yield data


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that a debugger has, as it were."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
