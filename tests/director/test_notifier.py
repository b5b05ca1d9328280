"""Queues and workers of notifications, with real receivers on the loopback address where these matter."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from aiohttp import web

from director import notifier as module
from director.core.event import Event, EventKind
from director.core.metrics import Delivery
from director.core.notifying import Mail, Notification, Receiver, Script, Topic, Webhook
from director.notifier import Notifier
from director.receivers import webhook
from director.receivers.delivery import NotDeliveredError, RefusedError
from tests.director.fakes import until
from tests.director.receivers.test_mail import Relay
from tests.director.receivers.test_mail import serving as relaying
from tests.director.receivers.test_webhook import raw
from tests.director.receivers.test_webhook import serving as web_serving

pytestmark = pytest.mark.unit

ALL: frozenset[Topic] = frozenset({"health", "notification", "daemon"})

SH = str(Path("/bin/sh").resolve())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.005)
    monkeypatch.setattr(module, "RETRY_AT_MOST_S", 0.02)


def event(number: int, virtual: str = "web") -> Event:
    return Event(1e9 + number, EventKind.HEALTH, virtual, "a", "up", "down")


def hook(name: str, url: str = "http://127.0.0.1:1/", give_up_s: float = 600.0) -> Notification:
    return Notification(name, Webhook(url, timeout_s=5.0), ALL, give_up_s=give_up_s)


class Receivers:
    """Keeps what each is told, by the receiver's URL; `fails` says how often it does so first."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}
        self.attempts = 0
        self.fails: dict[str, Exception | None] = {}
        self.gates: dict[str, asyncio.Event] = {}

    async def __call__(self, receiver: Receiver, events: Sequence[Event]) -> None:
        assert isinstance(receiver, Webhook)
        self.attempts += 1
        gate = self.gates.get(receiver.url)
        if gate is not None:
            await gate.wait()
        error = self.fails.get(receiver.url)
        if error is not None:
            raise error
        self.told.setdefault(receiver.url, []).extend(int(each.at - 1e9) for each in events if each.at < 1.1e9)


class World:
    """A notifier that runs; `reported` is what it says of itself, and what it says it is told, too."""

    def __init__(self, send: Callable[[Receiver, Sequence[Event]], Awaitable[None]] | None = None) -> None:
        self.reported: list[Event] = []
        self.notifier = Notifier(self.report, send) if send else Notifier(self.report)

    def report(self, told: Event) -> None:
        self.reported.append(told)
        self.notifier.tell(told)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(each.check.removeprefix("notification "), each.now) for each in self.reported]

    def run(self, story: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                running = group.create_task(self.notifier.run())
                try:
                    await story(self)
                finally:
                    running.cancel()

        asyncio.run(main())


def test_each_is_told_what_it_wants_in_order() -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        web_only = replace(hook("b", "http://b/"), virtual_servers=frozenset({"mail"}))
        other = replace(hook("c", "http://c/"), on=frozenset({"wish"}))
        world.notifier.use((hook("a", "http://a/"), web_only, other))
        for number in range(1200):
            world.notifier.tell(event(number, "web" if number % 2 else "mail"))
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": list(range(1200)), "http://b/": list(range(0, 1200, 2))}
        assert world.notifier.tallies() == {
            "a": Delivery(0, False, 1200),
            "b": Delivery(0, False, 600),
            "c": Delivery(),
        }
        assert world.reported == []

    World(receivers).run(story)


def test_one_that_fails_is_tried_again_and_told_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.fails["http://a/"] = NotDeliveredError("answered 500")
        world.notifier.use((hook("a", "http://a/"), hook("b", "http://b/")))
        world.notifier.tell(event(0))
        await until(lambda: receivers.attempts > 8)
        world.notifier.tell(event(1))
        receivers.fails.clear()
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": [0, 1], "http://b/": [0, 1]}
        assert world.said == [("a", "fails"), ("a", "arrives")]
        assert world.reported[0].reason == "answered 500"

    World(receivers).run(story)
    told = [record for record in caplog.records if record.name == "director.notifier"]
    assert [record.getMessage() for record in told] == ["a notification does not arrive", "notifications arrive again"]
    assert told[0].__dict__["to"] == "webhook http://a"


def test_what_is_too_old_is_given_up_and_counted() -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.fails["http://a/"] = NotDeliveredError("no")
        world.notifier.use((hook("a", "http://a/", give_up_s=0.1),))
        world.notifier.tell(event(0))
        world.notifier.tell(event(1))
        await until(lambda: ("a", "lost") in world.said)
        assert world.reported[-1].reason == "2 events were not told: no"
        assert world.notifier.tallies() == {"a": Delivery(0, True, 0, 2)}
        receivers.fails.clear()
        world.notifier.tell(event(2))
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": [2]}
        assert world.said == [("a", "fails"), ("a", "lost"), ("a", "arrives")]

    World(receivers).run(story)


def test_events_that_are_refused_hold_up_no_others() -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.fails["http://a/"] = RefusedError("answered 400")
        world.notifier.use((hook("a", "http://a/"),))
        world.notifier.tell(event(0))
        await until(lambda: ("a", "lost") in world.said)
        receivers.fails.clear()
        world.notifier.tell(event(1))
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": [1]}

    World(receivers).run(story)


def test_a_full_queue_loses_the_oldest_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    receivers = Receivers()

    async def story(world: World) -> None:
        gate = receivers.gates["http://a/"] = asyncio.Event()
        world.notifier.use((hook("a", "http://a/"), hook("b", "http://b/")))
        world.notifier.tell(event(0))
        await until(lambda: receivers.attempts == 2)
        for number in range(1, 300):
            world.notifier.tell(event(number))
            await asyncio.sleep(0)
        gate.set()
        await world.notifier.finish(10)
        # 0 was on its way when it was dropped from the queue.
        assert receivers.told["http://a/"] == [0, *range(200, 300)]
        assert receivers.told["http://b/"] == list(range(300))
        await until(lambda: ("a", "lost") in world.said)
        assert world.reported[0].reason == "199 events were not told"
        tally = world.notifier.tallies()["a"]
        assert (tally.delivered, tally.lost, tally.fails) == (101, 199, False)

    World(receivers).run(story)


def test_an_internal_error_ends_no_worker() -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.fails["http://a/"] = RuntimeError("hidden")
        world.notifier.use((hook("a", "http://a/"),))
        world.notifier.tell(event(0))
        await until(lambda: bool(world.reported))
        assert world.reported[0].reason == "internal error: RuntimeError"
        receivers.fails.clear()
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": [0]}

    World(receivers).run(story)


def test_a_reload_keeps_what_those_that_stay_have_still_to_tell() -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        for each in "abc":
            receivers.fails[f"http://{each}/"] = NotDeliveredError("no")
        world.notifier.use(tuple(hook(each, f"http://{each}/") for each in "abc"))
        world.notifier.tell(event(0))
        await until(lambda: len(world.reported) >= 3)
        # a stays, b has another address, c goes, d comes
        world.notifier.use((hook("a", "http://a/"), hook("b", "http://new/"), hook("d", "http://d/")))
        world.notifier.tell(event(1))
        receivers.fails.clear()
        await world.notifier.finish(10)
        assert receivers.told == {"http://a/": [0, 1], "http://new/": [0, 1], "http://d/": [1]}

    World(receivers).run(story)


def test_a_new_address_is_tried_at_once_whatever_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 1000.0)
    monkeypatch.setattr(module, "RETRY_AT_MOST_S", 1000.0)
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.fails["http://a/"] = NotDeliveredError("no")
        world.notifier.use((hook("a", "http://a/"),))
        world.notifier.tell(event(0))
        await until(lambda: bool(world.reported))
        world.notifier.use((hook("a", "http://new/"),))
        await until(lambda: receivers.told == {"http://new/": [0]})

    World(receivers).run(story)


def test_the_end_waits_a_little_and_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    receivers = Receivers()

    async def story(world: World) -> None:
        receivers.gates["http://a/"] = asyncio.Event()
        world.notifier.use((hook("a", "http://a/"),))
        world.notifier.tell(event(0))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await world.notifier.finish(0.1)
        assert 0.09 < loop.time() - began < 2

    World(receivers).run(story)
    assert [record.getMessage() for record in caplog.records] == ["notifications are given up"]


# Real receivers.


def test_a_receiver_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        got: list[int] = []
        answers = count()

        async def take(request: web.Request) -> web.Response:
            if next(answers) < 2:
                return web.Response(status=500)
            got.extend(int(each["at"] - 1e9) for each in json.loads(await request.read())["events"])
            return web.Response()

        relay = Relay()
        async with raw(b"", hangs=True) as hanging, web_serving(take) as good, relaying(relay) as plain:
            mail = replace(plain, bundle_s=0.2)
            world.notifier.use(
                (hook("hangs", hanging + "/"), hook("good", good + "/"), Notification("mail", mail, ALL))
            )
            for number in range(3):
                world.notifier.tell(event(number))
            await until(lambda: got == [0, 1, 2] and bool(relay.taken))
            assert "hangs" not in [name for name, _ in world.said]  # it still waits

    World().run(story)


def test_ten_thousand_down_at_once_are_a_few_mails_and_requests() -> None:
    async def story(world: World) -> None:
        got: list[list[int]] = []

        async def take(request: web.Request) -> web.Response:
            got.append([int(each["at"] - 1e9) for each in json.loads(await request.read())["events"]])
            return web.Response()

        relay = Relay()
        async with web_serving(take) as good, relaying(relay, data_size_limit=50_000_000) as taken:
            mail: Mail = replace(taken, bundle_s=0.1, timeout_s=15.0)  # one that is cut short would come twice
            world.notifier.use((hook("chat", good + "/"), Notification("mail", mail, ALL)))
            for number in range(10_000):
                world.notifier.tell(event(number))
            await until(lambda: sum(map(len, got)) == 10_000 and len(relay.taken) == 5, 20)
            assert [each for batch in got for each in batch] == list(range(10_000))
            assert len(got) == 10_000 / webhook.AT_ONCE

    World().run(story)


def test_a_script_is_run_once_for_each_event() -> None:
    async def story(world: World) -> None:
        script = Script((SH, "-c", '[ "$DIRECTOR_EVENT_RS" = a ] && grep -q 100000000[0-2]'))
        world.notifier.use((Notification("page", script, ALL, give_up_s=0.3),))
        for number in range(4):
            world.notifier.tell(event(number))
        await until(lambda: ("page", "lost") in world.said)
        assert world.reported[-1].reason == "1 event was not told: exit code 1"

    World().run(story)
