"""The Debian package on a booted Debian: installed, upgraded while both programs serve, removed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from director.lab.bytecode import PROJECT
from tests.deploy.cache import cached, key_of
from tests.deploy.director import WEIGHTS, config, wait_until_serving
from tests.deploy.machine import Machine
from tests.deploy.stage import BACKENDS, Stage, journal
from tests.deploy.wheels import release

pytestmark = [pytest.mark.deploy, pytest.mark.full, pytest.mark.timeout(400)]

OF_L7PROXY = "10.8.0.2"
PACKAGE = PROJECT / "deploy" / "package"
PROXIED = {
    "listeners": {"http": {"bind": "0.0.0.0:80"}},
    "upstreams": {"web": {"backends": {name: {"address": where} for name, where in BACKENDS.items()}}},
    "routes": [{"upstream": "web"}],
    "admin": {"socket": "/run/l7proxy/admin.sock"},
}


def _package(version: str, tree: Path) -> Path:
    """A folder with the package of that version, made of the release's wheels."""
    wheels = release(version, tree)
    files = sorted(path for folder in ("package", "systemd") for path in (PROJECT / "deploy" / folder).iterdir())
    key = key_of(str(wheels), *(path.read_bytes() for path in files if path.is_file()))
    return cached("deb", key, lambda folder: _make(wheels, folder))


def _make(wheels: Path, folder: Path) -> None:
    command = [PACKAGE / "build-deb", Path(sys.executable).parent, folder, wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def machine(tree: Path) -> Iterator[Machine]:
    with Machine(tree, {version: _package(version, tree) for version in ("0.1.0", "0.2.0")}) as booted:
        yield booted


def _install(stage: Stage, version: str) -> str:
    command = f"dpkg --force-unsafe-io --install /run/lab/{version}/lvs-director_{version}_*.deb 2>&1"
    return stage.shell(command, timeout_s=120)


def test_it_is_installed_and_nothing_is_started(stage: Stage) -> None:
    said = _install(stage, "0.1.0")
    assert "systemctl enable --now" in said
    for unit in ("director.service", "l7proxy.service", "l7proxy.socket"):
        assert stage.property(unit, "ActiveState") == "inactive"
        assert stage.property(unit, "UnitFileState") == "disabled"
    assert stage.shell("director --version").strip() == "director, version 0.1.0"
    assert stage.shell("stat -c '%a %U %G' /etc/director /etc/l7proxy").split("\n")[:2] == [
        "750 root director",
        "750 root l7proxy",
    ]


def test_both_serve(stage: Stage) -> None:
    stage.machine.write("/etc/director/director.yaml", json.dumps(config()))
    stage.machine.write("/etc/l7proxy/l7proxy.yaml", json.dumps(PROXIED))
    stage.machine.write(
        "/etc/systemd/system/l7proxy.socket.d/ports.conf", "[Socket]\nListenStream=\nListenStream=0.0.0.0:80\n"
    )
    stage.shell(
        "chgrp director /etc/director/director.yaml; chgrp l7proxy /etc/l7proxy/l7proxy.yaml; chmod 640 /etc/*/*.yaml;"
        "systemctl daemon-reload; systemctl enable --quiet --now director.service l7proxy.socket l7proxy.service",
        timeout_s=60,
    )
    wait_until_serving(stage)
    assert stage.weights() == WEIGHTS
    for sent in (stage.ask(), stage.ask(address=OF_L7PROXY)):
        assert sent.by_server.keys() == BACKENDS.keys()
        assert sent.lost == ()


def test_an_upgrade_loses_nothing(stage: Stage) -> None:
    pids = {name: stage.property(name, "MainPID") for name in ("director", "l7proxy")}
    by_director, by_l7proxy = stage.traffic(), stage.traffic(address=OF_L7PROXY)
    _install(stage, "0.2.0")
    stage.wait_for("l7proxy is the new release", f"grep -q /releases/0.2.0/ /proc/{pids['l7proxy']}/maps", 40.0)
    wait_until_serving(stage)
    for sent in map(stage.stop, (by_director, by_l7proxy)):
        assert sent.lost == ()
        assert sent.by_server.total() > 20
    assert stage.property("l7proxy", "MainPID") == pids["l7proxy"]
    assert stage.property("director", "MainPID") != pids["director"]
    assert stage.shell("director --version").strip() == "director, version 0.2.0"
    assert set(stage.shell("ls /opt/lvs-director/releases").split()) == {"0.1.0", "0.2.0"}
    assert journal(stage.machine, "director.service", "l7proxy.service") == ""


def test_removal_stops_both_and_says_that_the_kernel_forwards_on(stage: Stage) -> None:
    said = stage.shell("dpkg --remove lvs-director 2>&1", timeout_s=60)
    assert re.search("the kernel still forwards.*`director down` before", said, re.DOTALL)
    for unit in ("director.service", "l7proxy.service", "l7proxy.socket"):
        assert stage.property(unit, "ActiveState") == "inactive"
    assert stage.weights() == WEIGHTS
    assert stage.ask().lost == ()
    stage.shell("dpkg --purge lvs-director", timeout_s=60)
    assert stage.shell("ls -d /opt/lvs-director /var/lib/director 2>/dev/null || true") == ""
    assert "virtual_servers" in stage.machine.read("/etc/director/director.yaml")
