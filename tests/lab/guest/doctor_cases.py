"""Breaks the host it runs on in one way after another, and says what the doctor found each time.

`python -m tests.lab.guest.doctor_cases FILE < CASES`: FILE is a director.yaml, CASES a JSON object: `processes`, one of
each host by the host's name, and `cases`, a list of objects: `name`; `breaks` and `mends`, shell scripts (with those
processes as variables); `only`, names of virtual servers to look at; `replace`, pairs of what stands in FILE and what
is to stand there; `listen`, addresses to listen on; `tries`, a shell script that succeeds where clients are served.
Prints a JSON object: by each case's name the lines `found`, and whether clients were `served` (null: not tried).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from director.core.config import parse_config
from director.doctor.checkup import checkup
from director.doctor.situation import Situation, of_config

PATIENCE_S = 0.2
PORT = 80


def situation(path: str, case: dict[str, Any]) -> Situation:
    text = Path(path).read_text()
    for old, new in case.get("replace", []):
        assert old in text
        text = text.replace(old, new, 1)
    found = of_config(parse_config(text, path), path)
    only = case.get("only") or [virtual.name for virtual in found.virtuals]
    return replace(found, virtuals=tuple(virtual for virtual in found.virtuals if virtual.name in only))


def listening(stack: ExitStack, address: str) -> None:
    """Wait for clients there; `[::]` takes none of IPv4."""
    listener = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address.strip("[]"), PORT))
    listener.listen()


class Shell:
    """One bash for all scripts: to start one for each costs more than what they do."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        environment = {**os.environ, **variables}
        self._bash = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, script: str) -> None:
        if script and not self.succeeds(script):
            raise SystemExit(f"{script!r}: {Path('/tmp/said').read_text()}")

    def succeeds(self, script: str) -> bool:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"( set -e; {script}\n) >/tmp/said 2>&1; echo $?\n")
        self._bash.stdin.flush()
        return self._bash.stdout.readline() == "0\n"


def main() -> None:
    said = {}
    order = json.load(sys.stdin)
    shell = Shell(order["processes"])
    for case in order["cases"]:
        shell.run(case.get("breaks", ""))
        with ExitStack() as stack:
            for address in case.get("listen", ["0.0.0.0", "[::]"]):
                listening(stack, address)
            report = checkup(situation(sys.argv[1], case), patience_s=PATIENCE_S)
        served = shell.succeeds(case["tries"]) if "tries" in case else None
        said[case["name"]] = {"found": [str(finding) for finding in report.findings], "served": served}
        shell.run(case.get("mends", ""))
    print(json.dumps(said))  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
