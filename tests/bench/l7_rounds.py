"""The rounds of `make bench-l7`: the proxies at work, one after the other, again and again.

One rule: within a row all are started alike and run on; only one of them has load at a time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.l7_load import Answered, origin
from tests.bench.l7_measure import LOAD_CORE, PROXY_CORE, Meter, Taken, free_ports, running
from tests.bench.l7_peers import PEERS, Setting

WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy in one round."""

    answered: Answered
    taken: Taken

    @property
    def cpu_us(self) -> float:
        """CPU time of the proxy a request."""
        return self.taken.proxy_s / self.answered.requests * 1e6


@dataclass(frozen=True, slots=True)
class Fleet:
    """The proxies of one row, running. `skipped`: those that are not, and why."""

    origin: int
    ports: dict[str, int]
    pids: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)


@contextmanager
def fleet(folder: Path, peers: Sequence[str], certificate: Path | None = None, large: bool = False) -> Iterator[Fleet]:
    """Start the origin and each of `peers`; what refuses its configuration is skipped."""
    with ExitStack() as stack:
        first, second, *ports = free_ports(2 + len(peers))
        started = stack.enter_context(running(origin(folder, (first, second)), LOAD_CORE, first, folder / "origin.err"))
        up = Fleet(started, {}, {})
        for name, port in zip(peers, ports, strict=True):
            place = folder / name
            place.mkdir(exist_ok=True)
            peer = PEERS[name]
            command = peer.set_up(peer.find(), Setting(place, port, (first, second), certificate, large))
            if reason := _refusal(command.check):
                up.skipped[name] = reason
                continue
            log, environment = place / "standard-error", dict(command.environment)
            up.pids[name] = stack.enter_context(running(command.words, PROXY_CORE, port, log, environment))
            up.ports[name] = port
        yield up


def _refusal(words: list[str]) -> str:
    """What a check of the configuration says, or "" when it is good."""
    if not words:
        return ""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return (done.stderr.strip().splitlines() or ["refused"])[0] if done.returncode else ""


def rounds(
    up: Fleet, count: int, seconds: float, load: Callable[[str, float], Answered], tell: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Each takes its turn `count` times; `load` asks a proxy, by its name, for so many seconds."""
    found: dict[str, list[Sample]] = {name: [] for name in up.ports}
    for number in range(-1, count):
        for name in up.ports:
            if number < 0:
                load(name, WARM_UP_S)
                continue
            meter = Meter(up.pids[name], up.origin)
            answered = load(name, seconds)
            found[name].append(Sample(answered, meter.taken()))
            tell(f"round {number + 1} of {count}: {PEERS[name].title}: {_told(found[name][-1])}")
    return found


def _told(sample: Sample) -> str:
    taken = sample.taken
    wrong = f", {sample.answered.errors} ERRORS" if sample.answered.errors else ""
    return (
        f"{sample.answered.requests_s:.0f} requests/s, {sample.cpu_us:.1f} us CPU each, "
        f"p99 {sample.answered.p99_ms:.2f} ms; busy: its core {taken.proxy_core_busy:.0%} (others {taken.others:.0%}), "
        f"load's {taken.load_core_busy:.0%}{wrong}"
    )
