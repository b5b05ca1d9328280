"""Reads the kernel's IPVS table over and over and tells of every weight that changes.

Runs on the lab's director as a plain script, beside the daemon: `python watch.py SECONDS`. One JSON object a
line: `at` (monotonic), `real` (address:port), `weight` (null: gone).
"""

import json
import sys
import time

from director.ipvs.client import IpvsClient

PAUSE_S = 0.01


def main() -> None:
    end_at = time.monotonic() + float(sys.argv[1])
    known: dict[str, int | None] = {}
    with IpvsClient.open() as kernel:
        while time.monotonic() < end_at:
            table, _ = kernel.read()
            now = time.monotonic()
            seen: dict[str, int | None] = {
                str(real): row.weight for entry in table.entries.values() for real, row in entry.reals.items()
            }
            seen |= dict.fromkeys(known.keys() - seen.keys())
            for real, weight in seen.items():
                if known.get(real, -1) != weight:
                    sys.stdout.write(json.dumps({"at": now, "real": real, "weight": weight}) + "\n")
                    sys.stdout.flush()
            known = seen
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
