"""`make bench-l7`: l7proxy beside HAProxy, nginx and others, on loopback, in the same run. Tables, then JSON.

One rule: all take their turn in every round; what the load and the origin held back, and what else this machine did,
is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.l7_figures import figures, idle_figures, in_json, row_lines, verdicts
from tests.bench.l7_measure import go_ahead, real_time_allowed
from tests.bench.l7_peers import PEERS
from tests.bench.l7_routes import routes_figures, routes_lines
from tests.bench.l7_rows import ROWS, Run
from tests.bench.l7_told import conditions, idle_lines

FULL = {"rounds": 5, "seconds": 2.0}
SHORT = {"rounds": 1, "seconds": 1.0}


def listed(text: str, known: Sequence[str], what: str) -> list[str]:
    """Names divided by commas.

    Raises: SystemExit naming one that is not known.
    """
    names = text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"{name!r} is no {what}: choose from {','.join(known)}")
    return names


def here(peers: Sequence[str], skipped: dict[str, str]) -> list[str]:
    """Those of `peers` that are installed; the others go to `skipped` with the reason."""
    found = [name for name in peers if PEERS[name].find()]
    skipped.update({PEERS[name].title: PEERS[name].missing for name in peers if name not in found})
    return found


def measure(run: Run, rows: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The figures of all rows and their tables."""
    by: dict[str, float] = {}
    lines: list[str] = []
    titles = {name: PEERS[name].title for name in PEERS}
    for row in rows:
        began_at = time.monotonic()
        sys.stderr.write(f"{row}: {ROWS[row].what}\n")
        if row == "idle":
            kb = run.idle()
            by.update(idle_figures(kb))
            lines += [f"\n{row}: {ROWS[row].what}", *idle_lines(kb, titles)]
        elif row == "routes":
            of_routes = routes_figures(run.routes())
            by.update(of_routes)
            lines += [f"\n{row}: {ROWS[row].what}", *routes_lines(of_routes)]
        else:
            for name, found in ROWS[row].go(run).items():
                new = figures(name, found)
                by.update(new)
                lines += [f"\n{name}: {run.told.get(name, ROWS[row].what)}", *row_lines(name, titles, new)]
        sys.stderr.write(f"  {time.monotonic() - began_at:.0f} s\n")
    return by, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few and short rounds: shows that it works")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"proxies, of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, help="so many of each row")
    parser.add_argument("--seconds", type=float, help="of each proxy in each round")
    parser.add_argument("--ahead", action="store_true", help="before all else that this machine does (root)")
    said = parser.parse_args()
    amounts = SHORT if said.short else FULL
    rows, skipped = listed(said.only, list(ROWS), "row"), dict[str, str]()
    peers = here(listed(said.peers, list(PEERS), "proxy"), skipped)
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the proxy, one for the load and the origin")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started must end
    if said.ahead:
        go_ahead()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-l7-", dir=memory) as place:
        run = Run(
            Path(place),
            peers,
            said.rounds or int(amounts["rounds"]),
            said.seconds or amounts["seconds"],
            skipped,
            real_time_allowed(),
        )
        by, lines = measure(run, rows)
    facts = conditions(run, before)
    sys.stderr.write("\n" + facts.text + "\n".join(lines) + "\n\n" + "\n".join(verdicts(by)) + "\n")
    for what, reason in skipped.items():
        sys.stderr.write(f"{what}: not measured: {reason}\n")
    sys.stdout.write(json.dumps({**in_json(by), **facts.fields, "skipped": skipped}) + "\n")


if __name__ == "__main__":
    main()
