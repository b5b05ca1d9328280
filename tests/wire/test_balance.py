"""Whose turn it is, through a proxy that runs: what backends do, and what requests say, decide."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.wire.harness import Answer, Origin, Running, live, named, running, status_of
from tests.wire.test_running import reloaded

pytestmark = pytest.mark.unit


def origins(count: int = 3, answer: Answer = named) -> list[Origin]:
    return [Origin(answer, f"b{number}") for number in range(count)]


async def who(proxy: Running, target: str = "/", *lines: str) -> str:
    """Who answers."""
    answer = await proxy.get(target, *lines)
    assert status_of(answer) == 200, answer
    return answer.rpartition(b"\r\n\r\n")[2].decode()


class Gate:
    """Holds back answers to `/wait` until it opens."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if b" /wait" in head.split(b"\r\n")[0]:
            self.waiting += 1
            await self.opened.wait()
        await named(origin, head, reader, writer)


@asynccontextmanager
async def held_at(proxy: Running, gate: Gate, count: int, *lines: str) -> AsyncIterator[list[asyncio.Task[str]]]:
    """So many requests that backends work on, until the end of it."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(1, count + 1):
            tasks.append(group.create_task(who(proxy, f"/wait/{number}", *lines)))
            await proxy.until(lambda number=number: gate.waiting == number)  # type: ignore[misc]
        yield tasks
        gate.opened.set()


@live
async def test_least_requests_goes_where_fewest_are(tmp_path: Path) -> None:
    gate = Gate()
    async with running(tmp_path, *origins(3, gate.answer), upstream="    balance: least_requests") as proxy:
        assert Counter([await who(proxy) for _ in range(6)]) == {"b0": 2, "b1": 2, "b2": 2}, "equals take turns"
        async with held_at(proxy, gate, 2) as held:
            free = {await who(proxy) for _ in range(6)}
        assert len(free) == 1
        assert free | {task.result() for task in held} == {"b0", "b1", "b2"}


@live
async def test_requests_that_wait_for_a_connection_count(tmp_path: Path) -> None:
    """A burst comes before any of its requests is sent."""
    gate = Gate()
    async with running(tmp_path, *origins(2, gate.answer), upstream="    balance: least_requests") as proxy:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(who(proxy, "/wait")) for _ in range(12)]
            await proxy.until(lambda: gate.waiting == 12)
            gate.opened.set()
        assert Counter(task.result() for task in tasks) == {"b0": 6, "b1": 6}


@pytest.mark.parametrize("balance", ["random", "two_choices"])
@live
async def test_by_lot_all_get_some_and_a_dead_one_is_not_asked_twice(tmp_path: Path, balance: str) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream=f"    balance: {balance}") as proxy:
        assert {await who(proxy) for _ in range(60)} == {"b0", "b1", "b2"}
        await backends[0].stop()
        assert {await who(proxy) for _ in range(30)} == {"b1", "b2"}


@live
async def test_two_choices_leave_the_busiest_alone(tmp_path: Path) -> None:
    gate = Gate()
    async with (
        running(tmp_path, *origins(2, gate.answer), upstream="    balance: two_choices") as proxy,
        held_at(proxy, gate, 1) as (held,),
    ):
        free = {await who(proxy) for _ in range(10)}
        gate.opened.set()
        assert free == {"b0", "b1"} - {await held}


@live
async def test_first_takes_the_next_only_when_it_must(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream="    balance: first") as proxy:
        assert {await who(proxy) for _ in range(5)} == {"b0"}
        await backends[0].stop()
        assert {await who(proxy) for _ in range(5)} == {"b1"}


def after(seconds: float, status: bytes = b"200 OK") -> Answer:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        name = origin.name.encode()
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(name), name))

    return answer


@live
async def test_least_time_goes_where_it_is_quick(tmp_path: Path) -> None:
    quick, slow = Origin(after(0), "quick"), Origin(after(0.03), "slow")
    async with running(tmp_path, slow, quick, upstream="    balance: least_time") as proxy:
        found = Counter([await who(proxy) for _ in range(20)])
        assert found["slow"] <= 2
        assert found["quick"] >= 18


@live
async def test_least_time_does_not_take_failing_for_quick(tmp_path: Path) -> None:
    failing, good = Origin(after(0, b"500 Oh"), "failing"), Origin(after(0.005), "good")
    async with running(tmp_path, failing, good, upstream="    balance: least_time") as proxy:
        found = Counter([status_of(await proxy.get()) for _ in range(20)])
        assert found[500] <= 3


# by consistent hash


def keyed(kind: str, number: int) -> tuple[str, tuple[str, ...]]:
    """A request whose key of that kind is `number`, and whose other parts are always the same."""
    match kind.split():
        case ["source"]:
            return "/", (f"X-Forwarded-For: 10.0.0.{number}",)
        case ["uri"]:
            return f"/{number}", ()
        case ["header", _]:
            return "/", (f"X-Tenant: {number}",)
        case ["cookie", _]:
            return "/", (f"Cookie: a=1; tenant={number}",)
    return f"/?a=1&tenant={number}", ()


KINDS = ["source", "uri", "header X-Tenant", "cookie tenant", "query tenant"]


@pytest.mark.parametrize("kind", KINDS)
@live
async def test_a_key_has_one_backend_on_every_proxy(tmp_path: Path, kind: str) -> None:
    backends = origins()
    (tmp_path / "other").mkdir()
    balance, trusting = f"    balance: {{hash: {kind}}}", ", trusted_proxies: 127.0.0.1"
    ports = [each.port for each in backends]
    async with (
        running(tmp_path, *backends, upstream=balance, listener=trusting) as one,
        running(tmp_path / "other", *ports, upstream=balance, listener=trusting) as other,
    ):
        keys = [keyed(kind, number) for number in range(12)]
        names = [await who(one, target, *lines) for target, lines in keys]
        assert len(set(names)) == 3
        assert [await who(other, target, *lines) for target, lines in reversed(keys)] == names[::-1]
        await backends[0].stop()
        rest = [await who(one, target, *lines) for target, lines in keys]
        assert all(new == old for new, old in zip(rest, names, strict=True) if old != "b0")
        assert "b0" not in rest


@pytest.mark.parametrize("kind", KINDS[2:])
@live
async def test_requests_without_a_key_go_where_the_fewest_are(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path, *origins(), upstream=f"    balance: {{hash: {kind}}}") as proxy:
        assert Counter([await who(proxy) for _ in range(6)]) == {"b0": 2, "b1": 2, "b2": 2}


@live
async def test_a_key_that_everybody_wants_is_shared_within_the_bound(tmp_path: Path) -> None:
    gate = Gate()
    told = "    balance: {hash: header X-Tenant, bounded: 1.25}"
    async with running(tmp_path, *origins(3, gate.answer), upstream=told) as proxy:
        async with held_at(proxy, gate, 12, "X-Tenant: all") as held:
            pass
        found = Counter(task.result() for task in held)
        assert max(found.values()) <= 5
        assert len(found) == 3
        assert len({await who(proxy, "/", "X-Tenant: all") for _ in range(5)}) == 1


@live
async def test_a_reload_takes_another_way_of_balancing(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream="    balance: first") as proxy:
        assert {await who(proxy) for _ in range(3)} == {"b0"}
        proxy.path.write_text(proxy.path.read_text().replace("balance: first", "balance: round_robin"))
        await reloaded(proxy)
        assert {await who(proxy) for _ in range(3)} == {"b0", "b1", "b2"}
        assert proxy.server.proxy.snapshot.upstreams["up"].is_plain
