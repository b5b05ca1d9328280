"""`make bench-ipvs`: the director beside ipvsadm, on the lab's kernel. A table, then one line of JSON.

One rule: both take their turn in every round; a ratio is the median of the rounds' own, and the machine is named.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from director.lab import boot
from director.lab.errors import KernelUnavailableError
from director.lab.kernels import choose

ROUNDS = 5
GUEST = Path(__file__).with_name("ipvs_guest.py")
Row = tuple[str, str, str, str, str]
"""What, ours, theirs, how they compare, what is aimed for."""


def measure(kind: str) -> tuple[str, dict[str, Any]]:
    """The kernel's name and the raw figures."""
    with boot(kind) as kernel, kernel.lay_out() as lab:
        host = lab.host("director")
        found: dict[str, Any] = json.loads(
            host.run("python", str(GUEST), "rounds", str(ROUNDS), "/run", timeout_s=280).check().stdout
        )
        return f"{'user-mode' if kernel.kind == 'uml' else 'own'} kernel {kernel.release}", found


def figures(found: dict[str, Any]) -> dict[str, float]:
    """The figures of one kernel. Ratios are theirs by ours: above 1, ours is faster."""
    last = found["scale"][-1]
    return {
        "apply_ratio": ratio(found["restore"], found["cold"]),
        "apply_process_ratio": ratio(found["restore"], found["process"]),
        "dump_ratio": ratio(found["save"], found["read"]),
        "weight_change_ms": median(found["weight"]) * 1000,
        "weight_change_pass_ms": median(found["pass_weight"]) * 1000,
        "idle_reconcile_cpu_ms": median(found["idle_cpu"]) * 1000,
        "rss_100k_mb": last["rss_mb"],
        "idle_100k_cpu_ms": last["cpu_s"] * 1000,
        "exponent": exponent([(each["servers"], each["cpu_s"]) for each in found["scale"]]),
        **({"keepalived_ratio": ratio(found["keepalived"], found["cold"])} if found["keepalived"] else {}),
    }


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return median(their / our for their, our in zip(theirs, ours, strict=True))


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of time over size on logarithmic scales: 1 is linear.

    >>> round(exponent([(10, 2), (100, 20), (1000, 200)]), 3)
    1.0
    """
    xs, ys = [math.log(size) for size, _ in points], [math.log(took) for _, took in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - mean_x) ** 2 for x in xs)


def table(found: dict[str, Any], by: dict[str, float], idle_ms: int) -> list[Row]:
    def ms(name: str) -> str:
        return f"{median(found[name]) * 1000:.0f} ms"

    return [
        (
            "cold apply, 200 x 50, configuration to agreed kernel",
            ms("cold"),
            ms("restore"),
            *goal(by, "apply_ratio", 20),
        ),
        ("the same, whole processes", ms("process"), ms("restore"), *goal(by, "apply_process_ratio", 1.5)),
        ("read 10,000 real servers", ms("read"), ms("save"), *goal(by, "dump_ratio", 1)),
        ("one weight among them", f"{by['weight_change_ms']:.2f} ms", "", "", "under 5 ms"),
        ("  and the whole pass, read back", f"{by['weight_change_pass_ms']:.0f} ms", "", "", ""),
        ("idle pass over them, CPU", f"{by['idle_reconcile_cpu_ms']:.0f} ms", "", "", f"under {idle_ms} ms"),
        ("idle pass over 100,000, CPU", f"{by['idle_100k_cpu_ms']:.0f} ms", "", f"^{by['exponent']:.2f}", "linear: ^1"),
        ("  most memory", f"{by['rss_100k_mb']:.0f} MB", "", "", "under 300 MB"),
    ]


def goal(by: dict[str, float], name: str, least: float) -> tuple[str, str]:
    return f"{by[name]:.1f} x", f"at least {least:g} x"


def show(told: str, rows: Sequence[Row]) -> None:
    sys.stderr.write(f"{told}; medians of {ROUNDS} interleaved rounds\n")
    sys.stderr.write(f"{'':54}{'director':>10}{'ipvsadm':>10}{'':>9}  aim\n")
    for what, ours, theirs, compared, aim in rows:
        sys.stderr.write(f"{what:54}{ours:>10}{theirs:>10}{compared:>9}  {aim}\n")


def main() -> None:
    """Boot, measure, print; on the machine's own kernel as well, where that has IPVS."""
    wanted = os.environ.get("LVS_LAB_KERNEL", "auto")
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    result: dict[str, object] = {}
    for kind in kinds(wanted):
        kernel, found = measure(kind)
        by = figures(found)
        show(f"{kernel}, {machine}", table(found, by, 250 if kind == "uml" else 60))
        rounded = {name: round(value, 3) for name, value in by.items()}
        result = {**result, **rounded, "kernel": kernel} if not result else {**result, kind: rounded}
    if shutil.which("keepalived") is None:
        sys.stderr.write("keepalived's start is not compared: it is not installed here\n")
    sys.stdout.write(json.dumps({**result, "machine": machine, "rounds": ROUNDS}) + "\n")


def kinds(wanted: str) -> list[str]:
    """The kernels to measure on: the one that was asked for, or the user-mode kernel and the machine's own."""
    if wanted != "auto":
        return [wanted]
    found = []
    for kind in ("uml", "host"):
        try:
            choose(kind)
        except KernelUnavailableError as error:
            sys.stderr.write(f"not measured: {error}\n")
        else:
            found.append(kind)
    return found


if __name__ == "__main__":
    main()
