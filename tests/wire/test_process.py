"""The program itself: exit codes, signals, logs, and its memory under load."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.wire.harness import PATIENCE_S, Origin, config_text, fields_of, free_port, live, named, status_of, take

pytestmark = pytest.mark.unit

L7PROXY = [sys.executable, "-m", "l7proxy"]


def l7proxy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*L7PROXY, *arguments], capture_output=True, text=True, timeout=20, check=False)


def test_check_says_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config_text(8080, 8001, 8002))
    done = l7proxy("check", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{path}: ok: 1 listener, 1 route, 1 upstream, 2 backends\n",
        "",
    )


def test_check_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config_text(8080, 8001).replace("upstream: up", "upstream: u") + "x: 1\n")
    done = l7proxy("check", str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(": ", 1)[0] for line in done.stderr.splitlines()] == [f"{path}:5:27", f"{path}:12:1"]


@pytest.mark.parametrize(("arguments", "code"), [(["bogus"], 64), ([], 64), (["check"], 64), (["--help"], 0)])
def test_exit_codes_of_usage(arguments: list[str], code: int) -> None:
    done = l7proxy(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_check_does_without_the_http_stack() -> None:
    code = (
        "import sys, l7proxy.cli.main, l7proxy.core.config; "
        "sys.exit('aiohttp' in sys.modules or 'uvloop' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    done = l7proxy("run", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path.write_text(config_text(port, 8001))
        done = l7proxy("run", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"l7proxy: 127.0.0.1:{port} is in use by another process: ")
    assert len(done.stderr.splitlines()) == 1


class Process:
    """`l7proxy run` as a process of its own."""

    def __init__(
        self, path: Path, port: int, *before: str, stdout: int | None = None, program: list[str] | None = None
    ) -> None:
        self.port = port
        self.log = path.with_suffix(".log")
        self.access = path.with_suffix(".access")
        with self.log.open("wb") as log, self.access.open("wb") as access:
            to = access if stdout is None else stdout
            self.process = subprocess.Popen([*before, *(program or L7PROXY), "run", str(path)], stdout=to, stderr=log)

    async def __aenter__(self) -> Self:
        try:
            await self.logged("serving", 3 * PATIENCE_S)  # a busy machine takes long to start a Python
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    async def logged(self, text: str, within_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(within_s):
            while text not in self.log.read_text():  # noqa: ASYNC110 -- a file has no event
                await asyncio.sleep(0.02)

    def memory_bytes(self) -> int:
        """The most that was ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


@live
async def test_signals_and_logs(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    go = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in head:
            await go.wait()
        await named(origin, head, reader, writer)

    origin = await Origin(answer).start()
    good = config_text(port, origin).replace("access_log: false\n", "")
    path.write_text(good)
    async with Process(path, port) as proxy:
        path.write_text(good + "nonsense: 1\n")
        os.kill(proxy.process.pid, signal.SIGHUP)
        await proxy.logged("unknown key 'nonsense'")
        path.write_text(good)
        os.kill(proxy.process.pid, signal.SIGHUP)
        await proxy.logged("INFO l7proxy reloaded")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'GET /slow?"\\x=%0A HTTP/1.1\r\nHost: a\r\n\r\n')
        while not origin.heads:  # noqa: ASYNC110 -- bounded by the test
            await asyncio.sleep(0.005)
        os.kill(proxy.process.pid, signal.SIGTERM)
        await proxy.logged("draining")
        go.set()
        got = await reader.read()
        assert status_of(got) == 200
        assert fields_of(got, b"connection") == [b"close"]
        assert await proxy.ended() == 0
        writer.close()
        assert "Traceback" not in proxy.log.read_text()
        line = proxy.access.read_text()
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[[^]]+ \+0000\] "GET /slow\?\\"\\\\x=%0A HTTP/1\.1" 200 6 "-" "-" host="a" '
            r"scheme=http in=0 queue=\S+ connect=\S+ first_byte=\S+ total=\S+ "
            r"route=all upstream=up backend=b0 retries=0 cause=-\n",
            line,
        )
    await origin.stop()


@live
async def test_the_access_log_in_json_says_what_went_wrong_and_no_secret(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin, free_port()).replace("access_log: false", "access_log: json"))
    secrets = b"Authorization: Bearer s3cret\r\nCookie: a=s3cret\r\nX-Api-Key: s3cret\r\n"
    async with Process(path, port) as proxy:
        for request in (
            b'GET /%FF?q=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff"\r\n',
            b"GET /.. HTTP/1.1\r\nHost: a\r\n",
            b"rubbish\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request + secrets + b"Connection: close\r\n\r\n")
            await reader.read()
            writer.close()
        os.kill(proxy.process.pid, signal.SIGTERM)
        assert await proxy.ended() == 0
        lines = proxy.access.read_text().splitlines()
    assert "s3cret" not in "".join(lines)
    records = [json.loads(line) for line in lines]
    assert [(record["status"], record["cause"]) for record in records] == [
        (200, None),
        (400, "dangerous_path"),
        (400, "malformed_request"),
    ]
    assert (records[0]["target"], records[0]["user_agent"]) == ("/%FF?q=1", '\\xff"')
    await origin.stop()


@live
async def test_memory_stays_bounded_while_much_passes(tmp_path: Path) -> None:
    total, piece = 100 * 1024 * 1024, b"x" * 262_144
    port, path = free_port(), tmp_path / "a.yaml"

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, total if head.startswith(b"POST") else 0)
        size = 0 if head.startswith(b"POST") else total
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    origin = await Origin(answer).start()
    path.write_text(config_text(port, origin))
    async with Process(path, port) as proxy:
        before = proxy.memory_bytes()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await take(reader, total)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % total)
        for _ in range(total // len(piece)):
            writer.write(piece)
            await writer.drain()
        assert status_of(await reader.read()) == 200
        writer.close()
        assert proxy.memory_bytes() - before < 24 * 1024 * 1024
    await origin.stop()


def open_files(process: Process) -> tuple[int, int]:
    limits = Path(f"/proc/{process.process.pid}/limits").read_text()
    found = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits)
    assert found is not None
    return int(found[1]), int(found[2])


@live
async def test_the_limit_of_open_files_is_raised_and_clients_kept_within_it(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin, upstream="    timeouts: {keepalive: 1ms}"))
    flood: list[socket.socket] = []
    async with Process(path, port, "sh", "-c", 'ulimit -Sn 200; ulimit -Hn 256; exec "$@"', "sh") as proxy:
        assert open_files(proxy) == (256, 256)
        assert "open files allow" not in proxy.log.read_text()
        path.write_text(path.read_text() + "\nlimits: {connections: 400}\n")
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.logged("limits.connections is more than open files allow")
        established = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, writer in established:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status_of(await reader.readuntil(b"origin")) == 200
        try:
            for _ in range(400):
                client = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port), PATIENCE_S)
                flood.append(client)
                with contextlib.suppress(ConnectionError):  # it may be refused already
                    client.sendall(b"GET / HT")
            await proxy.logged('reason="open files allow no more"')
            for _ in range(3):
                for reader, writer in established:
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert status_of(await reader.readuntil(b"origin")) == 200
            newcomer, to = await asyncio.open_connection("127.0.0.1", port)
            assert status_of(await newcomer.readuntil(b"\r\n\r\n")) == 503
            to.close()
        finally:
            for client in flood:
                client.close()
            for _, writer in established:
                writer.close()
        assert "request failed" not in proxy.log.read_text()
    await origin.stop()


@live
async def test_a_reader_of_the_access_log_that_is_stuck_holds_up_nothing(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin).replace("access_log: false\n", ""))
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    try:
        async with Process(path, port, stdout=write_end) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(60):  # 180 KB of lines
                writer.write(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                assert status_of(await reader.readuntil(b"origin")) == 200
            writer.close()
            os.kill(proxy.process.pid, signal.SIGTERM)
            assert await proxy.ended() == 0
            assert "access log not written to its end" in proxy.log.read_text()
    finally:
        os.close(read_end)
        os.close(write_end)
    await origin.stop()


@live
async def test_a_second_one_at_the_same_address_is_refused(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    path.write_text(config_text(port, 8001))
    wide = tmp_path / "wide.yaml"
    wide.write_text(path.read_text().replace("127.0.0.1:" + str(port), f"0.0.0.0:{port}"))
    async with Process(path, port) as proxy:
        for reload_first in (False, True):
            if reload_first:  # it goes from one address to the other, and guards both as before
                path.write_text(wide.read_text())
                os.kill(proxy.process.pid, signal.SIGHUP)
                await proxy.logged("INFO l7proxy reloaded")
            for config in (path, wide):
                done = await asyncio.to_thread(l7proxy, "run", str(config))
                assert done.returncode == 1
                assert f":{port} is in use by another process: stop it" in done.stderr
                assert "SIGHUP" in done.stderr


@live
async def test_a_restart_at_once_finds_its_address_free(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.yaml"
    origin = await Origin(named).start()
    path.write_text(config_text(port, origin))
    for _ in range(2):
        async with Process(path, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert status_of(await reader.read()) == 200  # the proxy closed first: its side is in TIME_WAIT
            writer.close()
    await origin.stop()
