"""The rows of `make bench-l7`: which load, upon proxies set up how.

One rule: a row stands alone; `--only` can leave out any other.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from director.lab.bytecode import PROJECT
from l7proxy import descriptors
from tests.bench.l7_figures import OURS, Answered, Sample
from tests.bench.l7_load import KINDS, script, wrk
from tests.bench.l7_measure import LOAD_CORE, memory_kb, pin
from tests.bench.l7_peers import PEERS
from tests.bench.l7_rounds import Fleet, Load, fleet, rounds, sessions_at
from tests.bench.l7_routes import MANY, both, measured, sampled
from tests.bench.l7_routes import script as routes_script

CONNECTIONS = 64
BULK_CONNECTIONS = 4
CIPHER = "TLS_AES_128_GCM_SHA256"
FEW, MOST = 1_000, 10_000
JUDGED = (OURS, "haproxy", "nginx")
"""Those whose p99 is looked at once more, nearer to their capacity."""
A_TURN = 10_000_000
"""Requests are numbered; no turn sends so many."""


@dataclass(slots=True)
class Run:
    """What the command line asked for, and what became known on the way. `told`: what a row's load was in the end."""

    folder: Path
    peers: list[str]
    count: int
    seconds: float
    skipped: dict[str, str]
    real_time: bool = False
    """Where single requests are timed, all that takes part runs before what else this machine does."""
    told: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, float] = field(default_factory=dict)
    """Requests/s that each answers in a closed loop."""
    ceiling: float = 0.0
    """What the load gets out of the origin alone."""
    number: int = 0

    def tell(self, line: str) -> None:
        sys.stderr.write(f"  {line}\n")

    @contextmanager
    def up(
        self, row: str, tls: bool = False, body_bytes: int = 1024, real_time: bool = False, sticky: bool = False
    ) -> Iterator[Fleet]:
        """The proxies, started for a row; with large bodies, HAProxy tuned further too."""
        certificate = self._certificate() if tls else None
        peers = [name for name in self.peers if name != "haproxy-further" or body_bytes > 16384]
        with fleet(self.folder, peers, certificate, CIPHER, body_bytes, real_time, sticky) as up:
            self.skipped.update({f"{row}: {PEERS[name].title}": why for name, why in up.skipped.items()})
            yield up

    def rounds(self, up: Fleet, load: Load, peers: tuple[str, ...] = tuple(PEERS)) -> dict[str, list[Sample]]:
        return rounds(up, peers, self.count, self.seconds, load, self.tell)

    def first(self) -> int:
        """The number that a turn's requests begin at: no URL comes twice."""
        self.number += A_TURN
        return self.number

    def with_wrk(self, scheme: str = "http", in_session: bool = False) -> Load:
        lua, openssl = self.folder / "load.lua", self._openssl() if scheme == "https" else None

        def load(port: int, seconds: float) -> Answered:
            lua.write_text(script("k1", self.first(), sessions_at(port) if in_session else ("",)))
            return wrk(pin(LOAD_CORE), f"{scheme}://127.0.0.1:{port}/", lua, seconds, CONNECTIONS, openssl)

        return load

    def with_client(self, what: str, real_time: bool = False, **options: object) -> Load:
        def load(port: int, seconds: float) -> Answered:
            said = {"port": port, "seconds": seconds, "first": self.first(), **options}
            words = [
                *client_words(what, real_time),
                *(word for name, value in said.items() for word in (f"--{name}", str(value))),
            ]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=PROJECT, timeout=seconds + 60)
            return Answered(**json.loads(done.stdout))

        return load

    def idle(self) -> dict[str, list[tuple[int, int]]]:
        """By proxy, its memory in KB with so many idle connections, none at first; each of them was used once."""
        found: dict[str, list[tuple[int, int]]] = {}
        with self.up("idle") as up:
            warm_up = self.with_wrk()
            for name, port in up.ports.items():
                warm_up(port, 1.0)
                found[name] = [(0, memory_kb(up.pids[name]))]
                words = [*client_words("idle"), "--port", str(port)]
                with subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
                ) as client:
                    assert client.stdin is not None
                    assert client.stdout is not None
                    for count in (FEW, idle_most()):
                        client.stdin.write(f"{count}\n")
                        client.stdin.flush()
                        if client.stdout.readline().strip() != str(count):
                            self.skipped[f"idle: {PEERS[name].title}"] = f"it did not take {count} connections"
                            del found[name]
                            break
                        found[name].append((count, memory_kb(up.pids[name])))
                    client.stdin.close()
                if name in found:
                    self.tell(f"{PEERS[name].title}: {found[name]}")
        return found

    def routes(self) -> dict[str, list[Sample]]:
        """By how many routes it has."""
        lua = self.folder / "load.lua"

        def ask(port: int, seconds: float) -> Answered:
            lua.write_text(routes_script(self.first()))
            return wrk(pin(LOAD_CORE), f"http://127.0.0.1:{port}/", lua, seconds, CONNECTIONS, None)

        with both(self.folder) as up:
            return sampled(up, self.count, self.seconds, measured(up, ask), self.tell)

    def _certificate(self) -> Path:
        path, its_key = self.folder / "certificate.pem", self.folder / "key.pem"
        if not path.exists():
            words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            words += [
                "-days",
                "30",
                "-subj",
                "/CN=example.org",
                "-addext",
                "subjectAltName=DNS:*.example.org,IP:127.0.0.1",
            ]
            subprocess.run([*words, "-keyout", its_key, "-out", path], check=True, capture_output=True)
            path.write_text(path.read_text() + its_key.read_text())
        return path

    def _openssl(self) -> Path:
        """A configuration of OpenSSL that leaves the load TLS 1.3 and one cipher: so all proxies use these."""
        path = self.folder / "openssl.cnf"
        path.write_text(
            "openssl_conf = conf\n[conf]\nssl_conf = modules\n[modules]\nsystem_default = default\n[default]\n"
            f"MinProtocol = TLSv1.3\nCiphersuites = {CIPHER}\n"
        )
        return path


def idle_most() -> int:
    """Idle connections at most: 10,000, or what l7proxy takes of clients with the file descriptors that there are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST, descriptors.share_out(2**30 if hard == resource.RLIM_INFINITY else hard).clients - 10)


def client_words(what: str, real_time: bool = False) -> list[str]:
    return [*pin(LOAD_CORE, real_time), sys.executable, "-m", "tests.bench.l7_client", what]


Rows = dict[str, dict[str, list[Sample]]]


def unique(run: Run) -> Rows:
    with run.up("unique") as up:
        load = run.with_wrk()
        run.ceiling = load(up.origin_port, 1.0).requests_s
        found = run.rounds(up, load)
    run.capacity = {name: median(each.answered.requests_s for each in samples) for name, samples in found.items()}
    return {"unique": found}


def sticky(run: Run) -> Rows:
    """Clients bring the cookies that the proxy gave, each request one of two."""
    with run.up("sticky", sticky=True) as up:
        return {"sticky": run.rounds(up, run.with_wrk(in_session=True))}


def tls(run: Run) -> Rows:
    with run.up("tls", tls=True) as up:
        return {"tls": run.rounds(up, run.with_wrk("https"))}


def k100(run: Run) -> Rows:
    with run.up("k100", body_bytes=KINDS["k100"]) as up:
        return {"k100": run.rounds(up, run.with_client("closed", kind="k100", connections=CONNECTIONS))}


def m10(run: Run) -> Rows:
    with run.up("m10", body_bytes=KINDS["m10"]) as up:
        return {"m10": run.rounds(up, run.with_client("closed", kind="m10", connections=BULK_CONNECTIONS))}


def p99(run: Run) -> Rows:
    """Twice: at half of the slowest one's capacity, and at half of the slowest one's of `JUDGED`."""
    found: Rows = {}
    with run.up("p99", real_time=run.real_time) as up:
        for name in up.ports:
            if name not in run.capacity:
                run.capacity[name] = run.with_wrk()(up.ports[name], 1.0).requests_s
        for row, peers in (("p99", tuple(up.ports)), ("p99_busy", JUDGED)):
            known = [name for name in peers if name in up.ports]
            slowest = min(known, key=lambda name: run.capacity[name])
            rate = run.capacity[slowest] / 2
            run.told[row] = (
                f"open loop at {rate:.0f} requests/s, half of {PEERS[slowest].title}'s capacity, at random times"
            )
            run.tell(run.told[row])
            if row != "p99" and run.told[row] == run.told["p99"]:
                found[row] = {name: found["p99"][name] for name in known}
                continue
            load = run.with_client("at_times", run.real_time, rate=rate, connections=CONNECTIONS)
            found[row] = run.rounds(up, load, tuple(known))
    return found


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    go: Callable[[Run], Rows]


ROWS = {
    "unique": Row(f"1 KB, every URL and every head different, ten browser headers, {CONNECTIONS} connections", unique),
    "sticky": Row("the same with sessions by cookie, which the proxy sets and clients bring", sticky),
    "tls": Row(f"as `unique` over TLS 1.3, {CIPHER}, kept-alive", tls),
    "k100": Row(f"100 KB, {CONNECTIONS} connections, buffers tuned", k100),
    "m10": Row(f"10 MB, {BULK_CONNECTIONS} connections, buffers tuned", m10),
    "p99": Row("open loop", p99),
    "routes": Row(
        f"{MANY:,} routes beside one, both ours; each request takes another one of the {MANY:,}", lambda run: {}
    ),
    "idle": Row(f"memory of idle connections, {FEW:,} and up to {MOST:,}, each used once", lambda run: {}),
}
