"""Boots a kernel and plays scenes on it, each on hosts of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from director.lab import boot
from director.lab.demo.play import Act, perform
from director.lab.demo.report import Report, print_line
from director.lab.demo.scene import Scene
from director.lab.kernels import Kernel
from director.lab.scenes import canary, crash, dr, drain, failover, nat
from director.lab.scenes.titles import TITLES

STEPS: Mapping[str, Sequence[tuple[str, Act]]] = {
    "nat": nat.STEPS,
    "dr": dr.STEPS,
    "failover": failover.STEPS,
    "drain": drain.STEPS,
    "canary": canary.STEPS,
    "crash": crash.STEPS,
}


def play(names: Sequence[str], kernel: str) -> bool:
    """Play scenes one after the other and print the line of JSON; whether all held. Raises: LabError from booting."""
    began_at = time.monotonic()
    with boot(kernel) as booted:
        results = [play_one(booted, name) for name in names]
    print_line(results[0] if len(results) == 1 else together(results, time.monotonic() - began_at))
    return all(result["ok"] for result in results)


def play_one(booted: Kernel, name: str) -> dict[str, Any]:
    """Play a scene on a kernel on which no hosts stand; what its line of JSON holds."""
    report = Report()
    report.title(name, TITLES[name])
    with booted.lay_out() as lab:
        report.say(f"on a {booted.kind} kernel {booted.release}: {', '.join(host.name for host in lab.hosts())}")
        report.fact("kernel", booted.kind)
        ok = perform(Scene(lab), report, STEPS[name])
    report.table()
    return report.result(ok)


def together(results: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """One result of several."""
    return {
        "ok": all(result["ok"] for result in results),
        "requests": sum(result["requests"] for result in results),
        "failed": sum(result["failed"] for result in results),
        "scenes": {result["scene"]: result for result in results},
        "seconds": round(seconds, 1),
    }
