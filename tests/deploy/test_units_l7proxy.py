"""l7proxy's units: what systemd makes of them, without one that runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICE = UNITS / "l7proxy.service"
SOCKET = UNITS / "l7proxy.socket"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here (Debian: systemd)")


def settings(unit: Path) -> list[tuple[str, str]]:
    """Its keys and values, in their order."""
    lines = (line for line in unit.read_text().splitlines() if line and line[0] not in "#[;")
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def analyzed(*words: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *words], check=False, capture_output=True, text=True, timeout=60)


def exposure(unit: Path) -> subprocess.CompletedProcess[str]:
    return analyzed("security", "--offline=true", "--no-pager", "--threshold=25", str(unit))


@needs_analyze
def test_service_is_exposed_to_less_than_two_and_a_half() -> None:
    found = exposure(SERVICE)
    assert found.returncode == 0, found.stdout


@needs_analyze
def test_exposure_of_a_service_without_restrictions_is_above_that(tmp_path: Path) -> None:
    bare = tmp_path / "l7proxy.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(bare).returncode != 0


@needs_analyze
def test_systemd_knows_every_line(tmp_path: Path) -> None:
    service = SERVICE.read_text().replace("/opt/lvs-director/current/bin/l7proxy", "/bin/true")
    for name, text in ((SERVICE.name, service), (SOCKET.name, SOCKET.read_text())):
        (tmp_path / name).write_text(text)
    found = analyzed("verify", "--man=no", str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_service_has_no_capability_and_a_user_of_its_own() -> None:
    found = dict(settings(SERVICE))
    assert found["User"] == found["Group"] == "l7proxy"
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ""
    assert found["NoNewPrivileges"] == found["PrivateUsers"] == "yes"
    assert (UNITS / "l7proxy.sysusers").read_text().splitlines()[-1].startswith("u l7proxy - ")


def test_service_gets_the_sockets_and_is_told_by_its_main_process() -> None:
    found = dict(settings(SERVICE))
    assert found["Sockets"] == SOCKET.name
    assert (found["Type"], found["NotifyAccess"]) == ("notify", "main")
    # Neither may make systemd close the sockets.
    assert found["StartLimitIntervalSec"] == dict(settings(SOCKET))["TriggerLimitIntervalSec"] == "0"
