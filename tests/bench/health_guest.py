"""Measures the director beside keepalived inside of the lab: `python -m tests.bench.health_guest FOLDER KILLS CROWDS
ROUNDS SECONDS`, which prints JSON. Samples are in seconds.

One rule: all take turns in the same run, and the kernel's table is the witness, read over netlink every few
milliseconds by this process, which probes nothing.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.health_subjects import DIRECTOR, KEEPALIVED, SENTINEL, Kind, Namespace, Peers, Subject, join

KINDS = (KEEPALIVED, DIRECTOR, SENTINEL)
FEW, CROWD, MANY = 10, 100, 200
LOOK_S = 0.001
BETWEEN_S = 1.2
SETTLED_S = 2.5
GONE_S = 30.0
PROBING = (
    Kind("keepalived_tcp", "keepalived"),
    Kind("tcp", "director"),
    Kind("keepalived_http", "keepalived", "http"),
    Kind("http", "director", "http"),
    Kind("http_kept", "director", "http", sentinel=True),
)
Samples = dict[str, list[float]]
chance = random.Random()  # noqa: S311 -- no secret


class Places:
    """Namespaces: one for the peers, and one for each who is measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers = Namespace()
        self.peers.ip("link set lo up", "route add local 10.77.0.0/16 dev lo")
        self._count = 0

    @contextmanager
    def running(self, *wanted: tuple[Kind, list[str]]) -> Iterator[list[Subject]]:
        """Started at one time, and ended; they are up."""
        subjects = []
        for kind, addresses in wanted:
            self._count += 1
            place = Namespace()
            join(self.peers, place, self._count)
            subjects.append(Subject(kind, place, addresses, self.folder / f"{self._count}-{kind.name}"))
        for subject in subjects:
            subject.wait_until_up()
        time.sleep(SETTLED_S)
        yield subjects
        for subject in subjects:
            subject.end()


def addresses(group: int, count: int) -> list[str]:
    return [f"10.77.{group}.{number + 1}" for number in range(count)]


class Killing:
    """Kills each server of one subject several times, and sees when the kernel has it at weight 0.

    A failure is found sooner or later by when in its interval it comes: the kills of a server are spread evenly over a
    second, from a point of chance on. So fewer of them say as much, and no program is lucky.
    """

    def __init__(self, subject: Subject, peers: Peers, kills: int) -> None:
        self.took: list[float] = []
        self._subject = subject
        self._peers = peers
        self._killed: dict[str, float] = {}
        self._phases: dict[str, list[float]] = {}
        for address in subject.addresses:
            first = chance.random()
            phases = [(first + number / kills) % 1 for number in range(kills)]
            self._phases[address] = chance.sample(phases, kills)
        self._due_at = {address: self._next_at(address) for address in subject.addresses}

    def step(self) -> bool:
        """Whether there is more to do."""
        table, peers = self._subject.table, self._peers
        if table.read():
            for address in [each for each in self._killed if not table.weights.get(each)]:
                self.took.append(table.read_at - self._killed.pop(address))
                peers.start([address])
        for address, phases in self._phases.items():
            if phases and address not in self._due_at and address not in self._killed and self._is_well(address):
                self._due_at[address] = self._next_at(address)
        for address in [each for each, at in self._due_at.items() if table.read_at >= at]:
            del self._due_at[address]
            self._killed[address] = peers.kill(address)
        if any(table.read_at - at > GONE_S for at in self._killed.values()):
            raise SystemExit(f"{self._subject.kind.name}: a killed server has its weight after {GONE_S:g} s")
        return bool(self._killed or any(self._phases.values()) or self._due_at)

    def _is_well(self, address: str) -> bool:
        return self._subject.table.weights.get(address) == 100 and address in self._peers.pids

    def _next_at(self, address: str) -> float:
        """When to kill it next: in its phase, and after a probe that was good."""
        earliest = time.monotonic() + BETWEEN_S
        return earliest + (self._phases[address].pop() - earliest) % 1


def one_by_one(places: Places, kills: int) -> tuple[Samples, float]:
    """From SIGKILL of one of ten servers, of each `kills` times, to its weight 0; and the time between two looks."""
    peers = Peers(places.peers, places.folder)
    wanted = [(kind, addresses(group, FEW)) for group, kind in enumerate(KINDS)]
    peers.start(address for _, each in wanted for address in each)
    peers.hear(wait=True)
    looks, began_at = 0, 0.0
    with places.running(*wanted) as subjects:
        began_at = time.monotonic()
        trials = {subject.kind.name: Killing(subject, peers, kills) for subject in subjects}
        while sum(trial.step() for trial in trials.values()):
            peers.hear()
            looks += 1
            time.sleep(LOOK_S)
        took = time.monotonic() - began_at
    peers.end()
    return {name: trial.took for name, trial in trials.items()}, took / looks


def all_at_once(places: Places, kind: Kind, times: int) -> list[list[float]]:
    """From SIGKILL of all of a hundred servers to the weight 0 of each."""
    peers = Peers(places.peers, places.folder)
    servers = addresses(3, CROWD)
    peers.start(servers)
    peers.hear(wait=True)
    found: list[list[float]] = []
    with places.running((kind, servers)) as (subject,):
        for number in range(times):
            if number:
                peers.start(servers)
                peers.hear(wait=True)
                subject.wait_until_up()
                time.sleep(SETTLED_S)
            time.sleep(chance.random())
            killed = {address: peers.kill(address) for address in servers}
            took: list[float] = []
            until_at = time.monotonic() + GONE_S
            while killed:
                table = subject.table
                if table.read():
                    out = [address for address in killed if not table.weights.get(address)]
                    took += [table.read_at - killed.pop(address) for address in out]
                if table.read_at > until_at:
                    raise SystemExit(f"{kind.name}: killed servers have their weight after {GONE_S:g} s")
                time.sleep(LOOK_S)
            found.append(took)
    peers.end()
    return found


def cost(places: Places, kind: Kind, seconds: float) -> dict[str, float]:
    """CPU time and probes in the steady state: 200 servers once a second.

    The user-mode kernel tells a process's CPU time by who runs at its ticks, every 10 ms, and so misses most of those
    who work in between. It knows better when it was idle (tick_nohz_stop_idle): nobody else works here but the real
    servers, and they know how long they took.
    """
    peers = Peers(places.peers, places.folder)
    peers.serve()
    with places.running((kind, addresses(4, MANY))) as (subject,):
        connections, requests, theirs_s = peers.counts()
        busy_s = not_idle_s()
        time.sleep(seconds)
        busy_s = not_idle_s() - busy_s
        counts = peers.counts()
        rss_mb = subject.rss_mb()
    peers.end()
    connections, requests = counts[0] - connections, counts[1] - requests
    return {
        "cpu_s": busy_s - (counts[2] - theirs_s),
        "servers_s": counts[2] - theirs_s,
        "connections": connections,
        "probes": requests if kind.check == "http" else connections,
        "rss_mb": rss_mb,
    }


def not_idle_s() -> float:
    """For how long this kernel, which has one CPU, was not idle, since a point in the past."""
    user, nice, system, idle, waiting, *_ = map(int, Path("/proc/stat").read_text().split(maxsplit=10)[1:10])
    del user, nice, system
    return time.monotonic() - (idle + waiting) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    folder, kills, crowds, rounds, seconds = Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])
    folder.mkdir(exist_ok=True)
    places = Places(folder)
    took, look_s = one_by_one(places, kills)
    crowd = {kind.name: all_at_once(places, kind, crowds) for kind in KINDS}
    costs: dict[str, list[dict[str, float]]] = {kind.name: [] for kind in PROBING}
    for number in range(rounds):
        for kind in PROBING if number % 2 == 0 else PROBING[::-1]:
            costs[kind.name].append(cost(places, kind, seconds))
    sys.stdout.write(json.dumps({"one": took, "look_s": look_s, "crowd": crowd, "cost": costs, "servers": MANY}))


if __name__ == "__main__":
    main()
