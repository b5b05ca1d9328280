"""The director's unit and what stands beside it, by systemd's own tools, offline."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "director.service"
PROGRAM = "/opt/lvs-director/current/bin/director"
WORST_EXPOSURE = 40
"""Tenths, as `systemd-analyze security --threshold=` takes them."""

OFF = {"ProtectKernelTunables", "ProcSubset", "PrivateUsers", "PrivateNetwork"}
"""What the director cannot have on; the file says beside each why."""


def directives(path: Path = UNIT) -> list[tuple[str, str, str]]:
    """Name, value, and the comment lines right above."""
    found, above = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            above += line.lstrip("# ") + " "
            continue
        name, is_one, value = line.partition("=")
        if is_one:
            found.append((name, value, above))
        above = ""
    return found


def value_of(name: str) -> str:
    return " ".join(value for each, value, _ in directives() if each == name)


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here: apt-get install systemd")
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


def test_exposure_is_below_four() -> None:
    done = systemd_analyze("security", "--offline=true", "--no-pager", f"--threshold={WORST_EXPOSURE}", str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_is_understood_word_by_word(tmp_path: Path) -> None:
    """Unknown keys and wrong values are told on standard error. The program itself is not installed here."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(copy))
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("PrivateIPC=", "PrivateIpc="))
    assert "PrivateIpc" in systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(copy)).stderr


def test_capabilities_are_the_two_and_nothing_more() -> None:
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert set(value_of(name).split()) == {"CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert (value_of("User"), value_of("Group"), value_of("NoNewPrivileges")) == ("director", "director", "yes")


def test_what_is_off_says_why() -> None:
    weak = {name: above for name, value, above in directives() if value in {"no", "all"}}
    assert set(weak) == OFF
    assert not [name for name, above in weak.items() if "Off" not in above]


def test_watchdog_and_restart_go_on_for_good() -> None:
    assert value_of("Type") == "notify"
    assert value_of("WatchdogSec") == "30s"
    assert value_of("Restart") == "on-failure"
    assert value_of("StartLimitIntervalSec") == "0"


def test_paths_are_those_that_the_program_uses() -> None:
    from director.api import SOCKET
    from director.host.lockfile import DIRECTORY as LOCKS
    from director.kit.statefile import DIRECTORY as STATE

    assert Path("/run") / value_of("RuntimeDirectory") == SOCKET.parent == LOCKS
    assert Path("/var/lib") / value_of("StateDirectory") == STATE
    assert value_of("ExecStart").split()[0] == value_of("ExecReload").split()[0] == PROGRAM


def test_commands_of_the_unit_are_known() -> None:
    from director.cli.root import cli

    for name in ("ExecStart", "ExecReload"):
        program, command, *_ = value_of(name).split()
        assert program == PROGRAM
        assert command in cli.list_commands(None)  # type: ignore[arg-type] # it needs no context


def test_files_beside_the_unit_name_its_user_and_lock() -> None:
    def lines(name: str) -> list[list[str]]:
        text = re.sub(r"^#.*$", "", (FOLDER / name).read_text(), flags=re.M)
        return [line.split() for line in text.splitlines() if line.strip()]

    assert [line[:3] for line in lines("director.sysusers")] == [["u", "director", "-"]]
    assert lines("director.tmpfiles") == [["f", "/run/xtables.lock", "0640", "root", "director"]]
    assert lines("director.modules-load") == [["ip_vs"]]


def test_program_that_runs_out_of_memory_does_not_end_the_director() -> None:
    """By default (OOMPolicy=stop) systemd stops the unit for any of its processes, a check's script, too."""
    assert value_of("OOMPolicy") == "continue"
