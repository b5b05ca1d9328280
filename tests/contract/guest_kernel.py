"""Runs the suite on the kernel of this network namespace and prints one JSON object: trial to traceback, or null."""

from __future__ import annotations

import json
import sys
import traceback

from director.ipvs.client import IpvsClient
from tests.contract.suite import TRIALS
from tests.lab.guest.ipvsadm import empty


def main() -> None:
    outcome: dict[str, str | None] = {}
    with IpvsClient.open() as client:
        for name, trial in TRIALS.items():
            empty()
            try:
                trial(client)
                outcome[name] = None
            except Exception:  # noqa: BLE001 -- the test outside prints it
                outcome[name] = traceback.format_exc()
    empty()
    sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
