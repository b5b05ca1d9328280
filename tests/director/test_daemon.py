"""The whole director in this process: real socket, signals, probes and files; the kernel's table is the fake."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest

from director.api.client import Client
from director.core.config import parse_config
from director.core.diff import Change, EditReal, RemoveVirtual, apply
from director.core.status import Status
from director.core.table import Forward, RealCounters, RealRow, Table, TableCounters, VirtualEntry, VirtualRow
from director.core.vip import Vip
from director.daemon import Daemon
from director.ipvs.failure import Failure
from director.journal import Entry, Journal
from director.kit.errors import ConfigError, DirectorError, HostError, KernelError
from director.kit.net import Endpoint
from director.memory import Memory
from director.once import Once, inputs_once
from director.reconcile import Reconciler
from tests.contract.fake_kernel import FakeKernel
from tests.director.fakes import FakeAddresses, FakeAnnouncer, until

pytestmark = pytest.mark.unit
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

    def __post_init__(self) -> None:
        self.file = self.directory / "director.yaml"
        self.socket = self.directory / "run" / "d.sock"
        self.client = Client(self.socket)

    def daemon(self, text: str | None = FILE) -> Daemon:
        if text is not None:
            self.file.write_text(text)
        config = parse_config(self.file.read_text(), str(self.file))
        return Daemon(
            self.file, config, self.directory / "state", self.kernel, self.addresses, self.announcer, self.changes
        )

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

    async def ask(self, operation: Callable[[Client], Answer]) -> Answer:
        return await asyncio.to_thread(operation, self.client)

    async def status(self) -> Status:
        return await asyncio.to_thread(self.client.status)

    def weights(self) -> dict[Endpoint, int]:
        return {real: row.weight for real, row in self.kernel.table.entries[WEB].reals.items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("director.daemon.RETRY_AFTER_S", 0.02)
    monkeypatch.setattr("director.announcements.EVERY_S", 0.01)
    monkeypatch.setattr("director.daemon.advice", lambda config: ())
    before = signal.getsignal(signal.SIGTERM)
    yield World(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


def said(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


def test_it_programs_the_kernel_and_leaves_it_at_its_end(world: World) -> None:
    async def story() -> None:
        status = await world.status()
        assert status["daemon"]["pid"] == os.getpid()
        assert (status["daemon"]["converged"], status["daemon"]["failures"]) == (True, [])
        assert status["daemon"]["config"] == str(world.file)
        assert [real["weight"] for real in status["virtual_servers"][0]["real_servers"]] == [100, 100]
        await until(lambda: len(world.announcer.sent) == 5)

    world.run(story)
    assert world.weights() == {A: 100, B: 100}
    assert world.addresses.held == {VIP}
    assert not world.socket.exists()
    assert world.announcer.sent == [VIP] * 5


def test_a_restart_changes_nothing(world: World) -> None:
    async def story() -> None:
        pass

    world.run(story)
    world.kernel.writes = 0
    before = world.kernel.table
    world.run(story)
    assert world.kernel.writes == 0
    assert world.kernel.table == before


def test_nothing_is_changed_when_the_socket_cannot_be_had(world: World) -> None:
    (world.directory / "run").touch()

    async def main() -> None:
        with pytest.raises(HostError, match="admin socket"):
            await world.daemon().run(world.socket)

    asyncio.run(main())
    assert world.kernel.writes == 0
    assert not (world.directory / "state").exists()


def test_a_damaged_state_file_ends_it_before_anything_is_changed(world: World) -> None:
    state = world.directory / "state"
    state.mkdir()
    (state / "owned.json").write_text("{")

    async def main() -> None:
        with pytest.raises(HostError, match="cannot be used"):
            await world.daemon().run(world.socket)

    asyncio.run(main())
    assert world.kernel.writes == 0
    assert not world.socket.exists()
    (state / "overrides.json").write_text("{")
    with pytest.raises(HostError, match="cannot be used"):
        world.daemon()


def test_sighup_with_a_bad_file_changes_nothing_and_says_every_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        before, writes = world.kernel.table, world.kernel.writes
        world.file.write_text(BAD)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(said(caplog, "reload refused, the old configuration stays")) == 3)
        world.file.unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(said(caplog, "reload refused, the old configuration stays")) == 4)
        assert (world.kernel.table, world.kernel.writes) == (before, writes)
        assert (await world.status())["virtual_servers"][0]["name"] == "web"

    world.run(story)
    problems = [record.__dict__["problem"] for record in said(caplog, "reload refused, the old configuration stays")]
    assert problems[0].startswith(f"{world.file}:1:34: virtual_servers.web.address: '10.0.0.256' is not")
    assert problems[3] == f"{world.file}:1:1: no such file: check the path"


def test_sighup_with_a_good_file_takes_it(world: World) -> None:
    async def story() -> None:
        world.file.write_text(FILE.replace("10.0.0.2}", "10.0.0.2, weight: 5}"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: world.weights() == {A: 100, B: 5})

    world.run(story)


def test_a_reload_while_the_kernel_does_not_answer_is_made_up_for(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        world.kernel.broken = True
        world.file.write_text(FILE.replace("10.0.0.2}", "10.0.0.2, weight: 5}"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: bool(said(caplog, "could not reload, trying again")))
        world.kernel.broken = False
        await until(lambda: world.weights() == {A: 100, B: 5})

    world.run(story)


def test_apply_of_a_bad_file_is_refused_with_all_its_lines(world: World) -> None:
    async def story() -> None:
        writes = world.kernel.writes
        with pytest.raises(ConfigError) as caught:
            await world.ask(lambda client: client.apply(BAD, "/etc/x.yaml"))
        lines = str(caught.value).splitlines()
        assert len(lines) == 3
        assert all(line.startswith("/etc/x.yaml:1:") for line in lines)
        assert world.kernel.writes == writes
        with pytest.raises(ConfigError):
            await world.ask(lambda client: client.plan(BAD, "/etc/x.yaml"))
        assert (await world.status())["daemon"]["config"] == str(world.file)

    world.run(story)


def test_plan_says_what_apply_then_does(world: World) -> None:
    changed = FILE.replace("scheduler: rr", "scheduler: wlc").replace("      b: {address: 10.0.0.2}\n", "")
    changed = changed.replace("192.0.2.10", "192.0.2.20")

    async def story() -> None:
        before = world.kernel.table
        planned = await asyncio.to_thread(world.client.plan, changed, "g")
        assert world.kernel.table == before
        applied = await asyncio.to_thread(world.client.apply, changed, "g")
        assert planned["steps"] == applied["steps"]
        assert [step["sign"] for step in planned["steps"]] == ["+", "+", "+", "-", "-"]
        again = await asyncio.to_thread(world.client.apply, changed, "g")
        assert (again["steps"], again["failures"], again["waiting"], again["later"]) == ([], [], [], [])
        assert (await world.status())["daemon"]["config"] == "g"

    world.run(story)


MORE = FILE + FILE[FILE.index("  web:") :].replace("web:", "tls:").replace("192.0.2.10", "192.0.2.11")
OTHER_VIP = Vip(ip_address("192.0.2.11"), "eth0")
WITHOUT_B = FILE.replace("      b: {address: 10.0.0.2}\n", "")


def test_an_apply_that_fails_in_a_part_leaves_everything_as_it_was(world: World) -> None:
    async def story() -> None:
        world.addresses.broken = {OTHER_VIP}
        table, held = world.kernel.table, set(world.addresses.held)
        with pytest.raises(DirectorError) as caught:
            await world.ask(lambda client: client.apply(MORE, "g"))
        assert str(caught.value).splitlines() == [
            "could not add 192.0.2.11 on eth0",
            "nothing of g is applied: what was there before is back",
        ]
        assert (world.kernel.table, world.addresses.held) == (table, held)
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["converged"], daemon["failures"]) == (str(world.file), True, [])
        world.addresses.broken = set()
        await world.ask(lambda client: client.apply(MORE, "g"))
        assert world.addresses.held == {VIP, OTHER_VIP}

    world.run(story)
    assert not (world.directory / "state" / "journal.json").exists()


def test_a_removal_that_fails_at_the_end_takes_all_of_it_back(world: World) -> None:
    async def story() -> None:
        world.addresses.broken = {OTHER_VIP}
        table = world.kernel.table
        with pytest.raises(DirectorError, match=r"could not remove 192.0.2.11 on eth0\nnothing of g is applied"):
            await world.ask(lambda client: client.apply(FILE.replace("scheduler: rr", "scheduler: lc"), "g"))
        assert world.kernel.table == table
        assert world.weights() == {A: 100, B: 100}

    world.run(story, MORE)


def test_what_fails_already_does_not_stop_another_change(world: World) -> None:
    """One interface that is down must not keep an operator from changing anything at all."""
    world.addresses.broken = {OTHER_VIP}

    async def story() -> None:
        assert (await world.status())["daemon"]["failures"] == ["could not add 192.0.2.11 on eth0"]
        applied = await asyncio.to_thread(world.client.apply, MORE.replace("rr", "lc"), "g")
        assert applied["failures"] == []
        assert applied["waiting"] == ["as before: could not add 192.0.2.11 on eth0"]
        assert len(applied["steps"]) == 2
        await world.ask(lambda client: client.drain("web", "a"))  # what fails elsewhere is no answer to this
        world.addresses.broken = set()
        await until(lambda: len(world.addresses.held) == 2)

    world.run(story, MORE)


def test_a_reload_that_fails_in_a_part_leaves_everything_as_it_was(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        world.addresses.broken = {OTHER_VIP}
        table = world.kernel.table
        world.file.write_text(MORE.replace("scheduler: rr", "scheduler: lc"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(said(caplog, "reload refused, the old configuration stays")) == 2)
        assert world.kernel.table == table
        status = await world.status()
        assert status["daemon"]["reload_refused"][0] == "could not add 192.0.2.11 on eth0"
        assert [virtual["name"] for virtual in status["virtual_servers"]] == ["web"]

    world.run(story)


def test_what_others_made_comes_back_with_a_failed_apply(world: World) -> None:
    """The new file takes over a virtual server of somebody else's: taken back, it is theirs again, as it was."""
    (tls,) = parse_config(MORE, "f").virtual_servers[1].keys
    foreign = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})

    async def story() -> None:
        world.kernel.table = Table({**world.kernel.table.entries, tls: foreign})
        world.addresses.broken = {OTHER_VIP}
        with pytest.raises(DirectorError, match="what was there before is back"):
            await world.ask(lambda client: client.apply(MORE, "g"))
        assert world.kernel.table.entries[tls] == foreign
        await world.ask(lambda client: client.apply(FILE, "f"))
        assert world.kernel.table.entries[tls] == foreign, "nobody remembers it as the director's"

    world.run(story)


def test_an_apply_that_is_not_confirmed_undoes_itself(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        table = world.kernel.table
        applied = await asyncio.to_thread(world.client.apply, WITHOUT_B.replace("rr", "lc"), "g", 0.3)
        assert applied["confirm_s"] == 0.3
        assert [step["subject"] for step in applied["steps"]] == ["virtual server web (tcp 192.0.2.10:80)"]
        assert [(step["sign"], step["subject"]) for step in applied["later"]] == [
            ("-", "real server web/b (10.0.0.2:80)")
        ]
        assert world.weights() == {A: 100, B: 0}
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["leaving"]) == ("g", [{"name": "web/b", "connections": 0}])
        assert daemon["unconfirmed"] is not None
        assert 0 < daemon["unconfirmed"]["left_s"] <= 0.3
        with pytest.raises(ConfigError, match=r"g awaits confirmation until .*comes first"):
            await world.ask(lambda client: client.apply(FILE, "h"))
        await until(lambda: world.kernel.table == table)
        await until(lambda: bool(said(caplog, "taken back")))
        daemon = (await world.status())["daemon"]
        assert (daemon["config"], daemon["unconfirmed"], daemon["leaving"]) == (str(world.file), None, [])
        with pytest.raises(ConfigError, match="nothing awaits confirmation"):
            await world.ask(lambda client: client.confirm())

    world.run(story)
    assert not (world.directory / "state" / "journal.json").exists()


def test_what_cannot_be_noted_for_a_confirmation_is_not_applied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = iter(range(10))
    save = Journal.save

    def full(journal: Journal, entry: Entry) -> None:
        if next(saves):
            raise HostError("no room on that disk")
        save(journal, entry)

    async def story() -> None:
        monkeypatch.setattr(Journal, "save", full)
        with pytest.raises(DirectorError, match=r"no room on that disk\nnothing of g is applied: what was there"):
            await world.ask(lambda client: client.apply(WITHOUT_B, "g", 60.0))
        assert world.weights() == {A: 100, B: 100}
        assert (await world.status())["daemon"]["unconfirmed"] is None

    world.run(story)


def test_a_plan_says_what_a_removal_breaks(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(12, 1)}
        (step,) = (await asyncio.to_thread(world.client.plan, WITHOUT_B, "g"))["steps"]
        assert step == {
            "sign": "-",
            "subject": "real server web/b (10.0.0.2:80)",
            "detail": "nat, weight 100",
            "effect": "12 active connections would break; drain first?",
        }

    world.run(story)


def test_a_confirmation_removes_what_was_held(world: World) -> None:
    async def story() -> None:
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", 60.0)
        assert world.weights() == {A: 100, B: 0}
        confirmed = await asyncio.to_thread(world.client.confirm)
        assert [step["subject"] for step in confirmed["steps"]] == ["real server web/b (10.0.0.2:80)"]
        assert world.weights() == {A: 100}
        assert (await world.status())["daemon"]["unconfirmed"] is None

    world.run(story)


@pytest.mark.parametrize("how", ["undo", "stop"])
def test_undo_and_the_directors_end_take_back_what_is_not_confirmed(world: World, how: str) -> None:
    async def story() -> None:
        await asyncio.to_thread(world.client.apply, WITHOUT_B.replace("192.0.2.10", "192.0.2.11"), "g", 60.0)
        assert world.addresses.held == {VIP, OTHER_VIP}, "an address that goes breaks connections too"
        if how == "undo":
            undone = await asyncio.to_thread(world.client.undo)
            assert undone["failures"] == []
            assert world.weights() == {A: 100, B: 100}

    world.run(story)
    assert world.weights() == {A: 100, B: 100}
    assert world.addresses.held == {VIP}


def test_nothing_waits_for_a_confirmation_at_a_director_that_stops(world: World) -> None:
    """One that is asked for in the last moment would stay, unconfirmed, with nobody to take it back."""

    async def main() -> None:
        daemon = world.daemon()
        await daemon._control.start()
        await daemon._control.stop()
        with pytest.raises(DirectorError, match="the director is stopping"):
            await daemon._requests.apply(WITHOUT_B, "g", 60.0)
        await daemon._requests.apply(WITHOUT_B, "g")
        daemon._control.worker.shutdown()

    asyncio.run(main())
    assert world.weights() == {A: 100}


def test_health_counts_while_a_confirmation_is_awaited_and_after_it_is_taken_back(world: World) -> None:
    async def main() -> None:
        doors = [await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) for _ in "ab"]
        ports = [door.sockets[0].getsockname()[1] for door in doors]
        check = "check: {type: tcp, interval: 20ms, fast_interval: 10ms, timeout: 1s}"
        lines = [f"      {n}: {{address: 127.0.0.1, port: {p}}}\n" for n, p in zip("ab", ports, strict=True)]
        text = f"defaults: {{{check}}}\n" + FILE[: FILE.index("      a:")] + "".join(lines)
        a, b = (Endpoint(ip_address("127.0.0.1"), port) for port in ports)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(world.daemon(text).run(world.socket))
            await until(world.socket.exists)
            await until(lambda: world.addresses.held == {VIP})
            await world.ask(lambda client: client.apply(text.replace(lines[1], ""), "g", 60.0))
            assert world.weights() == {a: 100, b: 0}
            for door in doors:
                door.close()
                await door.wait_closed()
            await until(lambda: world.weights() == {a: 0, b: 0})
            again = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ports[0])
            await until(lambda: world.weights() == {a: 100, b: 0})
            await world.ask(lambda client: client.undo())
            assert world.weights() == {a: 100, b: 0}, "b has died meanwhile, and that is known"
            again.close()
            await again.wait_closed()
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    asyncio.run(main())


def test_a_drain_removes_with_the_last_connection(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        applied = await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", None, 60.0)
        assert applied["waiting"] == ["waiting for 2 connections of web/b to end before it is removed"]
        assert [step["subject"] for step in applied["later"]] == ["real server web/b (10.0.0.2:80)"]
        assert world.weights() == {A: 100, B: 0}
        daemon = (await world.status())["daemon"]
        assert daemon["leaving"] == [{"name": "web/b", "connections": 2}]
        assert 50 < (daemon["drain_left_s"] or 0.0) <= 60
        world.file.write_text(WITHOUT_B.replace("rr", "lc"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: world.kernel.table.entries[WEB].row == VirtualRow("lc"))
        assert world.weights() == {A: 100, B: 0}, "a change that comes meanwhile does not end it"
        world.kernel.carried = {}
        await until(lambda: world.weights() == {A: 100})
        assert (await world.status())["daemon"]["drain_left_s"] is None

    world.run(story)


def test_a_drain_ends_at_its_deadline(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", None, 0.3)
        assert world.weights() == {A: 100, B: 0}
        await until(lambda: world.weights() == {A: 100})

    world.run(story, "drift_interval: 60s\n" + FILE)


def test_a_drain_begins_when_it_is_confirmed(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await asyncio.to_thread(world.client.apply, WITHOUT_B, "g", 60.0, 0.3)
        confirmed = await asyncio.to_thread(world.client.confirm)
        assert (confirmed["steps"], len(confirmed["later"])) == ([], 1)
        assert world.weights() == {A: 100, B: 0}
        await until(lambda: world.weights() == {A: 100})

    world.run(story)


def test_an_apply_that_was_cut_short_is_dropped_at_the_start(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Killed in the middle: what it had lowered serves again at once, and what was others' is as they had it."""
    (tls,) = parse_config(MORE, "f").virtual_servers[1].keys
    foreign = VirtualEntry(VirtualRow("wlc"), {B: RealRow(Forward.TUN, 5)})
    checked = FILE.replace("10.0.0.2}", "10.0.0.2, check: {type: tcp, interval: 1h}}")

    async def begin() -> None:
        pass

    world.run(begin, checked)
    world.kernel.table = Table({**world.kernel.table.entries, tls: foreign})
    state = world.directory / "state"
    reconciler, journal = Reconciler(world.kernel, world.addresses, Memory(state)), Journal(state)
    config = parse_config(MORE.replace("      b: {address: 10.0.0.2}\n", "", 1), "g")
    Once(reconciler, journal, inputs_once(config, world.kernel.table, {}), "g", "").change()
    assert world.weights() == {A: 100, B: 0}
    assert world.kernel.table.entries[tls] != foreign

    async def again() -> None:
        assert world.weights() == {A: 100, B: 100}
        assert world.kernel.table.entries[tls] == foreign
        assert world.addresses.held == {VIP}

    world.run(again, checked)
    (record,) = said(caplog, "an apply was cut short, and this configuration takes its place")
    assert record.__dict__["apply"].startswith("the apply of g by process")
    assert journal.load() is None


def test_draining_the_last_that_takes_connections_is_told(world: World) -> None:
    async def story() -> None:
        told = "no real server of web takes connections now"
        assert await world.ask(lambda client: client.drain("web", "a")) == []
        assert await world.ask(lambda client: client.weight("web", "b", 0)) == [told]
        assert await world.ask(lambda client: client.drain("web", "b")) == [told]
        assert await world.ask(lambda client: client.enable("web", "b")) == []

    world.run(story)


def test_a_drain_survives_a_restart_until_it_is_enabled(world: World) -> None:
    async def drain() -> None:
        await world.ask(lambda client: client.drain("web", "a"))
        await world.ask(lambda client: client.weight("web", "b", 7))
        assert world.weights() == {A: 0, B: 7}

    async def enable() -> None:
        assert world.weights() == {A: 0, B: 7}
        await world.ask(lambda client: client.enable("web", "a"))
        await world.ask(lambda client: client.enable("web", "b"))
        assert world.weights() == {A: 100, B: 100}

    world.run(drain)
    world.kernel.table = Table()
    world.run(enable)


def test_a_wish_for_a_server_that_left_the_file_can_be_taken_back(world: World) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.drain("web", "b"))
        await world.ask(lambda client: client.apply(FILE.replace("      b: {address: 10.0.0.2}\n", ""), "g"))
        await world.ask(lambda client: client.enable("web", "b"))
        with pytest.raises(ConfigError):
            await world.ask(lambda client: client.enable("web", "b"))
        await world.ask(lambda client: client.apply(FILE, "f"))
        assert world.weights() == {A: 100, B: 100}

    world.run(story)


@pytest.mark.parametrize(
    ("virtual", "real", "told"),
    [
        ("wbe", "a", "no virtual server 'wbe' in the configuration in force: did you mean 'web'?"),
        ("web", "x", "virtual server 'web' has no real server 'x': use one of a, b"),
    ],
)
def test_an_unknown_server_is_told_with_those_that_are_there(world: World, virtual: str, real: str, told: str) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError) as caught:
            await world.ask(lambda client: client.drain(virtual, real))
        assert str(caught.value) == told

    world.run(story)


def test_without_servers_an_unknown_one_is_told_plainly(world: World) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match=r"^no virtual server 'web' in the configuration in force$"):
            await world.ask(lambda client: client.drain("web", "a"))

    world.run(story, "virtual_servers: {}\n")


def test_drift_is_repaired_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        world.kernel.table = apply([RemoveVirtual(WEB, world.kernel.table.entries[WEB])], world.kernel.table)
        world.addresses.held.clear()
        await until(lambda: WEB in world.kernel.table.entries and world.addresses.held == {VIP})
        assert world.weights() == {A: 100, B: 100}
        virtual = (await world.status())["virtual_servers"][0]
        assert (virtual["drift"], virtual["drift_repaired"]) == ([], 1)

    world.run(story, "drift_interval: 100ms\n" + FILE)
    (record,) = said(caplog, "drift, put right")
    assert (vars(record)["vs"], vars(record)["is"]) == ("web", "absent")


def test_reported_drift_is_told_until_an_apply_or_a_check_decides(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lowered = RealRow(Forward.NAT, 3)
    text = f"drift_interval: 100ms\ndefaults: {{on_drift: report}}\n{FILE}"

    async def story() -> None:
        world.kernel.table = apply([EditReal(WEB, A, RealRow(Forward.NAT, 100), lowered)], world.kernel.table)
        await until(lambda: bool(said(caplog, "drift, left as it is")))
        (line,) = await asyncio.to_thread(world.client.drift)
        told = {"real_server": "a", "was": "nat, weight 100", "now": "nat, weight 3", "kept": True}
        assert told.items() <= line.items()
        status = await world.status()
        assert status["daemon"]["converged"]
        assert "was nat, weight 100, is nat, weight 3; left as it is" in status["virtual_servers"][0]["drift"][0]
        planned = await asyncio.to_thread(world.client.plan, text, "f")
        assert [step["subject"] for step in planned["steps"]] == ["real server web/a (10.0.0.1:80)"]
        await world.ask(lambda client: client.drain("web", "b"))
        assert world.weights() == {A: 3, B: 0}
        await world.ask(lambda client: client.apply(text, "f"))
        assert world.weights() == {A: 100, B: 0}
        assert await asyncio.to_thread(world.client.drift) == []

    world.run(story, text)
    assert len(said(caplog, "drift, left as it is")) == 1


def test_a_kernel_that_does_not_answer_is_logged_once_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        world.kernel.broken = True
        with pytest.raises(DirectorError, match="no answer"):
            await world.status()
        with pytest.raises(DirectorError, match="web/a: drained and saved, but this has not reached the kernel yet"):
            await world.ask(lambda client: client.drain("web", "a"))
        world.kernel.broken = False
        await until(lambda: world.weights() == {A: 0, B: 100})
        await until(lambda: bool(said(caplog, "reconciles again")))
        assert (await world.status())["daemon"]["converged"]

    world.run(story)
    assert len(said(caplog, "could not reconcile, trying again")) == 1


def test_a_defect_in_a_part_does_not_end_the_director(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        def defect() -> None:
            world.kernel.before_write = lambda: None
            raise RuntimeError("a defect")

        world.kernel.before_write = defect
        world.kernel.table = Table()
        await until(lambda: WEB in world.kernel.table.entries)

    world.run(story, "drift_interval: 100ms\n" + FILE)
    (record,) = said(caplog, "could not reconcile, trying again")
    assert record.exc_info is not None


def test_sigterm_while_the_kernel_is_slow_ends_cleanly(world: World) -> None:
    async def story() -> None:
        world.kernel.open.clear()
        world.kernel.table = Table()
        asked = asyncio.get_running_loop().create_task(world.ask(lambda client: client.drain("web", "a")))
        await until((world.directory / "state" / "overrides.json").exists)
        asyncio.get_running_loop().call_later(0.1, world.kernel.open.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await asked

    world.run(story)
    assert world.weights() == {A: 0, B: 100}


def test_status_while_a_reload_changes_everything_is_whole(world: World) -> None:
    other = FILE.replace("web:", "other:").replace("a: {", "z: {")

    async def story() -> None:
        world.kernel.open.clear()
        both = [
            asyncio.get_running_loop().create_task(world.ask(lambda client: client.apply(other, "g"))),
            *(asyncio.get_running_loop().create_task(world.status()) for _ in range(3)),
        ]
        asyncio.get_running_loop().call_later(0.1, world.kernel.open.set)
        await asyncio.gather(*both)

    world.run(story)


def test_an_address_that_has_gone_is_not_announced_any_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.announcements.TIMES", 10**6)
    stays = FILE[FILE.index("  web:") :].replace("web:", "tls:").replace("192.0.2.10", "192.0.2.11")
    other = Vip(ip_address("192.0.2.11"), "eth0")

    async def story() -> None:
        await until(lambda: {VIP, other} <= set(world.announcer.sent))
        await world.ask(lambda client: client.apply(FILE.replace("    interface: eth0\n", "") + stays, "g"))
        assert world.addresses.held == {other}
        world.announcer.sent.clear()
        await until(lambda: len(world.announcer.sent) >= 3)
        assert set(world.announcer.sent) == {other}

    world.run(story, FILE + stays)


def test_apply_tells_what_it_changed_also_when_the_loop_looks_at_that_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: object) -> tuple[str, ...]:
        time.sleep(0.15)  # in the worker; the loop looks every 100 ms
        return ()

    monkeypatch.setattr("director.daemon.advice", slow)
    text = "drift_interval: 100ms\n" + FILE

    async def story() -> None:
        for scheduler in ("lc", "wlc", "rr") * 3:
            changed = text.replace("scheduler: rr", f"scheduler: {scheduler}")
            applied = await asyncio.to_thread(world.client.apply, changed, "g")
            assert [step["sign"] for step in applied["steps"]] == ["~"]

    world.run(story, text)


def test_a_change_of_method_waits_and_is_told_and_made_when_the_connections_end(world: World) -> None:
    async def story() -> None:
        world.kernel.carried = {(WEB, A): RealCounters(1), (WEB, B): RealCounters(2)}
        applied = await asyncio.to_thread(world.client.apply, FILE.replace("forward: nat", "forward: dr"), "g")
        assert applied["failures"] == []
        assert applied["waiting"][0] == "waiting for 1 connection of web/a under nat to end before it changes to dr"
        status = await world.status()
        assert status["daemon"]["waiting"] == applied["waiting"]
        assert not status["daemon"]["converged"]
        assert world.weights() == {A: 0, B: 100}
        world.kernel.carried = {(WEB, B): RealCounters(2)}
        await until(lambda: world.weights() == {A: 100, B: 0})
        world.kernel.carried = {}
        await until(lambda: world.weights() == {A: 100, B: 100})
        assert {row.forward for row in world.kernel.table.entries[WEB].reals.values()} == {Forward.DR}

    world.run(story)


def test_a_change_of_the_hosts_addresses_is_looked_at_at_once(world: World) -> None:
    world.changes = HostChanges()

    async def story() -> None:
        assert world.changes is not None
        world.addresses.held.clear()
        for _ in range(20):
            world.changes.happen()
        await until(lambda: world.addresses.held == {VIP})

    world.run(story, "drift_interval: 60s\n" + FILE)
    world.changes.close()


def test_retries_come_ever_later_up_to_the_drift_interval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.daemon.RETRY_AFTER_S", 1.0)

    def waits(interval: str) -> list[float]:
        async def main() -> list[float]:
            daemon = world.daemon(f"drift_interval: {interval}\n" + FILE)
            return [daemon._backoff_s(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 10**6)]

        return asyncio.run(main())

    assert waits("1m") == [1, 2, 4, 8, 16, 30, 30, 30]
    assert waits("5s") == [1, 2, 4, 5, 5, 5, 5, 5]


def test_a_hangup_that_comes_before_it_can_act_is_a_reload(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        await until(lambda: bool(said(caplog, "reloaded")))

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # to this thread: others of the run do not block it
    world.run(story)
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_advice_is_logged_once(world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.daemon.advice", lambda config: ("net.ipv4.ip_forward is 0",))

    async def story() -> None:
        await world.ask(lambda client: client.apply(FILE, "g"))

    world.run(story)
    (record,) = said(caplog, "a setting of this host does not fit")
    assert (record.levelname, record.__dict__["reason"]) == ("WARNING", "net.ipv4.ip_forward is 0")


def test_probes_take_a_server_out_and_bring_it_back_and_the_address_waits(world: World) -> None:
    async def main() -> None:
        doors = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = doors.sockets[0].getsockname()[1]
        text = f"""
defaults: {{check: {{type: tcp, interval: 20ms, fast_interval: 10ms, timeout: 1s}}, interface: eth0}}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {{address: 127.0.0.1, port: {port}}}
"""
        real = Endpoint(ip_address("127.0.0.1"), port)
        row = RealRow(Forward.NAT, 42)
        world.kernel.table = Table({WEB: VirtualEntry(VirtualRow("wlc"), {real: row})})

        async def story() -> None:
            await until(lambda: world.weights() == {real: 100})
            await until(lambda: world.addresses.held == {VIP})
            doors.close()
            await doors.wait_closed()
            await until(lambda: world.weights() == {real: 0})
            assert world.addresses.held == {VIP}
            again = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
            await until(lambda: world.weights() == {real: 100})
            again.close()
            await again.wait_closed()

        first: list[Change] = []
        write = world.kernel.write

        def watched(changes: Iterable[Change]) -> list[Failure]:
            changes = tuple(changes)
            first.extend(changes)
            return write(changes)

        world.kernel.write = watched  # type: ignore[method-assign] # to see what the first change was
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(world.daemon(text).run(world.socket))
            await until(world.socket.exists)
            await story()
            os.kill(os.getpid(), signal.SIGTERM)
            await running
        assert first[0] == EditReal(WEB, real, row, RealRow(Forward.NAT, 100)), "42 stayed until the first verdict"

    asyncio.run(main())


def test_who_is_undone_and_who_applies_another_file_is_told_what_a_reload_does(world: World) -> None:
    own = str(world.file)
    other = FILE.replace("10.0.0.2", "10.0.0.3")

    async def story() -> None:
        applied = await asyncio.to_thread(world.client.apply, other, "/elsewhere/g", None, None)
        assert applied.get("notes") == [f"the director's next reload or restart goes back to {own}"]
        again = await asyncio.to_thread(world.client.apply, FILE, own, None, None)
        assert "notes" not in again

        await asyncio.to_thread(world.client.apply, other, "/elsewhere/g", 60.0, None)
        assert "notes" not in await asyncio.to_thread(world.client.undo), "it is not what a reload reads"

        await asyncio.to_thread(world.client.apply, other, own, 60.0, None)
        undone = await asyncio.to_thread(world.client.undo)
        said = f"{own} still holds what was undone: a reload or restart applies it again"
        assert undone.get("notes") == [said]
        assert (await world.status())["daemon"]["notes"] == [said]

        await asyncio.to_thread(world.client.apply, FILE, own, None, None)
        assert (await world.status())["daemon"]["notes"] == []

    world.run(story)


def test_an_own_file_that_nobody_confirms_is_told_by_status(world: World) -> None:
    async def story() -> None:
        other = FILE.replace("10.0.0.2", "10.0.0.3")
        await asyncio.to_thread(world.client.apply, other, str(world.file), 0.1, None)
        async with asyncio.timeout(10):
            while not (await world.status())["daemon"]["notes"]:  # noqa: ASYNC110 -- nobody announces it
                await asyncio.sleep(0.02)

    world.run(story)
