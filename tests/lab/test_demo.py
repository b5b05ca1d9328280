"""The demonstration as its user sees it: one line of JSON, an exit code, and a step that does not hold says so."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from director.lab.bytecode import PROJECT
from director.lab.demo import play
from director.lab.demo.claims import claim
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene
from director.lab.hosts import Lab
from director.lab.kernels import Kernel

pytestmark = pytest.mark.lab


@pytest.mark.timeout(300)
def test_make_demo_holds_and_ends_with_one_line_of_json() -> None:
    assert Path(PROJECT / "Makefile").exists()
    command = ["make", "demo", f"KERNEL={os.environ.get('LVS_LAB_KERNEL', 'auto')}"]
    # As a newcomer types it: a make that runs these tests would have this one tell of folders on standard output.
    clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(command, cwd=PROJECT, env=clean, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-12000:]}"
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["ok"] is True
    assert result["requests"] > 100
    assert result["failed"] == 0
    assert result["changes_after_restart"] == 0
    assert 0 < result["failover_s"] < 10
    assert result["failed_before_failover"] >= 0
    for number in range(1, 5):
        assert f"Step {number}" in done.stderr


def test_a_step_that_does_not_hold_is_told_and_keep_still_keeps(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(scene: Scene, report: Report) -> None:
        claim(scene.client.run("false").exit_code == 0, "false is not true")

    kept: list[Any] = []
    monkeypatch.setattr(play, "ACTS", (("a step", fails), ("never reached", fails)))
    assert play.play(kernel.kind, lambda booted, lab: kept.append((booted, lab))) is False
    assert isinstance(kept[0][0], Kernel)
    assert isinstance(kept[0][1], Lab)
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["ok"] is False
    assert result["error"] == "step 1: false is not true"
    assert "this does not hold: false is not true" in shown.err
    assert "never reached" not in shown.err
