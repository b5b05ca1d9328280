"""A director as its systemd unit runs it: a user of its own, two capabilities, and a file system that is read-only.

One life, with real traffic; root and a member of the group operate it, and root goes on when it has stopped.
"""

from __future__ import annotations

import json
import re

import pytest

from director.lab.demo.scene import CONFIG, FILES, Scene, wait_until
from director.lab.hosts import Lab, LabHost, Process, Result

pytestmark = pytest.mark.lab

UID = "4711"
BOTH = "net_admin,net_raw"
CONFIGURATION = """
defaults: {interface: lan}
dead_connections: expire
virtual_servers:
  straight:
    address: 10.9.0.110
    port: 8080
    forward: dr
    scheduler: rr
    check: {type: icmp, interval: 500ms}
    real_servers: {a: {address: 10.9.0.21}, b: {address: 10.9.0.22}}
  translated:
    address: 10.9.0.111
    port: 80
    forward: nat
    scheduler: rr
    check: {type: script, command: [/etc/director/probe], interval: 500ms, timeout: 3s}
    real_servers: {a: {address: 10.9.1.11, port: 8080}}
  both:
    address: 10.9.0.112
    port: 80
    forward: fullnat
    scheduler: rr
    source: 10.9.1.1
    quorum_down: {command: [/etc/director/hook]}
    real_servers: {a: {address: 10.9.1.12, port: 8080}}
  marked:
    fwmark: 7
    traffic: [{address: 10.9.0.113, port: 80}]
    forward: nat
    scheduler: rr
    real_servers: {a: {address: 10.9.1.11, port: 8080}}
"""
VIPS = {
    "10.9.0.110:8080": {"l7proxy-1", "l7proxy-2"},
    "10.9.0.111:80": {"web-1"},
    "10.9.0.112:80": {"web-2"},
}
PROGRAM = "#!/bin/sh\ngrep -E '^(Uid|Cap|NoNewPrivs)' /proc/self/status > /run/director/{}\n"
# What systemd makes of the unit: ProtectSystem=strict, RuntimeDirectory=, StateDirectory=, AmbientCapabilities=.
SANDBOX = """
set -e
mount --make-rprivate /
for each in /run/director /var/lib/director; do mount --bind $each $each; done
for each in / /etc /run /var/lib; do mount -o remount,bind,ro $each; done
caps=$1; shift
exec setpriv --reuid=4711 --regid=4711 --clear-groups --no-new-privs \
  --inh-caps=-all$caps --ambient-caps=-all$caps --bounding-set=-all$caps "$@"
"""
# As deploy/systemd/director.tmpfiles has it, and the folders as the unit does.
PREPARE = """
install -d -o 4711 -g 4711 /run/director
install -d -o 4711 -g 4711 -m 750 /var/lib/director
install -o root -g 4711 -m 640 /dev/null /run/xtables.lock
chown root:4711 /etc/director /etc/director/director.yaml
chmod 750 /etc/director
chmod 640 /etc/director/director.yaml
modprobe ip_tables
ipvsadm -C
sysctl -qw net.ipv4.ip_forward=0 net.ipv4.vs.expire_nodest_conn=0
"""
# What root has made, but for its memory: the director has to make it again.
GONE = """
ipvsadm -C
ip address flush to 10.9.0.96/27
sysctl -qw net.ipv4.ip_forward=0
for table in nat mangle; do iptables-legacy -t $table -F; iptables-legacy -t $table -X; done
"""


def as_unit(capabilities: str = BOTH) -> list[str]:
    words = "".join(f",+{each}" for each in capabilities.split(",") if each)
    return ["unshare", "-m", "sh", "-c", SANDBOX, "sh", words, "director", "run", CONFIG]


def as_user(host: LabHost, groups: str, *words: str) -> Result:
    return host.run("setpriv", "--reuid=4712", "--regid=4712", groups, "director", *words)


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    found = Scene(lab)
    for name in ("l7proxy-1", "l7proxy-2", "web-1", "web-2"):
        host = lab.host(name)
        host.write("/etc/nginx/lab.conf", FILES.joinpath("nginx.conf").read_text().replace("NAME", name))
        host.start("nginx", "-c", "/etc/nginx/lab.conf")
        if name.startswith("l7proxy"):
            host.run("director", "realserver", "apply", "--vip", "10.9.0.110").check()
    found.director.write(CONFIG, CONFIGURATION)
    for name in ("probe", "hook"):
        found.director.write(f"/etc/director/{name}", PROGRAM.format(name), 0o755)
    found.director.run("sh", "-ec", PREPARE).check()
    return found


def answering(scene: Scene, place: str, times: int = 2) -> set[str]:
    """Who answers there."""
    urls = [f"http://{place}/"] * times
    said = scene.client.run("curl", "-s", "--max-time", "3", "-H", "Connection: close", *urls).stdout
    return {json.loads(line)["server"] for line in said.splitlines()}


def owners(host: LabHost) -> dict[str, str]:
    found = host.run("find", "/run/director", "/var/lib/director", "-printf", "%p %U %y\n").check().stdout
    return {path: uid for path, uid, _ in map(str.split, found.splitlines())}


def sets(host: LabHost, name: str) -> dict[str, str]:
    """What a program that the director has started said of its rights."""
    path = f"/run/director/{name}"
    wait_until(f"{name} has run", lambda: host.run("test", "-s", path).exit_code == 0)
    return dict(line.split(":\t", 1) for line in host.read(path).splitlines())


def has_no_rights(found: dict[str, str]) -> bool:
    none = all(int(found[each], 16) == 0 for each in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    return none and found["NoNewPrivs"] == "1" and found["Uid"].split() == [UID] * 4


def rules(host: LabHost) -> list[str]:
    return re.findall(r"^-A .*$", host.run("iptables-legacy-save").check().stdout, re.M)


def test_life_of_an_unprivileged_director(scene: Scene) -> None:
    host = scene.director
    # Root was first: what it has made there must be the director's to go on with.
    host.run("director", "apply", CONFIG).check()
    assert {uid for path, uid in owners(host).items()} == {UID}
    host.run("sh", "-ec", GONE).check()

    process = scene.running["director"] = host.start(*as_unit(), name="director")
    wait_until("it runs", lambda: "director is running" in process.output() or not process.alive(), 40)
    scene.wait_for_vip("10.9.0.111")
    for place, servers in VIPS.items():
        wait_until(f"{place} serves", lambda place=place, servers=servers: answering(scene, place) == servers)  # type: ignore[misc] # bound at once
    assert host.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv4.vs.expire_nodest_conn").stdout.split() == [
        "1",
        "1",
    ]
    assert {"MARK", "SNAT"} <= set(re.findall(r"-j (\w+)", "\n".join(rules(host))))

    check_programs_and_operators(host)
    expected = ("reload refused", "no real server takes connections vs=both")
    lines = process.output().splitlines()
    assert [line for line in lines if " ERROR " in line and not any(each in line for each in expected)] == []

    process.kill()
    assert process.wait(20) == 0
    assert answering(scene, "10.9.0.111:80") == {"web-1"}  # the kernel goes on
    assert set(owners(host).values()) == {UID}
    host.run("director", "down").check()
    assert (host.run("ipvsadm", "-Sn").stdout, rules(host)) == ("", [])


def check_programs_and_operators(host: LabHost) -> None:
    """Root and the group may operate it, and nobody else; what it starts has none of its rights."""
    assert has_no_rights(sets(host, "probe"))
    host.run("director", "drain", "both", "a").check()
    assert has_no_rights(sets(host, "hook"))
    assert host.run("director", "plan", CONFIG).check().stdout.startswith("Nothing to change")
    as_user(host, f"--groups={UID}", "weight", "straight", "a", "50").check()
    stranger = as_user(host, "--clear-groups", "weight", "straight", "a", "60")
    assert stranger.exit_code == 1
    assert "Permission denied: run as root" in stranger.stderr
    host.write(CONFIG, "virtual_servers: {web: {address: 10.0.0.256}}")
    refused = as_user(host, f"--groups={UID}", "reload")
    assert refused.exit_code == 1
    assert f"{CONFIG}:1:34: virtual_servers.web.address: '10.0.0.256' is not" in refused.stderr


def test_what_is_missing_is_named(scene: Scene) -> None:
    def ends(capabilities: str) -> str:
        process: Process = scene.director.start(*as_unit(capabilities))
        assert process.wait(30) == 1
        return process.output()

    scene.director.write(CONFIG, CONFIGURATION)
    unit = "(in a systemd unit AmbientCapabilities= and CapabilityBoundingSet=)"
    assert f"not permitted to use IPVS: run as root, or with CAP_NET_ADMIN {unit}" in ends("net_raw")
    assert f"run as root, or with CAP_NET_RAW {unit}" in ends("net_admin")
