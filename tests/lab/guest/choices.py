"""Which real server Maglev (mh) chooses for each of many clients: `python choices.py SEED FLOWS HOW` prints JSON.

HOW is what this director has been through: `lowered` began with all servers up and saw one go down, `began` found it
down when it started, `edited` had another weight for a while. One rule: no two of them may choose differently.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from director.core.config import parse_config
from director.core.desired import desired_table, insertion_weights
from director.core.diff import diff
from director.core.model import Config, ServerRef
from director.core.table import Table
from director.core.weight import Weight
from director.ipvs.client import IpvsClient

VIP = "10.99.0.1"
FILE = f"""
virtual_servers:
  web:
    address: {VIP}
    port: 5000
    protocol: udp
    forward: nat
    scheduler: mh
    scheduler_flags: [mh-port, mh-fallback]
    real_servers:
      e: {{address: 10.88.0.5, weight: 100}}
      a: {{address: 10.88.0.1, weight: 100}}
      d: {{address: 10.88.0.4, weight: 50}}
      b: {{address: 10.88.0.2, weight: 100}}
      c: {{address: 10.88.0.3, weight: 100}}
"""


def weights(config: Config, **other: int) -> dict[ServerRef, Weight]:
    return {
        virtual.ref(real): Weight(other.get(real.name, real.weight), "")
        for virtual in config.virtual_servers
        for real in virtual.real_servers
    }


def become(client: IpvsClient, config: Config, **other: int) -> None:
    changes = diff(client.read()[0], desired_table(config, weights(config, **other)), (), insertion_weights(config, {}))
    failures = list(client.write(changes))
    if failures:
        raise SystemExit(str(failures))


def send(flows: list[tuple[str, int]]) -> None:
    """One UDP packet from each of `flows`: written whole, since the addresses are not this host's."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for address, port in flows:
            head = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, IPv4Address(address).packed, IPv4Address(VIP).packed
            )
            raw.sendto(head + struct.pack("!HHHH", port, 5000, 8, 0), (VIP, 0))


def chosen() -> dict[str, str]:
    found = {}
    for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]:
        _, source, source_port, _, _, real, *_ = line.split()
        found[f"{source}:{source_port}"] = str(IPv4Address(int(real, 16)))
    return found


def main() -> None:
    seed, count, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    random = Random(seed)  # noqa: S311 -- flows to try, not a secret
    flows = [(str(IPv4Address(random.randrange(2**24, 2**30))), random.randrange(1024, 65536)) for _ in range(count)]
    subprocess.run(["ipvsadm", "-C"], check=True)
    subprocess.run(["ip", "address", "replace", f"{VIP}/32", "dev", "lo"], check=True)
    config = parse_config(FILE, "choices.yaml")
    with IpvsClient.open() as client:
        if how == "lowered":
            become(client, config)
        elif how == "edited":
            become(client, config)
            become(client, config, a=0, e=70)
            become(client, config, c=0)
        become(client, config, c=0)
        send(flows)
        found = chosen()
        rows = next(iter(client.read()[0].entries.values())).reals
        become_empty = diff(client.read()[0], Table(), frozenset(client.read()[0].entries))
        client.write(become_empty)
    json.dump(
        {"chosen": found, "share": Counter(found.values()), "weights": [row.weight for row in rows.values()]},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
