"""What is written down: bounded, and never waited for."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import time
from collections.abc import Iterator

import pytest

from l7proxy import accesslog
from l7proxy.accesslog import AccessLog
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


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    for index in range(1000):
        log.write({"n": index, "host": None, "target": "/a b"})
    lines = read_lines(pipe[0], 1000)
    assert [line.split(b" ", 1)[1] for line in lines] == [b'n=%d host=- target="/a b"' % n for n in range(1000)]
    log.close()


def test_a_stuck_reader_costs_lines_and_no_more(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accesslog, "MOST_PENDING_BYTES", 100_000)
    monkeypatch.setattr(accesslog, "FLUSH_WITHIN_S", 0.1)
    log = AccessLog(pipe[1])
    for _ in range(300):
        log.write({"target": "a" * 1000})
    writer = log._thread
    started_at = time.monotonic()
    log.close()
    assert time.monotonic() - started_at < 5
    said = {record.getMessage(): record.__dict__ for record in caplog.records}
    assert said["access log lines dropped: its reader is too slow"]["count"] == 300 - 100_000 // 1034
    assert 90_000 < said["access log not written to its end"]["bytes_lost"] <= 100_000
    while writer is not None and writer.is_alive():  # let it end
        if select.select([pipe[0]], [], [], 0.05)[0]:
            os.read(pipe[0], 65536)


def test_what_cannot_be_written_is_said_once(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    os.close(pipe[0])
    log = AccessLog(pipe[1])
    log.write({"n": 1})
    log.close()
    assert [record.__dict__["reason"] for record in caplog.records] == ["Broken pipe"]


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    log = AccessLog(pipe[1])
    for _ in range(100):
        log.write({"target": "a" * 1000})
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
