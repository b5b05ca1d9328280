"""The director's unit under a real systemd, installed by hand as docs/installation.md says.

The tests build on each other. The program is the checkout's own, in a venv of the machine's Python: how releases get
there is the installers' matter.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from director.lab.demo.scene import wait_until
from director.lab.hosts import Lab, LabHost

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

DOCUMENT = Path(__file__).parents[2] / "docs" / "installation.md"
PROJECT = "/run/lab/project"
PACKAGES = f"{PROJECT}/.venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
VIP, FULL = "10.8.0.110", "10.8.0.111"
FILE = f"""
virtual_servers:
  web:
    address: {VIP}
    port: 80
    forward: nat
    interface: lan
    real_servers:
      a: {{address: 10.8.1.11, port: 8080, check: {{type: script, command: [/usr/local/bin/probe], interval: 500ms}}}}
  full:
    address: {FULL}
    port: 80
    forward: fullnat
    source: 10.8.1.1
    interface: lan
    real_servers: {{a: {{address: 10.8.1.11, port: 8080, check: {{type: icmp}}}}}}
"""
PROBE = (
    "#!/bin/sh\ngrep -q '^CapEff:.0000000000000000$' /proc/self/status && ! touch /etc/mine /home/mine 2>/dev/null\n"
)
PROGRAM = f"""
set -eu
release=/opt/lvs-director/releases/checkout
python3 -m venv --without-pip $release
printf '%s\\n' {PACKAGES} {PROJECT} >$(echo $release/lib/python3*/site-packages)/checkout.pth
printf '#!%s/bin/python\\nfrom director.__main__ import main\\nmain()\\n' $release >$release/bin/director
chmod 755 $release/bin/director
ln -s $release /opt/lvs-director/current
ln -s /opt/lvs-director/current/bin/director /usr/local/sbin/director
$release/bin/director --version
"""
SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a")
    def log_message(self, *_): pass
HTTPServer(("", 8080), Answer).serve_forever()
"""


def by_hand() -> str:
    """The shell block for a director, in the checkout."""
    section = DOCUMENT.read_text().split("\nFor a director:\n", 1)[1]
    block = section.split("```sh\n", 1)[1].split("```", 1)[0]
    for own, ours in (
        ("director.yaml /etc", "director.yaml /etc"),
        ("deploy/systemd/director.modules-load", "director.modules-load"),
    ):
        assert own in block
        block = block.replace(own, f"/root/{ours}")
    return f"set -eu; cd {PROJECT}\n{block}"


def shown(host: LabHost, name: str) -> str:
    return host.run("systemctl", "show", "--value", "-p", name, "director").check().stdout.strip()


def log(host: LabHost, *words: str) -> str:
    return host.run("journalctl", "-u", "director", "-o", "cat", "--no-pager", "-q", *words).check().stdout


def answers(around: Lab) -> bool:
    urls = (f"http://{address}/" for address in (VIP, FULL))
    return around.host("client").run("curl", "-s", "--max-time", "2", *urls).stdout == "aa"


@pytest.fixture(scope="module")
def host(debian: LabHost, around: Lab) -> LabHost:
    around.host("web-1").start("python3", "-c", SERVER)
    debian.write("/usr/local/bin/probe", PROBE, 0o755)
    debian.run("sh", "-c", PROGRAM, timeout_s=90).check()
    debian.write("/root/director.yaml", FILE)
    modules = debian.read(f"{PROJECT}/deploy/systemd/director.modules-load").replace("#ip_tables", "ip_tables")
    debian.write("/root/director.modules-load", modules)
    debian.run("sh", "-c", by_hand(), timeout_s=90).check()
    return debian


def test_installed_by_hand_it_is_active_serves_and_has_nothing_to_complain_of(host: LabHost, around: Lab) -> None:
    assert shown(host, "ActiveState") == "active"
    wait_until("the VIP answers", lambda: answers(around))
    wait_until("its line", lambda: shown(host, "StatusText") == "2 virtual servers, 2 of 2 real servers serve")
    assert log(host, "-p", "warning") == ""
    status = host.read(f"/proc/{shown(host, 'MainPID')}/status")
    assert "CapBnd:\t0000000000003000" in status  # net_admin and net_raw
    assert "Uid:\t0\t" not in status
    assert "Seccomp:\t2" in status


def test_reload_fails_visibly_when_the_file_is_refused_and_the_old_one_stays(host: LabHost, around: Lab) -> None:
    pid = shown(host, "MainPID")
    host.run(
        "sed",
        "-i",
        "s/port: 8080, check: {type: script/port: 80800, check: {type: script/",
        "/etc/director/director.yaml",
    ).check()
    refused = host.run("systemctl", "reload", "director")
    assert refused.exit_code == 1
    assert "reload refused, the old configuration stays" in shown(host, "StatusText")
    assert "80800" in log(host, "-p", "err")
    host.run("sed", "-i", "s/port: 80800/port: 8080, weight: 7/", "/etc/director/director.yaml").check()
    host.run("systemctl", "reload", "director").check()
    assert "-w 7" in host.run("ipvsadm", "-Sn").check().stdout
    assert "refused" not in shown(host, "StatusText")
    assert (shown(host, "MainPID"), shown(host, "ActiveState")) == (pid, "active")
    assert answers(around)


def test_director_that_hangs_is_replaced_by_the_watchdog(host: LabHost, around: Lab) -> None:
    host.write("/etc/systemd/system/director.service.d/quick.conf", "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")
    host.run("sh", "-ec", "systemctl daemon-reload; systemctl restart director", timeout_s=60).check()
    pid = shown(host, "MainPID")
    host.run("kill", "-STOP", pid).check()
    wait_until("it was started again", lambda: shown(host, "NRestarts") == "1", 40)
    assert answers(around)
    wait_until("it is ready", lambda: shown(host, "ActiveState") == "active", 40)
    assert shown(host, "MainPID") != pid
    assert "Fatal Python error: Aborted" in log(host)


def test_killed_one_comes_back_and_a_stopped_one_leaves_the_table(host: LabHost, around: Lab) -> None:
    table = host.run("ipvsadm", "-Sn").check().stdout
    host.run("kill", "-KILL", shown(host, "MainPID")).check()
    wait_until("it was started again", lambda: shown(host, "NRestarts") == "2", 40)
    wait_until("it is ready", lambda: shown(host, "ActiveState") == "active", 40)
    host.run("systemctl", "stop", "director", timeout_s=60).check()
    assert shown(host, "Result") == "success"
    assert host.run("ipvsadm", "-Sn").check().stdout == table
    assert answers(around)
    owners = host.run("find", "/run/director", "/var/lib/director", "-printf", "%u\\n").check().stdout.split()
    assert set(owners) == {"director"}
    assert len(owners) > 4
