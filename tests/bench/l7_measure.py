"""Processes on their cores, and what they take of them.

One rule: what was started here is ended here, by its process id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.l7_figures import Taken

PROXY_CORE, LOAD_CORE = 0, 1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def pin(core: int, real_time: bool = False) -> list[str]:
    """What stands before a command that is to have one core only; in real time, before all that is not."""
    return [*(["chrt", "-f", "1"] if real_time else []), "taskset", "-c", str(core)]


def real_time_allowed() -> bool:
    return subprocess.run([*pin(LOAD_CORE, True), "true"], capture_output=True, check=False).returncode == 0


def go_ahead() -> None:
    """Come before what else this machine does, with all that is started here. Root only.

    Where sched_autogroup is on (sched(7)), a nice value counts within a session only, and the session has its own.
    """
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("-15")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in with_ports]
    for each in with_ports:
        each.close()
    return ports


@contextmanager
def running(words: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """A program, its standard output to /dev/null, from when it listens at `port`. Its process id."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
    try:
        _await_port(process, port, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path, limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit(f"{' '.join(map(str, process.args))} did not start:\n{log.read_text(errors='replace')[-2000:]}")  # type: ignore[arg-type]


def family(pid: int) -> list[int]:
    """A process and what it has started."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process and of what it has started, as the scheduler counts it."""
    total_ns = 0
    for each in family(pid):
        for path in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with suppress(OSError):
                total_ns += int(path.read_text().split()[0])
    return total_ns / 1e9


def memory_kb(pid: int) -> int:
    """Memory of its own: proportional set size, without the files that it has mapped."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Pss_Anon", "Pss_Shmem"):
                total += int(rest.split()[0])
    return total


class Meter:
    """What a process takes from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._look()

    def _look(self) -> tuple[float, ...]:
        idle: dict[str, float] = {}
        for line in Path("/proc/stat").read_text().splitlines():
            words = line.split()
            if words[0].startswith("cpu"):
                idle[words[0]] = (int(words[4]) + int(words[5])) * _TICK_S
        return time.monotonic(), cpu_s(self._pid), idle[f"cpu{PROXY_CORE}"], idle[f"cpu{LOAD_CORE}"]

    def taken(self) -> Taken:
        seconds, proxy_s, *idle = (now - then for now, then in zip(self._look(), self._began, strict=True))
        busy = [min(1.0, max(0.0, 1 - each / seconds)) for each in idle]
        return Taken(seconds, proxy_s, *busy)
