"""A shell for each test, and beside it a host without a director, or a director that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.director.cli.shell import FILE, Host, Shell
from tests.director.fakes import Stub


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path, capsys)
    monkeypatch.setenv("DIRECTOR_SOCKET", str(made.socket))
    monkeypatch.setenv("DIRECTOR_STATE_DIR", str(made.state))
    monkeypatch.setattr("director.advice.advice", lambda config: ())
    monkeypatch.setattr("director.kit.logs.configure", lambda level: None)
    made.file.write_text(FILE)
    return made


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "lock")
    monkeypatch.setattr("director.ipvs.client.IpvsClient.open", made.open)
    monkeypatch.setattr("director.host.lockfile.NamespaceLock", made.lock)
    monkeypatch.setattr("director.cli.alone._reconciler", made.reconciler)
    monkeypatch.setattr("director.host.announce.Announcer", lambda: made.announcer)
    monkeypatch.setattr("director.cli.alone.ANNOUNCE_EVERY_S", 0.0)
    return made


@pytest.fixture
def director(shell: Shell) -> Iterator[Stub]:
    """A director that answers on the shell's socket."""
    from director.api.server import serve
    from director.kit.adminsocket import listening

    stub = Stub()
    begun, end = threading.Event(), threading.Event()

    async def main() -> None:
        async with serve(stub, listener):
            begun.set()
            await asyncio.to_thread(end.wait)

    with listening(shell.socket) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert begun.wait(10)
        yield stub
        end.set()
        thread.join()
