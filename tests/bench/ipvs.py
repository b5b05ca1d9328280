"""`make bench-ipvs`: the table client beside ipvsadm, on the lab's kernel. A table, then one line of JSON.

One rule: figures are medians of rounds in which both took their turn, and the machine is named.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from statistics import median

from director.lab import boot

ROUNDS = 5
GUEST = Path(__file__).with_name("ipvs_guest.py")


def main() -> None:
    """Boot, measure, print."""
    with boot(os.environ.get("LVS_LAB_KERNEL", "auto")) as kernel, kernel.lay_out() as lab:
        host = lab.host("director")
        rounds = json.loads(host.run("python", str(GUEST), str(ROUNDS), timeout_s=300).check().stdout)
        told = f"{kernel.kind} kernel {kernel.release}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    ms = {name: median(times) * 1000 for name, times in rounds.items()}
    rows = [
        ("make 200 virtual servers x 50 real servers", ms["apply"], ms["restore"], "ipvsadm -R"),
        ("read them", ms["read"], ms["save"], "ipvsadm -Sn"),
    ]
    sys.stderr.write(f"{told}; medians of {ROUNDS} interleaved rounds\n")
    for what, ours, theirs, peer in rows:
        sys.stderr.write(f"{what:45} {ours:8.1f} ms   {peer:12} {theirs:8.1f} ms   {theirs / ours:6.2f} x\n")
    sys.stderr.write(f"{'change one weight among them':45} {ms['weight']:8.2f} ms\n")
    result = {
        "kernel": kernel.kind,
        "apply_ratio": round(ms["restore"] / ms["apply"], 2),
        "dump_ratio": round(ms["save"] / ms["read"], 2),
        "weight_change_ms": round(ms["weight"], 3),
        "rounds": ROUNDS,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
