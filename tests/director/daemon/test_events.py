"""What the whole director tells of itself: in its journal, to followers, and to whom the file names."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web

from director.core.diff import RemoveVirtual, apply
from director.core.event import Event
from director.eventfile import read
from director.kit.errors import ConfigError
from tests.director.daemon.world import BAD, FILE, WEB, WITHOUT_B, A, World, said
from tests.director.fakes import until
from tests.director.receivers.test_webhook import raw, serving

pytestmark = pytest.mark.unit


def told(world: World, *kinds: str) -> list[Event]:
    return [event for event in read(world.directory / "state") if event.kind.value in kinds]


def words(events: list[Event]) -> list[str]:
    return [event.now for event in events]


def test_a_life_is_in_the_journal(world: World) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.apply(WITHOUT_B, str(world.file)))
        await world.ask(lambda client: client.apply(FILE, "other", confirm_s=60.0))
        await world.ask(lambda client: client.undo())
        await world.ask(lambda client: client.apply(FILE, "other", confirm_s=60.0))
        await world.ask(lambda client: client.confirm())
        await world.ask(lambda client: client.apply(WITHOUT_B, "third", confirm_s=60.0))

    world.run(story)
    by = f"asked by uid {os.getuid()}, pid {os.getpid()}"
    assert [(event.now, event.reason) for event in told(world, "daemon", "configuration")] == [
        ("started", str(world.file)),
        ("applied", f"{world.file}, {by}"),
        ("awaits confirmation", f"other, {by}"),
        ("taken back", f"other, undone on request, {by}"),
        ("awaits confirmation", f"other, {by}"),
        ("confirmed", f"other, {by}"),
        ("awaits confirmation", f"third, {by}"),
        ("taken back", "third, told to stop before it was confirmed"),
        ("stopped", ""),
    ]


def test_a_reload_is_told_with_its_refusal(world: World) -> None:
    async def story() -> None:
        world.file.write_text(WITHOUT_B)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: words(told(world, "configuration")) == ["applied"])
        world.file.write_text(BAD)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: words(told(world, "configuration")) == ["applied", "refused"])
        with pytest.raises(ConfigError):  # whoever asks for this gets it as an answer
            await world.ask(lambda client: client.apply(BAD, "f"))

    world.run(story)
    applied, refused = told(world, "configuration")
    assert applied.reason == f"{world.file}, asked by SIGHUP"
    assert refused.reason.startswith(
        f"{world.file}, {world.file}:1:34: virtual_servers.web.address: '10.0.0.256' is not"
    )
    assert refused.reason.count("; ") == 2
    assert refused.reason.endswith(", asked by SIGHUP")


def test_what_operators_and_others_do_is_told(world: World) -> None:
    async def story() -> None:
        await world.ask(lambda client: client.drain("web", "a"))
        await world.ask(lambda client: client.enable("web", "a"))
        await world.ask(lambda client: client.weight("web", "b", 7))
        world.kernel.table = apply([RemoveVirtual(WEB, world.kernel.table.entries[WEB])], world.kernel.table)
        await until(lambda: bool(told(world, "drift")))

    world.run(story, "drift_interval: 100ms\n" + FILE)
    wishes = told(world, "wish")
    assert [(event.place, event.now) for event in wishes] == [
        ("web/a", "drained"),
        ("web/a", "enabled"),
        ("web/b", "weight set to 7"),
    ]
    assert wishes[0].reason == f"asked by uid {os.getuid()}, pid {os.getpid()}"
    (drift,) = told(world, "drift")
    assert (drift.place, drift.now) == ("web", "absent")
    assert drift.reason.endswith(": put right")


def test_followers_hear_it_until_the_director_stops(world: World) -> None:
    heard: list[str] = []

    def follow() -> None:
        heard.extend(event["now"] for event in world.client.events(follow=True))

    follower = threading.Thread(target=follow)

    async def story() -> None:
        follower.start()
        await world.ask(lambda client: client.drain("web", "a"))
        await until(lambda: bool(told(world, "wish")))

    world.run(story)
    follower.join(10)
    assert "drained" in heard
    assert heard[-1] == "stopped"


def test_a_journal_that_cannot_be_written_stops_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    (world.directory / "state").mkdir()
    (world.directory / "state" / "events.jsonl").symlink_to("/dev/full")

    async def story() -> None:
        await world.ask(lambda client: client.drain("web", "a"))
        assert world.weights()[A] == 0

    world.run(story)
    assert len(said(caplog, "events cannot be written, trying again")) == 1


NOTIFIED = """
notifications:
  chat: {{type: webhook, url: "{}", on: [wish, daemon]}}
"""


def test_a_reload_changes_who_is_told_and_the_end_is_told(world: World) -> None:
    heard: dict[str, list[str]] = {"one": [], "two": []}

    async def take(request: web.Request) -> web.Response:
        events = json.loads(await request.read())["events"]
        heard[request.path.strip("/")].extend(event["now"] for event in events)
        return web.Response()

    async def story() -> None:
        async with serving(take) as origin:
            await world.ask(lambda client: client.apply(FILE + NOTIFIED.format(origin + "/one"), "f"))
            await world.ask(lambda client: client.drain("web", "a"))
            await until(lambda: heard["one"] == ["drained"])
            world.file.write_text(FILE + NOTIFIED.format(origin + "/two"))
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: words(told(world, "configuration")) == ["applied", "applied"])
            await world.ask(lambda client: client.enable("web", "a"))
            await until(lambda: heard["two"] == ["enabled"])
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: heard["two"] == ["enabled", "stopped"])

    world.run(story)
    assert heard["one"] == ["drained"]


def test_a_receiver_that_hangs_holds_up_neither_requests_nor_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("director.daemon.LAST_NOTIFICATIONS_S", 0.2)
    began: list[float] = []

    async def story() -> None:
        async with raw(b"", hangs=True) as origin:
            await world.ask(lambda client: client.apply(FILE + NOTIFIED.format(origin + "/hidden"), "f"))
            began.append(time.monotonic())
            for _ in range(5):
                await world.ask(lambda client: client.drain("web", "a"))
                await world.ask(lambda client: client.enable("web", "a"))
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: not world.socket.exists())

    with caplog.at_level(logging.INFO):
        world.run(story)
    assert time.monotonic() - began[0] < 3
    assert len(said(caplog, "notifications are given up")) == 1
    assert "hidden" not in caplog.text
    journal = (world.directory / "state" / "events.jsonl").read_text()
    assert "hidden" not in journal


def test_a_script_that_cannot_be_run_is_told_at_once(
    world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from director.advice import files
    from director.core.config import parse_config

    text = FILE + f"notifications:\n  page: {{type: script, command: [{tmp_path}/nowhere]}}\n"
    (sentence,) = files(parse_config(text, "f"))
    assert sentence == f"notification page: {tmp_path}/nowhere cannot be run: No such file or directory"


def test_notifications_are_nothing_that_an_apply_changes_in_the_kernel(world: World) -> None:
    async def story() -> None:
        writes = world.kernel.writes
        answer = await world.ask(lambda client: client.apply(FILE + NOTIFIED.format("http://127.0.0.1:1/"), "f"))
        assert (answer["steps"], world.kernel.writes) == ([], writes)
        await asyncio.sleep(0)

    world.run(story)
