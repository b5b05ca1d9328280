"""apply on a real kernel, with real connections: all of it or nothing, confirmed or undone, drained or cut off."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from director.lab.demo.scene import CONFIG, Scene, told, wait_until
from director.lab.hosts import Lab, Process

pytestmark = pytest.mark.lab

VIP = "10.9.0.110"
WEB1, WEB2 = "10.9.1.11:8080", "10.9.1.12:8080"
UDP1, UDP2 = "10.9.1.11:5353", "10.9.1.12:5353"
FILE = f"""
defaults: {{interface: lan}}
timeouts: {{tcp: 900s, tcpfin: 120s, udp: 1s}}
virtual_servers:
  web:
    address: {VIP}
    port: 80
    forward: nat
    scheduler: rr
    real_servers:
      a: {{address: 10.9.1.11, port: 8080}}
      b: {{address: 10.9.1.12, port: 8080}}
  names:
    address: {VIP}
    port: 5353
    protocol: udp
    forward: nat
    scheduler: rr
    real_servers:
      a: {{address: 10.9.1.11}}
      b: {{address: 10.9.1.12}}
"""
WITHOUT_B = FILE.replace("      b: {address: 10.9.1.12, port: 8080}\n", "").replace(
    "      b: {address: 10.9.1.12}\n", ""
)
# This kernel has no module for it, so that what comes after it in the file is tried and must go again.
BROKEN = f"""{WITHOUT_B}
  odd: {{address: {VIP}, port: 81, forward: nat, scheduler: twos, real_servers: {{a: {{address: 10.9.1.11}}}}}}
  late: {{address: 10.9.0.111, port: 82, forward: nat, real_servers: {{a: {{address: 10.9.1.11}}}}}}
"""
# Two connections, one for each real server, and a flow of datagrams from one port to each; every answer is told.
CLIENT = r"""
import json, socket, sys, time
vip, udp = sys.argv[1], len(sys.argv) > 2
peers = [socket.create_connection((vip, 80), 5) for _ in range(0 if udp else 2)]
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2 if udp else 0)]
while True:
    ok = True
    try:
        for peer in peers:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            ok = ok and peer.recv(65536).startswith(b"HTTP/1.1 200")
        for flow in flows:
            flow.sendto(b"x", (vip, 5353))
    except OSError as error:
        ok = repr(error)
    print(json.dumps({"ok": ok}), flush=True)
    if ok is not True:
        break
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def backends(lab: Lab) -> Scene:
    scene = Scene(lab)
    scene.start_backends()
    scene.client.write("/tmp/client.py", CLIENT)
    return scene


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "daemon"])
def daemon(backends: Scene, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether a director runs; FILE is in force either way."""
    backends.write_config(FILE)
    if request.param:
        backends.start_director(fresh=False)
        backends.wait_for_vip(VIP)
    else:
        backends.director.run("director", "apply", CONFIG).check()
    yield request.param
    if request.param:
        process = backends.running.pop("director")
        process.kill(signal.SIGTERM)
        assert process.wait(20.0) == 0, process.output()
    backends.director.run("ipvsadm", "-C").check()
    backends.director.run("ip", "addr", "flush", "dev", "lan", "to", f"{VIP}/32").check()
    backends.director.run("rm", "-rf", "/var/lib/director").check()


@pytest.fixture
def scene(backends: Scene, daemon: bool) -> Iterator[Scene]:
    """The pieces, and FILE in force again afterwards."""
    before = table(backends)
    yield backends
    backends.write_config(FILE)
    if daemon:
        backends.running["director"].kill(signal.SIGHUP)
        backends.wait_for_weights({WEB1: 100, WEB2: 100, UDP1: 100, UDP2: 100})
    else:  # as `director apply` would, in a tenth of the time
        backends.director.run("ipvsadm", "-C").check()
        backends.director.run("ipvsadm", "-R", stdin=before).check()


def table(scene: Scene) -> str:
    return scene.director.run("ipvsadm", "-Sn").check().stdout


def converse(scene: Scene, *words: str) -> Process:
    process = scene.client.start("python", "-S", "/tmp/client.py", VIP, *words, name="client")
    wait_until("answers", lambda: len(told(process)) > 2)
    return process


def goes_on(process: Process) -> None:
    before = len(told(process))
    wait_until("it goes on", lambda: len(told(process)) > before + 3)
    assert all(answer["ok"] is True for answer in told(process))


def end(process: Process) -> None:
    process.kill(signal.SIGKILL)
    process.wait(10.0)


def test_a_death_after_any_message_converges_and_can_be_undone(backends: Scene) -> None:
    done = backends.director.run("python", "-m", "tests.lab.guest.cut_applies", timeout_s=90, fresh=False).check()
    assert json.loads(done.stdout)["deaths"] > 10


def test_a_failure_in_the_middle_puts_everything_back_and_no_connection_breaks(scene: Scene, daemon: bool) -> None:
    before = table(scene)
    client = converse(scene)
    scene.write_config(BROKEN)
    result = scene.director.run("director", "apply", CONFIG)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert lines[0].startswith(f"director: cannot create tcp {VIP}:81: scheduler 'twos' is not in this kernel")
    assert lines[1:] == [f"director: nothing of {CONFIG} is applied: what was there before is back"]
    assert table(scene) == before
    assert "10.9.0.111" not in scene.director.run("ip", "-o", "addr").check().stdout
    goes_on(client)
    if daemon:
        scene.running["director"].kill(signal.SIGHUP)
        output = scene.running["director"].output
        wait_until("it is refused", lambda: "reload refused, the old configuration stays" in output())
        assert table(scene) == before
        goes_on(client)
    end(client)


def test_what_is_not_confirmed_undoes_itself_and_what_is_stays(scene: Scene) -> None:
    before = table(scene)
    client = converse(scene)
    scene.write_config(WITHOUT_B)
    # The shell ends with this line, and its terminal with it.
    script = f"director apply --confirm 2s {CONFIG}"
    applied = scene.director.run("script", "-qec", script, "/dev/null").check()
    assert "unless you type: director confirm" in applied.stdout
    assert scene.weights() == {WEB1: 100, WEB2: 0, UDP1: 100, UDP2: 0}
    wait_until("it undoes itself", lambda: table(scene) == before)
    goes_on(client)
    end(client)
    scene.director.run("director", "apply", "--confirm", "60s", CONFIG).check()
    confirmed = scene.director.run("director", "confirm").check()
    assert confirmed.stdout.splitlines()[-1] == "2 changes made."
    assert scene.weights() == {WEB1: 100, UDP1: 100}


def test_a_drain_waits_for_a_connection_to_end_and_no_longer_than_it_may(scene: Scene, daemon: bool) -> None:
    flow, client = converse(scene, "udp"), converse(scene)
    scene.write_config(WITHOUT_B)
    apply = scene.director.start("director", "apply", "--drain", "5s", CONFIG)
    name = "names/b" if daemon else "names/10.9.1.12:5353"
    wait_until("it drains", lambda: f"draining {name}: 1 connection, " in apply.output())
    assert scene.weights() == {WEB1: 100, WEB2: 0, UDP1: 100, UDP2: 0}
    end(flow)
    scene.wait_for_weights({WEB1: 100, WEB2: 0, UDP1: 100})
    wait_until("the flow's end is seen", lambda: UDP2 not in scene.weights())
    assert apply.alive()
    goes_on(client)
    assert apply.wait(10.0) == 0, apply.output()
    assert f"{name} has drained" in apply.output()
    assert scene.weights() == {WEB1: 100, UDP1: 100}, "the connection goes on, and its time is over"
    assert " changes made." in apply.output()
    end(client)


@pytest.mark.parametrize("daemon", [False], ids=["alone"], indirect=True)
def test_what_nobody_could_confirm_does_not_stay(backends: Scene, daemon: bool) -> None:
    before = table(backends)
    in_the_way = "/var/lib/director/confirm.sock"
    backends.director.run("mkdir", "-p", in_the_way).check()
    backends.write_config(WITHOUT_B)
    result = backends.director.run("director", "apply", "--confirm", "60s", CONFIG)
    backends.director.run("rmdir", in_the_way).check()
    backends.write_config(FILE)
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert lines == [
        f"director: could not listen for a confirmation on {in_the_way}: Is a directory",
        f"director: nothing of {CONFIG} is applied: what was there before is back",
    ]
    assert table(backends) == before
    assert backends.director.run("test", "-e", "/var/lib/director/journal.json").exit_code == 1
