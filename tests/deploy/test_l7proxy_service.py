"""l7proxy under a real systemd, installed by hand as docs/installation.md says: its rights, its sockets, a restart
under load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from director.lab.hosts import Lab, LabHost, Process

pytestmark = pytest.mark.deploy

PROGRAM = """#!/usr/bin/python3
import sys
sys.path[:0] = ["/run/lab/project", "/run/lab/project/.venv/lib/python3.11/site-packages"]
from l7proxy.__main__ import main
main()
"""
DOCUMENT = Path(__file__).parents[2] / "docs" / "installation.md"
RELEASE = """
set -eu
install -D -m 755 /tmp/l7proxy /opt/lvs-director/current/bin/l7proxy
ln -s /opt/lvs-director/current/bin/l7proxy /usr/local/sbin/l7proxy
"""
CONFIG = """
listeners: {http: {bind: "0.0.0.0:80"}, more: {bind: "0.0.0.0:443"}}
routes: [{upstream: web}]
upstreams: {web: {check: {type: tcp}, backends: {a: {address: "10.8.1.11:8000"}}}}
admin: {socket: /run/l7proxy/admin.sock}
state: /var/lib/l7proxy/state.json
timeouts: {drain: 3s}
"""
CLIENT = """
import collections, json, os, socket, time
seen = collections.Counter()
while not os.path.exists("/tmp/enough"):
    try:
        with socket.create_connection(("10.8.0.2", 80), 60) as client:
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
            seen[b"".join(iter(lambda: client.recv(65536), b""))[:12].decode()] += 1
    except OSError as error:
        seen[repr(error)] += 1
    time.sleep(0.01)
print(json.dumps(seen))
"""


def by_hand() -> str:
    """The shell block for an l7proxy, in the checkout."""
    section = DOCUMENT.read_text().split("\nFor an l7proxy.", 1)[1]
    block = section.split("```sh\n", 1)[1].split("```", 1)[0]
    assert " l7proxy.yaml " in block
    return f"set -eu; cd /run/lab/project\n{block.replace(' l7proxy.yaml ', ' /tmp/l7proxy.yaml ')}"


@pytest.fixture(scope="module")
def backend(around: Lab) -> Iterator[Process]:
    process = around.host("web-1").start("python3", "-m", "http.server", "8000")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def proxy(debian: LabHost, around: Lab, backend: Process) -> LabHost:
    """The machine, when l7proxy serves."""
    debian.write("/tmp/l7proxy", PROGRAM)
    debian.write("/tmp/l7proxy.yaml", CONFIG)
    debian.run("sh", "-c", RELEASE).check()
    debian.run("sh", "-c", by_hand(), timeout_s=90).check()
    around.host("client").write("/tmp/client.py", CLIENT)
    return debian


def shown(host: LabHost, *names: str) -> list[str]:
    said = host.run("systemctl", "show", "l7proxy", "--property", ",".join(names)).check().stdout
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    return [found[name] for name in names]


def test_it_serves_without_any_right_and_says_how_it_is(proxy: LabHost, around: Lab) -> None:
    state, status, pid = shown(proxy, "SubState", "StatusText", "MainPID")
    assert (state, status) == ("running", "2 listeners, 1 of 1 backend up")
    rights = dict(line.partition(":\t")[::2] for line in proxy.read(f"/proc/{pid}/status").splitlines())
    assert {rights[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")
    assert "0" not in rights["Uid"].split()
    said = around.host("client").run("curl", "-s", "-o/dev/null", "-w%{http_code}", "http://10.8.0.2/").stdout
    assert said == "200"


def test_a_bad_file_fails_the_reload_and_the_old_one_serves(proxy: LabHost) -> None:
    proxy.run("sh", "-c", "sed 's/upstream: web/upstream: wob/' /tmp/l7proxy.yaml >/etc/l7proxy/l7proxy.yaml").check()
    assert proxy.run("systemctl", "reload", "l7proxy", timeout_s=60).exit_code
    assert "did you mean 'web'" in proxy.run("journalctl", "-u", "l7proxy", "--no-pager").stdout
    proxy.run("sh", "-c", "cat /tmp/l7proxy.yaml >/etc/l7proxy/l7proxy.yaml").check()
    proxy.run("systemctl", "reload", "l7proxy", timeout_s=60).check()
    assert shown(proxy, "SubState") == ["running"]


def test_neither_a_restart_nor_an_upgrade_refuses_a_client(proxy: LabHost, around: Lab) -> None:
    before = shown(proxy, "MainPID")
    client = around.host("client").start("python3", "/tmp/client.py")
    proxy.run("systemctl", "restart", "l7proxy", timeout_s=60).check()
    (pid,) = after = shown(proxy, "MainPID")
    assert after != before
    proxy.run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "l7proxy").check()
    took_over = "until journalctl -u l7proxy -o cat | grep -q 'took over'; do sleep 0.5; done; sleep 2"
    proxy.run("sh", "-c", took_over, timeout_s=60).check()
    around.host("client").write("/tmp/enough", "")
    assert client.wait(30) == 0
    seen = json.loads(client.output())
    assert list(seen) == ["HTTP/1.1 200"], seen
    assert seen["HTTP/1.1 200"] > 50
    assert shown(proxy, "MainPID", "SubState", "NRestarts") == [pid, "running", "0"]
    assert proxy.read(f"/proc/{pid}/task/{pid}/children").split(), "a worker serves since then"
    said = proxy.run("journalctl", "-u", "l7proxy", "-p", "warning", "--no-pager", "-o", "cat").stdout
    assert "not permitted" not in said


def test_stopped_with_its_socket_nobody_listens(proxy: LabHost, around: Lab) -> None:
    proxy.run("systemctl", "stop", "l7proxy.socket", "l7proxy.service", timeout_s=60).check()
    assert shown(proxy, "ActiveState", "Result") == ["inactive", "success"]
    assert around.host("client").run("curl", "-s", "http://10.8.0.2/").exit_code == 7
