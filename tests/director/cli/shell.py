"""`director` typed in a test's own process, on a host that only the test has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from director.cli import exits
from director.cli.root import cli
from director.core.table import Reading
from director.core.vip import Vip
from director.host.lockfile import NamespaceLock
from director.memory import Memory
from director.reconcile import Reconciler
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses, FakeAnnouncer

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    interface: eth0
    real_servers:
      a: {address: 10.0.0.1}
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs `director` in this process, with its socket and state in `directory`."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.file = directory / "director.yaml"
        self.socket = directory / "d.sock"
        self.state = directory / "state"
        self.capsys = capsys

    def __call__(self, *words: str | Path) -> Ended:
        code = exits.run(cli, "director", [str(word) for word in words])
        return Ended(code, *self.capsys.readouterr())


class ClosingAnnouncer(FakeAnnouncer):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Host:
    """The kernel, the addresses and the lock of a host that only the test has."""

    def __init__(self, directory: Path) -> None:
        self.kernel = FakeKernel()
        self.addresses = FakeAddresses()
        self.announcer = ClosingAnnouncer()
        self.directory = directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> Self:
        return self

    def survey(self) -> Reading:
        return self.kernel.survey()

    def version(self) -> str:
        return "1.2.1"

    def reconciler(
        self, _: object, state_directory: Path, announce: Callable[[Vip], None] = lambda vip: None
    ) -> Reconciler:
        return Reconciler(self.kernel, self.addresses, Memory(state_directory), announce)

    def lock(self, purpose: str) -> NamespaceLock:
        return NamespaceLock(purpose, directory=self.directory)
