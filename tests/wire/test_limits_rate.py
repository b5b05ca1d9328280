"""limits.rate and limits.concurrency of a route: who is let in, and what the others are told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    Running,
    fields_of,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
    takes,
)
from tests.wire.held import Gate, begun
from tests.wire.test_workers import Workers, patiently, several

pytestmark = pytest.mark.unit

TRUSTING = ", trusted_proxies: [127.0.0.1]"


def limits(text: str) -> str:
    return f"  - {{name: all, upstream: up, limits: {text}}}"


async def statuses(proxy: Running, count: int, *lines: str) -> list[int]:
    return [status_of(await proxy.get("/", *lines)) for _ in range(count)]


async def reload(proxy: Running, before: str = "", after: str = "") -> None:
    """Change a piece of the file, and have it read again."""
    snapshot = proxy.server.proxy.snapshot
    proxy.path.write_text(proxy.path.read_text().replace(before, after))
    proxy.server.request_reload()
    await proxy.until(lambda: proxy.server.proxy.snapshot is not snapshot)


async def until_let_in(proxy: Running) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await statuses(proxy, 1) != [200]:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)


@live
async def test_who_comes_faster_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), routes=limits("{rate: {limit: 20/h, burst: 3}}")) as proxy:
        assert await statuses(proxy, 3) == [200, 200, 200]
        answer = await proxy.get()
        assert status_of(answer) == 429
        assert 175 <= int(fields_of(answer, b"retry-after")[0]) <= 180
        assert b"http_request_denied" in fields_of(answer, b"proxy-status")[0]
        assert b'details="rate_limited"' in fields_of(answer, b"proxy-status")[0]


@live
async def test_each_client_has_a_rate_of_its_own_and_an_ipv6_network_is_one(tmp_path: Path) -> None:
    routes = limits("{rate: {limit: 1/h}}")
    async with running(tmp_path, Origin(named), routes=routes, listener=TRUSTING) as proxy:

        async def by(address: str) -> int:
            return status_of(await proxy.get("/", f"X-Forwarded-For: {address}"))

        assert [await by("192.0.2.1"), await by("192.0.2.1"), await by("192.0.2.2")] == [200, 429, 200]
        assert [await by("2001:db8::1"), await by("2001:db8::ffff:2"), await by("2001:db8:0:1::1")] == [200, 429, 200]


@live
async def test_a_header_tells_who_it_is_and_without_it_all_are_one(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), routes=limits("{rate: {limit: 1/h, by: header X-Api-Key}}")) as proxy:
        assert await statuses(proxy, 2, "X-Api-Key: a") == [200, 429]
        assert await statuses(proxy, 2, "x-api-key: b") == [200, 429]
        assert await statuses(proxy, 2) == [200, 429]
        assert await statuses(proxy, 1, "X-Api-Key: a") == [429]
        assert await statuses(proxy, 1, "X-Api-Key: none") == [200]


@live
async def test_the_bucket_fills_again(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), routes=limits("{rate: {limit: 20/s, burst: 1, by: route}}")) as proxy:
        assert await statuses(proxy, 2) == [200, 429]
        await until_let_in(proxy)


@live
async def test_a_refused_body_is_not_read_and_the_connection_ends(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=limits("{rate: 1/h}")) as proxy:
        assert await statuses(proxy, 1) == [200]
        answer = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
        assert status_of(answer) == 429
        assert fields_of(answer, b"connection") == [b"close"]
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" * 2)
        for _ in range(2):  # one whose body is whole leaves the connection as it is
            assert status_of((await one_answer(reader))[0]) == 429
        writer.close()
        assert len(origin.messages) == 1


@live
async def test_a_reload_keeps_buckets_and_a_changed_limit_holds_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), routes=limits("{rate: {limit: 2/h}}")) as proxy:
        assert await statuses(proxy, 3) == [200, 200, 429]
        await reload(proxy)
        assert await statuses(proxy, 1) == [429]
        await reload(proxy, "limit: 2/h", "limit: 50/s, burst: 1")
        await until_let_in(proxy)
        await reload(proxy, "limit: 50/s, burst: 1", "limit: 2/h")
        assert Counter(await statuses(proxy, 4))[429] >= 2


@live
async def test_one_too_many_at_one_time_is_refused_and_a_place_is_free_after_each_end(tmp_path: Path) -> None:
    gate = Gate()
    async with running(tmp_path, Origin(gate.answer), routes=limits("{concurrency: 2}")) as proxy:
        held = [begun(proxy.get()) for _ in range(2)]
        await gate.has(2)
        answer = await proxy.get()
        assert status_of(answer) == 503
        assert fields_of(answer, b"retry-after") == [b"1"]
        assert b'details="route_busy"' in fields_of(answer, b"proxy-status")[0]
        gate.open()
        assert [status_of(each) for each in await asyncio.gather(*held)] == [200, 200]
        assert await statuses(proxy, 3) == [200, 200, 200]


@live
async def test_a_client_has_places_of_its_own_and_leaving_frees_them(tmp_path: Path) -> None:
    gate = Gate()
    routes = limits("{concurrency: {most: 1, by: client}}")
    async with running(tmp_path, Origin(gate.answer), routes=routes, listener=TRUSTING) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        await gate.has(1)
        answer = await proxy.get("/", "X-Forwarded-For: 192.0.2.1")
        assert status_of(answer) == 429
        assert b'details="too_many_requests"' in fields_of(answer, b"proxy-status")[0]
        other = begun(proxy.get("/", "X-Forwarded-For: 192.0.2.2"))
        await gate.has(2)
        writer.close()
        await proxy.until(lambda: not reader.at_eof() or len(proxy.server.proxy.board.tallies) == 1)
        gate.open()
        assert status_of(await other) == 200
        assert status_of(await proxy.get("/", "X-Forwarded-For: 192.0.2.1")) == 200
        assert len(proxy.server.proxy.board.tallies) == 0


@patiently
async def test_two_workers_share_one_limit(tmp_path: Path) -> None:
    """The kernel deals connections to workers at random: of 40, each gets some."""
    origin = await Origin(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).start()
    routes = limits("{rate: {limit: 7/h, by: route}}")
    path, port, admin = several(tmp_path, origin, 2, routes=routes)
    async with Workers(path, port, admin) as proxy:
        answers = Counter([status_of(await proxy.get()) for _ in range(40)])
        assert answers == {200: 7, 429: 33}
        status = await proxy.status()
        assert all(worker["requests"] for worker in status["workers"])
        metrics = await proxy.get("/metrics", admin)
        assert b'l7proxy_limited_total{limit="rate",route="all"} 33.0' in metrics
        # What is counted outlives the program: the bucket is as empty under the next one.
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.logged("INFO l7proxy restarted")
        assert status_of(await proxy.get()) == 429
    await origin.stop()


@patiently
async def test_two_workers_share_one_limit_of_requests_at_one_time(tmp_path: Path) -> None:
    gate = Gate()
    origin = await Origin(gate.answer).start()
    routes = limits("{concurrency: {most: 5, by: client}}")
    path, port, admin = several(tmp_path, origin, 2, routes=routes)
    async with Workers(path, port, admin) as proxy:
        asked = [begun(proxy.get()) for _ in range(30)]
        await gate.has(5)
        await asyncio.wait(asked, timeout=0.3)
        assert len([each for each in asked if each.done()]) == 25
        assert gate.held == 5
        gate.open()
        assert Counter([status_of(answer) for answer in await asyncio.gather(*asked)]) == {200: 5, 429: 25}
    await origin.stop()
