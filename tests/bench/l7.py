"""`make bench-l7`: l7proxy beside HAProxy, nginx and others, on loopback, in the same run. A table, then JSON.

One rule: all take their turn in every round; a ratio is the median of the rounds' own; what the load and the origin
held back, and what else this machine did, is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.l7_load import Answered, script, wrk
from tests.bench.l7_measure import LOAD_CORE, pin
from tests.bench.l7_peers import PEERS
from tests.bench.l7_rounds import Fleet, Sample, fleet, rounds

CONNECTIONS = 64
OURS = "l7proxy"
ROWS = ("unique", "tls")
CIPHER = "TLS_AES_128_GCM_SHA256"


@dataclass(slots=True)
class Run:
    """What the command line asked for, and what was found so far."""

    folder: Path
    peers: list[str]
    count: int
    seconds: float
    skipped: dict[str, str]
    number: int = 0
    """The last request's: no URL comes twice."""

    def tell(self, line: str) -> None:
        sys.stderr.write(f"  {line}\n")

    def certificate(self) -> Path:
        path, key = self.folder / "certificate.pem", self.folder / "key.pem"
        if not path.exists():
            words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            words += ["-days", "30", "-subj", "/CN=example.org", "-addext", "subjectAltName=DNS:*.example.org"]
            words += ["-keyout", str(key), "-out", str(path)]
            subprocess.run(words, check=True, capture_output=True)
            path.write_text(path.read_text() + key.read_text())
        return path

    def openssl(self) -> Path:
        """A configuration of OpenSSL that leaves the load TLS 1.3 and one cipher: so all servers use these."""
        path = self.folder / "openssl.cnf"
        path.write_text(
            "openssl_conf = conf\n[conf]\nssl_conf = modules\n[modules]\nsystem_default = default\n[default]\n"
            f"MinProtocol = TLSv1.3\nCiphersuites = {CIPHER}\n"
        )
        return path

    def with_wrk(self, up: Fleet, scheme: str) -> Callable[[str, float], Answered]:
        lua = self.folder / "load.lua"

        def load(name: str, seconds: float) -> Answered:
            lua.write_text(script("k1", self.number))
            self.number += 10_000_000
            url = f"{scheme}://127.0.0.1:{up.ports[name]}/"
            openssl = self.openssl() if scheme == "https" else None
            return wrk(pin(LOAD_CORE), url, lua, seconds, CONNECTIONS, openssl)

        return load


def unique(run: Run) -> dict[str, list[Sample]]:
    with fleet(run.folder, run.peers) as up:
        return rounds(up, run.count, run.seconds, run.with_wrk(up, "http"), run.tell)


def tls(run: Run) -> dict[str, list[Sample]]:
    with fleet(run.folder, run.peers, run.certificate()) as up:
        run.skipped.update({f"tls {name}": reason for name, reason in up.skipped.items()})
        return rounds(up, run.count, run.seconds, run.with_wrk(up, "https"), run.tell)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Ours over theirs: the median of the rounds' own ratios."""
    return median(our / their for our, their in zip(ours, theirs, strict=True))


def figures(row: str, found: dict[str, list[Sample]]) -> dict[str, float]:
    by: dict[str, float] = {}
    for name, samples in found.items():
        by[f"{row}_requests_s_{name}"] = median(each.answered.requests_s for each in samples)
        by[f"{row}_cpu_us_{name}"] = median(each.cpu_us for each in samples)
        by[f"{row}_p50_ms_{name}"] = median(each.answered.p50_ms for each in samples)
        by[f"{row}_p99_ms_{name}"] = median(each.answered.p99_ms for each in samples)
        by[f"{row}_busy_{name}"] = median(each.taken.proxy_s / each.taken.seconds for each in samples)
        if name != OURS and OURS in found:
            by[f"{row}_vs_{name}"] = ratio(
                [each.answered.requests_s for each in found[OURS]], [each.answered.requests_s for each in samples]
            )
            by[f"{row}_cpu_vs_{name}"] = ratio([each.cpu_us for each in found[OURS]], [each.cpu_us for each in samples])
    return by


def table(row: str, by: dict[str, float], peers: list[str]) -> list[str]:
    lines = [
        f"{row:10}{'requests/s':>12}{'ours/its':>10}{'CPU us':>9}{'ours/its':>10}{'p50 ms':>9}{'p99 ms':>9}{'busy':>7}"
    ]
    for name in peers:
        if f"{row}_requests_s_{name}" not in by:
            continue
        vs, cpu_vs = (f"{by[key]:.2f}" if key in by else "" for key in (f"{row}_vs_{name}", f"{row}_cpu_vs_{name}"))
        lines.append(
            f"  {name:8}{by[f'{row}_requests_s_{name}']:12.0f}{vs:>10}{by[f'{row}_cpu_us_{name}']:9.1f}{cpu_vs:>10}"
            f"{by[f'{row}_p50_ms_{name}']:9.2f}{by[f'{row}_p99_ms_{name}']:9.2f}{by[f'{row}_busy_{name}']:7.0%}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few and short rounds: shows that it works")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="of each proxy in each round")
    said = parser.parse_args()
    peers = [name for name in said.peers.split(",") if PEERS[name].find()]
    skipped = {name: PEERS[name].missing for name in said.peers.split(",") if name not in peers}
    by: dict[str, Any] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory(
        prefix="bench-l7-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as place:
        run = Run(
            Path(place),
            peers,
            said.rounds or (2 if said.short else 3),
            said.seconds or (2 if said.short else 4),
            skipped,
        )
        for row in said.only.split(","):
            sys.stderr.write(f"{row}\n")
            found = {"unique": unique, "tls": tls}[row](run)
            new = figures(row, found)
            by.update(new)
            lines += table(row, new, peers)
    sys.stderr.write("\n".join(lines) + "\n")
    for what, reason in skipped.items():
        sys.stderr.write(f"{what}: not measured: {reason}\n")
    sys.stdout.write(json.dumps({key: round(value, 4) for key, value in by.items()}) + "\n")


if __name__ == "__main__":
    main()
