"""The ways that are drawn in docs/concepts.md are those that packets take: each frame is captured, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from director.lab.hosts import Lab, Process
from director.lab.waiting import wait_until
from docs.tools.walks import CLIENT_PORT, REAL_PORT, SERVICE_PORT, WALKS, Hop, Walk, address, configuration, mac

pytestmark = pytest.mark.lab

FRAMES = Path(__file__).parent / "guest" / "frames.py"
CONNECT = """
import socket, sys
for vip in sys.argv[4:]:
    with socket.socket() as connection:
        connection.settimeout(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind((sys.argv[1], int(sys.argv[2])))
        connection.connect((vip, int(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def captured(lab: Lab) -> Iterator[list[dict[str, Any]]]:
    """What every host took in, with who took it, in the order of time: one connection to each VIP."""
    director = lab.host("director")
    director.write("/etc/director/director.yaml", configuration())
    director.run("director", "apply", "/etc/director/director.yaml").check()
    vip = {walk.forward: walk.vip for walk in WALKS}
    lab.host("l7proxy-1").run("director", "realserver", "apply", "--vip", vip["dr"]).check()
    words = ("--vip", vip["tun"], "--forward", "tun", "--director", address("director", "inside"))
    lab.host("l7proxy-2").run("director", "realserver", "apply", *words).check()
    ports = {"web-1": [REAL_PORT], "l7proxy-1": [SERVICE_PORT], "l7proxy-2": [SERVICE_PORT]}
    watching: dict[str, Process] = {}
    for name in ("client", "director", *ports):
        host = lab.host(name)
        watching[name] = host.start("python", "-S", FRAMES, *map(str, ports.get(name, [])), name=f"frames on {name}")
    for name, process in watching.items():
        assert wait_until(partial(_says, process, "ready")), (name, process.output())
    here = address("client", "lan")
    client = ("python", "-S", "-c", CONNECT, here, str(CLIENT_PORT), str(SERVICE_PORT), *vip.values())
    lab.host("client").run(*client).check()
    wanted = sum(len(walk.hops) for walk in WALKS)
    wait_until(lambda: len(_told(watching)) >= wanted)
    yield _told(watching)
    for process in watching.values():
        process.kill()


def _says(process: Process, word: str) -> bool:
    return word in process.output()


def _told(watching: dict[str, Process]) -> list[dict[str, Any]]:
    found = []
    for name, process in watching.items():
        lines = process.output().splitlines()
        found += [{"receiver": name, **json.loads(line)} for line in lines if line.startswith("{")]
    return sorted(found, key=lambda each: int(each["at"]))


def _expected(hop: Hop) -> dict[str, Any]:
    return {
        "receiver": hop.receiver,
        "network": hop.network,
        "macs": [mac(hop.sender, hop.network), mac(hop.receiver, hop.network)],
        "outer": [hop.outer.source, hop.outer.destination] if hop.outer else None,
        "packet": [hop.packet.source, hop.packet.destination],
    }


def test_the_ways_of_all_connections_are_those_that_are_drawn(captured: list[dict[str, Any]]) -> None:
    """The client connects to one VIP after the other: all frames, in their order, and no other."""
    seen = [{key: value for key, value in each.items() if key != "at"} for each in captured]
    assert seen == [_expected(hop) for walk in WALKS for hop in walk.hops]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.forward)
def test_only_with_nat_and_full_nat_answers_pass_the_director(captured: list[dict[str, Any]], walk: Walk) -> None:
    answers = [each for each in captured if each["receiver"] == "director" and walk.real_server in _sender(each)]
    assert bool(answers) is (walk.forward in {"nat", "fullnat"})


def _sender(frame: dict[str, Any]) -> list[str]:
    macs = {mac(walk.real_server, network): walk.real_server for walk in WALKS for network in _networks(walk)}
    return [macs.get(frame["macs"][0], "")]


def _networks(walk: Walk) -> list[str]:
    return sorted({hop.network for hop in walk.hops if walk.real_server in {hop.sender, hop.receiver}})
