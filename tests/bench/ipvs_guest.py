"""Times our table client beside ipvsadm, inside the lab: `python ipvs_guest.py ROUNDS`. Prints JSON.

One rule: both do the same work in the same round, in turn, from an empty table; ours reads back and compares.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, ip_address
from types import MappingProxyType

from director.core.diff import EditReal, diff
from director.core.table import Forward, Protocol, RealRow, Table, VirtualEntry, VirtualKey, VirtualRow
from director.ipvs.client import IpvsClient
from director.kit.net import Endpoint

SERVICES, SERVERS = 200, 50


def table() -> Table:
    entries = {}
    for service in range(SERVICES):
        key = VirtualKey.of(Protocol.TCP, ip_address("10.9.0.100"), 1000 + service)
        first = int(IPv4Address("10.20.0.1")) + service * 256
        reals = {Endpoint(IPv4Address(first + n), 1000 + service): RealRow(Forward.DR, 100) for n in range(SERVERS)}
        entries[key] = VirtualEntry(VirtualRow("wlc"), MappingProxyType(reals))
    return Table(MappingProxyType(entries))


def timed(act: Callable[[], object]) -> float:
    began_at = time.perf_counter()
    act()
    return time.perf_counter() - began_at


def ipvsadm(*words: str, text: str | None = None) -> str:
    done = subprocess.run(["ipvsadm", *words], input=text, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    wanted = table()
    rules: str | None = None
    rounds: dict[str, list[float]] = {"apply": [], "restore": [], "read": [], "save": [], "weight": []}
    key, entry = next(iter(wanted.entries.items()))
    real, row = next(iter(entry.reals.items()))
    other = RealRow(Forward.DR, 50)
    edits = (EditReal(key, real, row, other), EditReal(key, real, other, row))
    with IpvsClient.open() as kernel:

        def apply() -> None:
            failures = kernel.write(diff(Table(), wanted))
            if failures or kernel.read()[0] != wanted:
                raise SystemExit(f"the kernel does not agree: {failures[:1]}")

        for _ in range(int(sys.argv[1])):
            ipvsadm("-C")
            rounds["apply"].append(timed(apply))
            rounds["read"].append(timed(kernel.read))
            rounds["save"].append(timed(partial(ipvsadm, "-Sn")))
            for change in edits:
                rounds["weight"].append(timed(partial(kernel.write, [change])))
            rules = rules or ipvsadm("-Sn")
            ipvsadm("-C")
            rounds["restore"].append(timed(partial(ipvsadm, "-R", text=rules)))
            if kernel.read()[0] != wanted:
                raise SystemExit("ipvsadm -R made another table")
    sys.stdout.write(json.dumps(rounds))


if __name__ == "__main__":
    main()
