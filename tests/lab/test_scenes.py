"""The scenes as they are played: each holds on a real kernel, and one that does not says so.

One rule: what a scene shows is claimed by the scene itself; here stands that it plays to its end, and what it tells.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from director.cli import exits
from director.cli.lab import lab as command
from director.lab.demo.claims import claim
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene
from director.lab.kernels import Kernel
from director.lab.scenes import play
from director.lab.scenes.titles import TITLES

pytestmark = pytest.mark.lab

IN_THE_DEMO = {"failover": 3, "crash": 4}  # they cost 25 s
ALL = os.environ.get("LVS_SCENES") == "all"


@pytest.mark.parametrize("name", TITLES)
def test_scene_holds(kernel: Kernel, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name in IN_THE_DEMO and not ALL:
        pytest.skip(f"what it plays is step {IN_THE_DEMO[name]} of make demo, a test too; LVS_SCENES=all plays it here")
    result = play.play_one(kernel, name)
    shown = capsys.readouterr()
    assert shown.out == "", "standard output is for the line of JSON"
    assert result["ok"] is True, f"{result}\n{shown.err[-8000:]}"
    assert result["scene"] == name
    assert result["failed"] == 0
    assert result["requests"] > 100
    assert result["seconds"] < 80  # 40 on a machine that has nothing else to do
    assert f"Scene {name}: {TITLES[name]}" in shown.err
    typed = re.findall(r"^ +[0-9.]+s  ([a-z0-9-]+)\$ (\S+)", shown.err, re.MULTILINE)
    assert len(typed) >= 3, "an operator sees what is typed"
    if name == "dr":
        assert result["packets_out"] == 0 < result["packets_in"]
    if name == "nat":
        assert result["packets_out"] > 0


def test_scene_that_does_not_hold_ends_with_1_and_says_what(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(scene: Scene, report: Report) -> None:
        claim(scene.client.run("false").exit_code == 0, "false is not true")

    def holds(scene: Scene, report: Report) -> None:
        scene.client.run("true").check()

    steps = {"nat": (("a step", fails), ("never reached", fails)), "dr": (("another", holds),)}
    monkeypatch.setattr(play, "STEPS", {**play.STEPS, **steps})
    monkeypatch.setattr(play, "boot", lambda wanted: nullcontext(kernel))
    assert play.play(["nat", "dr"], kernel.kind) is False
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    result = json.loads(line)
    assert (result["ok"], result["scenes"]["nat"]["ok"], result["scenes"]["dr"]["ok"]) == (False, False, True)
    assert result["scenes"]["nat"]["error"] == "step 1: false is not true"
    assert "this does not hold: false is not true" in shown.err
    assert "never reached" not in shown.err
    ended = CliRunner().invoke(command, ["scene", "nat"])
    assert ended.exit_code == 1
    assert '"scene": "nat"' in ended.output


@pytest.mark.parametrize("words", [["scene"], ["scene", "--list"]])
def test_scenes_are_listed(words: list[str]) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.output.splitlines()] == [[*each] for each in TITLES.items()]
    assert play.STEPS.keys() == TITLES.keys()


def test_unknown_scene_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(command, "director", ["scene", "opera"]) == exits.USAGE
    assert "'nat', 'dr', 'failover', 'drain', 'canary', 'crash', 'all'" in capsys.readouterr().err
