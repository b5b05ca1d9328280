"""Several workers: what they share, how they come and go, and a restart in which not one request fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.wire.harness import PATIENCE_S, Origin, config_text, fields_of, free_port, live, named, status_of
from tests.wire.load import Load
from tests.wire.test_process import L7PROXY, Process, l7proxy
from tests.wire.test_running import CHECK
from tests.wire.test_stopping import asks_until_told, failures

pytestmark = pytest.mark.unit


patiently = functools.partial(live, within_s=100.0)
"""Each test starts half a dozen Pythons, one after the other."""


class Workers(Process):
    """A program that may be several processes, with an admin endpoint."""

    def __init__(self, path: Path, port: int, admin: int, program: list[str] | None = None) -> None:
        super().__init__(path, port, program=program)
        self.admin = admin

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    async def __aexit__(self, *_: object) -> None:
        children = self.children() if self.process.poll() is None else []
        await super().__aexit__()
        for pid in children:
            kill(pid)

    async def logged(self, text: str, within_s: float = 3 * PATIENCE_S) -> None:
        await super().logged(text, within_s)

    async def times(self, text: str, count: int) -> None:
        async with asyncio.timeout(3 * PATIENCE_S):
            while self.log.read_text().count(text) < count:  # noqa: ASYNC110 -- a file has no event
                await asyncio.sleep(0.02)

    async def get(self, target: str = "/", port: int = 0) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        return answer

    async def status(self) -> dict[str, Any]:
        answer = await self.get("/v1/status", self.admin)
        assert status_of(answer) == 200
        said = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert isinstance(said, dict)
        return said

    async def pids(self) -> set[int]:
        """Who serves now, by its own count."""
        return {worker["pid"] for worker in (await self.status())["workers"]}

    async def ask_all(self, count: int) -> list[bytes]:
        """Bodies of so many requests, each on a connection of its own."""
        return [(await self.get()).partition(b"\r\n\r\n")[2] for _ in range(count)]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def all_gone(pids: Iterable[int]) -> None:
    await until(lambda: all(map(is_gone, pids)))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(3 * PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)


def several(tmp_path: Path, origin: Origin | int, workers: int | str, **more: str) -> tuple[Path, int, int]:
    path, port, admin = tmp_path / "a.yaml", free_port(), free_port()
    own = f"workers: {workers}\nadmin: {{bind: '127.0.0.1:{admin}'}}\n{more.pop('more', '')}"
    path.write_text(config_text(port, origin, more=own, **more))
    return path, port, admin


@patiently
async def test_a_worker_that_is_stuck_is_killed_and_the_log_says_why(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    async with Workers(*several(tmp_path, origin, 2)) as proxy:
        stuck, other = proxy.children()
        os.kill(stuck, signal.SIGSTOP)
        proxy.process.send_signal(signal.SIGTERM)
        await proxy.logged("draining")
        proxy.process.send_signal(signal.SIGTERM)
        await all_gone([stuck, other])
        (line,) = [line for line in proxy.log.read_text().splitlines() if "worker did not leave, it is killed" in line]
        assert f"worker={stuck}" in line
        assert re.search(r"it is still there \d[.\d]* s after it was told to; it may be stuck", line)
    await origin.stop()


@pytest.mark.parametrize("workers", [1, 2])
@patiently
async def test_not_one_request_fails_in_a_restart(tmp_path: Path, workers: int) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, workers)
    load = Load(port, kept=16, fresh=4)
    async with Workers(path, port, admin) as proxy:
        pid, before = proxy.pid, await proxy.pids()
        async with load.running():
            await load.more(300)
            for turn in range(2):
                os.kill(pid, signal.SIGUSR2)
                await proxy.times("INFO l7proxy serving", turn + 2)
                await all_gone(before - {pid})
                await load.more(300)
                after = await proxy.pids()
                assert len(after) == workers
                assert not after & before
                before = after
        assert proxy.process.poll() is None
        assert not load.failures
        assert load.closed_by_answer, "kept connections went over to the new workers"
        status = await proxy.status()
        assert status["counters"]["requests"] == load.answered
        assert status["counters"]["answers"]["2xx"] == load.answered
        shown = (await proxy.get("/metrics", admin)).decode()
        assert f'l7proxy_backend_requests_total{{backend="b0",upstream="up"}} {float(load.answered)}' in shown
        os.kill(pid, signal.SIGTERM)
        assert await proxy.ended() == 0
        assert "Traceback" not in proxy.log.read_text()
    await origin.stop()


@patiently
async def test_not_one_request_fails_when_a_worker_is_asked_to_end(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2)
    load = Load(port, kept=16, fresh=4)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        async with load.running():
            await load.more(200)
            os.kill(min(before), signal.SIGTERM)
            await until(lambda: is_gone(min(before)))
            await load.more(200)
        assert not load.failures
        after = await proxy.pids()
        assert len(after) == 2
        assert after & before == {max(before)}
        assert (await proxy.status())["counters"]["requests"] == load.answered
    await origin.stop()


@patiently
async def test_a_worker_that_dies_is_replaced_and_told(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await proxy.logged(f'worker died worker={victim} by="signal SIGKILL"')
        assert set(await proxy.ask_all(5)) == {b"origin"}  # the other one serves
        await proxy.logged("worker serves")
        assert len(await proxy.pids()) == 2
        assert victim not in await proxy.pids()
        shown = (await proxy.get("/metrics", admin)).decode()
        assert "\nl7proxy_worker_deaths_total 1.0\n" in shown
        assert "\nl7proxy_workers 2.0\n" in shown
    await origin.stop()


@patiently
async def test_a_reload_is_for_all_workers_and_may_change_their_number(tmp_path: Path) -> None:
    old, new = await Origin(named, "old").start(), await Origin(named, "new").start()
    path, port, admin = several(tmp_path, old, 2)
    load = Load(port, kept=12, fresh=3)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        good, second = path.read_text(), free_port()
        async with load.running():
            await load.more(50)
            path.write_text(good + "nonsense: 1\n")
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.logged("reload refused, the old configuration stays")
            shown = (await proxy.get("/metrics", admin)).decode()
            assert "\nl7proxy_config_last_reload_successful 0.0\n" in shown
            more = good.replace(str(old.port), str(new.port)).replace(
                "listeners:\n", f"listeners:\n  more: {{bind: '127.0.0.1:{second}'}}\n"
            )
            path.write_text(more)
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy reloaded", 1)
            assert set(await proxy.ask_all(8)) == {b"new"}
            assert (await proxy.get(port=second)).endswith(b"new")
            assert await proxy.pids() == before, "they went over, none was replaced"
            path.write_text(more.replace("workers: 2", "workers: 3"))
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy reloaded", 2)
            assert len(three := await proxy.pids()) == 3
            assert three > before
            path.write_text(good.replace("workers: 2", "workers: 1"))
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy reloaded", 3)
            await until(lambda: len(proxy.children()) == 1)
            await load.more(50)
        assert not load.failures
        assert set(await proxy.ask_all(4)) == {b"old"}
        with pytest.raises(ConnectionRefusedError):
            await proxy.get(port=second)
    await old.stop()
    await new.stop()


@patiently
async def test_one_process_becomes_several_by_a_reload(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 1)
    load = Load(port, kept=12, fresh=3)
    async with Workers(path, port, admin) as proxy:
        assert await proxy.pids() == {proxy.pid}
        async with load.running():
            await load.more(50)
            path.write_text(path.read_text().replace("workers: 1", "workers: 2"))
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy serving", 2)
            await load.more(50)
        assert not load.failures
        assert await proxy.pids() == set(proxy.children())
        assert len(proxy.children()) == 2
    await origin.stop()


@pytest.mark.parametrize("workers", [1, 2])
@patiently
async def test_a_reload_after_a_restart_leaves_sockets_that_block_nobody(tmp_path: Path, workers: int) -> None:
    """Descriptors that were inherited share their flags with those of all workers."""
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, workers)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.times("INFO l7proxy serving", 2)
        await all_gone(before - {proxy.pid})
        for turn in (1, 2):
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy reloaded", turn)
            async with asyncio.timeout(3):
                assert set(await proxy.ask_all(20)) == {b"origin"}
        os.kill(proxy.pid, signal.SIGTERM)
        async with asyncio.timeout(8):
            assert await proxy.ended() == 0
    await origin.stop()


@patiently
async def test_an_address_in_use_refuses_the_whole_reload(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2)
    async with Workers(path, port, admin) as proxy:
        good, free = path.read_text(), free_port()
        binds = f"'127.0.0.1:{free}', '127.0.0.1:{origin.port}'"
        path.write_text(good.replace("listeners:\n", f"listeners:\n  x: {{bind: [{binds}]}}\n"))
        os.kill(proxy.pid, signal.SIGHUP)
        await proxy.logged(f"127.0.0.1:{origin.port} is in use by another process")
        with pytest.raises(ConnectionRefusedError):
            await proxy.get(port=free)
        assert len((await proxy.status())["listeners"]) == 1
        assert set(await proxy.ask_all(3)) == {b"origin"}
    await origin.stop()


SCRIPT = """#!{python}
import sys
sys.path.insert(0, {root!r})
{lines}
from l7proxy.__main__ import main
main()
"""


def install(script: Path, lines: str = "") -> None:
    root = str(Path(__file__).parents[2])
    fresh = script.with_suffix(".new")
    fresh.write_text(SCRIPT.format(python=sys.executable, root=root, lines=lines))
    fresh.chmod(0o755)
    fresh.replace(script)


BROKEN = [
    ("raise SystemExit('the new program is broken')", "the new program is broken"),
    ("import no_such_module", "No module named"),
    ("if 'worker' in sys.argv: raise SystemExit(7)", 'by="exit code 7"'),
]


@pytest.mark.parametrize(("lines", "told"), BROKEN)
@patiently
async def test_a_new_program_that_cannot_start_changes_nothing(tmp_path: Path, lines: str, told: str) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2)
    script = tmp_path / "l7proxy"
    install(script)
    load = Load(port, kept=6, fresh=2)
    async with Workers(path, port, admin, [str(script)]) as proxy:
        before = await proxy.pids()
        async with load.running():
            install(script, lines)
            os.kill(proxy.pid, signal.SIGUSR2)
            await proxy.logged(told)
            await proxy.logged("restart refused")
            await load.more(50)
            assert await proxy.pids() == before
            install(script)  # mended
            os.kill(proxy.pid, signal.SIGUSR2)
            await proxy.logged("INFO l7proxy restarted")
            await all_gone(before)
            await load.more(50)
            assert len(await proxy.pids()) == 2
        assert not load.failures
    await origin.stop()


@pytest.mark.parametrize("workers", [1, 2])
@patiently
async def test_a_bad_file_refuses_the_restart(tmp_path: Path, workers: int) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, workers)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        path.write_text(path.read_text() + "nonsense: 1\n")
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.logged("unknown key 'nonsense'")
        await proxy.logged("refused")
        assert await proxy.pids() == before
        assert set(await proxy.ask_all(3)) == {b"origin"}
    await origin.stop()


@patiently
async def test_workers_serve_on_without_their_supervisor_and_are_named(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2)
    async with Workers(path, port, admin) as proxy:
        orphans = sorted(proxy.children())
        try:
            proxy.process.kill()
            proxy.process.wait()
            await proxy.times("the supervisor is gone", 2)
            assert set(await proxy.ask_all(5)) == {b"origin"}
            done = await asyncio.to_thread(l7proxy, "run", str(path))
            assert done.returncode == 1
            pids = " ".join(map(str, orphans))
            assert f"127.0.0.1:{port} is served by workers of an l7proxy that is gone, pid {pids}" in done.stderr
            assert f"`kill -9 {pids}` is the last resort" in done.stderr
            for pid in orphans:
                os.kill(pid, signal.SIGTERM)
            await all_gone(orphans)
        finally:
            for pid in orphans:
                kill(pid)
    await origin.stop()


@patiently
async def test_health_and_counts_are_everybodys(tmp_path: Path) -> None:
    sick = [False]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/healthz" in head and sick[0]:
            writer.write(b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n")
        else:
            await named(origin, head, reader, writer)

    origin, agent = await Origin(answer).start(), free_port()
    path, port, admin = several(
        tmp_path, origin, 2, upstream=CHECK, more=f"agent: {{bind: '127.0.0.1:{agent}'}}\nlimits: {{connections: 8}}"
    )
    async with Workers(path, port, admin) as proxy:
        assert Counter(map(status_of, [await proxy.get() for _ in range(12)])) == {200: 12}
        assert (await proxy.status())["counters"]["requests"] == 12
        assert (await line(agent)).startswith(b"up ready ")
        sick[0] = True
        await proxy.logged("backend is down")
        await until_all(proxy, 503)
        assert (await line(agent)).startswith(b"down#no upstream has a backend left")
        victim = min(await proxy.pids())
        os.kill(victim, signal.SIGKILL)
        await proxy.logged("worker serves")
        assert is_gone(victim)
        await until_all(proxy, 503)  # a newcomer knows as well
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.logged("INFO l7proxy restarted")
        await until_all(proxy, 503)  # and so does the next program
        assert proxy.log.read_text().count("backend is down") == 1, "once, not by each"
        sick[0] = False
        await until_all(proxy, 200)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        async with asyncio.timeout(PATIENCE_S):  # 4 of 8, over both workers
            while not re.fullmatch(rb"up (ready )?(50|[1-4]?[05])%\n", await line(agent)):  # noqa: ASYNC110 -- bounded
                await asyncio.sleep(0.05)
        assert (await proxy.status())["connections"] == 4
        for _, writer in idle:
            writer.close()
    await origin.stop()


async def line(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = await reader.read()
    writer.close()
    return said


async def until_all(proxy: Workers, status: int) -> None:
    """Wait until a dozen answers in a row have it: some of each worker."""
    async with asyncio.timeout(PATIENCE_S):
        while {status_of(await proxy.get()) for _ in range(12)} != {status}:  # noqa: ASYNC110 -- bounded
            await asyncio.sleep(0.02)


@patiently
async def test_a_stop_says_so_finishes_and_leaves_nobody(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await named(origin, head, reader, writer)

    origin, agent = await Origin(answer).start(), free_port()
    path, port, admin = several(
        tmp_path, origin, 2, more=f"agent: {{bind: '127.0.0.1:{agent}'}}\ntimeouts: {{notice: 300ms}}"
    )
    async with Workers(path, port, admin) as proxy:
        workers = proxy.children()
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for _, writer in pairs:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(origin.heads) == 6)
        began_at = time.monotonic()
        os.kill(proxy.pid, signal.SIGTERM)
        await proxy.logged("draining")
        assert await line(agent) == b"drain\n"
        late, to = await asyncio.open_connection("127.0.0.1", port)  # clients still come in
        to.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await idle_reader.read() == b""
        assert time.monotonic() - began_at >= 0.3
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert await line(agent) == b"drain\n"
        go.set()
        for reader in [late, *(reader for reader, _ in pairs)]:
            got = await reader.read()
            assert status_of(got) == 200
            assert fields_of(got, b"connection") == [b"close"]
        assert await proxy.ended() == 0
        assert all(map(is_gone, workers))
        for writer in [to, idle_writer, *(writer for _, writer in pairs)]:
            writer.close()
        assert "Traceback" not in proxy.log.read_text()
    await origin.stop()


@patiently
async def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    origin, outcome = await Origin(named).start(), Counter[str]()
    path, port, admin = several(tmp_path, origin, 2)
    async with Workers(path, port, admin) as proxy:
        async with asyncio.TaskGroup() as group:
            for index in range(32):
                group.create_task(asks_until_told(port, 0.005, outcome, index))
            async with asyncio.timeout(PATIENCE_S):
                while outcome["200"] < 1000:  # noqa: ASYNC110 -- no event
                    await asyncio.sleep(0.005)
            os.kill(proxy.pid, signal.SIGTERM)
        assert await proxy.ended() == 0
    assert failures(outcome) == {}, outcome
    assert outcome["told to close"] > 0
    await origin.stop()


@patiently
async def test_a_second_signal_stops_all_at_once(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    origin = await Origin(answer).start()
    path, port, admin = several(tmp_path, origin, 2)
    async with Workers(path, port, admin) as proxy:
        workers = proxy.children()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(origin.heads))
        os.kill(proxy.pid, signal.SIGTERM)
        await proxy.logged("draining")
        os.kill(proxy.pid, signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await proxy.ended() == 0
        assert all(map(is_gone, workers))
        await reader.read()
        writer.close()
    await origin.stop()


@patiently
async def test_a_worker_has_its_addresses_and_no_other_descriptor(tmp_path: Path) -> None:
    agent = free_port()
    path, port, admin = several(tmp_path, 8001, 2, more=f"agent: {{bind: '127.0.0.1:{agent}'}}")
    async with Workers(path, port, admin) as proxy:
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.logged("INFO l7proxy restarted")
        await until(lambda: len(proxy.children()) == 2)
        inodes = listening_inodes()
        for pid in proxy.children():
            links = links_of(pid)
            sockets = [link[8:-1] for link in links if link.startswith("socket:")]
            assert {inodes[inode] for inode in sockets if inode in inodes} == {port}
            assert len(sockets) <= 4  # the listener, its control channel, and what the loop wakes itself by
            shared = "/memfd:l7proxy-board (deleted)"
            assert [link for link in links if "memfd" in link or "pidfd" in link] == [shared]
            assert gains_no_privileges(pid)


def listening_inodes() -> dict[str, int]:
    """Ports by inode."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9]: int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def links_of(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def gains_no_privileges(pid: int) -> bool:
    return re.search(r"NoNewPrivs:\s+1", Path(f"/proc/{pid}/status").read_text()) is not None


@patiently
async def test_a_start_that_fails_is_a_sentence_and_leaves_nobody(tmp_path: Path) -> None:
    path, _, _ = several(tmp_path, 8001, 2)
    script = tmp_path / "l7proxy"
    install(script, "if 'worker' in sys.argv: raise SystemExit(7)")
    process = await asyncio.create_subprocess_exec(
        script, "run", str(path), stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    _, said = await asyncio.wait_for(process.communicate(), 3 * PATIENCE_S)
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert said.splitlines()[-1].startswith(b"l7proxy: worker ")


def test_what_was_left_must_be_what_it_says(tmp_path: Path) -> None:
    """An environment that names descriptors of others is refused, one of another pid is nothing."""
    path, _, _ = several(tmp_path, 8001, 1)
    code = (
        "import os, sys; os.environ['L7PROXY_INHERITED'] = f'{os.getpid()}:0'; "
        f"os.execv({L7PROXY[0]!r}, [*{L7PROXY!r}, 'run', {str(path)!r}])"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
