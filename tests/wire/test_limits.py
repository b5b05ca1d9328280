"""Heads have a size, a number of lines and a time; whoever asks for more hears what was too much, and nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from l7proxy.core.config import load_config
from tests.wire.corpus import LENGTH_3, PLAIN, bad
from tests.wire.harness import PATIENCE_S, Origin, config_text, live, running, statuses_of, takes
from tests.wire.verdicts import (
    LEFT_OPEN_S,
    expect_none,
    fault_of_answer,
    fault_of_refusal,
    faults_of_refusals,
    no_errors_logged,
)

pytestmark = pytest.mark.unit


def of_line(size: int, method: bytes = b"GET") -> bytes:
    """A request whose first line has `size` octets without its end."""
    target = b"/" + b"a" * (size - len(method) - len(b" / HTTP/1.1"))
    return method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def of_headers(count: int) -> bytes:
    """A request with `count` header lines, Host and Connection among them."""
    return b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"A: b\r\n" * (count - 2) + b"\r\n"


def of_bytes(size: int, lines: int = 20) -> bytes:
    """A request whose head has `size` octets, in about `lines` lines."""
    start = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    each, rest = divmod(size - len(start) - 2, lines)
    fill = b"".join(b"A: " + b"b" * (each - 5 + (rest if not index else 0)) + b"\r\n" for index in range(lines))
    return start + fill + b"\r\n"


DEFAULTS = ""
SMALL = "limits: {request_line: 512, headers: 20, head_bytes: 4096}"
LARGE = "limits: {request_line: 16384, headers: 300, head_bytes: 60000}"


@pytest.mark.parametrize(
    ("limits", "request_"),
    [
        pytest.param(DEFAULTS, of_line(8100), id="8100 of 8192 in the first line"),
        pytest.param(DEFAULTS, of_headers(100), id="100 of 100 lines"),
        pytest.param(DEFAULTS, of_bytes(32_500), id="32500 of 32768 bytes"),
        pytest.param(DEFAULTS, of_bytes(32_500, lines=1), id="the same in one line"),
        pytest.param(SMALL, of_line(500), id="500 of 512 in the first line"),
        pytest.param(SMALL, of_headers(20), id="20 of 20 lines"),
        pytest.param(SMALL, of_bytes(4000, lines=10), id="4000 of 4096 bytes"),
        pytest.param(LARGE, of_line(16_000), id="16000 of 16384 in the first line"),
        pytest.param(LARGE, of_headers(300), id="300 of 300 lines"),
        pytest.param(LARGE, of_bytes(59_500), id="59500 of 60000 bytes"),
    ],
)
@live
async def test_a_head_within_its_limits_passes(tmp_path: Path, limits: str, request_: bytes) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more=limits) as proxy:
        assert statuses_of(await proxy.send(request_)) == [200]
        third = len(request_) // 3
        in_pieces = await proxy.send(request_[:third], request_[third : 2 * third], request_[2 * third :])
        assert statuses_of(in_pieces) == [200]
    one, other = origin.heads
    assert one == other
    assert one.split(b"\r\n")[0] == request_.split(b"\r\n")[0]
    assert one.count(b"\r\nA: ") == request_.count(b"\r\nA: ")


@pytest.mark.parametrize(
    ("limits", "request_", "status"),
    [
        pytest.param(DEFAULTS, of_line(8300), 414, id="first line over 8192"),
        pytest.param(DEFAULTS, of_line(60_000), 414, id="first line over everything"),
        pytest.param(DEFAULTS, of_line(8300, b"POST"), 414, id="first line of a POST"),
        pytest.param(DEFAULTS, of_headers(101), 431, id="101 lines"),
        pytest.param(DEFAULTS, of_headers(5000), 431, id="5000 lines"),
        pytest.param(DEFAULTS, of_bytes(33_000), 431, id="33000 bytes"),
        pytest.param(DEFAULTS, of_bytes(33_000, lines=1), 431, id="33000 bytes in one line"),
        pytest.param(DEFAULTS, of_bytes(500_000), 431, id="500000 bytes"),
        pytest.param(SMALL, of_line(540), 414, id="first line over 512"),
        pytest.param(SMALL, of_headers(21), 431, id="21 of 20 lines"),
        pytest.param(SMALL, of_bytes(4200, lines=10), 431, id="4200 of 4096 bytes"),
        pytest.param(LARGE, of_line(16_500), 414, id="first line over 16384"),
        pytest.param(LARGE, of_headers(301), 431, id="301 of 300 lines"),
        pytest.param(LARGE, of_bytes(60_500), 431, id="60500 of 60000 bytes"),
    ],
)
@live
async def test_a_head_beyond_its_limits_is_refused(tmp_path: Path, limits: str, request_: bytes, status: int) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more=limits) as proxy:
        with no_errors_logged():
            assert not await fault_of_refusal(proxy, origin, bad(request_, status))
            good = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            assert not await fault_of_refusal(proxy, origin, bad(request_, status), before=good)


ENDLESS = {
    "a method": bad(b"G" * 9000, 400, 414, 501),
    "a target": bad(b"GET /" + b"a" * 9000, 414),
    "a first line with its version": bad(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414),
    "a name": bad(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A" * 40_000, 400, 431),
    "a value": bad(b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 40_000, 431),
    "large lines": bad(b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 40, 431),
    "empty lines": bad(b"\r\n" * 20_000, 400, 414, 431),
}


@live
async def test_a_head_without_end_is_refused_as_soon_as_it_is_too_large(tmp_path: Path) -> None:
    """Not first after the time for it, and whether it comes at once or in pieces."""
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin) as proxy:
        for name, case in ENDLESS.items():
            got = await proxy.send(case.request, patience_s=LEFT_OPEN_S)
            if fault := fault_of_answer(got, case.statuses):
                faults[name] = fault
            cut = [case.request[at : at + 1500] for at in range(0, len(case.request), 1500)]
            got = await proxy.send(*cut, patience_s=LEFT_OPEN_S)
            if fault := fault_of_answer(got, case.statuses):
                faults[f"{name}, in pieces"] = fault
    expect_none(faults)
    assert origin.received == b""


QUICK = "timeouts: {head: 300ms, keepalive: 300ms, idle: 300ms}"


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    ],
)
@pytest.mark.parametrize("before", [b"", LENGTH_3], ids=["first", "second"])
@live
async def test_a_head_that_does_not_end_in_time_is_408(tmp_path: Path, sent: bytes, before: bytes) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more=QUICK) as proxy:
        started_at = time.monotonic()
        got = await proxy.send(before + sent, patience_s=PATIENCE_S)
        assert time.monotonic() - started_at < 3.0
        await proxy.until(lambda: proxy.server.proxy.connections == 0)
    if before:
        first, _, got = got.partition(b"ok")
        assert statuses_of(first) == [200]
    assert not fault_of_answer(got, [408])
    assert len(origin.messages) == bool(before)


@live
async def test_dripping_does_not_make_the_time_longer(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more=QUICK) as proxy:
        started_at = time.monotonic()
        reader, writer = await proxy.connect()
        got = asyncio.Event()

        async def drip() -> None:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
            while not got.is_set() and time.monotonic() - started_at < 3.0:
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            group.create_task(drip())
            answer = await reader.readuntil(b"\r\n\r\n")
            got.set()
        assert statuses_of(answer) == [408]
        assert 0.25 < time.monotonic() - started_at < 2.5
        writer.close()
    assert origin.received == b""


@live
async def test_a_slow_head_within_its_time_passes(tmp_path: Path) -> None:
    origin = Origin(takes)
    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with running(tmp_path, origin, more="timeouts: {head: 5s, idle: 50ms, keepalive: 50ms}") as proxy:
        reader, writer = await proxy.connect()
        for octet in request:
            writer.write(bytes([octet]))
            await asyncio.sleep(0.01)
        assert statuses_of(await reader.read()) == [200]
        writer.close()


@pytest.mark.parametrize("sent", [b"", PLAIN, LENGTH_3])
@live
async def test_an_idle_connection_is_closed_without_a_word(tmp_path: Path, sent: bytes) -> None:
    """Nothing was asked, so a 408 would answer the next request of a client that did not see the close."""
    async with running(tmp_path, Origin(takes), more=QUICK) as proxy:
        started_at = time.monotonic()
        got = await proxy.send(sent, patience_s=PATIENCE_S)
        assert time.monotonic() - started_at < 3.0
    assert statuses_of(got) == ([200] if sent else [])
    assert not got.endswith((b"<RST>", b"<OPEN>"))


@live
async def test_a_connection_in_use_outlives_the_time_for_idle_ones(tmp_path: Path) -> None:
    async def slow(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.0)
        await takes(origin, head, reader, writer)

    more = "timeouts: {head: 100ms, keepalive: 100ms}"
    async with running(tmp_path, Origin(slow), more=more) as proxy:
        got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert statuses_of(got) == [200]


def test_the_defaults_are_what_is_promised() -> None:
    config = load_config(config_text(8080, 8001), "l7proxy.yaml")
    timeouts, upstream = config.timeouts, config.upstreams["up"].timeouts
    assert (timeouts.head_s, timeouts.idle_s, timeouts.keepalive_s, timeouts.drain_s) == (10.0, 30.0, 30.0, 30.0)
    assert (upstream.connect_s, upstream.response_s, upstream.idle_s, upstream.keepalive_s) == (3.0, 30.0, 60.0, 4.0)
    limits = config.limits
    assert (limits.request_line_bytes, limits.headers, limits.head_bytes, limits.body_bytes) == (8192, 100, 32768, None)
    assert timeouts.tunnel_s == 3600.0


@live
async def test_two_hundred_dripping_clients_do_not_slow_another(tmp_path: Path) -> None:
    """Each holds a connection and half a head; whoever asks whole questions is answered as ever."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        drippers = [await proxy.connect() for _ in range(200)]
        for round_ in range(5):
            for _, writer in drippers:
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n" if not round_ else b"A: b\r\n")
            started_at = time.monotonic()
            assert statuses_of(await proxy.get()) == [200]
            assert time.monotonic() - started_at < 1.0
        for _, writer in drippers:
            writer.close()
        for _, writer in drippers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert len(origin.heads) == 5


@live
async def test_refusals_leave_no_connection_behind(tmp_path: Path) -> None:
    origin = Origin(takes)
    cases = {f"{index}": bad(of_headers(101), 431) for index in range(20)}
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))
        await proxy.until(lambda: proxy.server.proxy.connections == 0)
