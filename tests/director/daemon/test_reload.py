"""The whole director at a SIGHUP: all of the file, or nothing of it and every reason."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from ipaddress import ip_address

import pytest

from director.kit.net import Answer as Addresses
from tests.director.daemon.world import BAD, FILE, MORE, OTHER_VIP, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit


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


def test_what_was_read_first_never_takes_the_place_of_what_came_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked, answers = threading.Event(), threading.Event()

    def slow(host: str) -> Addresses:
        asked.set()
        assert answers.wait(10)
        return (ip_address("10.0.0.2"),)

    world.resolve = slow

    async def story() -> None:
        world.file.write_text(FILE.replace("10.0.0.2}", "slow.example, weight: 7}"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(asked.is_set)
        world.file.write_text(FILE.replace("10.0.0.2}", "10.0.0.2, weight: 5}"))
        async with asyncio.TaskGroup() as group:
            second = group.create_task(world.ask(lambda client: client.reload()))
            await asyncio.wait([second], timeout=0.5)  # which would be enough for it
            answers.set()
        await until(lambda: len(said(caplog, "reloaded")) == 2)
        assert world.weights() == {A: 100, B: 5}

    world.run(story)


def test_a_hangup_that_comes_before_it_can_act_is_a_reload(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        await until(lambda: bool(said(caplog, "reloaded")))

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # to this thread: others of the run do not block it
    world.run(story)
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
