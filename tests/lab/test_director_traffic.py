"""Real traffic through what the director programs: DR and NAT, TCP and UDP, IPv4 and IPv6, schedulers, persistence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from director.lab.demo.scene import CONFIG, FILES, Scene, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

GUEST = Path(__file__).parent / "guest"
SERVERS = {"dr": ("l7proxy-1", "l7proxy-2"), "nat": ("web-1", "web-2")}
NETWORK = {"dr": "lan", "nat": "inside"}
VIP = {4: "10.9.0.110", 6: "fd09::110"}


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    """nginx and a UDP server on both kinds of real servers; the VIPs are on the DR ones' lo."""
    found = Scene(lab)
    for name in (name for names in SERVERS.values() for name in names):
        host = lab.host(name)
        host.write("/etc/nginx/lab.conf", FILES.joinpath("nginx.conf").read_text().replace("NAME", name))
        host.start("nginx", "-c", "/etc/nginx/lab.conf")
        udp = host.start("python", "-S", str(GUEST / "udp_names.py"), name, "5353")
        wait_until("the UDP server", partial(_is_ready, udp))
        if name in SERVERS["dr"]:
            host.run("director", "realserver", "apply", "--vip", VIP[4], "--vip", VIP[6]).check()
    return found


def _is_ready(process: Process) -> bool:
    return "ready" in process.output()


# What is removed takes its connections along: the kernel would give them to the next trial's same real server.
CLEAN = """
sysctl -q -w net.ipv4.vs.expire_nodest_conn=1
ipvsadm -C
for turn in $(seq 100); do
  [ $(wc -l < /proc/net/ip_vs_conn) -le 1 ] && break
  sleep 0.05
done
sysctl -q -w net.ipv4.vs.expire_nodest_conn=0
[ $turn -lt 100 ]
"""


@pytest.fixture(autouse=True)
def clean(scene: Scene) -> Iterator[None]:
    """An empty table for the next trial; the director takes it as drift and makes what its file says."""
    yield
    scene.director.run("bash", "-ec", CLEAN).check()


def apply(
    scene: Scene,
    forward: str,
    protocol: str = "tcp",
    family: int = 4,
    *,
    weights: tuple[int, int] = (1, 1),
    servers: str | None = None,
    **extra: object,
) -> None:
    """One virtual server "vs" in front of the real servers of `forward`, or of `servers`."""
    kind = servers or forward
    reals = {
        name: {"address": scene.lab.host(name).address(NETWORK[kind], family), "weight": weight}
        for name, weight in zip(SERVERS[kind], weights, strict=True)
    }
    port = 8080 if protocol == "tcp" else 5353
    virtual = {"address": VIP[family], "port": port, "protocol": protocol, "forward": forward, "real_servers": reals}
    # JSON is YAML.
    scene.write_config(json.dumps({"defaults": {"interface": "lan"}, "virtual_servers": {"vs": {**virtual, **extra}}}))
    scene.director.run("director", "apply", CONFIG).check()


def ask(
    scene: Scene, count: int, protocol: str = "tcp", family: int = 4, source: str | None = None
) -> list[str | None]:
    port = "8080" if protocol == "tcp" else "5353"
    words = [protocol, VIP[family], port, str(count), *([source] if source else [])]
    names: list[str | None] = json.loads(
        scene.client.run("python", "-S", str(GUEST / "ask_names.py"), *words).check().stdout
    )
    return names


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("forward", ["dr", "nat"])
def test_traffic_reaches_every_real_server(scene: Scene, forward: str, protocol: str, family: int) -> None:
    apply(scene, forward, protocol, family, scheduler="rr")
    first, second = SERVERS[forward]
    assert Counter(ask(scene, 6, protocol, family)) == {first: 3, second: 3}


def test_wrr_gives_shares_by_weight(scene: Scene) -> None:
    apply(scene, "nat", weights=(3, 1), scheduler="wrr")
    assert Counter(ask(scene, 12)) == {"web-1": 9, "web-2": 3}


def test_weight_0_gets_nothing(scene: Scene) -> None:
    apply(scene, "nat", weights=(0, 1), scheduler="wlc")
    assert set(ask(scene, 6)) == {"web-2"}


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_least_connection_schedulers_use_both(scene: Scene, scheduler: str) -> None:
    apply(scene, "dr", scheduler=scheduler)
    assert set(ask(scene, 8)) == set(SERVERS["dr"])


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hash_schedulers_keep_a_source_on_one_server_and_fall_back(scene: Scene, scheduler: str) -> None:
    apply(scene, "nat", scheduler=scheduler)
    (chosen,) = set(ask(scene, 6))
    weights = (0, 1) if chosen == "web-1" else (1, 0)
    apply(scene, "nat", scheduler=scheduler, weights=weights)
    (other,) = set(ask(scene, 6))
    assert {chosen, other} == {"web-1", "web-2"}, "fallback is on by default"


def test_mh_with_ports_spreads_one_source(scene: Scene) -> None:
    apply(scene, "nat", scheduler="mh", scheduler_flags=["mh-port", "mh-fallback"])
    assert set(ask(scene, 24)) == {"web-1", "web-2"}


def test_persistence_keeps_a_client_on_its_server(scene: Scene) -> None:
    apply(scene, "nat", scheduler="rr", persistence={"timeout": "1m"})
    assert len(set(ask(scene, 6))) == 1


def test_persistence_by_prefix_keeps_a_network_on_its_server(scene: Scene) -> None:
    for last in (11, 12, 13):
        scene.client.run("ip", "addr", "replace", f"10.9.0.{last}/24", "dev", "lan").check()
    apply(scene, "nat", scheduler="rr", persistence={"timeout": "1m", "prefix": 24})
    names = {name for last in (11, 12, 13) for name in ask(scene, 2, source=f"10.9.0.{last}")}
    assert len(names) == 1
    assert None not in names


def test_a_connection_under_the_old_method_does_not_black_hole_new_ones(scene: Scene) -> None:
    """Its packets leave a route behind that is of no use to the new method; its real server waits for it to end."""
    apply(scene, "nat", servers="dr", scheduler="rr")
    assert ask(scene, 1) == [None], "under nat these servers' answers do not pass the director"
    scene.write_config(scene.director.read(CONFIG).replace('"nat"', '"dr"'))
    planned = scene.director.run("director", "plan", CONFIG)
    assert "nat -> dr" in planned.stdout
    applied = scene.director.run("director", "apply", CONFIG)
    assert applied.exit_code == 1
    assert "waiting for 1 connection of vs/l7proxy-" in applied.stderr
    (other,) = set(ask(scene, 4))
    assert other is not None
    assert f"vs/{other} " not in applied.stderr
