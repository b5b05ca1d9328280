"""A proxy that keeps running: checks, reloads, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from pathlib import Path

import pytest

from l7proxy.runtime import checks_of
from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    Running,
    config_text,
    free_port,
    live,
    named,
    running,
    says,
    status_of,
)

pytestmark = pytest.mark.unit

CHECK = "    check: {type: http, path: /healthz, interval: 60ms, fast_interval: 30ms, timeout: 500ms, rise: 2, fall: 2}"


def taken(answer: bytes) -> str:
    return answer.rpartition(b"\r\n\r\n")[2].decode()


async def reloaded(proxy: Running) -> None:
    """Reload, and wait until it is done."""
    before = proxy.server.proxy.snapshot
    proxy.server.request_reload()
    await proxy.until(lambda: proxy.server.proxy.snapshot is not before)


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["problem"] for record in caplog.records if "problem" in record.__dict__]


@live
async def test_backends_take_turns_by_weight(tmp_path: Path) -> None:
    first, second = Origin(named, "one"), Origin(named, "two")
    async with running(tmp_path, first, second) as proxy:
        text = proxy.path.read_text().replace(f":{second.port}'", f":{second.port}', weight: 3")
        proxy.path.write_text(text)
        proxy.server.request_reload()
        await proxy.until(lambda: proxy.server.proxy.snapshot.config.upstreams["up"].backends[1].weight == 3)
        assert Counter([taken(await proxy.get()) for _ in range(8)]) == {"one": 2, "two": 6}


@live
async def test_the_health_path_is_answered_without_a_backend(tmp_path: Path) -> None:
    async with running(tmp_path, free_port(), listener=", health: /-/health") as proxy:
        assert status_of(await proxy.get("/-/health", host="whatever.example")) == 200
        assert status_of(await proxy.get("/-/health?x=1")) == 200
        assert status_of(await proxy.get("/-/health/x")) == 502


@live
async def test_a_check_takes_a_backend_out_and_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sick = [False]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/healthz" in head:
            status = b"503 Sick" if sick[0] else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        else:
            await named(origin, head, reader, writer)

    first, second = Origin(answer, "one"), Origin(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "two")
    async with running(tmp_path, first, second, upstream=CHECK) as proxy:
        up = proxy.server.proxy.snapshot.upstreams["up"]
        assert set(up.weights) == {"b0", "b1"}  # PENDING counts as up
        sick[0] = True
        await proxy.until(lambda: set(up.weights) == {"b1"})
        assert {taken(await proxy.get()) for _ in range(4)} == {""}
        await second.stop()
        await proxy.until(lambda: not up.weights)
        assert status_of(await proxy.get()) == 503
        sick[0] = False
        await proxy.until(lambda: set(up.weights) == {"b0"})
        assert {taken(await proxy.get()) for _ in range(4)} == {"one"}
    lines = [(record.getMessage(), record.__dict__.get("backend")) for record in caplog.records]
    assert ("backend is down", "b0") in lines
    assert ("backend is up", "b0") in lines
    assert ("upstream has no backend left", None) in lines
    failed = next(record for record in caplog.records if record.getMessage() == "request failed")
    assert "b0 is down: status 503" in failed.__dict__["reason"]


@live
async def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, Origin(named, "one")) as proxy:
        snapshot = proxy.server.proxy.snapshot
        proxy.path.write_text(proxy.path.read_text().replace("upstream: up", "upstream: upp") + "nonsense: 1\n")
        proxy.server.request_reload()
        await proxy.until(lambda: len(problems(caplog)) >= 2)
        assert proxy.server.proxy.snapshot is snapshot
        assert taken(await proxy.get()) == "one"
    said = problems(caplog)
    assert len(said) == 2
    assert "there is no upstream 'upp': did you mean 'up'?" in said[0]
    assert "unknown key 'nonsense'" in said[1]


@live
async def test_an_address_that_cannot_be_bound_refuses_the_whole_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = blocker.sockets[0].getsockname()[1]
    async with running(tmp_path, Origin(named, "one")) as proxy:
        text = proxy.path.read_text()
        proxy.path.write_text(text.replace("listeners:\n", f"listeners:\n  more: {{bind: '127.0.0.1:{port}'}}\n"))
        proxy.server.request_reload()
        await proxy.until(lambda: bool(problems(caplog)))
        assert len(proxy.server.proxy.snapshot.config.listeners) == 1
    blocker.close()
    assert f"127.0.0.1:{port} is in use by another process" in problems(caplog)[0]


@live
async def test_listeners_come_and_go_and_requests_in_flight_do_not_notice(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    old, new = Origin(answer, "old"), Origin(named, "new")
    async with running(tmp_path, old) as proxy:
        await new.start()
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: bool(old.heads))
        before, proxy.port = proxy.port, free_port()
        proxy.path.write_text(config_text(proxy.port, new))
        proxy.server.request_reload()
        await proxy.until(lambda: proxy.server.proxy.snapshot.config.listeners[0].binds[0].port == proxy.port)
        assert taken(await proxy.get()) == "new"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", before)
        go.set()
        assert taken(await reader.read()) == "old"  # and closed, since its listener is gone
        writer.close()
    await new.stop()


@live
async def test_a_reload_keeps_what_stays(tmp_path: Path) -> None:
    origin = Origin(named, "one")
    async with running(tmp_path, origin, upstream=CHECK) as proxy:
        up = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: up.backends["b0"].health.status.value == "up")
        await proxy.get()
        connections = origin.connections
        proxy.path.write_text(proxy.path.read_text() + "via: false\n")
        proxy.server.request_reload()
        await proxy.until(lambda: not proxy.server.proxy.snapshot.config.via)
        state = proxy.server.proxy.snapshot.upstreams["up"].backends["b0"]
        assert state.health.status.value == "up"
        assert state.counters.requests == 1
        await proxy.get()
        assert [head for head in origin.heads if b"GET / " in head][1].count(b"Via:") == 0
        assert origin.connections <= connections + 1  # at most a probe's: the idle link was used again


@live
async def test_a_stop_finishes_what_is_being_answered(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(6)
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + body)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        idle_reader, idle_writer = await proxy.connect()
        reader, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await proxy.until(lambda: bool(origin.heads))
        proxy.server.request_stop()
        assert await idle_reader.read() == b""  # idle connections go at once
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"def")  # the upload goes on
        go.set()
        assert taken(await reader.read()) == "abcdef"
        writer.close()
        idle_writer.close()
        await proxy.until(lambda: not proxy.server.proxy.connections)


@live
async def test_a_stop_does_not_wait_forever(tmp_path: Path) -> None:
    origin = Origin(says())
    async with running(tmp_path, origin, more="timeouts: {drain: 200ms}") as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await proxy.until(lambda: bool(origin.heads))
        proxy.server.request_stop()
        async with asyncio.timeout(PATIENCE_S):
            assert not await reader.read()
        writer.close()


@live
async def test_admin_shows_what_runs(tmp_path: Path) -> None:
    port = free_port()
    more = f"admin: {{bind: '127.0.0.1:{port}'}}"
    async with running(tmp_path, Origin(named), more=more, upstream=CHECK) as proxy:
        up = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: up.backends["b0"].health.status.value == "up")
        await proxy.get()
        proxy.port = port
        assert status_of(await proxy.get("/healthz")) == 200
        answer = await proxy.get("/v1/status")
        assert re.findall(rb"(?im)^server: (.*?)\r$", answer) == [b"l7proxy"]
        assert b"aiohttp" not in await proxy.get("/nothing")
        status = json.loads(taken(answer))
    assert [part["tls"] for part in status["listeners"].values()] == [False]
    backend = status["upstreams"]["up"]["backends"]["b0"]
    assert backend["health"] == "up"
    assert backend["reason"] == "status 200"
    assert status["counters"]["requests"] == 1
    assert status["counters"]["answers"] == {"1xx": 0, "2xx": 1, "3xx": 0, "4xx": 0, "5xx": 0}


@live
async def test_a_reload_starts_new_checks_and_ends_old_ones(tmp_path: Path) -> None:
    dead, probed = free_port(), Origin(named)
    async with running(tmp_path, dead, probed) as proxy:
        assert set(proxy.server.proxy.snapshot.upstreams["up"].weights) == {"b0", "b1"}
        without = proxy.path.read_text()
        proxy.path.write_text(without.replace("  up:\n", f"  up:\n{CHECK}\n", 1))
        proxy.server.request_reload()
        await proxy.until(lambda: set(proxy.server.proxy.snapshot.upstreams["up"].weights) == {"b1"})
        prober, checks = proxy.server._prober, checks_of(proxy.server.proxy.snapshot.config)
        await proxy.until(lambda: len(probed.heads) >= 2 and all(map(prober.recent, checks)))
        proxy.path.write_text(without)
        proxy.server.request_reload()
        await proxy.until(lambda: set(proxy.server.proxy.snapshot.upstreams["up"].weights) == {"b0", "b1"})
        assert checks
        assert not any(map(prober.probe_now, checks)), "none is watched any more"


@live
async def test_listeners_and_admin_may_swap_their_addresses(tmp_path: Path) -> None:
    admin = free_port()
    async with running(tmp_path, Origin(named, "one"), more=f"admin: {{bind: '127.0.0.1:{admin}'}}") as proxy:
        before = proxy.port
        text = proxy.path.read_text().replace(str(before), "NEW").replace(str(admin), str(before))
        proxy.path.write_text(text.replace("NEW", str(admin)))
        for _ in range(2):  # there, and once more with nothing to do
            await reloaded(proxy)
            proxy.port = admin
            await until_it_says(proxy, "/", "one")
            proxy.port = before
            await until_it_says(proxy, "/healthz", "ok\n")


async def until_it_says(proxy: Running, target: str, text: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while taken(await proxy.get(target)) != text:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)


@live
async def test_a_reload_may_widen_and_narrow_an_address(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named, "one")) as proxy:
        for address in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
            old = str(proxy.server.proxy.snapshot.config.listeners[0].binds[0].address)
            proxy.path.write_text(proxy.path.read_text().replace(f"'{old}:{proxy.port}'", f"'{address}:{proxy.port}'"))
            await reloaded(proxy)
            assert taken(await proxy.get()) == "one"


@pytest.mark.parametrize(
    "part", ["l7proxy.engine.make_snapshot", "l7proxy.server.load_file", "l7proxy.listeners.Front"]
)
@live
async def test_no_reload_ends_the_process_or_leaves_a_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    async with running(tmp_path, Origin(named, "one")) as proxy:
        snapshot, port = proxy.server.proxy.snapshot, free_port()
        text = proxy.path.read_text()
        proxy.path.write_text(text.replace("listeners:\n", f"listeners:\n  more: {{bind: '127.0.0.1:{port}'}}\n"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(part, broken)
            proxy.server.request_reload()
            await proxy.until(lambda: any("reload failed in itself" in record.message for record in caplog.records))
        assert proxy.server.proxy.snapshot is snapshot
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert taken(await proxy.get()) == "one"
        proxy.server.request_reload()  # and the next one is as good as any
        await proxy.until(lambda: proxy.server.proxy.snapshot is not snapshot)
        proxy.port = port
        assert taken(await proxy.get()) == "one"
