"""Where a director runs in this process: real socket, signals, probes and files; the kernel's table is the fake."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest

from director.api.client import Client
from director.core.config import parse_config
from director.core.diff import Change
from director.core.status import Status
from director.core.table import Table, TableCounters
from director.core.vip import Vip
from director.daemon import Daemon, begin_with
from director.ipvs.failure import Failure
from director.kit.errors import KernelError
from director.kit.net import Answer as Addresses
from director.kit.net import Endpoint
from director.kit.resolver import Resolver
from director.kit.service import ServiceManager
from director.names import Names
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses, FakeAnnouncer, until

Answer = TypeVar("Answer")
FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    scheduler: rr
    interface: eth0
    real_servers:
      a: {address: 10.0.0.1}
      b: {address: 10.0.0.2}
"""
BAD = "virtual_servers: {web: {address: 10.0.0.256, port: 0, forward: drr, real_servers: {}}}\n"
WEB = parse_config(FILE, "f").virtual_servers[0].keys[0]
A, B = (Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in (1, 2))
VIP = Vip(ip_address("192.0.2.10"), "eth0")


def nobody_knows(host: str) -> Addresses:
    return f"nobody knows {host}"


class SlowKernel(FakeKernel):
    """Answers when `open` is set, and never two at once; `broken` makes it refuse to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.lock = threading.Lock()

    def read(self) -> tuple[Table, TableCounters]:
        with self.alone():
            return super().read()

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        with self.alone():
            return super().write(changes)

    def alone(self) -> threading.Lock:
        assert not self.lock.locked(), "one thread at a time may use the netlink channel"
        assert self.open.wait(10)
        if self.broken:
            raise KernelError("no answer")
        return self.lock


class HostChanges:
    """Tells of a change when `happen` is called."""

    def __init__(self) -> None:
        self.end, self.here = socket.socketpair()
        self.here.setblocking(False)

    def happen(self) -> None:
        self.end.send(b"x")

    def fileno(self) -> int:
        return self.here.fileno()

    def drain(self) -> None:
        self.here.recv(100)

    def close(self) -> None:
        self.end.close()
        self.here.close()


@dataclass
class World:
    """Where a director runs; it can be started again and again on what the last one left."""

    directory: Path
    kernel: SlowKernel = field(default_factory=SlowKernel)
    addresses: FakeAddresses = field(default_factory=FakeAddresses)
    announcer: FakeAnnouncer = field(default_factory=FakeAnnouncer)
    changes: HostChanges | None = None
    resolve: Callable[[str], Addresses] = nobody_knows
    manager: ServiceManager | None = None

    def __post_init__(self) -> None:
        self.file = self.directory / "director.yaml"
        self.socket = self.directory / "run" / "d.sock"
        self.client = Client(self.socket)

    def daemon(self, text: str | None = FILE) -> Daemon:
        if text is not None:
            self.file.write_text(text)
        written, state = self.file.read_text(), self.directory / "state"
        names = Names(state, Resolver(self._resolve))
        config = begin_with(written, str(self.file), names)
        host = (self.kernel, self.addresses, self.announcer, self.changes)
        return Daemon(self.file, config, state, *host, text=written, names=names, manager=self.manager)

    def run(self, story: Callable[[], Awaitable[None]], text: str | None = FILE) -> None:
        """A director's life: begin, `story`, SIGTERM."""

        async def main() -> None:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                running = group.create_task(self.daemon(text).run(self.socket))
                await until(lambda: running.done() or self.socket.exists())
                await self.status()
                await story()
                os.kill(os.getpid(), signal.SIGTERM)
                await running

        asyncio.run(main())

    def _resolve(self, host: str) -> Addresses:
        return self.resolve(host)  # which a test may change

    async def ask(self, operation: Callable[[Client], Answer]) -> Answer:
        return await asyncio.to_thread(operation, self.client)

    async def status(self) -> Status:
        return await asyncio.to_thread(self.client.status)

    def weights(self) -> dict[Endpoint, int]:
        return {real: row.weight for real, row in self.kernel.table.entries[WEB].reals.items()}


def said(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


MORE = FILE + FILE[FILE.index("  web:") :].replace("web:", "tls:").replace("192.0.2.10", "192.0.2.11")
OTHER_VIP = Vip(ip_address("192.0.2.11"), "eth0")
WITHOUT_B = FILE.replace("      b: {address: 10.0.0.2}\n", "")
