"""l7proxy seen from outside alone: the program in a process of its own, backends in threads, blocking clients.

One rule: nothing of the program is imported, and whatever is waited for is waited for with a bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from tests.wire.harness import PATIENCE_S, fields_of, free_port, status_of

SLOW_S = 3 * PATIENCE_S
"""For what starts Pythons on a machine that is busy with other things."""
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
Says = Callable[["Back", bytes], bytes]


def until(is_so: Callable[[], bool], what: str = "", within_s: float = SLOW_S) -> None:
    """Wait for a state."""
    ends_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < ends_at, what or "it never became so"
        time.sleep(0.005)


def ok(body: bytes = b"ok", *lines: str) -> bytes:
    """200 with these headers."""
    more = "".join(f"{line}\r\n" for line in lines).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


def its_name(back: Back, head: bytes) -> bytes:
    return ok(back.name.encode())


class Back:
    """A backend: `says` is called with each head. Bodies of requests are not read: nobody here sends one.

    `heads` are all that came, and `prefixes` the PROXY headers that came before the first head of each connection,
    where it is `proxied` (None: where there is one).
    """

    def __init__(self, name: str = "back", says: Says = its_name, *, proxied: bool | None = False) -> None:
        self.name = name
        self.says = says
        self.proxied = proxied
        self.port = free_port()
        self.heads: list[bytes] = []
        self.prefixes: list[bytes] = []
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128, reuse_port=False)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens there any more, and nothing is open."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            if self.proxied or (self.proxied is None and stream.peek(1)[:1] in {b"P", b"\r"}):  # nobody asks by POST
                self.prefixes.append(_proxy_header(stream))
            while head := _head(stream):
                with self._lock:
                    self.heads.append(head)
                    self.inside += 1
                    self.most = max(self.most, self.inside)
                try:
                    answer = self.says(self, head)
                finally:
                    with self._lock:
                        self.inside -= 1
                connection.sendall(answer)
        with self._lock:
            self._open.discard(connection)


def _head(stream: BinaryIO) -> bytes:
    """A head, or nothing at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _proxy_header(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if line.startswith(b"PROXY "):
        return line
    header = line + stream.read(16 - len(line))
    return header + stream.read(int.from_bytes(header[14:16], "big"))


class Gate:
    """What backends say waits until somebody is let in."""

    def __init__(self) -> None:
        self._places = threading.Semaphore(0)
        self.order: list[str] = []

    def says(self, back: Back, head: bytes) -> bytes:
        self.order.append(head.split(b" ", 2)[1].decode())
        assert self._places.acquire(timeout=SLOW_S)
        return ok(back.name.encode())

    def let(self, count: int = 1) -> None:
        self._places.release(count)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, its body without chunks."""

    head: bytes
    body: bytes = b""

    @property
    def status(self) -> int:
        return status_of(self.head)

    @property
    def text(self) -> str:
        return self.body.decode()

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value.decode() for value in fields_of(self.head, name.lower().encode())]

    def one(self, name: str) -> str:
        """The value of a header that is there once."""
        (value,) = self.all(name)
        return value

    @property
    def cause(self) -> str:
        """What Proxy-Status has to say."""
        return " ".join(self.all("proxy-status"))

    @property
    def cookies(self) -> dict[str, str]:
        """What it sets, without attributes."""
        pairs = (each.partition(";")[0].partition("=") for each in self.all("set-cookie"))
        return {name: value for name, _, value in pairs}


class Line:
    """A connection of a client."""

    def __init__(
        self, port: int, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None, name: str | None = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SLOW_S, source_address=(source, 0))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.socket.close()

    def say(self, target: str = "/", *lines: str, method: str = "GET", host: str = "any.example") -> None:
        more = "".join(f"{line}\r\n" for line in lines)
        self.socket.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())

    def hear(self, *, has_body: bool = True) -> Answered:
        """The next answer. Raises: AssertionError when it does not come whole."""
        head = _head(self._stream)
        assert head, "closed without an answer"
        if not has_body or status_of(head) in {204, 304}:
            return Answered(head)
        if not fields_of(head, b"transfer-encoding"):
            size = int(fields_of(head, b"content-length")[0])
            body = self._stream.read(size)
            assert len(body) == size
            return Answered(head, body)
        body = b""
        while size := int(self._stream.readline(), 16):
            body += self._stream.read(size + 2)[:-2]
        assert self._stream.readline() == b"\r\n"
        return Answered(head, body)

    def ask(self, target: str = "/", *lines: str, method: str = "GET", host: str = "any.example") -> Answered:
        self.say(target, *lines, method=method, host=host)
        return self.hear(has_body=method != "HEAD")


def ask(port: int, target: str = "/", *lines: str, method: str = "GET", host: str = "any.example") -> Answered:
    """On a connection of its own."""
    with Line(port) as line:
        return line.ask(target, "Connection: close", *lines, method=method, host=host)


def upstreams(names: Mapping[str, Sequence[Back]], keys: Mapping[str, str] | None = None) -> str:
    """The section `upstreams`: the backends of each by their names, and more keys of it as flow YAML."""
    lines = ["upstreams:"]
    for name, backs in names.items():
        backends = ", ".join(f'{back.name}: {{address: "{back.address}"}}' for back in backs)
        more = (keys or {}).get(name, "")
        lines.append(f"  {name}: {{{more}{', ' if more else ''}backends: {{{backends}}}}}")
    return "\n".join(lines) + "\n"


@dataclass
class Program:
    """`l7proxy run` with a file; ports are those of its listeners `http`, of its admin endpoint, and of `tls`.

    `text` stands below `listeners: {http: ...}` and `admin`; `listener` is added to the listener, and `listeners` are
    others.
    """

    folder: Path
    text: str
    listener: str = ""
    listeners: str = ""
    port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)

    @property
    def path(self) -> Path:
        return self.folder / "l7proxy.yaml"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    @property
    def said(self) -> str:
        """The log so far; the access log is in it."""
        return self._log.read_text()

    def write(self) -> None:
        self.path.write_text(
            f"listeners:\n  http: {{bind: '127.0.0.1:{self.port}'{self.listener}}}\n{self.listeners}"
            f"admin: {{bind: '127.0.0.1:{self.admin}'}}\n{self.text}"
        )

    def __enter__(self) -> Self:
        if not self.path.exists():
            self.start()
        try:
            until(lambda: "INFO l7proxy serving" in self.said or self.process.poll() is not None)
            assert self.process.poll() is None, self.said
        except BaseException:
            self._kill()
            raise
        return self

    def start(self) -> Self:
        """Start it without waiting: `with` does that."""
        self.folder.mkdir(exist_ok=True)
        self.write()
        command = [sys.executable, "-m", "l7proxy", "run", str(self.path)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        said = self.said
        assert "Traceback" not in said, said[said.index("Traceback") :][:4000]

    def _kill(self) -> None:
        if self.process.poll() != 0:  # 0: it has ended, and its workers before it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Stop it as an operator does, at once."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SLOW_S) == 0

    def _signalled(self, number: signal.Signals, done: str, refused: str) -> None:
        before = self.said.count(done)
        begins = len(self.said)
        self.process.send_signal(number)
        until(lambda: self.said.count(done) > before or refused in self.said[begins:], f"{number.name}: no {done!r}")
        assert refused not in self.said[begins:], self.said[begins:]

    def reload(self, text: str | None = None) -> None:
        """SIGHUP, with another text where one is given."""
        self.text = self.text if text is None else text
        self.write()
        self._signalled(signal.SIGHUP, "INFO l7proxy reloaded", "reload refused")

    def upgrade(self) -> None:
        """SIGUSR2."""
        self._signalled(signal.SIGUSR2, "INFO l7proxy restarted", "restart refused")

    def ask(self, target: str = "/", *lines: str, method: str = "GET", host: str = "any.example") -> Answered:
        return ask(self.port, target, *lines, method=method, host=host)

    def status(self) -> dict[str, Any]:
        said = json.loads(ask(self.admin, "/v1/status").body)
        assert isinstance(said, dict)
        return said

    def metric(self, line: str) -> float:
        """A metric's value, by its name and labels as they are shown."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", ask(self.admin, "/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def workers(self) -> list[int]:
        """Pids of those that serve."""
        return sorted(worker["pid"] for worker in self.status()["workers"])

    @contextlib.contextmanager
    def lines(self, each: int = 1) -> Iterator[list[list[Line]]]:
        """So many connections to each worker, by worker."""
        held: dict[int, list[Line]] = {pid: [] for pid in self.workers()}
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                line = stack.enter_context(Line(self.port))
                assert line.ask("/", host="whose.example").status == 404  # it has been taken now
                mine = held[_served_by(line.socket, held)]
                if len(mine) < each:
                    mine.append(line)
                if all(len(lines) == each for lines in held.values()):
                    break
            else:
                raise AssertionError("one worker takes no connections")
            yield list(held.values())


def _served_by(client: socket.socket, pids: dict[int, list[Line]]) -> int:
    """Which process has the other end."""
    mine, theirs = (int(name[1]) for name in (client.getsockname(), client.getpeername()))
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = row.split()
        if words[1].endswith(f":{theirs:04X}") and words[2].endswith(f":{mine:04X}"):
            for pid in pids:
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(descriptor.readlink()) == f"socket:[{words[9]}]":
                            return pid
    raise AssertionError("nobody has it")
