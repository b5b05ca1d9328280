"""`make bench-health`: the director's probes beside keepalived's, in the same lab and the same run. A table, then JSON.

One rule: what was measured is printed as it was, with its conditions; what misses its aim says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from director.lab import boot
from director.lab.bytecode import PROJECT

FULL = {"kills": 8, "crowds": 1, "rounds": 2, "seconds": 6}
SHORT = {"kills": 1, "crowds": 1, "rounds": 1, "seconds": 3}
ON_HOST_S = {"full": 40, "short": 16}
SERVERS_ON_HOST = 5000
CHANCE = 1.05
"""What two runs of the same program may differ by: a failure comes at any time between two probes."""


@dataclass(frozen=True, slots=True)
class Row:
    """What, ours, keepalived's, and the aim: the figure that it speaks of, and the least or most that it may be."""

    what: str
    ours: str
    theirs: str = ""
    aim: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.met is None else ("met" if self.met else "MISSED")
        return f"{self.what:58}{self.ours:>12}{self.theirs:>12}  {self.aim:34}{verdict}".rstrip()


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of them do not exceed: what was measured, nothing in between.

    >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([1.0, 2.0], 0.99)
    (2.0, 2.0)
    """
    if not samples:
        raise ValueError("there are no samples")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def per_thousand(cost: dict[str, float]) -> float:
    """CPU seconds of 1,000 probes."""
    return cost["cpu_s"] / cost["probes"] * 1000


def ratio(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> float:
    """How much more CPU time a probe of ours takes: the median of the rounds' own ratios."""
    return median(per_thousand(our) / per_thousand(their) for our, their in zip(ours, theirs, strict=True))


def figures(found: dict[str, Any], on_host: dict[str, float]) -> dict[str, float]:
    """The figures of one run, by the names that they have in its JSON."""
    one, crowd, cost = found["one"], found["crowd"], found["cost"]
    by: dict[str, float] = {}
    for kind, prefix in (("director", ""), ("sentinel", "sentinel_"), ("keepalived", "keepalived_")):
        by[f"{prefix}failover_p50_s"] = median(one[kind])
        by[f"{prefix}failover_p99_s"] = quantile(one[kind], 0.99)
        by[f"{prefix}failover_last_of_100_s"] = median(max(each) for each in crowd[kind])
    for name, theirs in (("tcp", "tcp"), ("http", "http"), ("http_kept", "http")):
        by[f"cpu_ratio_{name}"] = ratio(cost[name], cost[f"keepalived_{theirs}"])
    for name, costs in cost.items():
        by[f"cpu_s_{name}"] = median(map(per_thousand, costs))
    return {
        **by,
        "keepalived_rss_mb": max(each["rss_mb"] for each in cost["keepalived_tcp"]),
        "rss_small_mb": max(each["rss_mb"] for each in cost["tcp"]),
        "on_time_pct": on_host["on_time_pct"],
        "rss_mb": on_host["rss_mb"],
        "core_pct": on_host["core_pct"],
    }


def table(by: dict[str, float], on_host: dict[str, float]) -> list[Row]:
    def time_of(what: str, name: str, prefix: str, aim: str, limit_s: float) -> Row:
        ours, theirs = by[f"{prefix}failover_{name}_s"], by[f"keepalived_failover_{name}_s"]
        return Row(what, f"{ours:.3f} s", f"{theirs:.3f} s", aim, ours <= limit_s)

    def cost_of(what: str, name: str, theirs: str, aim: str, limit: float) -> Row:
        told = f"{by[f'cpu_ratio_{name}']:.2f} x: {aim}"
        values = f"{by[f'cpu_s_{name}']:.2f} s", f"{by[f'cpu_s_keepalived_{theirs}']:.2f} s"
        return Row(what, *values, told, by[f"cpu_ratio_{name}"] < limit)

    k50, k99 = by["keepalived_failover_p50_s"], by["keepalived_failover_p99_s"]
    k100 = by["keepalived_failover_last_of_100_s"]
    up = f"{on_host['up']:.0f} of {SERVERS_ON_HOST}"
    return [
        time_of("from SIGKILL to weight 0, one of 10, median", "p50", "", "not slower (5 % is chance)", k50 * CHANCE),
        time_of("  99th percentile", "p99", "", "not slower (5 % is chance)", k99 * CHANCE),
        time_of(
            "  all of 100 at one time, the last of them", "last_of_100", "", "not slower (5 % is chance)", k100 * CHANCE
        ),
        time_of("  median, with sentinels", "p50", "sentinel_", "a tenth, and below 0.100 s", min(k50 / 10, 0.1)),
        time_of("  99th percentile, with sentinels", "p99", "sentinel_", "a tenth", k99 / 10),
        time_of("  the last of 100, with sentinels", "last_of_100", "sentinel_", "a tenth", k100 / 10),
        cost_of("CPU time of 1,000 TCP probes", "tcp", "tcp", "below 2 x", 2),
        cost_of("CPU time of 1,000 HTTP probes", "http", "http", "below 2 x", 2),
        cost_of("  with sentinels, over kept connections", "http_kept", "http", "below 1 x", 1),
        Row("memory while it does so", f"{by['rss_small_mb']:.1f} MB", f"{by['keepalived_rss_mb']:.1f} MB"),
        Row(
            f"{SERVERS_ON_HOST} probed once a second on one core, begun in 100 ms",
            f"{by['on_time_pct']:.2f} %",
            "",
            f"at least 99 %; {up} up",
            by["on_time_pct"] >= 99 and on_host["up"] == SERVERS_ON_HOST,
        ),
        Row("  of that core", f"{by['core_pct']:.0f} %"),
        Row("  memory", f"{by['rss_mb']:.0f} MB", "", "under 200 MB", by["rss_mb"] < 200),
    ]


def in_lab(amounts: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """The kernel's name and what was found on it."""
    with boot(os.environ.get("LVS_LAB_KERNEL", "auto")) as kernel, kernel.lay_out() as lab:
        words = [str(amounts[name]) for name in ("kills", "crowds", "rounds", "seconds")]
        done = lab.host("director").run(
            *("python", "-m", "tests.bench.health_guest", "/run/bench", *words), timeout_s=400, cwd=str(PROJECT)
        )
        found: dict[str, Any] = json.loads(done.check().stdout)
        return f"{'user-mode' if kernel.kind == 'uml' else 'own'} kernel {kernel.release}", found


def on_this_kernel(seconds: int) -> dict[str, float]:
    """What `tests.bench.probes` finds, in a process of its own, where no IPVS is needed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    words = ["--only", "tcp_many", "--seconds", str(seconds), "--servers", str(SERVERS_ON_HOST)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.probes", *words], stdout=subprocess.PIPE, text=True, check=True, cwd=PROJECT
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])["tcp_many"]
    return found


def conditions(kernel: str, found: dict[str, Any], amounts: dict[str, int], seconds: float) -> str:
    return f"""\
{kernel}, {os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, {version()}
Checks of both: every 1 s, timeout 1 s, down at the second failure, 1 s after the first; up at the first success.
With sentinels the second try comes 50 ms after the first.
Failover: {len(found["one"]["director"])} kills of each in the same time, each server's spread evenly over its \
interval, and {amounts["crowds"]} x 100 at once;
the weights are looked at every {found["look_s"] * 1000:.1f} ms.
Without sentinels the director's jitter is 0 % there: keepalived has none. Elsewhere it is the default, 10 %.
CPU: {found["servers"]} servers, {amounts["rounds"]} interleaved rounds of {amounts["seconds"]} s; all that the kernel \
was not idle for, less what the real servers took:
both ends of a probe in the kernel, and what each program does beside probing, are part of it.
One core of this machine: TCP over loopback, the second half of {seconds:g} s; the servers run on another core if any.
"""


def version() -> str:
    """What keepalived says of itself."""
    said = subprocess.run(["keepalived", "--version"], capture_output=True, text=True, check=True)
    return " ".join(said.stderr.split()[:2]).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few kills and little time: shows that it works")
    is_short = parser.parse_args().short
    if shutil.which("keepalived") is None:
        raise SystemExit("keepalived is not here, with which the director is compared: apt-get install keepalived")
    amounts = SHORT if is_short else FULL
    seconds = ON_HOST_S["short" if is_short else "full"]
    loads = [os.getloadavg()[0]]
    on_host = on_this_kernel(seconds)
    loads.append(os.getloadavg()[0])
    kernel, found = in_lab(amounts)
    loads.append(os.getloadavg()[0])
    by = figures(found, on_host)
    sys.stderr.write(conditions(kernel, found, amounts, seconds))
    told = ", ".join(f"{load:.1f}" for load in loads)
    sys.stderr.write(
        f"Load of this machine before, between and after: {told}. What else it does, all of this pays for.\n"
    )
    sys.stderr.write(f"{'':58}{'director':>12}{'keepalived':>12}  aim\n")
    for row in table(by, on_host):
        sys.stderr.write(f"{row}\n")
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    rounded = {name: round(value, 4) for name, value in by.items()}
    sys.stdout.write(
        json.dumps(
            {
                **rounded,
                **amounts,
                "kills": len(found["one"]["director"]),
                "loads": loads,
                "kernel": kernel,
                "machine": machine,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
