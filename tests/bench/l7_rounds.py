"""The rounds of `make bench-l7`: the proxies at work, one after the other, again and again.

One rule: within a row all are started alike and run on; only one of them has load at a time.
"""

from __future__ import annotations

import http.client
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.l7_figures import Answered, Sample
from tests.bench.l7_load import SEEN, origin
from tests.bench.l7_measure import LOAD_CORE, PROXY_CORE, Meter, free_ports, pin, running
from tests.bench.l7_peers import COOKIE, HOSTS, PEERS, Setting

Load = Callable[[int, float], Answered]
"""Asks the proxy at a port, for so many seconds."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The proxies of one row, running. `skipped`: those that are not used, and why."""

    origin_port: int
    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@contextmanager
def fleet(
    folder: Path,
    peers: Sequence[str],
    certificate: Path | None = None,
    cipher: str = "",
    body_bytes: int = 1024,
    real_time: bool = False,
    sticky: bool = False,
) -> Iterator[Fleet]:
    """Start the origin and each of `peers`; what does not do the work that all do is skipped."""
    with ExitStack() as stack:
        first, second, *ports = free_ports(2 + len(peers))
        started = [*pin(LOAD_CORE, real_time), *origin(folder, (first, second))]
        stack.enter_context(running(started, first, folder / "origin.err"))
        up = Fleet(first)
        for name, port in zip(peers, ports, strict=True):
            place = folder / name
            place.mkdir(exist_ok=True)
            peer, log = PEERS[name], place / "standard-error"
            command = peer.set_up(peer.find(), Setting(place, port, (first, second), certificate, body_bytes, sticky))
            if reason := _refusal(command.check):
                up.skipped[name] = reason
                continue
            words = [*pin(PROXY_CORE, real_time), *command.words]
            pid = stack.enter_context(running(words, port, log, command.environment))
            if reason := lasting_fault(port, cipher if certificate else ""):
                up.skipped[name] = reason
                continue
            if sticky and not sessions_at(port):
                up.skipped[name] = f"it sets no cookie {COOKIE}"
                continue
            up.pids[name], up.ports[name] = pid, port
        yield up


def _refusal(words: list[str]) -> str:
    """What a check of the configuration says, or "" when it is good."""
    if not words:
        return ""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return (done.stderr.strip().splitlines() or ["its configuration is refused"])[0] if done.returncode else ""


def lasting_fault(port: int, cipher: str, limit_s: float = 5.0) -> str:
    """What is still wrong after a while: some listen before they have their routes."""
    until = time.monotonic() + limit_s
    while (reason := fault(port, cipher)) and time.monotonic() < until:
        time.sleep(0.1)
    return reason


def fault(port: int, cipher: str) -> str:
    """What a proxy does otherwise than all: "" if it routes, adds X-Forwarded-For, and speaks TLS 1.3 with `cipher`."""
    context = None
    if cipher:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("GET", SEEN, headers={"Host": HOSTS[0]})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"it does not answer{' over TLS 1.3' if cipher else ''}: {error!r}"
    finally:
        connection.close()
    if answer.status != 200 or body != b"seen":
        return f"it answers {answer.status} where 200 was due"
    if not answer.getheader("X-Seen"):
        return "X-Forwarded-For does not reach the origin"
    return ""


def sessions_at(port: int, asked: int = 8) -> list[str]:
    """Cookies that the proxy gives new clients, two at most, with their name."""
    found: dict[str, None] = {}
    for _ in range(asked):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", SEEN, headers={"Host": HOSTS[0]})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        given = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        if given.startswith(f"{COOKIE}="):
            found[given] = None
    return list(found)[:2]


def rounds(
    up: Fleet, peers: Sequence[str], count: int, seconds: float, load: Load, tell: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """After a turn of a second that does not count, each of `peers` that runs takes its turn `count` times."""
    here = [name for name in peers if name in up.ports]
    found: dict[str, list[Sample]] = {name: [] for name in here}
    for name in here:
        load(up.ports[name], 1.0)
    for number in range(count):
        for name in here:
            meter = Meter(up.pids[name])
            answered = load(up.ports[name], seconds)
            sample = Sample(answered, meter.taken())
            found[name].append(sample)
            tell(f"{number + 1} of {count}: {PEERS[name].title}: {_told(sample)}")
    return found


def _told(sample: Sample) -> str:
    answered, taken = sample.answered, sample.taken
    wrong = f", {answered.errors} ERRORS" if answered.errors else ""
    return (
        f"{answered.requests_s:.0f} requests/s, {sample.cpu_us:.1f} us CPU each, p99 {answered.p99_ms:.2f} ms; "
        f"it had {taken.proxy:.0%} of its core, others {taken.others:.0%}; "
        f"load's core {taken.load_core_busy:.0%}{wrong}"
    )
