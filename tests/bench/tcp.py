"""`make bench-tcp`: l7proxy's TCP mode beside HAProxy's, on loopback, in the same run. Tables, then JSON.

One rule: all take their turn in every round, and each forwards the same connections to the same two origins; what the
load held back, and what else this machine did, is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from director.lab.bytecode import PROJECT
from tests.bench.l7 import here
from tests.bench.l7_figures import Answered, Sample, key, ratio
from tests.bench.l7_load import origin, script, wrk
from tests.bench.l7_measure import LOAD_CORE, PROXY_CORE, free_ports, go_ahead, pin, running
from tests.bench.l7_peers import MOST, PEERS, Command, Setting
from tests.bench.l7_rounds import Fleet, Load, rounds
from tests.bench.l7_rows import client_words
from tests.bench.l7_told import cpu, version

OURS = "l7proxy"
CONNECTIONS = 64
FULL = {"rounds": 5, "seconds": 2.0}
SHORT = {"rounds": 1, "seconds": 1.0}


def l7proxy(program: str, to: Setting) -> Command:
    backends = "\n".join(f"      o{port}: {{address: '127.0.0.1:{port}'}}" for port in to.origins)
    text = f"""\
listeners:
  web: {{bind: '127.0.0.1:{to.port}', tcp: {{upstream: origin}}}}
upstreams:
  origin:
    backends:
{backends}
limits: {{connections: {MOST}}}
access_log: true
"""
    path = to.folder / "l7proxy.yaml"
    path.write_text(text)
    return Command([program, "-m", "l7proxy", "run", str(path), "--log-level", "WARNING"])


def haproxy(program: str, to: Setting) -> Command:
    """One thread; buffers as large as malloc takes them without asking the kernel for each."""
    servers = "\n".join(f" server o{port} 127.0.0.1:{port}" for port in to.origins)
    text = f"""\
global
 nbthread 1
 maxconn {MOST}
 no strict-limits
 log stdout format raw local0
 tune.bufsize 114688
 tune.pipesize 1048576
defaults
 mode tcp
 log global
 option tcplog
 timeout connect 3s
 timeout client 1h
 timeout server 1h
frontend web
 bind 127.0.0.1:{to.port}
 default_backend origin
backend origin
 balance roundrobin
{servers}
"""
    path = to.folder / "haproxy.cfg"
    path.write_text(text)
    return Command([program, "-f", str(path)])


def haproxy_further(program: str, to: Setting) -> Command:
    """With bulk spliced within the kernel; buffers of the usual size, for they carry little then."""
    command = haproxy(program, to)
    path = to.folder / "haproxy.cfg"
    text = path.read_text().replace(" tune.bufsize 114688\n", "")
    path.write_text(text.replace(" option tcplog\n", " option tcplog\n option splice-auto\n"))
    return command


SET_UP: dict[str, Callable[[str, Setting], Command]] = {
    OURS: l7proxy,
    "haproxy": haproxy,
    "haproxy-further": haproxy_further,
}
TITLES = {OURS: "l7proxy", "haproxy": "HAProxy, buffers", "haproxy-further": "HAProxy, splicing"}


@contextmanager
def fleet(folder: Path, peers: Sequence[str]) -> Iterator[Fleet]:
    """The origin, and each of `peers` before it."""
    with ExitStack() as stack:
        first, second, *ports = free_ports(2 + len(peers))
        stack.enter_context(running([*pin(LOAD_CORE), *origin(folder, (first, second))], first, folder / "origin.err"))
        up = Fleet(first)
        for name, port in zip(peers, ports, strict=True):
            place = folder / name
            place.mkdir(exist_ok=True)
            command = SET_UP[name](PEERS[name].find(), Setting(place, port, (first, second)))
            words = [*pin(PROXY_CORE), *command.words]
            up.pids[name] = stack.enter_context(running(words, port, place / "standard-error", command.environment))
            up.ports[name] = port
        yield up


@dataclass(slots=True)
class Numbers:
    """Requests are numbered, and no two are alike."""

    last: int = 0

    def first(self) -> int:
        self.last += 10_000_000
        return self.last


def bulk(connections: int) -> Callable[[Path, Numbers], Load]:
    """10 MB answers, one after the other, on so many connections."""

    def made(_: Path, numbers: Numbers) -> Load:
        def load(port: int, seconds: float) -> Answered:
            options = {"port": port, "seconds": seconds, "first": numbers.first(), "kind": "m10"}
            said = {**options, "connections": connections}
            words = [
                *client_words("closed"),
                *(word for name, each in said.items() for word in (f"--{name}", str(each))),
            ]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=PROJECT, timeout=seconds + 60)
            return Answered(**json.loads(done.stdout))

        return load

    return made


def closing(text: str) -> str:
    """wrk's script, with each answer the last one of its connection."""
    return text.replace('"\\r\\n\\r\\n"', '"\\r\\nConnection: close\\r\\n\\r\\n"')


def by_wrk(*, kept: bool) -> Callable[[Path, Numbers], Load]:
    """1 KB answers on 64 connections that are kept, or on a connection each."""

    def made(folder: Path, numbers: Numbers) -> Load:
        lua = folder / "load.lua"

        def load(port: int, seconds: float) -> Answered:
            text = script("k1", numbers.first())
            lua.write_text(text if kept else closing(text))
            return wrk(pin(LOAD_CORE), f"http://127.0.0.1:{port}/", lua, seconds, CONNECTIONS, None)

        return load

    return made


@dataclass(frozen=True, slots=True)
class Row:
    """A load, and whether its figures are for bytes."""

    what: str
    load: Callable[[Path, Numbers], Load]
    is_bulk: bool = False


ROWS = {
    "bulk": Row("10 MB each on 4 connections", bulk(4), is_bulk=True),
    "bulk1": Row("10 MB each on 1 connection", bulk(1), is_bulk=True),
    "conns": Row("1 KB on a connection each, 64 at a time", by_wrk(kept=False)),
    "kept": Row("1 KB each on 64 kept connections", by_wrk(kept=True)),
}


def rate(row: Row, sample: Sample) -> float:
    """MB/s, or connections or requests a second."""
    return sample.answered.bytes_s / 1e6 if row.is_bulk else sample.answered.requests_s


def cost(row: Row, sample: Sample) -> float:
    """CPU time in microseconds of a MB, or of a connection or request."""
    return sample.cpu_us_mb if row.is_bulk else sample.cpu_us


def figures(name: str, row: Row, found: dict[str, list[Sample]]) -> dict[str, float]:
    """By the names in the JSON; `vs_haproxy` is against the better of its two."""
    by: dict[str, float] = {}
    for peer, samples in found.items():
        by[f"tcp_{name}_{key(peer)}"] = median(rate(row, each) for each in samples)
        by[f"tcp_{name}_cpu_us_{key(peer)}"] = median(cost(row, each) for each in samples)
        by[f"tcp_{name}_errors_{key(peer)}"] = sum(each.answered.errors for each in samples)
    others = [peer for peer in found if peer != OURS]
    if OURS in found and others:
        ours = found[OURS]
        fastest = max(others, key=lambda peer: by[f"tcp_{name}_{key(peer)}"])
        leanest = min(others, key=lambda peer: by[f"tcp_{name}_cpu_us_{key(peer)}"])
        by[f"tcp_{name}_vs_haproxy"] = ratio([rate(row, s) for s in ours], [rate(row, s) for s in found[fastest]])
        by[f"tcp_{name}_cpu_vs_haproxy"] = ratio([cost(row, s) for s in ours], [cost(row, s) for s in found[leanest]])
    return by


def lines(name: str, row: Row, found: dict[str, list[Sample]], by: dict[str, float]) -> list[str]:
    """A table."""
    words = ("MB/s", "CPU us/MB") if row.is_bulk else ("a second", "CPU us each")
    told = [f"\n{name}: {row.what}", f"  {'':20}{words[0]:>11}{words[1]:>13}  its core, load's, others on its core"]
    for peer, samples in found.items():
        own, load, others = (
            median(each)
            for each in zip(*((s.taken.proxy, s.taken.load_core_busy, s.taken.others) for s in samples), strict=True)
        )
        errors = int(by[f"tcp_{name}_errors_{key(peer)}"])
        told.append(
            f"  {TITLES[peer]:20}{by[f'tcp_{name}_{key(peer)}']:11.0f}{by[f'tcp_{name}_cpu_us_{key(peer)}']:13.1f}"
            f"  {own:8.0%}{load:8.0%}{others:8.0%}" + (f"  {errors} ERRORS" if errors else "")
        )
    if f"tcp_{name}_vs_haproxy" in by:
        told.append(
            f"  ours over the better of HAProxy's: {by[f'tcp_{name}_vs_haproxy']:.2f}, "
            f"CPU {by[f'tcp_{name}_cpu_vs_haproxy']:.2f}"
        )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few and short rounds: shows that it works")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="so many of each row")
    parser.add_argument("--seconds", type=float, help="of each proxy in each round")
    parser.add_argument("--ahead", action="store_true", help="before all else that this machine does (root)")
    said = parser.parse_args()
    amounts = SHORT if said.short else FULL
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the proxy, one for the load and the origin")
    if unknown := [name for name in said.only.split(",") if name not in ROWS]:
        raise SystemExit(f"{unknown[0]!r} is no row: choose from {','.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started must end
    if said.ahead:
        go_ahead()
    skipped: dict[str, str] = {}
    peers = here(list(SET_UP), skipped)
    count, seconds = said.rounds or int(amounts["rounds"]), said.seconds or amounts["seconds"]
    by: dict[str, float] = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    load_before = os.getloadavg()[0]
    numbers = Numbers()
    with tempfile.TemporaryDirectory(prefix="bench-tcp-", dir=memory) as place, fleet(Path(place), peers) as up:
        for name in said.only.split(","):
            row = ROWS[name]
            load = row.load(Path(place), numbers)
            found = rounds(up, tuple(peers), count, seconds, load, lambda line: None)
            new = figures(name, row, found)
            by.update(new)
            sys.stderr.write("\n".join(lines(name, row, found, new)) + "\n")
    fields = {
        **{f"tcp_{name}_vs_haproxy": None for name in ("bulk", "bulk_cpu", "conns")},
        **{name: round(value, 4) for name, value in by.items()},
        "rounds": count,
        "seconds": seconds,
        "machine": f"{cpu()}, {os.cpu_count()} CPUs",
        "versions": {TITLES[name]: version(name) for name in peers if PEERS[name].version},
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "skipped": skipped,
    }
    sys.stdout.write(json.dumps(fields) + "\n")


if __name__ == "__main__":
    main()
