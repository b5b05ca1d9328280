"""What `make bench-l7` says of its conditions.

One rule: a figure without the machine that it was found on says nothing.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.l7_figures import OURS, idle_figures, key
from tests.bench.l7_measure import LOAD_CORE, PROXY_CORE
from tests.bench.l7_peers import PEERS, RULES
from tests.bench.l7_rows import Run


@dataclass(frozen=True, slots=True)
class Conditions:
    text: str
    fields: dict[str, Any]


def version(name: str) -> str:
    """What a proxy says of itself: the first number with a dot in it."""
    peer = PEERS[name]
    done = subprocess.run([peer.find(), *peer.version], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return found[0] if found else "?"


def cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def conditions(run: Run, load_before: float) -> Conditions:
    versions = {name: version(name) for name in run.peers if PEERS[name].version}
    loads = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    machine = f"{cpu()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    told = ", ".join(f"{PEERS[name].title} {number}" for name, number in versions.items())
    ceiling = f" They reach {run.ceiling:.0f} requests/s of 1 KB without a proxy.\n" if run.ceiling else "\n"
    on_time = "all take part at a real-time priority" if run.real_time else "at no real-time priority, which takes root"
    text = f"""\
{machine}
{told}
One worker each, on core {PROXY_CORE}; the origin (nginx) and the load (wrk; for large bodies and set times a client \
of our own) on core {LOAD_CORE}; loopback.{ceiling}\
{len(RULES)} rules of host and path, X-Forwarded-For added, access log on (to /dev/null), two origins with kept-alive \
pools.
Stickiness is off in all but `sticky`, where it is on in all.
{run.count} interleaved rounds of {run.seconds:g} s each; medians; a ratio is the median of the rounds' own.
Open loop: {on_time}.
CPU time is what the scheduler counts for the proxy's threads, the kernel's part included.
Load of this machine before and after: {loads[0]}, {loads[1]}. What else it does, all of this pays for.
"""
    fields = {"machine": machine, "versions": versions, "rounds": run.count, "seconds": run.seconds, "loads": loads}
    return Conditions(text, {**fields, "ceiling_requests_s": round(run.ceiling)})


def idle_lines(kb: Mapping[str, Sequence[tuple[int, int]]], titles: Mapping[str, str]) -> list[str]:
    lines = [f"  {'':17}{'before, MB':>12}{'then, KB of each':>20}{'connections':>13}{'and of each up to':>19}"]
    by = idle_figures(kb)
    for name, title in titles.items():
        if name in kb:
            end = "" if name == OURS else f"_{key(name)}"
            (few, _), (most, _) = kb[name][1:]
            lines.append(
                f"  {title:17}{by[f'idle_base_mb{end}']:12.1f}{by[f'idle_few_conn_kb{end}']:20.1f}{few:13,}"
                f"{by[f'idle_conn_kb{end}']:10.1f} KB {most:6,}"
            )
    return lines
