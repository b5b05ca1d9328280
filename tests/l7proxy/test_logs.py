"""What is written down: bounded, and never waited for."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import select
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from l7proxy import accesslog
from l7proxy.accesslog import AccessLog
from l7proxy.core.logline import Record, combined
from l7proxy.core.model import AccessLogFormat
from l7proxy.failurelog import FailureLog

pytestmark = pytest.mark.unit


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def read_lines(end: int, count: int) -> list[bytes]:
    got = b""
    while got.count(b"\n") < count:
        got += os.read(end, 65536)
    return got.splitlines()


def record(target: bytes = b"/", backend: str | None = "a") -> Record:
    place = ("route", "upstream", backend)
    return (
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
        "192.0.2.1",
        b"GET",
        b"a",
        target,
        b"1.1",
        "http",
        200,
        0,
        9,
        *place,
        0,
        None,
        None,
        None,
        None,
        "",
    )


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    for index in range(1000):
        log.add(record(b"/%d" % index))
    log.flush()
    lines = read_lines(pipe[0], 1000)
    assert [line.split(b'"')[1] for line in lines] == [b"GET /%d HTTP/1.1" % index for index in range(1000)]
    log.close()


def test_records_get_the_clocks_time(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1], AccessLogFormat.JSON)
    now = time.monotonic()
    log.add((now, *record()[1:]))
    log.close()
    said = json.loads(read_lines(pipe[0], 1)[0])["time"]
    assert abs(datetime.fromisoformat(said).timestamp() - time.time()) < 5


def test_the_form_can_change(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    for form in (AccessLogFormat.JSON, AccessLogFormat.NONE, AccessLogFormat.COMBINED):
        log.add(record())
        log.use(form)
    log.add(record())
    log.close()
    assert [line[:2] for line in read_lines(pipe[0], 3)] == [b"19", b'{"', b"19"]


def test_no_record_waits_long_for_others(pipe: tuple[int, int]) -> None:
    async def add_one() -> bytes:
        log = AccessLog(pipe[1])
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(log.run())
            log.add(record(b"/alone"))
            line = await asyncio.to_thread(os.read, pipe[0], 65536)
            running.cancel()
        log.close()
        return line

    assert b"/alone" in asyncio.run(add_one())


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_of_several_processes_stay_whole(pipe: tuple[int, int], blocking: bool) -> None:
    os.set_blocking(pipe[1], blocking)
    logs = [AccessLog(pipe[1], shared=True) for _ in range(3)]
    for index in range(200):
        for log, letter in zip(logs, (b"x", b"y", b"z"), strict=True):
            log.add(record(b"/" + letter * (index * 17)))
            log.flush()
    lines = read_lines(pipe[0], 600)
    assert len(lines) == 600
    assert all(re.search(rb'"GET /(x*|y*|z*) HTTP/1\.1" 200 9 "-" "-" .* cause=-$', line) for line in lines)
    for log in logs:
        log.close()


def test_a_line_longer_than_a_pipe_keeps_whole_goes_by_itself(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1], shared=True)
    for size in (10, 9000, 20, 5000):
        log.add(record(b"/" + b"a" * size))
    log.flush()
    assert [line.count(b"a" * 10) for line in read_lines(pipe[0], 4)] == [1, 900, 2, 500]
    log.close()


def test_a_stuck_reader_costs_lines_and_no_more(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accesslog, "MOST_PENDING_BYTES", 100_000)
    monkeypatch.setattr(accesslog, "FLUSH_WITHIN_S", 0.1)
    monkeypatch.setattr(accesslog, "RECORDS_AT_ONCE", 10)
    log = AccessLog(pipe[1])
    length = len(combined([record(b"a" * 1000)], 0.0))
    for _ in range(300):
        log.add(record(b"a" * 1000))
    writer = log._thread
    started_at = time.monotonic()
    log.close()
    assert time.monotonic() - started_at < 5
    said = {record.getMessage(): record.__dict__ for record in caplog.records}
    assert said["access log lines dropped: its reader is too slow"]["count"] == 300 - 100_000 // (10 * length) * 10
    assert 80_000 < said["access log not written to its end"]["bytes_lost"] <= 100_000
    while writer is not None and writer.is_alive():  # let it end
        if select.select([pipe[0]], [], [], 0.05)[0]:
            os.read(pipe[0], 65536)


def test_what_cannot_be_written_is_said_once(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    os.close(pipe[0])
    log = AccessLog(pipe[1])
    log.add(record())
    log.close()
    assert [record.__dict__["reason"] for record in caplog.records] == ["Broken pipe"]


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    log = AccessLog(pipe[1])
    for _ in range(100):
        log.add(record(b"a" * 1000))
    log.flush()
    assert len(read_lines(pipe[0], 100)) == 100
    log.close()


def test_lines_a_second_are_bounded_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [10.0]
    log = FailureLog("refusals", most=2, now=lambda: now[0])
    for _ in range(5):
        log.write("m")
    now[0] = 11.0
    log.write("n")
    log.flush()
    assert [record.getMessage() for record in caplog.records] == ["m", "m", "log lines suppressed", "n"]
    assert (caplog.records[2].__dict__["kind"], caplog.records[2].__dict__["count"]) == ("refusals", 3)
