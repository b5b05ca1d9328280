"""check, plan, apply and realserver on a real kernel, as an operator types them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from director.lab import boot
from director.lab.demo.scene import CONFIG
from director.lab.hosts import Lab, LabHost, Result
from director.lab.kernels import Kernel

pytestmark = pytest.mark.lab

GOOD = """
defaults: {interface: lan}
virtual_servers:
  web:
    address: 10.9.0.100
    port: 80
    forward: dr
    scheduler: wrr
    real_servers:
      a: {address: 10.9.0.21, weight: 3}
      b: {address: 10.9.0.22}
  web6:
    address: fd09::100
    port: 80
    forward: nat
    scheduler: mh
    scheduler_flags: [mh-port, mh-fallback]
    real_servers:
      a: {address: "fd09:1::11", port: 8080}
  dns:
    address: 10.9.0.100
    port: 53
    protocol: udp
    forward: nat
    scheduler: sh
    persistence: {timeout: 2m, prefix: 24}
    real_servers:
      a: {address: 10.9.1.11, port: 5353, weight: 0}
"""
TABLE = """\
-A -t 10.9.0.100:80 -s wrr
-a -t 10.9.0.100:80 -r 10.9.0.21:80 -g -w 3
-a -t 10.9.0.100:80 -r 10.9.0.22:80 -g -w 100
-A -t [fd09::100]:80 -s mh -b mh-fallback,mh-port
-a -t [fd09::100]:80 -r [fd09:1::11]:8080 -m -w 100
-A -u 10.9.0.100:53 -s sh -p 120 -M 255.255.255.0 -b sh-fallback
-a -u 10.9.0.100:53 -r 10.9.1.11:5353 -m -w 0
"""

BAD: dict[str, tuple[str | bytes, str]] = {
    "unknown key": (
        "virtual_servers: {web: {adress: 10.0.0.1}}",
        ":1:25: virtual_servers.web.adress: unknown key 'adress': did you mean 'address'?",
    ),
    "duplicate key": (GOOD.replace("    port: 53\n", "    port: 53\n    port: 54\n"), "duplicate key 'port'"),
    "bad address": (GOOD.replace("10.9.0.21", "10.9.0.256"), "'10.9.0.256' is not an IP address"),
    "port 70000": (GOOD.replace("port: 53\n", "port: 70000\n"), "use a number from 1 to 65535"),
    "duplicate virtual server": (
        GOOD.replace("port: 53\n    protocol: udp\n", "port: 80\n"),
        "is a duplicate of virtual server 'web'",
    ),
    "dr on another port": (
        GOOD.replace("{address: 10.9.0.22}", "{address: 10.9.0.22, port: 81}"),
        "81 differs from the virtual server's port 80",
    ),
    "unknown scheduler": (GOOD.replace("wrr", "wwr"), "'wwr' is not known: did you mean 'wrr'?"),
    "empty": ("", "the file is empty"),
    "binary": (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "this is not a text file"),
}
AS_NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


def table(host: LabHost) -> str:
    return host.run("ipvsadm", "-Sn").check().stdout


@pytest.fixture
def director(lab: Lab) -> Iterator[LabHost]:
    host = lab.host("director")
    host.write(CONFIG, GOOD)
    yield host
    host.run("ipvsadm", "-C").check()
    host.run("ip", "addr", "flush", "dev", "lan", "to", "10.9.0.100/32").check()
    host.run("ip", "-6", "addr", "flush", "dev", "lan", "to", "fd09::100/128").check()
    host.run("rm", "-rf", "/var/lib/director").check()


def run(host: LabHost, *words: str) -> Result:
    return host.run("director", *words)


def test_plan_says_what_apply_then_does_and_a_second_apply_changes_nothing(director: LabHost) -> None:
    planned = run(director, "plan", CONFIG, "--json")
    assert planned.exit_code == 2
    assert table(director) == "", "plan must not change the kernel"
    applied = run(director, "apply", CONFIG, "--json").check()
    assert json.loads(applied.stdout) == json.loads(planned.stdout)
    assert sorted(table(director).splitlines()) == sorted(TABLE.splitlines())
    held = director.run("ip", "-o", "addr", "show", "lan").check().stdout
    assert "10.9.0.100/32" in held
    assert "fd09::100/128" in held
    again = director.run("director", "apply", CONFIG, fresh=True).check()
    assert "Nothing to change" in again.stdout
    assert run(director, "plan", CONFIG).exit_code == 0


def test_apply_removes_what_it_made_and_leaves_what_others_made(director: LabHost) -> None:
    run(director, "apply", CONFIG).check()
    director.run("ipvsadm", "-A", "-t", "10.9.0.199:99", "-s", "rr").check()
    director.write(CONFIG, GOOD[: GOOD.index("  web6:")].replace("      b: {address: 10.9.0.22}\n", ""))
    run(director, "apply", CONFIG).check()
    assert sorted(table(director).splitlines()) == [
        "-A -t 10.9.0.100:80 -s wrr",
        "-A -t 10.9.0.199:99 -s rr",
        "-a -t 10.9.0.100:80 -r 10.9.0.21:80 -g -w 3",
    ]
    assert "fd09::100/128" not in director.run("ip", "-o", "addr").check().stdout


def test_apply_keeps_a_checked_server_at_zero(director: LabHost) -> None:
    director.write(CONFIG, GOOD.replace("defaults: {", "defaults: {check: {type: tcp}, "))
    run(director, "apply", CONFIG).check()
    director.run("ipvsadm", "-e", "-t", "10.9.0.100:80", "-r", "10.9.0.22:80", "-g", "-w", "0").check()
    assert run(director, "plan", CONFIG).exit_code == 0, "nobody has probed it: it may be dead"


def test_a_bad_file_gives_a_line_a_problem_and_changes_nothing(director: LabHost) -> None:
    run(director, "apply", CONFIG).check()
    before = table(director)
    for name, (content, expected) in BAD.items():
        director.write("/etc/director/bad.yaml", content)
        # The texts are the unit tests' matter; here one kind tries every command, the others the one that writes.
        for command in ("check", "plan", "apply", "run") if name == "unknown key" else ("apply",):
            result = run(director, command, "/etc/director/bad.yaml")
            assert result.exit_code == 1, result
            assert result.stdout == ""
            assert all(line.startswith("/etc/director/bad.yaml:") for line in result.stderr.splitlines()), result
            assert expected in result.stderr
        assert table(director) == before, name


def test_a_missing_file_a_directory_and_no_permission_say_so(director: LabHost) -> None:
    for path, expected in (("/nowhere.yaml", "no such file"), ("/etc", "this is a directory")):
        result = run(director, "apply", path)
        assert (result.exit_code, result.stderr) == (1, f"{path}:1:1: {expected}: " + result.stderr.split(": ", 2)[2])
    director.write("/etc/director/secret.yaml", GOOD, mode=0o600)
    refused = director.run(
        "setpriv", "--reuid=65534", "--clear-groups", "director", "check", "/etc/director/secret.yaml"
    )
    assert refused.exit_code == 1
    assert "permission denied: run as root" in refused.stderr


def test_without_root_it_says_so_and_what_to_do(director: LabHost) -> None:
    result = director.run(*AS_NOBODY, "director", "apply", CONFIG)
    assert result.exit_code == 1
    assert "run as root" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_usage_error_exits_64(director: LabHost) -> None:
    assert run(director, "plan").exit_code == 64
    assert run(director, "weight", "web", "a", "70000").exit_code == 64


def test_an_interface_that_is_not_there_is_named_and_nothing_is_done(director: LabHost) -> None:
    director.write(CONFIG, GOOD.replace("interface: lan", "interface: eth7"))
    result = run(director, "apply", CONFIG)
    assert result.exit_code == 1
    assert "eth7" in result.stderr
    assert "lan" in result.stderr, "it names the interfaces that are there"
    assert f"nothing of {CONFIG} is applied: what was there before is back" in result.stderr
    assert table(director) == ""


def test_without_ip_vs_it_says_so_and_what_to_do(kernel: Kernel) -> None:
    """On this machine's own kernel, if that has none: nothing else tells a kernel without IPVS from one with it."""
    with boot("host", ipvs=False) as own, own.lay_out() as lab:
        host = lab.host("director")
        if host.run("test", "-e", "/proc/net/ip_vs").exit_code == 0:
            pytest.skip("this machine's own kernel has ip_vs, so its absence cannot be tried")
        host.write(CONFIG, GOOD)
        for command in ("plan", "apply", "run"):
            result = host.run("director", command, CONFIG)
            assert result.exit_code == 1
            assert "modprobe ip_vs" in result.stderr
            assert "Traceback" not in result.stderr
        assert "10.9.0.100" not in host.run("ip", "-o", "addr").check().stdout


def test_realserver_apply_from_the_directors_file_and_undo(lab: Lab, director: LabHost) -> None:
    host = lab.host("l7proxy-1")
    before = host.run("sysctl", "-n", "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce").check().stdout
    host.write(CONFIG, GOOD)
    host.run("director", "realserver", "apply", CONFIG).check()
    assert "10.9.0.100/32" in host.run("ip", "-o", "addr", "show", "lo").check().stdout
    assert host.run("sysctl", "-n", "net.ipv4.conf.all.arp_ignore").check().stdout == "1\n"
    assert "Nothing to change" in host.run("director", "realserver", "apply", CONFIG).check().stdout
    host.run("director", "realserver", "apply", "--undo").check()
    assert "10.9.0.100" not in host.run("ip", "-o", "addr", "show", "lo").check().stdout
    after = host.run("sysctl", "-n", "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce").check().stdout
    assert after == before
    other = lab.host("client")
    other.write(CONFIG, GOOD)
    refused = other.run("director", "realserver", "apply", CONFIG)
    assert refused.exit_code == 1
    assert "--vip" in refused.stderr
