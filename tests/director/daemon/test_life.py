"""The whole director from its start to its end, and when what it stands on fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from director.core.diff import Change, EditReal
from director.core.table import Forward, RealRow, Table, VirtualEntry, VirtualRow
from director.ipvs.failure import Failure
from director.kit.errors import DirectorError, HostError
from director.kit.net import Endpoint
from tests.director.daemon.world import FILE, VIP, WEB, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit


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


def test_retries_come_ever_later_up_to_the_drift_interval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.daemon.RETRY_AFTER_S", 1.0)

    def waits(interval: str) -> list[float]:
        async def main() -> list[float]:
            daemon = world.daemon(f"drift_interval: {interval}\n" + FILE)
            return [daemon._backoff_s(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 10**6)]

        return asyncio.run(main())

    assert waits("1m") == [1, 2, 4, 8, 16, 30, 30, 30]
    assert waits("5s") == [1, 2, 4, 5, 5, 5, 5, 5]


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
