"""The file probe: verdicts, and files that are no files; and how soon a change is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.file import FileProbe, Missing
from director.kit.errors import ProbeError
from director.kit.filewatch import FileWatch
from director.kit.health import Asks, HealthState, ProbeResult, Status
from director.kit.net import Endpoint
from director.kit.prober import Prober
from director.kit.probes import file
from director.kit.probes.files import CheckedFiles
from director.kit.probes.run import run_check
from director.kit.probes.verdict import parse_verdict

pytestmark = pytest.mark.unit

SERVER = Endpoint(ip_address("10.0.0.11"), 0)


def _check(path: Path | str, missing: Missing = "down", timeout_s: float = 5.0, address: str = "10.0.0.11") -> Check:
    timing = Timing(interval_s=600.0, timeout_s=timeout_s, fast_interval_s=600.0, rise=1, fall=1)
    return Check(Endpoint(ip_address(address), 0), FileProbe(str(path), missing), timing)


def _probe(path: Path | str, missing: Missing = "down", timeout_s: float = 5.0) -> ProbeResult:
    return asyncio.run(run_check(_check(path, missing, timeout_s)))


def _says(result: ProbeResult) -> tuple[bool, int | None, int | None, Asks | None]:
    return result.ok, result.weight, result.percent, result.asks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("up", (True, None, None, None)),
        ("UP\n", (True, None, None, None)),
        ("\ufeffup\r\nanything\r\n", (True, None, None, None)),
        ("\n\n  up since noon", (True, None, None, None)),
        ("down", (False, None, None, None)),
        ("down#disk is full", (False, None, None, None)),
        ("drain", (True, None, None, Asks.DRAIN)),
        ("maint: new disk\n", (True, None, None, Asks.MAINTENANCE)),
        ("40", (True, 40, None, None)),
        ("0", (True, 0, None, None)),
        ("65535\n", (True, 65535, None, None)),
        ("75%", (True, None, 75, None)),
        ("100%", (True, None, 100, None)),
        ("0%", (True, 0, None, None)),
    ],
)
def test_verdict(tmp_path: Path, text: str, said: tuple[bool, int | None, int | None, Asks | None]) -> None:
    path = tmp_path / "verdict"
    path.write_text(text)
    assert _says(_probe(path)) == said


def test_reason_is_told(tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    path.write_text("down disk is\tfull \nmore")
    assert _probe(path).reason == f"{path} says down: disk is?full"


@pytest.mark.parametrize(
    "text", ["upp", "-1", "65536", "101%", "40 %", "4e1", "\u0664", "up\0", "weight", "yes", "#", "\xff"]
)
def test_garbage_is_no_verdict(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verdict"
    path.write_text(text)
    result = _probe(path)
    assert not result.ok
    assert result.reason.endswith(": write up, down, drain, maint, a weight (40) or a share (75%)")
    with pytest.raises(ProbeError, match=r"what was last known holds \(missing: keep\)"):
        _probe(path, "keep")


def test_placeholders(tmp_path: Path) -> None:
    (tmp_path / "10.0.0.11").write_text("7")
    assert _probe(tmp_path / "{address}").weight == 7


# files that are none


def _nothing(_: Path) -> None:
    pass


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _large(path: Path) -> None:
    path.write_text("up\n" * 2000)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_nothing, "there is no {}"),
        (_dangling, "there is no {}"),
        (_directory, "{} is a directory: write a regular file"),
        (_fifo, "{} is a pipe: write a regular file"),
        (_socket, "{} is a socket: write a regular file"),
        (_device, "{} is a device: write a regular file"),
        (_large, "{} has more than 4096 bytes: only its first line counts, keep it short"),
        (_loop, "{} cannot be read: too many levels of symbolic links"),
        (_empty, "{} is empty: write up, down, drain, maint, a weight (40) or a share (75%)"),
    ],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "verdict"
    make(path)
    began_at = time.monotonic()
    result = _probe(path)
    assert (result.ok, result.reason) == (False, said.format(path))
    with pytest.raises(ProbeError, match="what was last known holds"):
        _probe(path, "keep")
    assert _probe(path, "up").ok is (make in {_nothing, _dangling})
    assert time.monotonic() - began_at < 3


def test_path_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = _probe(tmp_path / "file" / "below")
    assert (result.ok, result.errno) == (False, errno.ENOENT)


def test_file_that_cannot_be_read() -> None:
    result = _probe("/proc/self/mem")
    assert (result.ok, result.reason) == (False, "/proc/self/mem cannot be read: input/output error")


def test_file_that_is_rewritten_in_place_is_read_again_when_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    path.touch()
    writing = threading.Timer(file.AGAIN_S / 4, path.write_text, ("up",))
    writing.start()
    assert _probe(path).ok
    writing.join()


def test_a_file_system_that_hangs_holds_up_nothing_else(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hard mount whose server is gone: here, a read that waits."""
    released = threading.Event()
    reads: list[str] = []
    real = file.read_regular

    def read(path: str) -> bytes:
        reads.append(path)
        if path.endswith("hung"):
            released.wait(20)
        return real(path)

    monkeypatch.setattr(file, "read_regular", read)
    (tmp_path / "fine").write_text("up")
    (tmp_path / "hung").write_text("up")

    async def story() -> None:
        hung = [asyncio.wait_for(run_check(_check(tmp_path / "hung", timeout_s=0.2)), 5) for _ in range(5)]
        *results, fine = await asyncio.gather(*hung, run_check(_check(tmp_path / "fine", timeout_s=5.0)))
        assert fine.ok
        for result in results:
            said = f"{tmp_path}/hung cannot be read within 200ms: see to its file system"
            assert (result.ok, result.reason) == (False, said)

    runner.run(story())
    assert reads.count(f"{tmp_path}/hung") == 1  # one thread waits, however many checks and times
    released.set()
    deadline_at = time.monotonic() + 5
    while _probe(tmp_path / "hung").ok is False and time.monotonic() < deadline_at:
        pass
    assert _probe(tmp_path / "hung").ok


@given(st.binary(max_size=300))
def test_any_content_is_a_verdict_or_none(data: bytes) -> None:
    verdict = parse_verdict(data, "it")
    text = verdict.reason if isinstance(verdict, ProbeResult) else verdict
    assert text.isprintable()
    assert len(text) < 400
    if isinstance(verdict, ProbeResult):
        assert verdict.weight is None or 0 <= verdict.weight <= 65535
        assert verdict.percent is None or 1 <= verdict.percent <= 100


# changes


class _Ear:
    """Hears of changes; takes in as many as it likes."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.takes = True
        self._news = asyncio.Event()

    def __call__(self, path: str) -> bool:
        self.heard.append(path)
        self._news.set()
        return self.takes

    async def next(self, timeout_s: float = 3.0) -> str:
        while not self.heard:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), timeout_s)
        return self.heard.pop(0)

    async def silence(self, wait_s: float = 0.15) -> None:
        with contextlib.suppress(TimeoutError):
            said = await self.next(wait_s)
            raise AssertionError(f"{said} was told")


@contextlib.asynccontextmanager
async def _watching(ear: _Ear, *paths: Path) -> AsyncIterator[FileWatch]:
    watch = FileWatch(ear)
    watch.watch(map(str, paths))
    for _ in paths:
        await ear.next()  # once its watch stands
    await ear.silence(0.06)
    try:
        yield watch
    finally:
        watch.close()


def _replace(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("x")
    new.rename(path)


CHANGES: list[Callable[[Path], object]] = [
    lambda path: path.write_text("x"),
    _replace,
    lambda path: path.unlink(),
    lambda path: path.rename(path.with_suffix(".old")),
    lambda path: path.chmod(0o600),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told(runner: asyncio.Runner, tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "a"
    path.write_text("up")

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, path):
            change(path)
            assert await ear.next() == str(path)

    runner.run(story())


def test_only_what_is_watched_is_told(runner: asyncio.Runner, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, first, second) as watch:
            (tmp_path / "other").write_text("x")
            await ear.silence()
            watch.watch([str(second)])
            first.write_text("x")
            await ear.silence()
            second.write_text("x")
            assert await ear.next() == str(second)

    runner.run(story())


def test_a_file_that_changes_all_the_time_is_told_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "a"

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, path):
            until_at = time.monotonic() + 0.4
            while time.monotonic() < until_at:
                path.write_text("x")
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            assert 3 <= len(ear.heard) <= 12

    asyncio.run(story())


def test_what_was_not_taken_in_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "a"

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, path):
            ear.takes = False
            path.write_text("x")
            await ear.next()
            await ear.next()
            ear.takes = True
            await ear.next()
            await ear.silence()

    asyncio.run(story())


def test_links_on_the_way_may_be_exchanged(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link into a directory that is a link."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    (tmp_path / "data").symlink_to("first")
    (tmp_path / "a").symlink_to("data/a")

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, tmp_path / "a"):
            (tmp_path / "first" / "a").write_text("x")
            await ear.next()
            await asyncio.sleep(0.1)
            ear.heard.clear()
            (tmp_path / "new").symlink_to("second")
            (tmp_path / "new").rename(tmp_path / "data")
            await ear.next()
            await asyncio.sleep(0.2)  # its watches are elsewhere now
            ear.heard.clear()
            (tmp_path / "second" / "a").write_text("x")
            await ear.next()

    asyncio.run(story())


def test_directory_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.kit.filewatch.RETRY_S", 0.05)
    path = tmp_path / "later" / "a"

    async def story() -> None:
        ear = _Ear()
        async with _watching(ear, path):
            for _ in range(2):
                path.parent.mkdir()
                path.write_text("up")
                await ear.next()
                await asyncio.sleep(0.2)
                ear.heard.clear()
                path.write_text("down")
                await ear.next()
                path.unlink()
                path.parent.rmdir()
                await asyncio.sleep(0.2)
                ear.heard.clear()

    asyncio.run(story())


def test_closed_in_the_middle_it_leaves_no_descriptor(tmp_path: Path) -> None:
    def descriptors() -> int:
        gc.collect()  # what earlier tests have left
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count

    async def story() -> None:
        before = descriptors()
        for wait_s in (0.0, 0.0, 0.001, 0.05):
            watch = FileWatch(_Ear())
            watch.watch([str(tmp_path / "a")])
            await asyncio.sleep(wait_s)
            watch.close()
            watch.close()
        deadline_at = time.monotonic() + 5
        while descriptors() != before and time.monotonic() < deadline_at:  # noqa: ASYNC110 -- a thread ends
            await asyncio.sleep(0.01)
        assert descriptors() == before

    asyncio.run(story())


def test_without_inotify_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    many = int(limit.read_text()) + 1

    async def story() -> None:
        watches = [FileWatch(_Ear()) for _ in range(many)]
        watches[-1].watch([str(tmp_path / "a")])
        await asyncio.sleep(0)
        for each in watches:
            each.close()

    if many > 1000:
        pytest.skip("this host has too many to use them up")
    asyncio.run(story())
    assert "changes of files are noticed only at their checks' interval" in caplog.text


def test_a_changed_file_changes_health_at_once(runner: asyncio.Runner, tmp_path: Path) -> None:
    """The interval is ten minutes."""
    path = tmp_path / "verdict"
    path.write_text("up")
    check = _check(path)

    async def story() -> None:
        news: asyncio.Queue[HealthState] = asyncio.Queue()
        prober = Prober(lambda _, __, after: news.put_nowait(after))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(prober.run())
            prober.watch({check: HealthState()})
            assert (await asyncio.wait_for(news.get(), 5)).status is Status.UP
            for text, status, weight in (("down", Status.DOWN, None), ("7", Status.UP, 7), ("9", Status.UP, 9)):
                path.write_text(text)
                state = await asyncio.wait_for(news.get(), 5)
                assert state.last is not None
                assert (state.status, state.last.weight) == (status, weight)
            path.unlink()
            assert (await asyncio.wait_for(news.get(), 5)).status is Status.DOWN
            running.cancel()

    runner.run(story())


def test_no_watch_where_no_check_has_a_file() -> None:
    async def story() -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        files = CheckedFiles(lambda _: True)
        files.watch([])
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        files.close()

    asyncio.run(story())
